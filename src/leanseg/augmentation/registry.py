"""Augmentations by name. A new one is one file here and one line in `AUGMENTATIONS`.

Drawing is a step of its own, which knows nothing of the images; applying is what follows from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol, runtime_checkable

import torch

from leanseg.registry import make


class Augmentation(Protocol):
    """Changes images and labels at random, the same way for the same seeds."""

    def draw(self, seeds: Sequence[int]) -> Any:
        """Parameters of a batch, each sample's from its own seed alone."""

    def apply(
        self, image: torch.Tensor, label: torch.Tensor, parameters: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """New images (B, C, *spatial) and class maps (B, *spatial), by what was drawn."""


@runtime_checkable
class Describes(Protocol):
    """An augmentation that says in words what it draws; those that do not are told by name."""

    def describe(self, parameters: Any, shape: Sequence[int]) -> list[str]:
        """For each sample of a batch what is done to it; "" where it is left as it is.

        Args:
            parameters: From `draw`.
            shape: (*spatial) of the images.
        """


# Name -> "module:factory".
AUGMENTATIONS: Final[dict[str, str]] = {
    "affine": "leanseg.augmentation.affine:Affine",
    "affine-noise": "leanseg.augmentation.affine_noise:AffineNoise",
    "spatial": "leanseg.augmentation.spatial:Spatial",
    "mirror": "leanseg.augmentation.mirror:Mirror",
    "noise": "leanseg.augmentation.noise:Noise",
    "blur": "leanseg.augmentation.blur:Blur",
    "brightness": "leanseg.augmentation.brightness:Brightness",
    "contrast": "leanseg.augmentation.contrast:Contrast",
    "low-resolution": "leanseg.augmentation.low_resolution:LowResolution",
    "gamma": "leanseg.augmentation.gamma:Gamma",
    "ctia": "leanseg.augmentation.ctia:Ctia",
    "mia": "leanseg.augmentation.mia:Mia",
}


def build_augmentation(name: str, **options: Any) -> Augmentation:
    """Build an augmentation.

    Args:
        name: One of `AUGMENTATIONS`.
        **options: The augmentation's own.

    Raises:
        RecipeError: A name, option or value that is not known.
    """
    return make("augmentation", AUGMENTATIONS, name, options)
