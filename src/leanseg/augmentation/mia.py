"""Multidim-image-augmentation (MIA), which paper 002 compares with: deformation and grey values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field

from leanseg.augmentation.base import Bounds, Joint, Probability
from leanseg.augmentation.separable import centred_cubic_spline, cubic_spline, map_axes
from leanseg.augmentation.spatial import Degrees
from leanseg.augmentation.warp import rotation, warp
from leanseg.errors import RecipeError
from leanseg.registry import NotNegative, Positive

_INSERTIONS = 2
# Steps of the look-up table from one of its control points to the next.
_STEPS = 16


@dataclass(frozen=True)
class _Drawn:
    """The affine part of one sample, and the grid's displacements in pixels."""

    angles_deg: np.ndarray
    scale: np.ndarray
    shear: np.ndarray
    points: np.ndarray


class Mia(Joint):
    """Affine and elastic deformation by a grid of control points, then a random look-up table.

    A grid of control points about the centre of the image gets normal noise, then rotation,
    scale and mirroring, and shear; its uniform cubic B-spline says where each voxel's value comes
    from. Image and label are resampled once; beyond the border the border's values go on. The
    label takes the nearest voxel, or the class with the largest interpolated share.

    The table is defined on [0, 1]. Each channel of the sample is mapped there by its own lowest
    and highest value, the ends of its window, and back. Black and white are drawn, twice a point
    in the middle of every interval, within the bounds of the slope; the cubic B-spline of these
    five points, continued by a straight line at the ends, is tabulated, and looked up linearly.

    Source: google-deepmind/multidim-image-augmentation (its defaults for the table but for
    `slope`, whose bounds are its documentation's example). Paper 002 gives no magnitudes for it;
    the others are ours. The original's default is to mirror at the border.

    Args:
        fraction: Share of the samples that are augmented at all; 0.9 for slices.
        rotation_deg: Largest angle about the slice axis.
        tilt_deg: Largest angle about each of the other two, for volumes.
        scale: Bounds of the factor, drawn for each axis; above 1 the content shrinks.
        shear: Largest coefficient of shear, for each pair of axes.
        mirror: Probability of mirroring, for each axis.
        elastic_sd: Standard deviation of the noise of a control point, in pixels, along each axis.
        elastic_spacing: Pixels between control points.
        slice_distance: Distance of slices in pixels, for volumes: with 3, an angle tilts a slice
            by a third of the voxels that it would among cubes.
        labels: "nearest", or "linear" for the largest interpolated share.
        ends: Black is uniform in 0 +- ends, white in 1 +- ends.
        slope: Bounds of the table's slope; [1, 1] with ends 0 leaves grey values as they are.

    Raises:
        RecipeError: Ends that the slope's bounds do not reach.
    """

    def __init__(
        self,
        *,
        fraction: Probability = 0.8,
        rotation_deg: Degrees = 20.0,
        tilt_deg: Degrees = 5.0,
        scale: Bounds = (0.8, 1.2),
        shear: Annotated[float, Field(ge=0, lt=1)] = 0.1,
        mirror: Probability = 0.0,
        elastic_sd: NotNegative = 4.0,
        elastic_spacing: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 32.0,
        slice_distance: Positive = 1.0,
        labels: Literal["nearest", "linear"] = "nearest",
        ends: Annotated[float, Field(ge=0, lt=0.5)] = 0.1,
        slope: Bounds = (0.5, 2.0),
    ) -> None:
        super().__init__(fraction)
        if not slope[0] <= 1 - 2 * ends <= 1 + 2 * ends <= slope[1]:
            msg = (
                f"augmentation 'mia': option 'ends' is {ends:g}, so that slopes of "
                f"{1 - 2 * ends:g} to {1 + 2 * ends:g} have to be within 'slope', but it is "
                f"{list(slope)}; lower 'ends' or widen 'slope'"
            )
            raise RecipeError(msg)
        self.largest_deg = np.array([tilt_deg, tilt_deg, rotation_deg])
        self.scale, self.shear, self.mirror = scale, shear, mirror
        self.elastic_sd, self.elastic_spacing = elastic_sd, elastic_spacing
        self.slice_distance = slice_distance
        self.votes = labels == "linear"
        self.ends, self.slope = ends, slope

    def change(
        self, image: torch.Tensor, label: torch.Tensor, generator: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Image and label, deformed, and the image with other grey values."""
        n = label.ndim
        matrices = [
            centred_cubic_spline(size, spacing)
            for size, spacing in zip(label.shape, self._grid_spacings(), strict=False)
        ]
        drawn = self._drawn([matrix.shape[1] for matrix in matrices], generator)
        tables = [self._table(generator) for _ in image]
        # In pixels, and in voxels: the row is what a voxel of the output makes of one pixel.
        voxel = self._voxel(n)
        matrix = _affine(drawn) * voxel / voxel[:, None]
        displacement = None
        if self.elastic_sd:
            points = torch.from_numpy(drawn.points).float().to(image.device)
            displacement = torch.stack(
                [map_axes(one, matrices) / size for one, size in zip(points, voxel, strict=True)]
            )
        still = torch.zeros(n, dtype=torch.float64)
        bent, classes = warp(
            image, label, torch.from_numpy(matrix), still, displacement, votes=self.votes
        )
        if self.slope[0] == self.slope[1]:
            return bent, classes
        channels = zip(bent, image, tables, strict=True)
        return torch.stack([_looked_up(*each) for each in channels]), classes

    def describe(self, parameters: Sequence[int | None], shape: Sequence[int]) -> list[str]:
        """As of `leanseg.augmentation.registry.Describes`."""
        controls = [
            centred_cubic_spline(size, spacing).shape[1]
            for size, spacing in zip(shape, self._grid_spacings(), strict=False)
        ]
        found = []
        for stream in parameters:
            if stream is None:
                found.append("")
                continue
            generator = np.random.Generator(np.random.Philox(stream))
            drawn, table = self._drawn(controls, generator), self._table(generator)
            turned = [
                f"{angle:+.0f}°" for angle in drawn.angles_deg[-1 if len(shape) == 2 else 0 :]
            ]
            scaled = [f"{factor:.2f}" for factor in drawn.scale]
            found.append(
                f"turned {' '.join(turned)}, scaled {' '.join(scaled)}, "
                f"sheared {np.abs(drawn.shear).max():.2f}, "
                f"bent {np.abs(drawn.points).max():.0f} px, "
                f"black {table[0]:z.2f}, white {table[-1]:.2f}"
            )
        return found

    def _voxel(self, n: int) -> np.ndarray:
        """Size of a voxel in pixels, (n,)."""
        return np.array([1.0, 1.0, self.slice_distance])[:n]

    def _grid_spacings(self) -> list[float]:
        """Voxels between control points, along each of three axes."""
        return [self.elastic_spacing / size for size in self._voxel(3).tolist()]

    def _drawn(self, controls: Sequence[int], generator: np.random.Generator) -> _Drawn:
        n = len(controls)
        # Everything is drawn, used or not: one option's value does not change another's draw.
        angles = self.largest_deg * generator.uniform(-1, 1, 3)
        scale = generator.uniform(self.scale[0], self.scale[1], 3)[:n]
        mirrored = generator.random(3)[:n] < self.mirror
        shear = self.shear * generator.uniform(-1, 1, (3, 3))[:n, :n]
        np.fill_diagonal(shear, 0)
        if n == 2:
            angles[:2] = 0
        points = self.elastic_sd * generator.standard_normal((n, *controls))
        return _Drawn(angles, np.where(mirrored, -scale, scale), shear, points)

    def _table(self, generator: np.random.Generator) -> torch.Tensor:
        """Values of the table at equal steps from 0 to 1."""
        low, high = self.slope
        values = np.array([0.0, 1.0]) + self.ends * generator.uniform(-1, 1, 2)
        for _ in range(_INSERTIONS):
            half = 0.5 / (len(values) - 1)
            left, right = values[:-1], values[1:]
            lowest = np.maximum(left + low * half, right - high * half)
            highest = np.minimum(left + high * half, right - low * half)
            middle = lowest + (highest - lowest) * generator.random(len(left))
            values = np.append(np.stack([left, middle], axis=1).ravel(), values[-1])
        # A straight line beyond the ends: there the spline has the values that were drawn.
        points = [2 * values[0] - values[1], *values, 2 * values[-1] - values[-2]]
        matrix = cubic_spline((len(values) - 1) * _STEPS + 1, _STEPS)[:, : len(points)]
        return matrix @ torch.tensor(points, dtype=matrix.dtype)


def _affine(drawn: _Drawn) -> np.ndarray:
    """(n, n), from places in the output to places in the input, in pixels.

    The original multiplies rows by rotation, scale and shear in turn; for columns the transposed
    product is the same.
    """
    n = len(drawn.scale)
    turn = rotation(np.radians(drawn.angles_deg))[:n, :n]
    affine: np.ndarray = (turn @ np.diag(drawn.scale) @ (np.eye(n) + drawn.shear)).T
    return affine


def _looked_up(values: torch.Tensor, window: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """One channel's values through a table of [0, 1], which are the ends of another's range."""
    lowest, highest = window.aminmax()
    width = (highest - lowest).clamp(min=1e-7)
    table = table.to(values)
    places = (values - lowest) * ((len(table) - 1) / width)
    # The first and the last step go on beyond the ends.
    step = places.long().clamp_(0, len(table) - 2)
    below = table[step]
    return torch.lerp(below, table[step + 1], places - step) * width + lowest
