"""Random rotation, zoom and shift as one batched warp (paper 000, "Model training")."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from leanseg.augmentation.base import check_fit
from leanseg.augmentation.warp import warp
from leanseg.registry import Rate


@dataclass(frozen=True)
class AffineParameters:
    """What was drawn, sample by sample; independent of the image size.

    Attributes:
        angle_rad: (B,) rotation, float64.
        zoom: (B, 3) factors along the axes, float64; above 1 the sampled field is larger than
            the image, so that the content shrinks (Keras' sense). Slices have no third axis and
            do without its number.
        shift: (B, 3) shift of the sampled field along the axes, as a fraction of the image's
            sizes, float64.
    """

    angle_rad: torch.Tensor
    zoom: torch.Tensor
    shift: torch.Tensor

    def __len__(self) -> int:
        return len(self.angle_rad)


class Affine:
    """Rotation, zoom per axis and shift, in the composition of Keras' image generator.

    The value at output pixel o comes from `R (Z (o - c) + t) + c`, with c the centre of the
    image, (size - 1) / 2 along each axis; positions beyond the border take the border's value
    ("fill nearest"). R turns the first two axes, in volumes too, where the third is the one that
    slices are stacked along; pixels are square for it, whatever the image's shape.

    Args:
        rotation_deg: Largest angle; the angle is uniform in +-rotation_deg.
        zoom: Factors are uniform in 1 +- zoom, drawn for each axis.
        shift: Shifts are uniform in +-shift times rows, and so on.
    """

    def __init__(
        self,
        *,
        rotation_deg: Annotated[float, Field(ge=0, le=180)] = 10.0,
        zoom: Rate = 0.25,
        shift: Annotated[float, Field(ge=0, le=1)] = 0.2,
    ) -> None:
        self.rotation_deg = rotation_deg
        self.zoom = zoom
        self.shift = shift

    def draw(self, seeds: Sequence[int]) -> AffineParameters:
        """Draw each sample's parameters from a seed of its own (numpy's counter-based Philox).

        A sample's draw depends on its seed alone, not on its place in a batch or on the worker
        that prepares it.
        """
        rows = [np.random.Generator(np.random.Philox(int(seed))).random(7) for seed in seeds]
        return self._scaled(torch.from_numpy(np.stack(rows)))

    def apply(
        self, image: torch.Tensor, label: torch.Tensor, parameters: AffineParameters
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Warp images (linear) and labels (nearest) by the same map.

        Args:
            image: (B, C, H, W) or (B, C, H, W, D), floating.
            label: (B, H, W) or (B, H, W, D), any type.
            parameters: Of B samples.

        Returns:
            New tensors of the same shapes and types.

        Raises:
            GeometryError: Image, label and parameters do not fit together.
        """
        check_fit(image, label, len(parameters))
        if image.ndim == 5:
            moved = [
                warp(one, classes, matrix, shift)
                for one, classes, matrix, shift in zip(
                    image, label, *_matrices(parameters, label.shape[1:]), strict=True
                )
            ]
            return torch.stack([one for one, _ in moved]), torch.stack([each for _, each in moved])
        rows, columns = _positions(parameters, label.shape[1], label.shape[2], image.device)
        return _bilinear(image, rows, columns), _nearest(label, rows, columns)

    def describe(self, parameters: AffineParameters, shape: Sequence[int]) -> list[str]:
        """As of `leanseg.augmentation.registry.Describes`."""
        drawn = zip(parameters.angle_rad, parameters.zoom, parameters.shift, strict=True)
        n = len(shape)
        return [
            f"turned {math.degrees(angle):+.0f}°, "
            f"zoomed {' '.join(f'{factor:.2f}' for factor in zoom[:n])}, "
            f"shifted {' '.join(f'{100 * share:+.0f}' for share in shift[:n])} %"
            for angle, zoom, shift in drawn
        ]

    def _scaled(self, unit: torch.Tensor) -> AffineParameters:
        """Uniform numbers (B, 7) in [0, 1) to parameters: angle, shifts, zooms as Keras draws.

        The numbers of the third axis come last: what slices need is drawn first.
        """
        signed = 2 * unit - 1
        return AffineParameters(
            angle_rad=signed[:, 0] * math.radians(self.rotation_deg),
            shift=signed[:, [1, 2, 5]] * self.shift,
            zoom=1 + signed[:, [3, 4, 6]] * self.zoom,
        )


