"""Losses: logits and a class map in, a scalar out."""

from leanseg.losses.registry import LOSSES, build_loss

__all__ = ["LOSSES", "build_loss"]
