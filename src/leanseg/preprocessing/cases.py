"""Cases turned into arrays for training and validation, through the cache."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.datasets import Case, load_case
from leanseg.errors import DatasetError
from leanseg.preprocessing.cache import ArrayCache, cache_key, case_sha256
from leanseg.preprocessing.plan import Plan
from leanseg.preprocessing.slices import (
    ScanSlices,
    class_map,
    resize_classes,
    training_slices,
)


@dataclass(frozen=True)
class TrainingCase:
    """Network slices of one case: image (slice, channel, row, column), classes (slice, ...).

    `annotated` says for each of the plan's labels whether it is known here; None for all. Where
    it is not, its voxels are stored as background and mean nothing.
    """

    name: str
    image: NDArray[np.float32]
    classes: NDArray[Any]
    annotated: tuple[bool, ...] | None = None

    @property
    def foreground_slices(self) -> NDArray[np.intp]:
        """Indices of the slices that hold any label."""
        return np.flatnonzero(self.classes.reshape(len(self.classes), -1).any(axis=1))


@dataclass(frozen=True)
class WholeCase:
    """A whole scan as network slices, with its classes in both resolutions.

    Satisfies `SliceSource`, so that the predictor runs on it as it runs on a scan.
    """

    name: str
    image: NDArray[np.float32]
    classes: NDArray[Any]
    own_classes: NDArray[Any]
    annotated: tuple[bool, ...] | None = None

    @property
    def n_slices(self) -> int:
        """Number of slices."""
        return int(self.image.shape[0])

    @property
    def in_plane_shape(self) -> tuple[int, int]:
        """Rows and columns in the scan's own resolution."""
        return int(self.own_classes.shape[1]), int(self.own_classes.shape[2])

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Slices `start` to `stop` as network input."""
        # A copy: the cache's memory map is read-only, and engines may want to own their input.
        return np.array(self.image[start:stop])


@dataclass(frozen=True)
class CasePreparer:
    """Prepares cases by one plan.

    Attributes:
        plan: What the network expects.
        label_values: For each of the plan's labels, the label files' values merged into it.
        channel_indices: Which channels of the files are the plan's; None for all.
        cache: Where prepared arrays are kept.
        annotated: For each case, the plan's labels that it annotates; a case that is not in it
            annotates all.
    """

    plan: Plan
    label_values: Mapping[str, Sequence[int]]
    channel_indices: Sequence[int] | None
    cache: ArrayCache
    annotated: Mapping[str, Collection[str]] = field(default_factory=dict)

    def training(self, case: Case) -> TrainingCase:
        """The slices of a case that training sees (the plan's `training_slices`)."""

        def make() -> dict[str, NDArray[Any]]:
            image, _, classes = self._prepare(case)
            image, classes = training_slices(image, classes, self.plan.training_slices)
            return {"image": image, "classes": classes}

        arrays = self.cache.get(self._key(case, "training"), make)
        known = self._known(case)
        return TrainingCase(case.name, arrays["image"], arrays["classes"], known)

    def whole(self, case: Case) -> WholeCase:
        """The whole scan of a case, as prediction sees it."""

        def make() -> dict[str, NDArray[Any]]:
            image, own_classes, classes = self._prepare(case)
            return {"image": image, "classes": classes, "own_classes": own_classes}

        arrays = self.cache.get(self._key(case, "whole"), make)
        maps = arrays["classes"], arrays["own_classes"]
        return WholeCase(case.name, arrays["image"], *maps, self._known(case))

    def _prepare(self, case: Case) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[Any]]:
        volume, label = load_case(case)
        if label is None:
            msg = f"case {case.name}: has no label file; leave it out of training and validation"
            raise DatasetError(msg)
        slices = ScanSlices(volume, self.plan, self.channel_indices)
        own_classes = class_map(label, self.plan, self._values(case))
        image = slices.read(0, slices.n_slices)
        return image, own_classes, resize_classes(own_classes, self.plan.slice_shape)

    def _known(self, case: Case) -> tuple[bool, ...] | None:
        known = self.annotated.get(case.name, self.plan.labels)
        flags = tuple(label in known for label in self.plan.labels)
        return None if all(flags) else flags

    def _values(self, case: Case) -> dict[str, Sequence[int]]:
        """The merging rule without what the case does not annotate."""
        known = self.annotated.get(case.name, self.plan.labels)
        return {name: v if name in known else () for name, v in self.label_values.items()}

    def _key(self, case: Case, kind: str) -> str:
        values = self._values(case)
        return cache_key(case_sha256(case), self.plan, values, self.channel_indices, kind)
