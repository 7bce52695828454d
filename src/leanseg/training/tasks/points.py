"""Sparse segmentation: scattered points of whole volumes are compared with their classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from leanseg.errors import RecipeError
from leanseg.networks.base import SegmentationNetwork
from leanseg.networks.obelisk import Obelisk
from leanseg.plan import Stage
from leanseg.registry import Count, NotNegative
from leanseg.training.joint import joint
from leanseg.training.tasks.base import Batch, Task, Term, whole_terms
from leanseg.training.tasks.segmentation import compare

# Keeps these draws apart from those of augmentations with the same seed.
_KEY = 0x0B0E


class Points(Task):
    """Random points of a batch of volumes, as the original OBELISK is trained (paper 004).

    For networks that answer for any points (`at`). Points are uniform over the volume and new in
    every step.

    Args:
        stage: Whose labels are learned.
        terms: Of the loss.
        points: In every volume. The text of paper 004 says 192, its Table 2 "usually 512", and
            the public code takes 256.
        turn_sd: Standard deviation of the twist of offsets that the paper's "++" stands for: they
            are multiplied with I + turn_sd N(0, 1), a 3 x 3 matrix a sample (0.2 there; section 4).
    """

    methods: ClassVar[Sequence[str]] = ("at",)

    def __init__(
        self,
        stage: Stage,
        terms: Sequence[Term],
        *,
        points: Count = 192,
        turn_sd: NotNegative = 0.0,
    ) -> None:
        if any(term.outputs is not None for term in terms):
            msg = "task 'points' has one output; leave 'outputs' out of its losses"
            raise RecipeError(msg)
        self._stage, self._terms = stage, whole_terms(terms, "points")
        self._n_points, self._turn_sd = points, turn_sd
        self._last: tuple[torch.Tensor, torch.Tensor] | None = None

    def require(self, network: SegmentationNetwork) -> None:
        """Refuse a network that answers for grids alone.

        Raises:
            RecipeError: Naming the networks that do.
        """
        if not isinstance(network, Obelisk):
            raise RecipeError(
                "task 'points' asks the network about scattered points, which only the original "
                "OBELISK networks answer (obelisk, obelisk-unary, obelisk-random); choose one of "
                "these, or the task 'segmentation'"
            )

    def loss(self, network: nn.Module, batch: Batch) -> torch.Tensor:
        """The loss of a batch, a scalar."""
        device = batch.image.device
        drawn = [self._draw(seed) for seed in batch.seeds]
        points = torch.stack([each for each, _ in drawn]).to(device)
        turn = torch.stack([each for _, each in drawn]).to(device) if self._turn_sd else None
        found: Any = network
        smoothed = self._smoothed(found, batch.image)
        logits = joint(found.at(smoothed, points, turn, smooth=False))
        target = joint(at_points(batch.classes, points))
        known = None if batch.annotated is None else joint(batch.annotated)
        total = torch.zeros((), device=device)
        for term in self._terms:
            total = total + term.weight * compare(term.loss, logits, target, known, self._stage)
        return total

    def _smoothed(self, network: Any, images: torch.Tensor) -> torch.Tensor:
        """The images as the offsets read them; of the same ones again, what was made before."""
        if self._last is None or not torch.equal(self._last[0], images):
            with torch.no_grad():
                self._last = images, network.smoothed(images)
        return self._last[1]

    def _draw(self, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Points (N, 3) in [-1, 1], and the matrix that turns the offsets (3, 3)."""
        rng = np.random.Generator(np.random.Philox(key=[seed, _KEY]))
        points = 2 * rng.random((self._n_points, 3), dtype=np.float32) - 1
        turn = np.eye(3) + self._turn_sd * rng.standard_normal((3, 3))
        return torch.from_numpy(points), torch.from_numpy(turn.astype(np.float32))


def at_points(classes: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Classes (B, N) of the voxels nearest to points.

    Args:
        classes: (B, D, H, W).
        points: (B, N, 3), (column, row, depth), from -1 at the first to 1 at the last voxel.
    """
    lengths = torch.tensor(classes.shape[:0:-1], device=points.device)
    x, y, z = ((points + 1) / 2 * (lengths - 1)).round().long().unbind(2)
    _, _, height, width = classes.shape
    return classes.flatten(1).gather(1, (z * height + y) * width + x)
