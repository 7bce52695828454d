"""Batches for the tests of the losses."""

from __future__ import annotations

import torch

CERTAIN = 60.0  # a logit whose probability is 1, or 0, in float32


def draw(seed, batch, classes, *spatial, dtype=torch.float32):
    """Random logits (batch, classes, *spatial) and classes (batch, *spatial)."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, classes, *spatial, generator=generator, dtype=dtype)
    target = torch.randint(max(2, classes), (batch, *spatial), generator=generator)
    return logits, target


def one_hot(target, classes):
    """Booleans (batch, classes, *spatial)."""
    return torch.stack([target == value for value in range(classes)], dim=1)


def certain(target, classes, gain=CERTAIN):
    """Logits that predict exactly the class map."""
    truth = target[:, None] == 1 if classes == 1 else one_hot(target, classes)
    return torch.where(truth, gain, -gain)
