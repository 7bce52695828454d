"""Losses: logits and a class map in, a scalar out.

Example:
    >>> loss = leanseg.losses.build_loss("dice")
    >>> classes = torch.ones(2, 16, 16, dtype=torch.long)
    >>> round(loss(torch.full((2, 1, 16, 16), 20.0), classes).item(), 3)
    0.0
"""

from leanseg.losses.registry import LOSSES, build_loss

__all__ = ["LOSSES", "build_loss"]
