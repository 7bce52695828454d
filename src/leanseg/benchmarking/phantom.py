"""The scan of a benchmark where the user gives none: a phantom CT of any shape."""

from __future__ import annotations

import numpy as np

from leanseg.datasets.phantom import PhantomOptions, make_phantom
from leanseg.errors import RecipeError
from leanseg.volumes import Volume

# What phantoms can be.
_SIZES, _SLICES = (64, 512), (20, 120)
_LARGEST = 4096


def phantom_scan(shape: tuple[int, int, int], channels: int = 1) -> Volume:
    """The middle of a phantom, repeated where the shape is larger than phantoms are.

    Args:
        shape: (i, j, k).
        channels: For models of several channels the same image in each.

    Returns:
        Image (i, j, k) or (i, j, k, channel), int16, the same at every call.

    Raises:
        RecipeError: If a length is not from 1 to 4096.
    """
    if min(shape) < 1 or max(shape) > _LARGEST:
        raise RecipeError(f"shape {shape} must have lengths from 1 to {_LARGEST}")
    options = PhantomOptions(
        size=int(np.clip(max(shape[:2]), *_SIZES)),
        slices=int(np.clip(shape[2], *_SLICES)),
        slice_mm=2.5,
        orientation="LPS",
    )
    source, _ = make_phantom(np.random.default_rng(0), options)
    middle = [
        (np.arange(wanted) + max(have - wanted, 0) // 2) % have
        for have, wanted in zip(source.shape, shape, strict=True)
    ]
    array = np.asfortranarray(source.array[np.ix_(*middle)])
    if channels > 1:
        array = np.asfortranarray(np.stack([array] * channels, axis=-1))
    return Volume(array, source.affine)
