"""Contrast: distances from the mean times a factor."""

from __future__ import annotations

import numpy as np
import torch

from leanseg.augmentation.base import Bounds, Intensity, Probability, factor, per_channel


class Contrast(Intensity):
    """Stretch each channel about its mean by a factor of its own, cut to its former range.

    Source of the defaults: nnU-Net v2 (`ContrastTransform`, 0.75 to 1.25, half of the factors
    below 1, range preserved, probability 0.15).

    Args:
        factors: Bounds of the factor.
        probability: Share of the samples.
    """

    def __init__(self, *, factors: Bounds = (0.75, 1.25), probability: Probability = 0.15) -> None:
        super().__init__(probability)
        self.factors = factors

    def values(self, image: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        """The image with more or less contrast."""
        factors = per_channel([factor(generator, self.factors) for _ in image], image)
        axes = tuple(range(1, image.ndim))
        mean = image.mean(dim=axes, keepdim=True)
        lowest, highest = image.amin(axes, keepdim=True), image.amax(axes, keepdim=True)
        stretched = torch.lerp(mean, image, factors)
        return torch.clamp(stretched, lowest, highest)
