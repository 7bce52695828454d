"""Augmentations: batched torch operations, every sample's draw from a seed of its own.

Example:
    >>> affine = leanseg.augmentation.build_augmentation("affine", rotation_deg=10)
    >>> image, classes = torch.rand(4, 1, 32, 32), torch.zeros(4, 32, 32, dtype=torch.long)
    >>> drawn = affine.draw(seeds=range(4))
    >>> image, classes = affine.apply(image, classes, drawn)
    >>> image.shape
    torch.Size([4, 1, 32, 32])
"""

from leanseg.augmentation.registry import AUGMENTATIONS, Augmentation, build_augmentation

__all__ = ["AUGMENTATIONS", "Augmentation", "build_augmentation"]
