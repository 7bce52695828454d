"""Label maps of a case in layers: one for each grid that its parts are stored on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.datasets.check.facts import LabelFacts
from leanseg.datasets.load import LARGEST_LABEL, Claims, claims, contested, translated
from leanseg.datasets.sources import LabelPart
from leanseg.errors import GeometryError
from leanseg.volumes import Volume, on_grid_of


def lay_over(layers: list[Volume], part: LabelPart, volume: Volume) -> dict[str, Any]:
    """Lay a label part over the layer on its grid, or make it a layer of its own.

    Args:
        layers: Label maps, uint8 or uint16; changed. The volume's own array may become one.
        part: Says what its values mean.
        volume: The part as read, (i, j, k).

    Returns:
        What is wrong with it: `n_odd`, `odd`, `unlisted` and `contested` of its `GridFacts`.
    """
    place, below = len(layers), None
    for n, layer in enumerate(layers):
        with suppress(GeometryError):
            volume = on_grid_of(layer, volume)
            place, below = n, layer.array
            break
    as_it_is = part.value is None and part.values is None and volume.array.dtype == np.uint8
    if below is None and as_it_is:
        layers.append(volume)
        return {}
    merged, faults = _merged(part, volume, below)
    layers[place : place + 1] = [volume.with_array(merged)]
    return faults


def _merged(
    part: LabelPart, volume: Volume, below: NDArray[Any] | None
) -> tuple[NDArray[np.uint16], dict[str, Any]]:
    """The part over another label map of its grid, slice by slice."""
    if below is None:
        merged = np.zeros(volume.shape, dtype=np.uint16, order="F")
    else:
        merged = np.require(below, np.uint16, ["WRITEABLE"])
    n_odd, odd = 0, 0.0
    unlisted: set[int] = set()
    claimed: Claims = Counter()
    for k in range(volume.shape[2]):
        section = volume.array[:, :, k]
        is_label = (section >= 0) & (section <= LARGEST_LABEL) & (section == np.rint(section))
        if not is_label.all():
            n_odd, odd = n_odd + int((~is_label).sum()), float(str(section[~is_label][0]))
        section = np.where(is_label, section, 0).astype(np.int64)
        values = translated(part, section)
        unlisted.update(section[values < 0].tolist())
        if below is not None:
            claimed += claims(part, values, merged[:, :, k])
        np.copyto(merged[:, :, k], values, where=values > 0, casting="unsafe")
    found = {"unlisted": tuple(sorted(unlisted)), "contested": tuple(contested(claimed, merged))}
    return merged, {"n_odd": n_odd, "odd": odd, **found}


def measure_labels(layers: Sequence[Volume]) -> tuple[LabelFacts, ...]:
    """Voxels, volume and centre of every label, over all layers."""
    size = 1 + max((int(layer.array.max()) for layer in layers), default=0)
    voxels, volume_ml, moments = np.zeros(size, np.int64), np.zeros(size), np.zeros((3, size))
    for layer in layers:
        sums = _index_sums(layer.array, size)
        voxels += sums[3].astype(np.int64)
        volume_ml += sums[3] * abs(np.linalg.det(layer.affine[:3, :3])) / 1000
        moments += layer.affine[:3] @ sums
    facts = []
    for value in np.flatnonzero(voxels):
        x, y, z = (moments[:, value] / voxels[value]).tolist()
        facts.append(LabelFacts(int(value), int(voxels[value]), float(volume_ml[value]), (x, y, z)))
    return tuple(facts)


def _index_sums(array: NDArray[Any], size: int) -> NDArray[np.float64]:
    """For each value but 0: the sums of its voxels' three indices, and their number; (4, size)."""
    sums = np.zeros((4, size))
    for k in range(array.shape[2]):
        section = array[:, :, k]
        i, j = np.nonzero(section)
        values = section[i, j]
        found = np.bincount(values, minlength=size)
        sums[0] += np.bincount(values, weights=i, minlength=size)
        sums[1] += np.bincount(values, weights=j, minlength=size)
        sums[2:] += found * k, found
    return sums
