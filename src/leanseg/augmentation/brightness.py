"""Brightness: intensities times a factor."""

from __future__ import annotations

import numpy as np
import torch

from leanseg.augmentation.base import Bounds, Intensity, Probability, factor, per_channel


class Brightness(Intensity):
    """Multiply each channel by a factor of its own.

    Source of the defaults: nnU-Net v2 (`MultiplicativeBrightnessTransform`, 0.75 to 1.25, half
    of the factors below 1, probability 0.15). Zero stays zero: the mean of a z-scored image, the
    lowest value of one scaled to [0, 1], which may come to exceed 1.

    Args:
        factors: Bounds of the factor.
        probability: Share of the samples.
    """

    def __init__(self, *, factors: Bounds = (0.75, 1.25), probability: Probability = 0.15) -> None:
        super().__init__(probability)
        self.factors = factors

    def values(self, image: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        """The image, brighter or darker."""
        factors = [factor(generator, self.factors) for _ in image]
        return image * per_channel(factors, image)
