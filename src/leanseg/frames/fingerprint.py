"""The fingerprint of a dataset: what a planner has to know of it, from the data alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from leanseg.datasets import Case, load_case
from leanseg.errors import DatasetError
from leanseg.frames.cache import ArrayCache, case_sha256
from leanseg.volumes import reorient

ORIENTATION = "RAS"
_FORMAT = 1
# Of the grey values within the labels.
_QUANTILES = (0.005, 0.5, 0.995)
# Every so many voxels are enough for grey values and for the body's box.
_MOST_GREY = 200_000
# Voxels of a component's box along an axis at which its thickness is measured.
_MOST_ALONG = 64
# Below all but air in CT; no other modality has such values.
_AIR_HU = -500.0
# In terms of the median, what is larger is not what networks are made for.
_OUTLIER = 1.6
# Share of voxels that are exactly zero from which on they are no tissue: skull-stripped MR.
_STRIPPED = 0.3

Shape = tuple[float, float, float]
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class ClassFacts:
    """What a class looks like in one case or, as medians over the cases that have it, in all.

    Attributes:
        cases: How many have a voxel of it.
        volume_ml: Of all its components.
        components: Connected by faces; specks of less than a thousandth of the whole left out.
        thickness_mm: Four times the mean distance to the surface: the thickness of a plate.
        extent_mm: Of its box.
    """

    cases: int
    volume_ml: float
    components: float
    thickness_mm: float
    extent_mm: Shape


@dataclass(frozen=True)
class Fingerprint:
    """What the cases of a dataset have in common, as medians; axes are in RAS order.

    Attributes:
        n_cases: Labelled cases.
        n_looked_at: Of which so many were read.
        modality: By the channels' names, or the grey values.
        channels: Their names.
        shape: Voxels of a scan.
        largest_shape: The most voxels along each axis.
        spacing_mm: Distance of voxels.
        body_mm: Extent of what is not air.
        largest_body_mm: The largest one along each axis, scans far larger than others left out.
        foreground_mm: Extent of the box of all labels.
        grey: For each channel 0.5 %, median and 99.5 % of the grey values within the labels,
            then their mean and standard deviation.
        zeros: Share of voxels that are exactly zero in all channels.
        classes: By name.
    """

    n_cases: int
    n_looked_at: int
    modality: Literal["CT", "MR or other"]
    channels: tuple[str, ...]
    shape: Shape
    largest_shape: Shape
    spacing_mm: Shape
    body_mm: Shape
    largest_body_mm: Shape
    foreground_mm: Shape
    grey: tuple[tuple[float, ...], ...]
    zeros: float
    classes: Mapping[str, ClassFacts]

    @property
    def is_stripped(self) -> bool:
        """Whether zeros are no tissue, as where the skull was taken away."""
        return self.modality != "CT" and self.zeros > _STRIPPED

    @property
    def anisotropy(self) -> float:
        """The coarsest spacing in terms of the finest."""
        return max(self.spacing_mm) / min(self.spacing_mm)

    def words(self) -> list[str]:
        """The facts as a person would tell them."""
        looked = "" if self.n_looked_at == self.n_cases else f", {self.n_looked_at} looked at"
        thick = "even voxels"
        if self.anisotropy > 1.5:
            thick = "thick slices" if max(self.spacing_mm) >= 3 else "uneven voxels"
        channels = f", {len(self.channels)} channels" if len(self.channels) > 1 else ""
        stripped = ", nothing around the organ" if self.is_stripped else ""
        size = " x ".join(f"{n:.0f}" for n in self.shape)
        spacing = " x ".join(f"{mm:.3g}" for mm in self.spacing_mm)
        lines = [
            f"{self.n_cases} labelled case{'s'[: self.n_cases != 1]}{looked}: {self.modality}"
            f"{channels}{stripped}, {size} voxels of {spacing} mm ({thick})"
        ]
        for name, facts in self.classes.items():
            if not facts.cases:
                lines.append(f"{name}: in no case")
                continue
            absent = ""
            if facts.cases < self.n_looked_at:
                absent = f", in {facts.cases} of {self.n_looked_at} cases"
            n = round(facts.components)
            parts = "one structure" if n <= 1 else f"{n} structures"
            lines.append(
                f"{name}: {_size(facts.volume_ml)}, {parts} a scan, {facts.volume_ml:.3g} ml, "
                f"{facts.thickness_mm:.3g} mm thick{absent}"
            )
        return lines


def _size(volume_ml: float) -> str:
    return "small" if volume_ml < 10 else "large" if volume_ml > 300 else "middle-sized"


def along(orientation: str, values: Sequence[_Value]) -> tuple[_Value, ...]:
    """Values of a fingerprint's axes in the order of an orientation without turned signs."""
    return tuple(values[ORIENTATION.index(code)] for code in orientation)


