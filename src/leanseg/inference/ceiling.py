"""A loaded model under a memory ceiling: every scan is reckoned before it is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from leanseg.errors import LeansegError
from leanseg.inference.budget import Budget, Settings, settings_for
from leanseg.volumes import Volume
from leanseg.volumes.promise import Promise, promised

if TYPE_CHECKING:
    from leanseg.datasets.case import Case
    from leanseg.inference.engines import Engine
    from leanseg.inference.model import Model

# A scan of at least so many slices for each lane has had all of them at work.
_SLICES_PER_LANE = 4
_DICOM_OPTIONS = ("series", "phase", "modality", "fill_missing")


class Ceiling:
    """Sets a model's predictor up for each scan so that the process stays under a budget.

    Args:
        budget: The ceiling.
        model: The loaded model.
        remake: Makes its engine anew with so many lanes.
    """

    def __init__(self, budget: Budget, model: Model, remake: Callable[[int], Engine]) -> None:
        self.budget = budget
        self._model = model
        self._remake = remake
        self._lanes_ready = 0
        self._prefetching = False
        # The shape of a scan that was reckoned before it was read.
        self._fitted: tuple[int, ...] = ()

    def may_prefetch(self, cases: Sequence[Case], form: str) -> bool:
        """Whether any two of some scans may be in memory together, and written as `form`."""
        promises = []
        for case in cases:
            try:
                promises.append(promise_of(case))
            except LeansegError:
                # It fails when its turn comes.
                continue
        if len(promises) < 2:
            return False
        largest = max(promises, key=lambda promise: promise.n_bytes + promise.reading_bytes)
        try:
            settings = self._settings(largest, largest=largest, form=form)
        except LeansegError:
            return False
        self._prefetching = settings.prefetch
        if self._prefetching:
            self._apply(settings)
        return self._prefetching

    def fit(self, case: Case, form: str | None = None) -> None:
        """Make ready for a scan that has not been read yet.

        Args:
            case: The scan.
            form: How its label map will be written; None if it is not.

        Raises:
            MemoryCeilingError: If it cannot be predicted under the ceiling.
            LeansegError: If its header cannot be read.
        """
        if not self._prefetching:
            promise = promise_of(case)
            self._fit(promise, form=form)
            self._fitted = promise.volume.array.shape

    def fit_read(self, scan: Volume) -> None:
        """Make ready for a scan that is in memory.

        Raises:
            MemoryCeilingError: If it cannot be predicted under the ceiling.
        """
        fitted, self._fitted = self._fitted == scan.array.shape, ()
        if not (self._prefetching or fitted):
            empty = np.broadcast_to(np.zeros((), scan.array.dtype), scan.array.shape)
            promise = Promise(replace(scan, array=empty), 0)
            self._fit(promise, is_read=True)

    def done(self, n_slices: int) -> None:
        """A scan of so many slices has been predicted: the network's memory is now held."""
        lanes, plan = self._model.predictor.engine.lanes, self._model.plan
        of_slices = plan.tile_shape is None and plan.volume_shape is None
        if lanes == 1 or (of_slices and n_slices >= _SLICES_PER_LANE * lanes):
            self._lanes_ready = lanes

    def _fit(self, promise: Promise, *, is_read: bool = False, form: str | None = None) -> None:
        if self._apply(self._settings(promise, is_read=is_read, form=form)):
            # An engine made anew may leave traces of the one before: what is held counts.
            self._apply(self._settings(promise, is_read=is_read, form=form))

    def _settings(
        self,
        promise: Promise,
        *,
        largest: Promise | None = None,
        is_read: bool = False,
        form: str | None = None,
    ) -> Settings:
        return settings_for(
            self._model.file,
            self._model.predictor.engine,
            promise,
            self.budget,
            largest=largest,
            is_read=is_read,
            lanes_ready=self._lanes_ready,
            form=form,
        )

    def _apply(self, settings: Settings) -> bool:
        """Set the predictor up; whether its engine had to be made anew for that."""
        predictor = self._model.predictor
        remade = settings.lanes != predictor.engine.lanes
        if remade:
            self._model.replace_engine(partial(self._remake, settings.lanes))
            self._lanes_ready = 0
        for name in ("threads", "slices_per_call", "slices_per_block", "postprocessing_bytes"):
            if hasattr(predictor, name):
                setattr(predictor, name, getattr(settings, name))
        return remade


def promise_of(case: Case) -> Promise:
    """What the headers of a case's images promise.

    Raises:
        LeansegError: If one cannot be read.
    """
    found = []
    for source in case.images:
        options = {name: source.options[name] for name in _DICOM_OPTIONS if name in source.options}
        found.append(promised(source.path, **options))
    first, *others = found
    if not others:
        return first
    # Channels in files of their own are there twice while they are put together.
    array = first.volume.array
    shape = (*array.shape[:3], len(found))
    stacked = np.broadcast_to(np.zeros((), array.dtype), shape)
    reading = sum(promise.n_bytes for promise in found) + max(p.reading_bytes for p in found)
    return Promise(replace(first.volume, array=stacked), reading)
