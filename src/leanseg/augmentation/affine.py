"""Random rotation, zoom and shift of slices as one batched warp (paper 000, "Model training")."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from leanseg.errors import GeometryError
from leanseg.registry import Rate


@dataclass(frozen=True)
class AffineParameters:
    """What was drawn, sample by sample; independent of the image size.

    Attributes:
        angle_rad: (B,) rotation, float64.
        zoom: (B, 2) factors along rows and columns, float64; above 1 the sampled field is
            larger than the image, so that the content shrinks (Keras' sense).
        shift: (B, 2) shift of the sampled field along rows and columns, as a fraction of the
            image's rows and columns, float64.
    """

    angle_rad: torch.Tensor
    zoom: torch.Tensor
    shift: torch.Tensor

    def __len__(self) -> int:
        return len(self.angle_rad)


class Affine:
    """Rotation, zoom per axis and shift, in the composition of Keras' image generator.

    The value at output pixel o comes from `R (Z (o - c) + t) + c`, with c the centre of the
    image, (rows - 1) / 2 and (columns - 1) / 2; positions beyond the border take the border's
    value ("fill nearest"). Pixels are square for the rotation, whatever the image's shape.

    Args:
        rotation_deg: Largest angle; the angle is uniform in +-rotation_deg.
        zoom: Factors are uniform in 1 +- zoom, drawn for each axis.
        shift: Shifts are uniform in +-shift times rows, and +-shift times columns.
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
        rows = [np.random.Generator(np.random.Philox(int(seed))).random(5) for seed in seeds]
        return self._scaled(torch.from_numpy(np.stack(rows)))

    def apply(
        self, image: torch.Tensor, label: torch.Tensor, parameters: AffineParameters
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Warp images (bilinear) and labels (nearest) by the same map.

        Args:
            image: (B, C, H, W), floating.
            label: (B, H, W), any type.
            parameters: Of B samples.

        Returns:
            New tensors of the same shapes and types.

        Raises:
            GeometryError: Image, label and parameters do not fit together.
        """
        if image.shape[:1] + image.shape[2:] != label.shape or len(image) != len(parameters):
            msg = (
                f"image {tuple(image.shape)}, label {tuple(label.shape)} and {len(parameters)} "
                "drawn samples do not fit; expected (B, C, H, W), (B, H, W) and B"
            )
            raise GeometryError(msg)
        rows, columns = _positions(parameters, label.shape[1], label.shape[2])
        return _bilinear(image, rows, columns), _nearest(label, rows, columns)

    def _scaled(self, unit: torch.Tensor) -> AffineParameters:
        """Uniform numbers (B, 5) in [0, 1) to parameters: angle, shifts, zooms as Keras draws."""
        signed = 2 * unit - 1
        return AffineParameters(
            angle_rad=signed[:, 0] * math.radians(self.rotation_deg),
            shift=signed[:, 1:3] * self.shift,
            zoom=1 + signed[:, 3:5] * self.zoom,
        )


def _positions(
    parameters: AffineParameters, n_rows: int, n_columns: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Input row and column, each (B, H, W) float32 within the image, of every output pixel.

    In pixels rather than in `grid_sample`'s [-1, 1], where whole pixels are not representable:
    no motion must give back the very same image, and a whole shift the very same pixels.
    """
    angle, zoom = parameters.angle_rad, parameters.zoom
    shape = torch.tensor([n_rows, n_columns], dtype=torch.float64)
    centre = (shape - 1) / 2
    shift = parameters.shift * shape
    along_rows = zoom[:, :1] * (torch.arange(n_rows, dtype=torch.float64) - centre[0])
    along_columns = zoom[:, 1:] * (torch.arange(n_columns, dtype=torch.float64) - centre[1])
    along_rows += shift[:, :1]
    along_columns += shift[:, 1:]
    cosine, sine = angle.cos()[:, None], angle.sin()[:, None]
    # The large sums are outer: float64 along the axes, float32 over the image.
    rows = _outer_sum(cosine * along_rows + centre[0], -sine * along_columns)
    columns = _outer_sum(sine * along_rows + centre[1], cosine * along_columns)
    return rows.clamp_(0, n_rows - 1), columns.clamp_(0, n_columns - 1)


def _outer_sum(by_row: torch.Tensor, by_column: torch.Tensor) -> torch.Tensor:
    """(B, H) and (B, W) to (B, H, W) float32."""
    return by_row.float()[:, :, None] + by_column.float()[:, None, :]


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