def take_fingerprint(
    cases: Sequence[Case],
    label_values: Mapping[str, Sequence[int]],
    channels: Sequence[str],
    cache: ArrayCache,
    *,
    n_cases: int,
    channel_indices: Sequence[int] | None = None,
    on_case: Callable[[str], None] = lambda name: None,
) -> Fingerprint:
    """The fingerprint of some cases.

    Args:
        cases: To look at, labelled.
        label_values: For each class the label files' values.
        channels: Names of the channels that are used.
        cache: Keeps what was found of each case.
        n_cases: How many cases the dataset has.
        channel_indices: Where the channels are in the files; None for all.
        on_case: Called with the name of each case that is done.

    Raises:
        DatasetError: If there are no cases.
        LeansegError: If a scan cannot be read.
    """
    if not cases:
        raise DatasetError("there is no labelled case to take a fingerprint of")
    rules = json.dumps([_FORMAT, {n: [*v] for n, v in label_values.items()}, channel_indices])
    facts = []
    for case in cases:
        key = hashlib.sha256("\0".join([*case_sha256(case), rules]).encode()).hexdigest()
        make = partial(_look_at_case, case, label_values, channel_indices)
        facts.append(cache.get(key, make))
        on_case(case.name)
    shapes = np.stack([each["shape"] for each in facts])
    bodies = np.stack([each["body_mm"] for each in facts])
    grey = np.stack([each["grey"] for each in facts])
    labelled = np.isfinite(grey[:, 0, 0])
    means = np.nanmean(grey[labelled], axis=0) if labelled.any() else np.zeros(grey.shape[1:])
    return Fingerprint(
        n_cases=n_cases,
        n_looked_at=len(cases),
        modality=_modality(channels, facts),
        channels=tuple(channels),
        shape=_median(shapes),
        largest_shape=_triple(shapes.max(axis=0)),
        spacing_mm=_median([each["spacing_mm"] for each in facts]),
        body_mm=_median(bodies),
        largest_body_mm=_triple(np.minimum(bodies.max(0), _OUTLIER * np.median(bodies, axis=0))),
        foreground_mm=_median([each["foreground_mm"] for each in facts]),
        grey=tuple(tuple(float(value) for value in row) for row in means),
        zeros=float(np.median([each["zeros"] for each in facts])),
        classes={
            name: _class_facts(np.stack([each["classes"][number] for each in facts]))
            for number, name in enumerate(label_values)
        },
    )


def _modality(
    channels: Sequence[str], facts: Sequence[Mapping[str, NDArray[Any]]]
) -> Literal["CT", "MR or other"]:
    if len(channels) > 1:
        return "MR or other"
    if channels[0].upper() == "CT":
        return "CT"
    lowest = float(np.median([each["lowest"] for each in facts]))
    return "CT" if lowest < _AIR_HU else "MR or other"


def _class_facts(found: NDArray[np.float64]) -> ClassFacts:
    there = found[found[:, 0] > 0]
    if not len(there):
        return ClassFacts(0, 0.0, 0.0, 0.0, (0.0, 0.0, 0.0))
    volume, components, thickness, *extent = np.median(there, axis=0)
    return ClassFacts(
        len(there), float(volume), float(components), float(thickness), _triple(extent)
    )


def _median(rows: Any) -> Shape:
    return _triple(np.median(np.stack(list(rows)), axis=0))


