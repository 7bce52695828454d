"""Gamma: intensities, scaled to [0, 1], raised to a power."""

from __future__ import annotations

import numpy as np
import torch

from leanseg.augmentation.base import Bounds, Intensity, Probability, factor, per_channel


class Gamma(Intensity):
    """Raise each channel, scaled to [0, 1] by its own range, to a power; mean and sd are kept.

    The inverted kind does so to the negative image, which acts on the bright end; a sample may
    get both, the inverted first.

    Source of the defaults: nnU-Net v2 (two `GammaTransform`, 0.7 to 1.5, half of the powers
    below 1, statistics retained; inverted with probability 0.1, then plain with 0.3).

    Args:
        powers: Bounds of the power.
        probability: Share of the samples that get the plain kind.
        inverted_probability: Share of the samples that get the inverted kind.
    """

    def __init__(
        self,
        *,
        powers: Bounds = (0.7, 1.5),
        probability: Probability = 0.3,
        inverted_probability: Probability = 0.1,
    ) -> None:
        super().__init__()
        self.powers = powers
        self.plain_probability = probability
        self.inverted_probability = inverted_probability

    def values(self, image: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        """The image with other grey levels."""
        inverted = generator.random() < self.inverted_probability
        plain = generator.random() < self.plain_probability
        if inverted:
            image = -_raised(-image, [factor(generator, self.powers) for _ in image])
        if plain:
            image = _raised(image, [factor(generator, self.powers) for _ in image])
        return image


def _raised(image: torch.Tensor, powers: list[float]) -> torch.Tensor:
    axes = tuple(range(1, image.ndim))
    lowest = image.amin(axes, keepdim=True)
    width = (image.amax(axes, keepdim=True) - lowest).clamp(min=1e-7)
    raised = ((image - lowest) / width) ** per_channel(powers, image)
    # The standard deviation is restored below, whatever the scale: no need to undo the width.
    sd, mean = torch.std_mean(image, axes, correction=0, keepdim=True)
    sd_raised, mean_raised = torch.std_mean(raised, axes, correction=0, keepdim=True)
    return (raised - mean_raised) * (sd / sd_raised.clamp(min=1e-7)) + mean
