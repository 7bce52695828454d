"""Cases turned into arrays for training and validation, through the cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    """Network slices of one case: image (slice, channel, row, column), classes (slice, ...)."""

    name: str
    image: NDArray[np.float32]
    classes: NDArray[Any]

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
    """

    plan: Plan
    label_values: Mapping[str, Sequence[int]]
    channel_indices: Sequence[int] | None
    cache: ArrayCache

    def training(self, case: Case) -> TrainingCase:
        """The slices of a case that training sees (the plan's `training_slices`)."""

        def make() -> dict[str, NDArray[Any]]:
            image, _, classes = self._prepare(case)
            image, classes = training_slices(image, classes, self.plan.training_slices)
            return {"image": image, "classes": classes}

        arrays = self.cache.get(self._key(case, "training"), make)
        return TrainingCase(case.name, arrays["image"], arrays["classes"])

    def whole(self, case: Case) -> WholeCase:
        """The whole scan of a case, as prediction sees it."""

        def make() -> dict[str, NDArray[Any]]:
            image, own_classes, classes = self._prepare(case)
            return {"image": image, "classes": classes, "own_classes": own_classes}

        arrays = self.cache.get(self._key(case, "whole"), make)
        return WholeCase(case.name, arrays["image"], arrays["classes"], arrays["own_classes"])

    def _prepare(self, case: Case) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[Any]]:
        volume, label = load_case(case)
        if label is None:
            msg = f"case {case.name}: has no label file; leave it out of training and validation"
            raise DatasetError(msg)
        slices = ScanSlices(volume, self.plan, self.channel_indices)
        own_classes = class_map(label, self.plan, self.label_values)
        image = slices.read(0, slices.n_slices)
        return image, own_classes, resize_classes(own_classes, self.plan.slice_shape)

    def _key(self, case: Case, kind: str) -> str:
        return cache_key(
            case_sha256(case), self.plan, self.label_values, self.channel_indices, kind
        )
