"""Label maps of a case in layers: one for each grid that its parts are stored on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.datasets.audit.facts import LabelFacts
from leanseg.datasets.sources import LabelPart
from leanseg.errors import GeometryError
from leanseg.volumes import Volume, on_grid_of

_HIGHEST = int(np.iinfo(np.uint16).max)


@dataclass
class LabelLayers:
    """Label parts laid over each other, as far as they share a grid.

    Attributes:
        layers: Each a label map, uint8 or uint16.
        odd: Path, number of voxels and an example for each part with values that are no labels.
        unlisted: Path and values of each part with values that its own list of values leaves out.
    """

    layers: list[Volume] = field(default_factory=list)
    odd: list[tuple[str, int, float]] = field(default_factory=list)
    unlisted: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)

    def add(self, part: LabelPart, volume: Volume) -> None:
        """Lay a part over what is there; its own array may become a layer."""
        for n, layer in enumerate(self.layers):
            try:
                turned = on_grid_of(layer, volume)
            except GeometryError:
                continue
            self.layers[n] = layer.with_array(self._merged(part, turned, layer.array))
            return
        if part.value is None and part.values is None and volume.array.dtype == np.uint8:
            self.layers.append(volume)
            return
        self.layers.append(volume.with_array(self._merged(part, volume, None)))

    def _merged(self, part: LabelPart, volume: Volume, below: NDArray[Any] | None) -> NDArray[Any]:
        """The part over another label map of its grid, slice by slice."""
        highest = highest_value(part, volume.array)
        dtype = np.uint8 if highest <= np.iinfo(np.uint8).max else np.uint16
        if below is None:
            merged = np.zeros(volume.shape, dtype=dtype, order="F")
        else:
            merged = np.require(below, np.promote_types(dtype, below.dtype), ["WRITEABLE"])
        n_odd, example = 0, 0.0
        unlisted: set[int] = set()
        for k in range(volume.shape[2]):
            section, odd = _labels_in(volume.array[:, :, k])
            if odd.size:
                n_odd, example = n_odd + odd.size, float(odd[0])
            values = mapped(part, section)
            unlisted.update(section[values < 0].tolist())
            np.copyto(merged[:, :, k], values, where=values > 0, casting="unsafe")
        if n_odd:
            self.odd.append((str(part.source.path), n_odd, example))
        if unlisted:
            self.unlisted.append((str(part.source.path), tuple(sorted(unlisted))))
        return merged


def highest_value(part: LabelPart, array: NDArray[Any]) -> int:
    """The highest label that a part can hold once it is mapped."""
    if part.value is not None:
        return part.value
    if part.values is not None:
        return max(part.values.values(), default=0)
    return int(min(np.nanmax(array, initial=0), _HIGHEST))


def mapped(part: LabelPart, section: NDArray[np.int64]) -> NDArray[np.int64]:
    """A part's own values as labels of the dataset; -1 where its list leaves out a value."""
    if part.value is not None:
        return np.where(section > 0, part.value, 0)
    if part.values is None:
        return section
    table = np.full(max(int(section.max()), *part.values, 0) + 1, -1, dtype=np.int64)
    table[0] = 0
    table[list(part.values)] = list(part.values.values())
    return table[section]


def _labels_in(section: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """A slice as whole numbers from 0 to 65535, and the values that are none."""
    good = (section >= 0) & (section <= _HIGHEST)
    if section.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            good &= section == np.rint(section)
    if good.all():
        return section.astype(np.int64), section[:0, 0]
    return np.where(good, section, 0).astype(np.int64), section[~good]


def measure_labels(layers: list[Volume]) -> tuple[LabelFacts, ...]:
    """Voxels, volume and centre of every label, over all layers."""
    voxels: dict[int, int] = {}
    volume_ml: dict[int, float] = {}
    moments: dict[int, NDArray[np.float64]] = {}
    for layer in layers:
        counts, sums = _moments(layer.array)
        per_voxel_ml = abs(float(np.linalg.det(layer.affine[:3, :3]))) / 1000
        for value in np.flatnonzero(counts):
            n, key = int(counts[value]), int(value)
            world = layer.affine[:3, :3] @ sums[:, value] + layer.affine[:3, 3] * n
            voxels[key] = voxels.get(key, 0) + n
            volume_ml[key] = volume_ml.get(key, 0.0) + n * per_voxel_ml
            moments[key] = moments.get(key, np.zeros(3)) + world
    facts = []
    for key in sorted(voxels):
        x, y, z = (float(moment / voxels[key]) for moment in moments[key])
        facts.append(LabelFacts(key, voxels[key], volume_ml[key], (x, y, z)))
    return tuple(facts)


def _moments(array: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Voxels of each value (0 left out), and the sums of their three indices."""
    size = int(array.max()) + 1
    counts, sums = np.zeros(size, dtype=np.int64), np.zeros((3, size))
    for k in range(array.shape[2]):
        section = array[:, :, k]
        i, j = np.nonzero(section)
        if not i.size:
            continue
        values = section[i, j]
        found = np.bincount(values, minlength=size)
        counts += found
        sums[0] += np.bincount(values, weights=i, minlength=size)
        sums[1] += np.bincount(values, weights=j, minlength=size)
        sums[2] += found * k
    return counts, sums
