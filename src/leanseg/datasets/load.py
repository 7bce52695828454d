"""Reading the volumes of a case: its channels and its label map, checked to lie on one grid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from leanseg.datasets.readers import read_source
from leanseg.datasets.sources import LabelPart, VolumeSource
from leanseg.errors import DatasetError
from leanseg.volumes.grids import on_grid_of
from leanseg.volumes.volume import Volume, label_dtype

# Label maps are stored with 16 bits at most.
LARGEST_LABEL = 65535
# Different labels of one map that nobody named; a scan has more grey values than this.
MOST_VALUES = 255


def load_image(sources: Sequence[VolumeSource]) -> Volume:
    """A scan from one source, or from one for each channel.

    Returns:
        Voxels (i, j, k), or (i, j, k, channel).

    Raises:
        LeansegError: If a file cannot be read, or channels do not lie on one grid.
        DatasetError: If voxels are not finite.
    """
    image = _stacked([read_source(source) for source in sources])
    if image.array.dtype.kind == "f":
        # Slice by slice: a mask of the whole scan would be a good part of its size again.
        slices = np.moveaxis(image.array, 2, 0)
        n_odd = sum(part.size - np.count_nonzero(np.isfinite(part)) for part in slices)
        if n_odd:
            msg = f"{sources[0].path}: {n_odd} voxels are NaN or infinite; export the scan again"
            raise DatasetError(msg)
    return image


def _stacked(volumes: Sequence[Volume]) -> Volume:
    first, *others = volumes
    if not others:
        return first
    for volume in volumes:
        if volume.array.ndim == 4:
            raise DatasetError(
                f"{volume.path}: one of several channel files, but has {volume.n_channels} "
                "channels; split it, or list it alone"
            )
    arrays = [on_grid_of(first, volume).array for volume in volumes]
    notes = tuple(dict.fromkeys(note for volume in volumes for note in volume.notes))
    return replace(first, array=np.stack(arrays, axis=-1), notes=notes)


def load_label(
    parts: Sequence[LabelPart],
    image: Volume,
    case: str = "",
    names: Mapping[int, str] | None = None,
) -> Volume:
    """A label map on its scan's grid, its parts laid over each other in order.

    Args:
        parts: At least one.
        image: The scan.
        case: Name of the case, for messages.
        names: Names of the values, for messages.

    Returns:
        Voxels (i, j, k), uint8 or uint16.

    Raises:
        LeansegError: If a file cannot be read, or does not lie on the scan's grid.
        DatasetError: If labels are not whole numbers from 0 on, or two claim a voxel.
    """
    merged: Volume | None = None
    notes: tuple[str, ...] = ()
    for part in parts:
        volume = as_label_map(read_source(part.source, image))
        notes += volume.notes
        volume = on_grid_of(image, volume)
        values = np.maximum(translated(part, volume.array), 0)
        if merged is not None:
            claimed = claims(part, values, merged.array)
            values = np.where(values > 0, values, merged.array)
            for upper, lower, n in contested(claimed, values):
                both = " and ".join((names or {}).get(v, f"label {v}") for v in (lower, upper))
                msg = f"{part.source.path}: {n} voxels of case {case!r} are both {both}; a voxel "
                raise DatasetError(f"{msg}has one label, so cut one out of the other or drop one")
        merged = as_label_map(volume.with_array(values))
    assert merged is not None  # there are parts
    return replace(merged, notes=tuple(dict.fromkeys(notes)))


Claims: TypeAlias = "Counter[tuple[int, int]]"


def claims(part: LabelPart, values: NDArray[Any], below: NDArray[Any]) -> Claims:
    """Of the voxels that a part labels: how many have which label, and which one below it.

    Args:
        part: A part that covers whatever it meets makes no claim.
        values: Its labels.
        below: Those of the parts before it, of the same shape.
    """
    if part.covers:
        return Counter()
    here = values > 0
    pairs = (values[here].astype(np.int64) << 16) | below[here]
    found, counts = np.unique(pairs, return_counts=True)
    both = zip((found >> 16).tolist(), (found & LARGEST_LABEL).tolist(), strict=True)
    return Counter(dict(zip(both, counts.tolist(), strict=True)))


def contested(claimed: Claims, merged: NDArray[Any]) -> list[tuple[int, int, int]]:
    """Labels that claim the same voxels, without one that lies within another as in an organ.

    Args:
        claimed: The claims of a part.
        merged: What came of it.

    Returns:
        The part's label, the one below, and the number of voxels, of each such pair.
    """
    found = []
    for label in sorted({upper for upper, _ in claimed}):
        below = {lower: claimed[label, lower] for upper, lower in claimed if upper == label}
        below.pop(label, None)
        others = [(label, lower, n) for lower, n in below.items() if lower]
        is_within = len(below) == len(others) == 1 and bool((merged == others[0][1]).any())
        found += [] if is_within else others
    return found


def translated(part: LabelPart, array: NDArray[Any]) -> NDArray[Any]:
    """A part's own whole values as labels of the dataset; -1 where its list leaves out a value."""
    if part.value is not None:
        return np.where(array > 0, part.value, 0)
    if part.values is None:
        return array
    table = np.full(max(int(array.max()), *part.values, 0) + 1, -1, dtype=np.int32)
    table[0] = 0
    table[list(part.values)] = list(part.values.values())
    return np.asarray(table[array])


def as_label_map(volume: Volume) -> Volume:
    """The volume with its voxels as uint8, or uint16 past 255.

    Raises:
        DatasetError: If voxels are not whole numbers from 0 to 65535, or there are channels.
    """
    name = volume.path or "the label map"
    if volume.array.ndim == 4:
        shape = volume.array.shape
        msg = f"{name}: a label map has one value per voxel, found shape {shape}; merge it"
        raise DatasetError(msg)
    return volume.with_array(label_array(volume.array, name))


def label_array(array: NDArray[Any], name: object = "the label map") -> NDArray[Any]:
    """Voxels as labels: uint8, or uint16 where one is past 255.

    Raises:
        DatasetError: If one is not a whole number from 0 to 65535; shows the value itself.
    """
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind == "b":
        return array.view(np.uint8)
    if array.dtype.kind not in "uif":
        msg = f"{name}: has values of type {array.dtype}, so it is no label map; give integers"
        raise DatasetError(msg)
    if array.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            odd = ~(np.isfinite(array) & (array == np.round(array)))
        if odd.any():
            raise DatasetError(
                f"{name}: label {array[odd][0]!s} is not a whole number; export the label map again"
            )
    low, high = array.min(), array.max()
    if low < 0 or high > LARGEST_LABEL:
        msg = f"{name}: labels run from {low} to {high}; they must lie between 0 and 65535"
        raise DatasetError(f"{msg} (is it a scan?)")
    return array.astype(label_dtype(int(high)), copy=False)


def looks_like_scan(n_values: int, n_named: int = 0) -> bool:
    """Whether so many different values are grey values, not labels, few of which have a name."""
    return n_values > max(MOST_VALUES, n_named)


def require_few_values(label: Volume, n_named: int = 0) -> None:
    """Refuse a scan in the place of a label map: it has more values than anybody has labels.

    Args:
        label: From `as_label_map`.
        n_named: How many labels are named.

    Raises:
        DatasetError: If it holds more than 255 labels, and more than are named.
    """
    if label.array.dtype == np.uint8:
        return
    n_values = np.unique(label.array[label.array > 0]).size
    if looks_like_scan(n_values, n_named):
        msg = f"{label.path or 'the label map'}: holds {n_values} different values, so it looks "
        raise DatasetError(f"{msg}like a scan; give the label map, or name its labels")
