"""Networks as other people might write them, imported by the tests of import paths."""

from __future__ import annotations

import torch
from torch import nn


class Plain(nn.Module):
    """One 1x1 convolution under unusual argument names."""

    def __init__(self, n_channels: int, n_classes: int, depth: int = 1) -> None:
        super().__init__()
        self.layer = nn.Conv2d(n_channels, n_classes, 1)
        self.depth = depth

    def forward(self, images):
        return self.layer(images)


class ManyMaps(Plain):
    """Coarse map, finest map, another full-sized map; a loss."""

    def forward(self, images):
        logits = self.layer(images)
        coarse = nn.functional.avg_pool2d(logits, 2)
        return [coarse, logits, 2 * logits, logits.mean()]


class Named(Plain):
    def forward(self, images):
        logits = self.layer(images)
        return {"aux": 2 * logits, "out": logits}


class Stacked(Plain):
    def forward(self, images):
        logits = self.layer(images)
        return torch.stack((logits, 2 * logits), dim=1)


class Picky(Plain):
    """Takes multiples of 12 alone, and remembers what it saw."""

    def forward(self, images):
        if images.shape[-1] % 12 or images.shape[-2] % 12:
            raise ValueError("twelve, please")
        self.seen = images
        return self.layer(images)


class Classifier(Plain):
    def forward(self, images):
        return self.layer(images).mean((2, 3))


class Hopeless(Plain):
    def forward(self, images):
        raise RuntimeError("not today\nreally")


class Restless(nn.Module):
    """Draws in its constructor and computes with what it drew."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.scale = torch.rand(()).item()
        self.layer = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, images):
        return self.scale * self.layer(images)


class Downloading(Plain):
    def __init__(self, n_channels: int, n_classes: int, pretrained: bool = True) -> None:
        super().__init__(n_channels, n_classes)
        self.pretrained = pretrained


def with_any_options(in_channels, out_channels, **options):
    return Plain(in_channels, out_channels, **options)


def needing_a_package(in_channels, out_channels):
    import no_such_package  # noqa: F401


def no_module(in_channels, out_channels):
    return "a network"


NOT_CALLABLE = 3
