"""Scans and label maps inside a page, as NiiVue reads them, small enough to send around.

NiiVue (BSD 2-Clause; its licence lies beside it) is part of the package where it could be fetched
when that was built. Pages without it show pictures alone.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from leanseg.reports.case_maps import CaseMaps
from leanseg.reports.overlay import label_colours
from leanseg.reports.page import template_text
from leanseg.volumes import Volume, reorient

# Of a scan as it is shown: three of them, with masks, take two or three MB of a page.
MOST_VOXELS: Final = 1_000_000
# Small scans are shown finer than they are, or outlines would hide what they surround.
_FINEST = 3


@cache
def _niivue_script() -> str | None:
    """NiiVue with its licence; None where it is not."""
    folder = resources.files("leanseg.reports").joinpath("niivue")
    script = folder.joinpath("niivue.umd.js")
    if not script.is_file():
        return None
    text = script.read_text(encoding="utf-8")
    assert "</script" not in text and "<!--" not in text  # of the version that is fetched
    return f"/*! NiiVue\n{folder.joinpath('LICENSE').read_text(encoding='utf-8')}*/\n{text}"


def viewer_scripts() -> tuple[str, ...]:
    """What a page that shows scans runs besides; nothing where NiiVue is not there."""
    niivue = _niivue_script()
    return () if niivue is None else (niivue, template_text("viewer.js"))


def viewer_content(maps: CaseMaps, labels: Sequence[str]) -> str | None:
    """What the page's viewer shows of a case, as JSON that may stand inside a page.

    None where NiiVue is not there.

    Scan and maps become uint8 in the orientation "RAS", of at most `MOST_VOXELS`. Of predictions
    the outermost voxels are kept, so that the reference is seen inside them.

    Args:
        maps: The case.
        labels: Their names, in the order of their numbers.
    """
    if _niivue_script() is None:
        return None
    low, high = maps.window
    grey = np.nan_to_num((maps.image.array.astype(np.float32) - low) / (high - low)).clip(0, 1)
    scan = _fitted(maps.image.with_array((grey * 255).round().astype(np.uint8)), smooth=True)
    reference = _fitted(maps.image.with_array(maps.reference))
    shown = reference.array if reference.array.any() else np.ones(reference.shape, dtype=bool)
    start = [int((shown != 0).sum(axis=across).argmax()) for across in ((1, 2), (0, 2), (0, 1))]
    content = {
        "case": maps.name,
        "scan": _nifti(scan),
        "reference": _nifti(reference),
        "masks": [
            _nifti(_outline(_fitted(maps.image.with_array(array))))
            for array in maps.predictions.values()
        ],
        "start": start,
        "colours": [
            [reference, prediction]
            for _, reference, prediction in label_colours(dict.fromkeys(labels, 0))
        ],
    }
    return json.dumps(content).replace("<", "\\u003c")


def _fitted(volume: Volume, *, smooth: bool = False) -> Volume:
    """The volume in "RAS" with fewer or more voxels, each where it was in the world."""
    upright = reorient(volume, "RAS")
    array, affine = upright.array, upright.affine.copy()
    finer = min(_FINEST, int((MOST_VOXELS / array.size) ** (1 / 3)))
    if finer > 1:
        array = _refined(array, finer) if smooth else _repeated(array, finer)
        affine[:3, :3] /= finer
        affine[:3, 3] -= affine[:3, :3].sum(axis=1) * (finer - 1) / 2
        return Volume(array, affine)
    steps = np.ones(3, dtype=int)
    while np.prod(-(-np.array(array.shape) // steps)) > MOST_VOXELS:
        # The finest axis first, so that voxels come closer to cubes.
        steps[np.argmin(steps * upright.spacing_mm)] += 1
    i, j, k = steps
    affine[:3, :3] *= steps
    return Volume(array[::i, ::j, ::k], affine)


def _refined(array: NDArray[Any], times: int) -> NDArray[np.uint8]:
    from scipy.ndimage import zoom

    return np.asarray(zoom(array, times, order=1, mode="nearest", grid_mode=True), dtype=np.uint8)


def _repeated(array: NDArray[Any], times: int) -> NDArray[Any]:
    return array.repeat(times, 0).repeat(times, 1).repeat(times, 2)


def _outline(volume: Volume) -> Volume:
    """Labelled voxels that touch, with a face, another label or the background."""
    padded = np.pad(volume.array, 1)
    inner = np.ones(volume.shape, dtype=bool)
    for axis in range(3):
        for step in (-1, 1):
            beside = np.roll(padded, step, axis)[1:-1, 1:-1, 1:-1]
            inner &= beside == volume.array
    return volume.with_array(np.where(inner, 0, volume.array))


def _nifti(volume: Volume) -> str:
    import nibabel

    image = nibabel.Nifti1Image(volume.array.astype(np.uint8), volume.affine)
    return base64.b64encode(gzip.compress(image.to_bytes(), mtime=0)).decode()
