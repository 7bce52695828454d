"""Gaussian noise."""

from __future__ import annotations

import numpy as np
import torch

from leanseg.augmentation.base import Intensity, Probability, gaussian_noise
from leanseg.registry import NotNegative


class Noise(Intensity):
    """Add Gaussian noise whose standard deviation is uniform in 0 to sd, drawn for each channel.

    Source of the defaults: nnU-Net v2 (`GaussianNoiseTransform`, 0 to 0.1, probability 0.1),
    there on z-scored images. Here in units of the channel's own standard deviation in the
    sample, so that images scaled to [0, 1] get as much.

    Args:
        sd: Largest standard deviation of the noise, in standard deviations of the channel.
        probability: Share of the samples.
    """

    def __init__(self, *, sd: NotNegative = 0.1, probability: Probability = 0.1) -> None:
        super().__init__(probability)
        self.sd = sd

    def values(self, image: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        """The image, noisy."""
        noise = gaussian_noise(image, generator)
        shares = generator.uniform(0, self.sd, len(image)).tolist()
        scales = [share * one.std(correction=0) for share, one in zip(shares, image, strict=True)]
        return image + noise * torch.stack(scales).reshape(-1, *[1] * (image.ndim - 1))
