"""The scan of a benchmark where the user gives none: a phantom of any shape."""

from __future__ import annotations

import numpy as np

from leanseg.datasets.phantom import PhantomOptions, make_phantom
from leanseg.errors import RecipeError
from leanseg.volumes import Volume

_AIR_HU = -1024
# What phantoms can be, and the pixels and slices of a common abdominal CT.
_SIZES, _SLICES = (64, 512), (20, 120)
_PIXEL_MM, _SLICE_MM = 0.8, 2.5
_FIELDS_MM = (320.0, 450.0)
_LARGEST = 4096


def parse_shape(text: str) -> tuple[int, int, int]:
    """Three lengths as "512,512,150" or "512x512x150".

    Raises:
        RecipeError: If it is none.
    """
    parts = text.lower().replace("x", ",").split(",")
    try:
        i, j, k = (int(part) for part in parts)
    except ValueError as error:
        msg = f"shape {text!r} must be three whole numbers, such as 512,512,150"
        raise RecipeError(msg) from error
    if min(i, j, k) < 1 or max(i, j, k) > _LARGEST:
        msg = f"shape {text!r} must have lengths from 1 to {_LARGEST}"
        raise RecipeError(msg)
    return i, j, k


def phantom_scan(shape: tuple[int, int, int], channels: int = 1, seed: int = 0) -> Volume:
    """A phantom CT of a shape: cut or padded with air in the plane, its slices repeated.

    A phantom of at least 400 x 400 has pixels of 0.8 mm; the slices are 2.5 mm apart.

    Args:
        shape: (i, j, k).
        channels: For models of several channels the same image in each.
        seed: The same seed gives the same scan.

    Returns:
        Image (i, j, k) or (i, j, k, channel), int16.
    """
    size = int(np.clip(max(shape[:2]), *_SIZES))
    options = PhantomOptions(
        size=size,
        slices=int(np.clip(shape[2], *_SLICES)),
        slice_mm=_SLICE_MM,
        field_of_view_mm=float(np.clip(_PIXEL_MM * size, *_FIELDS_MM)),
        orientation="LPS",
    )
    source, _ = make_phantom(np.random.default_rng(seed), options)
    array = np.full(shape, _AIR_HU, dtype=np.int16, order="F")
    cuts, places = [], []
    for have, want in zip(source.shape[:2], shape[:2], strict=True):
        n = min(have, want)
        cuts.append(slice((have - n) // 2, (have - n) // 2 + n))
        places.append(slice((want - n) // 2, (want - n) // 2 + n))
    # Few slices come from the middle of the abdomen, many repeat it.
    start = max(source.shape[2] - shape[2], 0) // 2
    k = (start + np.arange(shape[2])) % source.shape[2]
    array[places[0], places[1]] = source.array[cuts[0], cuts[1]][:, :, k]
    if channels > 1:
        array = np.asfortranarray(np.stack([array] * channels, axis=-1))
    return Volume(array, source.affine)
