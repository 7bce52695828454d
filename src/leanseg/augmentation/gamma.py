"""Gamma: intensities, scaled to [0, 1], raised to a power."""

from __future__ import annotations

import numpy as np
import torch

from leanseg.augmentation.base import Bounds, Intensity, Probability, factor


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
            image = -self._raised(-image, generator)
        return self._raised(image, generator) if plain else image

    def _raised(self, image: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        # One by one: PyTorch reduces a whole tensor several times as fast as some of its axes.
        return torch.stack([_power(one, factor(generator, self.powers)) for one in image])


def _power(channel: torch.Tensor, power: float) -> torch.Tensor:
    """(*spatial), with its mean and standard deviation."""
    lowest, highest = channel.aminmax()
    raised = ((channel - lowest) / (highest - lowest).clamp(min=1e-7)) ** power
    # The standard deviation is restored, whatever the scale: no need to undo the width.
    factor_of_sd = channel.std(correction=0) / raised.std(correction=0).clamp(min=1e-7)
    return (raised - raised.mean()) * factor_of_sd + channel.mean()