def _triple(values: Any) -> Shape:
    i, j, k = (float(value) for value in values)
    return i, j, k


def _look_at_case(
    case: Case, label_values: Mapping[str, Sequence[int]], channel_indices: Sequence[int] | None
) -> dict[str, NDArray[Any]]:
    """What there is to know of one case, as arrays that the cache keeps."""
    image, label = load_case(case)
    assert label is not None  # labelled cases are looked at alone
    image, label = reorient(image, ORIENTATION), reorient(label, ORIENTATION)
    spacing = np.asarray(image.spacing_mm)
    array = image.array[..., None] if image.array.ndim == 3 else image.array
    if channel_indices is not None:
        array = array[..., list(channel_indices)]
    known = {name: np.isin(label.array, list(v)) for name, v in label_values.items()}
    any_label = np.logical_or.reduce(list(known.values()))
    step = max(round((any_label.size / _MOST_GREY) ** (1 / 3)), 1)
    thin = array[::step, ::step, ::step].astype(np.float32)
    lowest = float(thin[..., 0].min())
    inside = array[any_label].astype(np.float32)
    inside = inside[:: max(len(inside) // _MOST_GREY, 1)]
    grey = np.full((array.shape[3], len(_QUANTILES) + 2), np.nan)
    if len(inside):
        grey[:, :-2] = np.quantile(inside, _QUANTILES, axis=0).T
        grey[:, -2], grey[:, -1] = inside.mean(axis=0), inside.std(axis=0)
    air = _AIR_HU if lowest < _AIR_HU else 0.1 * float(np.quantile(thin[..., 0], 0.99))
    return {
        "shape": np.array(any_label.shape, dtype=np.float64),
        "spacing_mm": spacing,
        "body_mm": _extent(thin[..., 0] > air) * step * spacing,
        "foreground_mm": _extent(any_label) * spacing,
        "lowest": np.array(lowest),
        "zeros": np.array(float((thin == 0).all(axis=-1).mean())),
        "grey": grey,
        "classes": np.array([_look_at(mask, spacing) for mask in known.values()]),
    }


def _box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """The smallest box around a mask; empty slices where there is nothing."""
    found = []
    for axis in range(3):
        others = tuple(each for each in range(3) if each != axis)
        there = np.flatnonzero(mask.any(axis=others))
        found.append(slice(int(there[0]), int(there[-1]) + 1) if there.size else slice(0, 0))
    return tuple(found)


def _extent(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.array([each.stop - each.start for each in _box(mask)], dtype=np.float64)


def _look_at(mask: NDArray[np.bool_], spacing: NDArray[np.float64]) -> list[float]:
    """Volume in ml, components, thickness in mm and the extent of a class in one case."""
    from scipy import ndimage

    extent = _extent(mask)
    if not extent.all():
        return [0.0] * 6
    volume_ml = float(mask.sum()) * float(spacing.prod()) / 1000
    inner = mask[_box(mask)]
    step = tuple(-(-n // _MOST_ALONG) for n in inner.shape)
    # Something of air around it, so that what touches the box has a surface there.
    thin = np.pad(inner[tuple(slice(None, None, each) for each in step)], 1)
    numbers, _ = ndimage.label(thin)
    sizes = np.bincount(numbers.ravel())[1:]
    if not sizes.size:  # thinner than a step
        thin = np.pad(inner, 1)
        step, sizes = (1, 1, 1), np.array([thin.sum()])
    components = int((sizes > sizes.sum() / 1000).sum())
    distance, nearest = ndimage.distance_transform_edt(
        thin, sampling=spacing * step, return_indices=True
    )
    # From a voxel's centre to the next centre outside: the surface lies half a voxel before, along
    # the axis with the most voxels on the way; a slice may be thick.
    on_the_way = np.abs(np.stack(np.nonzero(thin)) - nearest[:, thin]).max(axis=0)
    surface = distance[thin] * (1 - 0.5 / on_the_way)
    return [volume_ml, components, 4 * float(surface.mean()), *(extent * spacing)]
