"""Augmentations: batched torch operations, every draw from a passed generator."""

from leanseg.augmentation.registry import AUGMENTATIONS, build_augmentation

__all__ = ["AUGMENTATIONS", "build_augmentation"]