def _matrices(
    parameters: AffineParameters, shape: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """R Z (B, 3, 3) and R t (B, 3), in voxels."""
    rotation = torch.eye(3, dtype=torch.float64).repeat(len(parameters), 1, 1)
    cosine, sine = parameters.angle_rad.cos(), parameters.angle_rad.sin()
    rotation[:, 0, 0], rotation[:, 0, 1] = cosine, -sine
    rotation[:, 1, 0], rotation[:, 1, 1] = sine, cosine
    shift = parameters.shift * torch.tensor(shape)
    return rotation * parameters.zoom[:, None], (rotation @ shift[..., None])[..., 0]


def _positions(
    parameters: AffineParameters, n_rows: int, n_columns: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Input row and column, each (B, H, W) float32 within the image, of every output pixel.

    In pixels rather than in `grid_sample`'s [-1, 1], where whole pixels are not representable:
    no motion must give back the very same image, and a whole shift the very same pixels.
    """
    angle, zoom = parameters.angle_rad, parameters.zoom
    shape = torch.tensor([n_rows, n_columns], dtype=torch.float64)
    centre = (shape - 1) / 2
    shift = parameters.shift[:, :2] * shape
    along_rows = zoom[:, :1] * (torch.arange(n_rows, dtype=torch.float64) - centre[0])
    along_columns = zoom[:, 1:2] * (torch.arange(n_columns, dtype=torch.float64) - centre[1])
    along_rows += shift[:, :1]
    along_columns += shift[:, 1:2]
    cosine, sine = angle.cos()[:, None], angle.sin()[:, None]
    # The large sums are outer: float64 along the axes, float32 over the image.
    rows = _outer_sum(cosine * along_rows + centre[0], -sine * along_columns, device)
    columns = _outer_sum(sine * along_rows + centre[1], cosine * along_columns, device)
    return rows.clamp_(0, n_rows - 1), columns.clamp_(0, n_columns - 1)


def _outer_sum(by_row: torch.Tensor, by_column: torch.Tensor, device: torch.device) -> torch.Tensor:
    """(B, H) and (B, W) to (B, H, W) float32 on the device."""
    return by_row.float().to(device)[:, :, None] + by_column.float().to(device)[:, None, :]


def _bilinear(image: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Values of (B, C, H, W) at positions (B, H, W) within the image."""
    n_rows, n_columns = image.shape[2:]
    top, left = rows.long(), columns.long()
    down = (rows - top).to(image.dtype)[:, None]
    right = (columns - left).to(image.dtype)[:, None]
    # At the last row and column the weight of the neighbour is zero: any pixel will do.
    first = top * n_columns + left
    below = (top < n_rows - 1) * n_columns
    beside = (left < n_columns - 1).long()
    pixels = image.flatten(2)

    def at(index: torch.Tensor) -> torch.Tensor:
        flat = index.flatten(1)[:, None].expand(-1, image.shape[1], -1)
        return pixels.gather(2, flat).view(image.shape)

    upper = torch.lerp(at(first), at(first + beside), right)
    first += below
    lower = torch.lerp(at(first), at(first + beside), right)
    return torch.lerp(upper, lower, down)


def _nearest(label: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Values of (B, H, W) at the pixels nearest to positions (B, H, W) within the image."""
    index = (rows + 0.5).long() * label.shape[2] + (columns + 0.5).long()
    return label.flatten(1).gather(1, index.flatten(1)).view(label.shape)
