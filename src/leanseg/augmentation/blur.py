"""Gaussian blur."""

from __future__ import annotations

import numpy as np
import torch

from leanseg.augmentation.base import Bounds, Intensity, Probability
from leanseg.augmentation.separable import gaussian, map_axes


class Blur(Intensity):
    """Gaussian smoothing; border values go on beyond the border.

    Source of the defaults: nnU-Net v2 (`GaussianBlurTransform`, sigma 0.5 to 1 voxels for each
    channel and axis, probability 0.2, every channel of a chosen sample with 0.5). nnU-Net
    mirrors at the border.

    Args:
        sigma: Bounds of the standard deviation in voxels.
        probability: Share of the samples.
        channel_probability: Share of the channels of such a sample.
    """

    def __init__(
        self,
        *,
        sigma: Bounds = (0.5, 1.0),
        probability: Probability = 0.2,
        channel_probability: Probability = 0.5,
    ) -> None:
        super().__init__(probability)
        self.sigma = sigma
        self.channel_probability = channel_probability

    def values(self, image: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        """The image, smoother."""
        channels = []
        for channel in image:
            chosen = generator.random() < self.channel_probability
            sigmas = generator.uniform(self.sigma[0], self.sigma[1], 3)
            matrices = [gaussian(n, s) for n, s in zip(channel.shape, sigmas, strict=False)]
            channels.append(map_axes(channel, matrices) if chosen else channel)
        return torch.stack(channels)
