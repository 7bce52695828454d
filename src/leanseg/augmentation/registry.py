"""Augmentations by name. A new one is one file here and one line in `AUGMENTATIONS`.

An augmentation draws and applies in two separate steps: `draw(batch_size, generator)` or
`draw_for_seeds(seeds)` gives parameters, `apply(image, label, parameters)` uses them.
"""

from __future__ import annotations

from typing import Any, Final

from leanseg.registry import make

# Name -> "module:factory".
AUGMENTATIONS: Final[dict[str, str]] = {
    "affine": "leanseg.augmentation.affine:Affine",
}


def build_augmentation(name: str, **options: Any) -> Any:
    """Build an augmentation.

    Args:
        name: One of `AUGMENTATIONS`.
        **options: The augmentation's own.

    Raises:
        RecipeError: A name, option or value that is not known.
    """
    return make("augmentation", AUGMENTATIONS, name, options)
