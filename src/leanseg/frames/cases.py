"""Cases turned into arrays for training and monitoring, through the cache."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.datasets import Case, load_case
from leanseg.errors import DatasetError
from leanseg.frames.cache import ArrayCache, cache_key, case_sha256
from leanseg.frames.classes import class_map, ignored_class, resize_classes, where_any
from leanseg.frames.source import CachedSource, ScanSource
from leanseg.frames.view import ScanView
from leanseg.plan import Plan, Stage
from leanseg.volumes import Box, Volume

# As `leanseg.losses.base.IGNORED`, which is nothing without PyTorch.
_IGNORED = -1


@dataclass(frozen=True)
class PreparedCase:
    """A case in the frame of a stage, and its classes.

    Attributes:
        name: Of the case.
        source: The scan in the frame.
        classes: In the frame, (k, i, j).
        own_classes: In the scan's own resolution, (k, i, j) in the frame's orientation.
        annotated: For each of the stage's labels whether it is known here; None for all. Where it
            is not, its voxels are stored as background and mean nothing.
        ignored: Value of voxels in the class maps of which nothing is known; None where there is
            no such value.
    """

    name: str
    source: CachedSource
    classes: NDArray[Any]
    own_classes: NDArray[Any]
    annotated: tuple[bool, ...] | None = None
    ignored: int | None = None

    def foreground(self, classes: NDArray[Any]) -> NDArray[np.bool_]:
        """Which voxels of a part of a class map have a label; ignored ones have none."""
        labelled: NDArray[np.bool_] = classes > 0
        if self.ignored is not None:
            labelled &= classes != self.ignored
        return labelled

    def targets(self, classes: NDArray[Any]) -> NDArray[np.int32]:
        """A part of a class map as losses take it: int32, ignored voxels -1."""
        targets = classes.astype(np.int32)
        if self.ignored is not None:
            targets[classes == self.ignored] = _IGNORED
        return targets

    @cached_property
    def labelled_slices(self) -> NDArray[np.bool_]:
        """Which slices of `classes` hold a label, (k,)."""
        # Slice by slice: the classes lie on disk.
        return np.array([self.foreground(section).any() for section in self.classes], dtype=bool)

    def slices_with(self, values: Sequence[int]) -> NDArray[np.bool_]:
        """Which slices of `classes` hold one of some classes, (k,)."""
        return np.array([where_any(section, values).any() for section in self.classes], dtype=bool)


# What makes a case what a network sees of it.
Prepare = Callable[[Case], PreparedCase]


@dataclass(frozen=True)
class CasePreparer:
    """Prepares cases for one stage.

    Attributes:
        plan: What the network expects; its last stage is prepared.
        label_values: For each of its labels, the label files' values merged into it.
        channel_indices: Which channels of the files are the plan's; None for all.
        cache: Where prepared arrays are kept.
        annotated: For each case, the labels that it annotates; a case that is not in it annotates
            all.
        ignored_values: The label files' values that mark ignored voxels.
    """

    plan: Plan
    label_values: Mapping[str, Sequence[int]]
    channel_indices: Sequence[int] | None
    cache: ArrayCache
    annotated: Mapping[str, Collection[str]] = field(default_factory=dict)
    ignored_values: Sequence[int] = ()

    @property
    def _stage(self) -> Stage:
        return self.plan.final

    def prepare(self, case: Case) -> PreparedCase:
        """A case as training, monitoring and prediction see it.

        Raises:
            DatasetError: If it has no label file, or lacks the plan's channels.
        """
        known = self.annotated.get(case.name, self._stage.labels)
        # What the case does not annotate is not looked for.
        values = {name: v if name in known else () for name, v in self.label_values.items()}
        arrays = self.cache.get(self.key(case, values), lambda: self._make(case, values))
        own = arrays["own_classes"]
        region = Box((0, 0, 0), (*own.shape[1:], own.shape[0]))
        flags = tuple(label in known for label in self._stage.labels)
        return PreparedCase(
            case.name,
            CachedSource(arrays["image"], region, self.channels(case)),
            arrays["classes"],
            own,
            None if all(flags) else flags,
            ignored_class(self._stage.labels) if self.ignored_values else None,
        )

    def _make(self, case: Case, values: Mapping[str, Sequence[int]]) -> dict[str, NDArray[Any]]:
        volume, label = load_case(case)
        if label is None:
            msg = f"case {case.name}: has no label file; leave it out of the split"
            raise DatasetError(msg)
        image = self.image(case, volume)
        k, _, i, j = image.shape
        own = class_map(label, self._stage, values, self.ignored_values)
        return {"image": image, "classes": resize_classes(own, (i, j, k)), "own_classes": own}

    def key(self, case: Case, values: Mapping[str, Sequence[int]]) -> str:
        """Of the case's entry in the cache, with the values that are merged into each label."""
        return cache_key(
            case_sha256(case), self._stage, values, self.channel_indices, self.ignored_values
        )

    def image(self, case: Case, volume: Volume) -> NDArray[np.floating]:
        """The case's scan as network input: (k, channel, i, j) of the frame."""
        codes = self._stage.frame.orientation
        view = ScanView(volume, codes, self.plan.channels, self.channel_indices)
        source = ScanSource(view, self._stage)
        return source.planes(0, source.shape[2])

    def channels(self, case: Case) -> Sequence[int] | None:
        """Which of the image's channels are the network's, in order; None for all."""
        return None
