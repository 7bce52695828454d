"""Rotation, zoom, shift and elastic deformation together, with one interpolation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from leanseg.augmentation.base import Bounds, PerSample, Probability
from leanseg.augmentation.separable import cubic_spline, map_axes
from leanseg.augmentation.warp import rotation, warp
from leanseg.errors import RecipeError
from leanseg.registry import NotNegative

Degrees = Annotated[float, Field(ge=0, le=180)]
# Below this share of the control points' spacing a cubic B-spline cannot fold (Choi and Lee,
# Graphical Models 62 (2000): 1 / 2.48 in 3-D, 1 / 2.05 in 2-D).
_FOLDS_FROM = 0.4


class Spatial(PerSample):
    """Rotation, zoom, shift and smooth random displacement, each for a share of the samples.

    Whatever is drawn, image and label are resampled once: as in `leanseg.augmentation.warp`,
    with matrix = rotation . zoom, a shift, and a displacement that comes first. The displacement
    is a cubic B-spline of control points whose components are uniform in +-elastic; below 0.4 of
    the control points' spacing it cannot fold.

    Source of the defaults: nnU-Net v2 (`nnUNetTrainer`: its rotations and
    `get_training_transforms`): +-30 degrees about every axis of a volume, one zoom for all axes
    in 0.7 to 1.4, both with probability 0.2, neither shift nor deformation. nnU-Net turns slices
    by up to 180 degrees, and continues images by zeros, this by the border's values.

    Args:
        rotation_deg: Largest angle about each axis; one for all, or one for each of the three
            axes. Slices turn by the last. Angles are by voxels, as if they were cubes.
        zoom: Bounds of the factor, the same along every axis; above 1 the content shrinks.
        shift: Shifts are uniform in +-shift times the size, drawn for each axis.
        elastic: Largest displacement in voxels, along each axis.
        elastic_spacing: Voxels between control points, at least 1.
        probability: Of each of the four by itself.

    Raises:
        RecipeError: A displacement that would fold.
    """

    def __init__(
        self,
        *,
        rotation_deg: Degrees
        | Annotated[Sequence[Degrees], Field(min_length=3, max_length=3)] = 30.0,
        zoom: Bounds = (0.7, 1.4),
        shift: Annotated[float, Field(ge=0, le=1)] = 0.0,
        elastic: NotNegative = 0.0,
        elastic_spacing: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 32.0,
        probability: Probability = 0.2,
    ) -> None:
        super().__init__()
        if elastic > _FOLDS_FROM * elastic_spacing:
            msg = (
                f"augmentation 'spatial': option 'elastic' is {elastic:g} voxels but control "
                f"points {elastic_spacing:g} voxels apart fold beyond "
                f"{_FOLDS_FROM * elastic_spacing:g}; lower it or raise 'elastic_spacing'"
            )
            raise RecipeError(msg)
        self.rotation_deg = np.broadcast_to(rotation_deg, 3)
        self.zoom = zoom
        self.shift = shift
        self.elastic = elastic
        self.elastic_spacing = elastic_spacing
        self.each = probability

    def change(
        self, image: torch.Tensor, label: torch.Tensor, generator: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Image and label, moved together."""
        n = label.ndim
        # Everything is drawn, used or not: one option's value does not change another's draw.
        turned, zoomed, shifted, bent = generator.random(4) < self.each
        angles = turned * np.radians(self.rotation_deg) * generator.uniform(-1, 1, 3)
        zoom = generator.uniform(self.zoom[0], self.zoom[1])
        shift = shifted * self.shift * generator.uniform(-1, 1, 3)[:n] * label.shape
        if n == 2:
            angles[:2] = 0
        matrix = rotation(angles)[:n, :n] * (zoom if zoomed else 1)
        displacement = None
        if bent and self.elastic > 0:
            displacement = self._displacement(label.shape, generator, image.device)
        return warp(image, label, torch.from_numpy(matrix), torch.from_numpy(shift), displacement)

    def _displacement(
        self, shape: Sequence[int], generator: np.random.Generator, device: torch.device
    ) -> torch.Tensor:
        """(n, *shape) voxels."""
        matrices = [cubic_spline(size, self.elastic_spacing) for size in shape]
        controls = [each.shape[1] for each in matrices]
        drawn = generator.uniform(-self.elastic, self.elastic, (len(shape), *controls))
        points = torch.from_numpy(drawn).float().to(device)
        return torch.stack([map_axes(component, matrices) for component in points])
