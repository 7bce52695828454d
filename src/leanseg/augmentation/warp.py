"""Image and label resampled by one map, with one interpolation."""

from __future__ import annotations

from functools import partial

import torch
from torch.nn.functional import grid_sample


def warp(
    image: torch.Tensor,
    label: torch.Tensor,
    matrix: torch.Tensor,
    shift: torch.Tensor,
    displacement: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The value at output voxel o comes from `matrix (o - c + displacement(o)) + shift + c`.

    c is the centre of the image, (size - 1) / 2 along every axis; positions beyond the border
    take the border's value. The image is interpolated linearly; the label takes the nearest
    voxel.

    Args:
        image: (C, *spatial), floating, of n = 2 or 3 axes.
        label: (*spatial), whole numbers below 2**24 in size.
        matrix: (n, n), by voxel axes.
        shift: (n,) voxels.
        displacement: (n, *spatial) voxels.

    Returns:
        New tensors of the same shapes and types; the given ones where nothing moves.
    """
    if displacement is None and matrix.equal(torch.eye(label.ndim).to(matrix)) and not shift.any():
        return image, label
    shape, device = label.shape, image.device
    lines = [torch.arange(size, device=device) - (size - 1) / 2 for size in shape]
    offsets = torch.stack(torch.meshgrid(*lines, indexing="ij"))
    if displacement is not None:
        offsets += displacement.to(device)
    positions = torch.tensordot(matrix.to(offsets), offsets, 1)
    # From voxels about the centre to [-1, 1] from edge to edge, the last axis first.
    scaled = [2 * (positions[axis] + float(shift[axis])) / size for axis, size in enumerate(shape)]
    grid = torch.stack(scaled[::-1], dim=-1)[None]
    sample = partial(grid_sample, padding_mode="border", align_corners=False)
    new_image = sample(image[None], grid.to(image.dtype))[0]
    new_label = sample(label[None, None].to(grid.dtype), grid, mode="nearest")[0, 0]
    return new_image, new_label.to(label.dtype)
