"""Parts of a recipe from outside, as users write them and name them "own_parts:Name"."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from leanseg.losses.base import Batch, SegmentationLoss
from leanseg.training.samplers.base import Sample
from leanseg.training.samplers.slices import Slices
from leanseg.training.tasks.segmentation import Segmentation

# What was called, in order; tests empty it.
CALLS: list[str] = []


class Plain(nn.Module):
    """Two convolutions and no normalisation."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.body = nn.Conv2d(in_channels, 4, 3, padding=1)
        self.head = nn.Conv2d(4, out_channels, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.body(images)))


class Squares(SegmentationLoss):
    """Mean square of one minus the probability of the true class, scaled."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def of(self, batch: Batch) -> torch.Tensor:
        CALLS.append("loss")
        found = batch.scores.softmax(dim=1).gather(1, batch.target.unsqueeze(1))
        return self.scale * (1 - found).square().mean()


class Negative:
    """Turns grey values round."""

    def draw(self, seeds):
        return [None] * len(seeds)

    def apply(self, image, label, parameters):
        CALLS.append("augmentation")
        return -image, label


class FirstSlice(Slices):
    """The first slice of the first case for ever."""

    def epoch(self, epoch: int, n_batches: int, batch_size: int) -> list[list[Sample]]:
        CALLS.append("sampler")
        return [[Sample(0, (0, 0, 0), n) for n in range(batch_size)] for _ in range(n_batches)]


class Twice(Segmentation):
    """Segmentation whose loss counts twice."""

    methods: ClassVar[tuple[str, ...]] = ()

    def loss(self, network, batch):
        CALLS.append("task")
        return 2 * super().loss(network, batch)


NO_FACTORY = 3
