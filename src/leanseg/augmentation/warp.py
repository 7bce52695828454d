"""Image and label resampled by one map, with one interpolation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch.nn.functional import affine_grid, grid_sample


def rotation(angles: Sequence[float] | np.ndarray) -> np.ndarray:
    """(3, 3): about the first axis, then the second, then the third, in radians."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        one, two = [(1, 2), (2, 0), (0, 1)][axis]
        turn = np.eye(3)
        turn[[one, two], [one, two]] = math.cos(angle)
        turn[one, two], turn[two, one] = -math.sin(angle), math.sin(angle)
        matrix = turn @ matrix
    return matrix


def warp(
    image: torch.Tensor,
    label: torch.Tensor,
    matrix: torch.Tensor,
    shift: torch.Tensor,
    displacement: torch.Tensor | None = None,
    *,
    votes: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The value at output voxel o comes from `matrix (o - c + displacement(o)) + shift + c`.

    c is the centre of the image, (size - 1) / 2 along every axis; positions beyond the border
    take the border's value. The image is interpolated linearly; the label takes the nearest
    voxel.

    Args:
        image: (C, *spatial), floating, of n = 2 or 3 axes.
        label: (*spatial), whole numbers below 2**24 in size.
        matrix: (n, n), by voxel axes; float64.
        shift: (n,) voxels; float64.
        displacement: (n, *spatial) voxels.
        votes: The label is the class whose one-hot map, interpolated as the image, is largest;
            not the nearest voxel's. The lowest class wins ties.

    Returns:
        New tensors of the same shapes and types; the given ones where nothing moves.
    """
    if displacement is None and matrix.equal(torch.eye(label.ndim).to(matrix)) and not shift.any():
        return image, label
    # From voxels about the centre to PyTorch's [-1, 1] from edge to edge, the last axis first.
    size = torch.tensor(label.shape, dtype=torch.float64)
    scaled = 2 / size[:, None] * matrix
    theta = torch.cat([(scaled * size / 2).flip(1), (2 * shift / size)[:, None]], dim=1).flip(0)
    grid = affine_grid(theta[None].to(image), [1, 1, *label.shape], align_corners=False)
    if displacement is not None:
        bent = torch.tensordot(scaled.flip(0).to(image), displacement.to(image), 1)
        grid += bent.movedim(0, -1)
    sample = partial(grid_sample, padding_mode="border", align_corners=False)
    new_image = sample(image[None], grid)[0]
    if votes:
        classes = torch.unique(label)
        maps = torch.stack([label == value for value in classes]).to(grid.dtype)
        return new_image, classes[sample(maps[None], grid)[0].argmax(dim=0)]
    new_label = sample(label[None, None].to(grid.dtype), grid, mode="nearest")[0, 0]
    return new_image, new_label.to(label.dtype)
