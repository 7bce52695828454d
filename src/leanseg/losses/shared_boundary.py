"""Inter-class shared boundary loss in closed, differentiable form (paper 003)."""

from __future__ import annotations

import torch

from leanseg.errors import RecipeError
from leanseg.losses.base import Batch, SegmentationLoss, both, mean_where
from leanseg.registry import Positive

_MINIMUM_CLASSES = 3


class SharedBoundaryLoss(SegmentationLoss):
    """Squared error of the shares of boundary between classes (paper 003, equations 14 to 16).

    The measure m(i, j) is the length of the boundary between classes i and j over the length of
    all boundaries of i, and 0 for i = j. The loss is the sum over i and j of the squared
    difference between prediction and truth, over the number of classes squared, in each sample;
    then the mean over the samples. Rows of classes that do not occur in a sample's truth count 0.

    The paper takes the prediction's arg max, which has no gradient. Here the boundary between i
    and j is the sum, over all pairs (a, b) of neighbouring voxels (4 neighbours in 2-D, 6 in
    3-D), of p_i(a) p_j(b) + p_j(a) p_i(b): on a class map of zeros and ones exactly the number
    of faces between the two classes.

    The loss compares shares of boundary, not places: it goes beside another loss, in the paper
    with a weight of 0.4. Two classes have but one boundary and a measure that is always 1, so
    that three at least are asked for. A sample that leaves a class unannotated does not know
    its boundaries and takes no part. Faces of ignored voxels do not count.

    Args:
        epsilon: Added to the length of all boundaries of a class.
    """

    def __init__(self, epsilon: Positive = 1e-6) -> None:
        super().__init__()
        self.epsilon = epsilon

    def of(self, batch: Batch) -> torch.Tensor:
        """The loss of a batch, a scalar.

        Raises:
            RecipeError: Fewer than three classes.
        """
        if batch.scores.shape[1] < _MINIMUM_CLASSES:
            raise RecipeError(
                "the shared boundary loss needs at least 3 classes with background, but the "
                "network has 2: two classes share all of their boundary, so that the loss would "
                "be constant"
            )
        complete = None if batch.annotated is None else batch.annotated.all(dim=1)
        truth = batch.one_hot.to(batch.scores.dtype)
        per_sample = self.per_sample(batch.probabilities, truth)
        return mean_where(per_sample, both(complete, batch.seen))

    def per_sample(self, probabilities: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """Loss (B,) of probabilities against a class map of zeros and ones, (B, K, *spatial).

        For networks whose classes come from several heads, as the two stages of paper 003: from
        pancreas p1 and tumour p2 the classes are (1 - p1)(1 - p2), p1 (1 - p2) and p2.
        """
        difference = self.measure(probabilities) - self.measure(truth)
        present = truth.flatten(2).any(dim=2).unsqueeze(2)
        return (difference.square() * present).mean(dim=(1, 2))

    def measure(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Shares of boundary (B, K, K) of class probabilities (B, K, *spatial)."""
        lengths = boundary_lengths(probabilities)
        return lengths / (lengths.sum(dim=2, keepdim=True) + self.epsilon)


def boundary_lengths(probabilities: torch.Tensor) -> torch.Tensor:
    """Faces between each two classes, (B, K, K), symmetric with a zero diagonal.

    Args:
        probabilities: (B, K, *spatial).
    """
    batch, classes = probabilities.shape[:2]
    lengths = probabilities.new_zeros(batch, classes, classes)
    # Autocast would multiply the matrices in a lower precision.
    with torch.autocast(probabilities.device.type, enabled=False):
        for axis in range(2, probabilities.ndim):
            number = probabilities.shape[axis] - 1
            first = probabilities.narrow(axis, 0, number).flatten(2)
            second = probabilities.narrow(axis, 1, number).flatten(2)
            lengths = lengths + first @ second.transpose(1, 2)
    off_diagonal = 1 - torch.eye(classes, dtype=lengths.dtype, device=lengths.device)
    return (lengths + lengths.transpose(1, 2)) * off_diagonal
