"""The salient change module of paper 003 (section 3.1.2): how stage 1 speaks to stage 2.

The paper describes it in words alone; the layers are those of the recurrent saliency
transformation network that it builds on (Yu et al., CVPR 2018, and its public code).
"""

from __future__ import annotations

import torch
from torch import nn


class SalientChange(nn.Module):
    """Weighs stage 2's image by stage 1's probabilities: X times S(P).

    S(P) = conv5x5(relu(conv3x3(P))), with as many channels as P. The first convolution starts
    Xavier-uniform with bias 1, the second with weight 0 and bias 1: S is 1 everywhere at first
    and the image passes unchanged. S depends on P, so stage 1 also learns from stage 2's loss;
    with the second weight at 0 that begins after the first step. (The PyTorch port of RSTN
    starts the second biases of three channels at 1, 1.5 and 2, the Caffe code that one
    Xavier; neither leaves X as it is.)

    36 parameters for one channel, 312 for three.

    Args:
        channels: Channels of the probabilities, and of the gain.
        generator: Source of the start; None takes torch's global generator.
    """

    def __init__(self, channels: int = 1, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 5, padding=2)
        nn.init.xavier_uniform_(self.first.weight, generator=generator)
        nn.init.ones_(self.first.bias)  # type: ignore[arg-type]
        nn.init.zeros_(self.second.weight)
        nn.init.ones_(self.second.bias)  # type: ignore[arg-type]

    def gain(self, probabilities: torch.Tensor) -> torch.Tensor:
        """S of probabilities (B, channels, H, W), of the same shape; not bounded."""
        return self.second(self.first(probabilities).relu())

    def forward(self, images: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
        """The images, changed where stage 1 says so.

        Args:
            images: (B, C, H, W).
            probabilities: (B, channels, H, W) of stage 1; channels is C, or either is 1.

        Returns:
            (B, max(C, channels), H, W).
        """
        return images * self.gain(probabilities)
