"""Paper 002's augmentation for CT (CTIA): rotation, range shift and noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from leanseg.augmentation.base import Bounds, Joint, Probability, gaussian_noise
from leanseg.augmentation.warp import rotation, warp
from leanseg.registry import NotNegative


@dataclass(frozen=True)
class _Drawn:
    """Of one sample: the angle, and what intensities are multiplied by and raised by."""

    angle_deg: float
    factor: float
    offset: float


class Ctia(Joint):
    """What varies between CT scans: a patient's position, the range of intensities, noise.

    In this order: rotation about the slice axis, for a volume all slices alike; the intensities
    times a factor plus an offset; noise. Numbers are in the image's own units, of z-scored images
    standard deviations. The image is interpolated linearly and continued by its border's values,
    in a windowed CT mostly the window's lowest; the label takes the nearest voxel.

    Slice skipping and slice interpolation, which paper 002 does before it reduces a volume to 16
    slices, are options of the sampler `slice-subset`; with the same `fraction` it changes the
    same samples.

    Source: paper 002, "Image Augmentation" and "Training" (rotation by 16 degrees at most, range
    shift for 20 per cent of the data, 90 per cent of 2-D and 80 per cent of 3-D batches
    augmented). It states no other magnitude; the other defaults are ours.

    Args:
        fraction: Share of the samples that are augmented at all; 0.9 for slices.
        rotation_deg: Largest angle; 0 for none.
        noise_sd: Standard deviation of the noise; 0 for none.
        shift_share: Share of all samples whose range is shifted, at most `fraction`; 0 for none.
        factor: Bounds of the factor of a range shift.
        offset: Largest offset of a range shift, up or down.
    """

    def __init__(
        self,
        *,
        fraction: Probability = 0.8,
        rotation_deg: Annotated[float, Field(ge=0, le=180)] = 16.0,
        noise_sd: NotNegative = 0.05,
        shift_share: Probability = 0.2,
        factor: Bounds = (0.9, 1.1),
        offset: NotNegative = 0.1,
    ) -> None:
        super().__init__(fraction)
        self.rotation_deg = rotation_deg
        self.noise_sd = noise_sd
        self.shift_share = shift_share
        self.factor = factor
        self.offset = offset

    def change(
        self, image: torch.Tensor, label: torch.Tensor, generator: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Image and label, augmented."""
        drawn = self._drawn(generator)
        n = label.ndim
        matrix = rotation([0, 0, math.radians(drawn.angle_deg)])[:n, :n]
        still = torch.zeros(n, dtype=torch.float64)
        image, label = warp(image, label, torch.from_numpy(matrix), still)
        if (drawn.factor, drawn.offset) != (1, 0):
            image = image * drawn.factor + drawn.offset
        if self.noise_sd:
            image = image + self.noise_sd * gaussian_noise(image, generator)
        return image, label

    def describe(self, parameters: Sequence[int | None], shape: Sequence[int]) -> list[str]:
        """As of `leanseg.augmentation.registry.Describes`."""
        return [
            "" if stream is None else self._told(np.random.Generator(np.random.Philox(stream)))
            for stream in parameters
        ]

    def _told(self, generator: np.random.Generator) -> str:
        drawn = self._drawn(generator)
        parts = [f"turned {drawn.angle_deg:+.0f}°"] if self.rotation_deg else []
        if (drawn.factor, drawn.offset) != (1, 0):
            parts.append(f"grey × {drawn.factor:.2f} {drawn.offset:+.2f}")
        if self.noise_sd:
            parts.append(f"noise {self.noise_sd:g}")
        return ", ".join(parts)

    def _drawn(self, generator: np.random.Generator) -> _Drawn:
        # Everything is drawn, used or not: one option's value does not change another's draw.
        angle, chosen, factor, offset = generator.random(4)
        # A share of all samples, of which only the fraction comes here.
        shifted = chosen * self.fraction < self.shift_share
        low, high = self.factor
        return _Drawn(
            self.rotation_deg * (2 * angle - 1),
            low + (high - low) * factor if shifted else 1.0,
            self.offset * (2 * offset - 1) if shifted else 0.0,
        )
