"""Sampling at trained offsets, and the 1x1x1 convolution of the samples (paper 004, section 3).

A sparse deformable convolution reads an image at every position of a sampling grid plus every
offset, trilinearly and with zeros outside, and mixes what it read with a 1x1x1 convolution.
Written with `grid_sample` it holds all samples at once: 1,024 pairs on a grid of 36 x 36 x 36
are 0.4 GB for one image. On a regular grid there is no need for that, see
`leanseg.kernels.sparse_sampling`.

Coordinates are those of `grid_sample` with `align_corners=True`: (column, row, depth), -1 at the
centre of the first voxel of an axis and 1 at that of the last. `obelisk_convolution` equals
`reference_convolution` in value and in the gradients with respect to image, offsets and weights.
float32 on the CPU goes to the compiled loops (the registered operator
`leanseg::obelisk_convolve`), anything else, and what is exported, to `grid_sample`. bfloat16 and
float16 images are sampled and convolved in float32, since half precision would round offsets by
up to a voxel, and the result is rounded to the type of the image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

import torch
from torch.nn import functional

from leanseg.networks.obelisk_operators import convolve

HALF_TYPES: Final = (torch.bfloat16, torch.float16)

Grid = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class SampledLayer:
    """What one call of `obelisk_convolution` got."""

    images: torch.Tensor
    offsets: torch.Tensor
    weight: torch.Tensor
    grid: Grid
    groups: int


@dataclass
class SamplingElsewhere:
    """Layers that were called, and the results that they are to return instead of computing any.

    Attributes:
        results: One a layer, in the order of the calls; None computes them after all.
        layers: The calls so far.
    """

    results: Sequence[torch.Tensor] | None
    layers: list[SampledLayer] = field(default_factory=list)


_elsewhere: ContextVar[SamplingElsewhere | None] = ContextVar("elsewhere", default=None)


@contextmanager
def sampling_elsewhere(
    results: Sequence[torch.Tensor] | None = None,
) -> Iterator[SamplingElsewhere]:
    """Note the calls of `obelisk_convolution`, and let somebody else compute their results.

    So a network is exported around its sampling, which engines do not have.

    Args:
        results: As in `SamplingElsewhere`.
    """
    noted = SamplingElsewhere(results)
    token = _elsewhere.set(noted)
    try:
        yield noted
    finally:
        _elsewhere.reset(token)


def regular_grid(size: Sequence[int], device: torch.device | None = None) -> Grid:
    """Coordinates (depth, rows, columns) of a grid that spans the image from corner to corner.

    An axis with a single position has it in the centre.
    """
    z, y, x = (_spanning(length, device) for length in size)
    return z, y, x


def _spanning(length: int, device: torch.device | None) -> torch.Tensor:
    """-1 to 1 in equal steps, or 0; free of branches, so that a program of any size is exported."""
    steps = torch.arange(length, device=device)
    last = steps[-1:]
    return (2 * steps - last) / last.clamp(min=1)


def obelisk_convolution(
    images: torch.Tensor,
    offsets: torch.Tensor,
    weight: torch.Tensor,
    grid: Grid,
    *,
    groups: int = 1,
) -> torch.Tensor:
    """Sample images on a grid at offsets and convolve the samples.

    Args:
        images: (B, C, D, H, W).
        offsets: (K, 1, 3), or (K, 2, 3) for pairs whose second sample is subtracted, or either
            with a batch axis in front.
        weight: (O, C * K / groups) of the 1x1x1 convolution; map `c * K + k` is channel c at
            offset k.
        grid: Coordinates along depth, rows and columns; as `regular_grid`, or any others.
        groups: Of the convolution.

    Returns:
        (B, O, len(grid[0]), len(grid[1]), len(grid[2])).
    """
    # What compiles a network cannot look into context variables, and never samples elsewhere.
    noted = None if torch.compiler.is_dynamo_compiling() else _elsewhere.get()
    if noted is not None:
        noted.layers.append(SampledLayer(images, offsets, weight, grid, groups))
        if noted.results is not None:
            return noted.results[len(noted.layers) - 1]
    kind = images.dtype
    images, offsets, weight, *grid_ = _of_one_type(images, offsets, weight, *grid)
    offsets = _batched(offsets, images)
    if _compiled_loops(images):
        result: torch.Tensor = convolve(images, offsets, weight, groups, *grid_)
    else:
        result = reference_convolution(
            images, offsets, weight, (grid_[0], grid_[1], grid_[2]), groups=groups
        )
    return result.to(kind)


def obelisk_samples(
    images: torch.Tensor, offsets: torch.Tensor, points: torch.Tensor
) -> torch.Tensor:
    """Sample images at scattered points plus offsets, by `grid_sample`.

    Args:
        images: (B, C, D, H, W).
        offsets: As `obelisk_convolution`.
        points: (B, N, 3), (column, row, depth); they get no gradient.

    Returns:
        (B, C * K, N), map `c * K + k` being channel c at offset k.
    """
    kind = images.dtype
    images, offsets, points = _of_one_type(images, offsets, points.detach())
    first, *second = (
        functional.grid_sample(
            images,
            points[:, None, :, None] + offset[:, :, None, None],
            mode="bilinear",
            padding_mode="zeros",
            align_corners=True,
        )
        for offset in _batched(offsets, images).unbind(2)
    )
    samples = first - second[0] if second else first
    return samples.flatten(1, 2).squeeze(-1).to(kind)


def reference_convolution(
    images: torch.Tensor, offsets: torch.Tensor, weight: torch.Tensor, grid: Grid, *, groups: int
) -> torch.Tensor:
    """`obelisk_convolution` by `grid_sample`; offsets (B, K, 1 or 2, 3), one type throughout."""
    z, y, x = torch.meshgrid(*grid, indexing="ij")
    points = torch.stack((x, y, z), dim=-1).reshape(1, -1, 3)
    samples = obelisk_samples(images, offsets, points)
    maps = samples.reshape(*samples.shape[:2], *z.shape)
    return functional.conv3d(maps, weight[:, :, None, None, None], groups=groups)


def _of_one_type(images: torch.Tensor, *others: torch.Tensor) -> list[torch.Tensor]:
    kind = torch.float32 if images.dtype in HALF_TYPES else images.dtype
    return [tensor.to(kind) for tensor in (images, *others)]


def _batched(offsets: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    return offsets if offsets.ndim == 4 else offsets.expand(images.shape[0], *offsets.shape)


def _compiled_loops(images: torch.Tensor) -> bool:
    """Whether the compiled loops take these images; a program to export has to do without."""
    # torch 2.6 cannot tell exporting from compiling.
    exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
    return images.device.type == "cpu" and images.dtype == torch.float32 and not exporting()
