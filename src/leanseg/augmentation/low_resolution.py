"""Simulated low resolution."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from pydantic import AfterValidator
from torch.nn.functional import interpolate

from leanseg.augmentation.base import Bounds, Intensity, Probability


def _shrinking(bounds: Bounds) -> Bounds:
    if bounds[1] > 1:
        raise ValueError("should not exceed 1")
    return bounds


class LowResolution(Intensity):
    """Resample channels to fewer voxels (nearest) and back (linear).

    Source of the defaults: nnU-Net v2 (`SimulateLowResolutionTransform`, scale 0.5 to 1, one for
    all axes of a channel, probability 0.25, every channel of a chosen sample with 0.5).

    Args:
        scale: Bounds of the coarse size as a share of the size, at most 1.
        probability: Share of the samples.
        channel_probability: Share of the channels of such a sample.
    """

    def __init__(
        self,
        *,
        scale: Annotated[Bounds, AfterValidator(_shrinking)] = (0.5, 1.0),
        probability: Probability = 0.25,
        channel_probability: Probability = 0.5,
    ) -> None:
        super().__init__(probability)
        self.scale = scale
        self.channel_probability = channel_probability

    def values(self, image: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        """The image as if seen by fewer voxels."""
        channels = []
        for channel in image:
            chosen = generator.random() < self.channel_probability
            scale = generator.uniform(self.scale[0], self.scale[1])
            channels.append(_coarse(channel, scale) if chosen else channel)
        return torch.stack(channels)


def _coarse(channel: torch.Tensor, scale: float) -> torch.Tensor:
    """(*spatial), through a grid of `scale` times the size."""
    size = [max(1, round(scale * each)) for each in channel.shape]
    linear = "bilinear" if channel.ndim == 2 else "trilinear"
    small = interpolate(channel[None, None], size, mode="nearest-exact")
    return interpolate(small, channel.shape, mode=linear)[0, 0]
