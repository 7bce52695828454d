"""Augmentations: batched torch operations, every sample's draw from a seed of its own."""

from leanseg.augmentation.registry import AUGMENTATIONS, Augmentation, build_augmentation

__all__ = ["AUGMENTATIONS", "Augmentation", "build_augmentation"]
