"""The predictor: from a scan to a label map in the scan's own grid, slice by slice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from threading import BoundedSemaphore, Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.inference.decide import decide_slice
from leanseg.inference.engines import Engine
from leanseg.inference.lanes import run_in_threads
from leanseg.preprocessing import HounsfieldWindow, Plan, ScanSlices, SliceSource
from leanseg.preprocessing.region_input import plan_spacing_mm
from leanseg.volumes import Volume, reoriented_view

NO_BODY = "there is no body in this scan, so all of it is background; check that it is CT in HU"


@dataclass
class StageSeconds:
    """Where the time of a prediction went, in seconds per stage.

    Stages run side by side in several threads. The wall-clock time of that part is divided among
    them in proportion to the time that threads spent in each, so that the stages add up to it.
    """

    preprocess: float = 0.0
    network: float = 0.0
    restore: float = 0.0
    postprocess: float = 0.0


@dataclass(frozen=True)
class Prediction:
    """A label map in the scan's own grid, and what it took.

    Attributes:
        labels: Classes of the plan (0 background, n + 1 for `plan.labels[n]`), uint8 or uint16,
            with the scan's shape and affine.
        seconds: Time per stage.
        slices_skipped: Slices for which the network did not run: those that hold a single value
            (their answer is known from the first such slice), and those outside the body where
            the plan says so.
        notes: What the user should know about this scan.
    """

    labels: Volume
    seconds: StageSeconds = field(default_factory=StageSeconds)
    slices_skipped: int = 0
    notes: tuple[str, ...] = ()


class Predictor:
    """Streams a scan through preprocessing, an engine and back.

    Threads take slices through all three stages, so that no stage waits for another and every
    core is busy. At no time does a map of class probabilities of the whole scan exist: a few
    slices are decided in the scan's resolution, and forgotten. The result does not depend on the
    number of threads.

    Args:
        engine: Runs the network.
        plan: The plan that the network was trained with.
        slices_per_call: How many slices are given to the engine at once; None leaves it to the
            engine. Bounds the memory.
        threads: How many threads take slices; None: one for every lane of the engine, and at
            least two, so that one prepares and restores while the other has the network.
    """

    def __init__(
        self,
        engine: Engine,
        plan: Plan,
        slices_per_call: int | None = None,
        threads: int | None = None,
    ) -> None:
        self.engine = engine
        self.plan = plan
        self.slices_per_call = slices_per_call or engine.batch_size
        self.threads = threads or max(2, engine.lanes)
        self.postprocessing_bytes: int | None = None

    def probabilities(
        self, source: SliceSource, seconds: StageSeconds | None = None
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Class probabilities of a case, batch by batch, in network resolution.

        Args:
            source: A scan seen through the plan, or a cached case.
            seconds: Times are added to it.

        Yields:
            The first slice's index and probabilities (slice, output, row, column).
        """
        seconds = seconds or StageSeconds()
        for start in range(0, source.n_slices, self.slices_per_call):
            started = time.perf_counter()
            batch = source.read(start, min(start + self.slices_per_call, source.n_slices))
            prepared = time.perf_counter()
            result = self.engine.run(batch)
            seconds.preprocess += prepared - started
            seconds.network += time.perf_counter() - prepared
            yield start, result

    def decide(
        self, probabilities: NDArray[np.float32], in_plane_shape: tuple[int, int]
    ) -> NDArray[Any]:
        """Classes in the scan's own in-plane resolution, as `decide_slice` takes them.

        Args:
            probabilities: (slice, output, row, column) as an engine gives them.
            in_plane_shape: Rows and columns of the scan in plan orientation.

        Returns:
            Classes (slice, row, column), uint8 or, past 255 labels, uint16.
        """
        classes = np.zeros((len(probabilities), *in_plane_shape), dtype=_class_dtype(self.plan))
        for one, out in zip(probabilities, classes, strict=True):
            decide_slice(one, out)
        return classes

    def predict(
        self,
        volume: Volume,
        channel_indices: Sequence[int] | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Prediction:
        """Segment a scan.

        Args:
            volume: The scan, in any orientation and of any size.
            channel_indices: Which of its channels are the plan's, in order.
            on_progress: Called in this thread with (slices done, slices in all), ever more done.

        Returns:
            The label map on exactly the scan's grid.

        Raises:
            DatasetError: If the scan does not have the plan's channels.
        """
        started = time.perf_counter()
        source = ScanSlices(volume, self.plan, channel_indices)
        labels = np.zeros(volume.shape, dtype=_class_dtype(self.plan), order="F")
        target = reoriented_view(labels, volume.orientation, self.plan.orientation)
        seconds = StageSeconds(preprocess=time.perf_counter() - started)
        stream = _Stream(self, source, target)
        tasks = stream.tasks(self._wanted(source, volume))
        n_wanted = sum(stop - start for start, stop in tasks)
        began = time.perf_counter()
        run_in_threads(self.threads, tasks, stream.take, n_wanted, on_progress)
        _share_out(time.perf_counter() - began, stream.spent, seconds)
        n_skipped = source.n_slices - n_wanted + stream.n_known
        is_empty = stream.is_empty
        result = volume.with_array(labels)
        # Where nobody else holds the scan, its memory is free for what follows.
        del volume, source, stream
        if isinstance(self.plan.window, HounsfieldWindow) and is_empty:
            labels[...] = 0
            return Prediction(result, seconds, n_skipped, (NO_BODY,))
        if self.plan.postprocessing.largest_component:
            from leanseg.inference.postprocessing import postprocess

            began = time.perf_counter()
            postprocess(np.moveaxis(target, 2, 0), self.plan, self.postprocessing_bytes)
            seconds.postprocess = time.perf_counter() - began
        return Prediction(result, seconds, n_skipped)

    def _wanted(self, source: ScanSlices, volume: Volume) -> NDArray[np.bool_]:
        """Slices that the network is asked about."""
        if not self.plan.skip_outside_body:
            return np.ones(source.n_slices, dtype=bool)
        from leanseg.inference.body import body_slices

        return body_slices(source.channels[0], plan_spacing_mm(volume, self.plan))


class _Stream:
    """One scan on its way through the stages; its methods run in several threads."""

    def __init__(self, predictor: Predictor, source: ScanSlices, target: NDArray[Any]) -> None:
        self._engine = predictor.engine
        self._per_call = predictor.slices_per_call
        self._source = source
        self._target = target
        # More threads in the network than it has lanes would only hold memory.
        self._lanes = BoundedSemaphore(max(1, predictor.engine.lanes))
        self._lock = Lock()
        self._empty: dict[tuple[float, ...], NDArray[Any]] = {}
        self.spent = StageSeconds()
        self.n_known = 0
        self._has_content = False

    @property
    def is_empty(self) -> bool:
        """Whether all slices, now that they are done, held one and the same value."""
        return not self._has_content and len(self._empty) <= 1

    def tasks(self, wanted: NDArray[np.bool_]) -> list[tuple[int, int]]:
        """The wanted slices in portions [start, stop) that one thread takes at a time."""
        # Whole calls of the engine, whatever the source's preference.
        portion = -(-self._source.slices_together // self._per_call) * self._per_call
        ends = np.flatnonzero(np.diff(wanted.astype(np.int8), prepend=0, append=0)).tolist()
        runs = zip(ends[::2], ends[1::2], strict=True)
        return [
            (k, min(k + portion, stop)) for start, stop in runs for k in range(start, stop, portion)
        ]

    def take(self, task: tuple[int, int]) -> int:
        """Slices [start, stop) from scan to label map; how many there were."""
        start, stop = task
        began = time.perf_counter()
        batch, values = self._source.prepare(start, stop)
        self._spend("preprocess", began)
        full = [n for n, value in enumerate(values) if value is None]
        if full:
            self._has_content = True
        for first in range(0, len(full), self._per_call):
            chosen = full[first : first + self._per_call]
            whole = len(chosen) == len(batch)
            probabilities = self._run(batch if whole else batch[chosen])
            began = time.perf_counter()
            for one, n in zip(probabilities, chosen, strict=True):
                decide_slice(one, self._target[:, :, start + n])
            self._spend("restore", began)
        for n, value in enumerate(values):
            if value is not None:
                self._fill(start + n, value, batch[n : n + 1])
        return stop - start

    def _fill(self, k: int, value: tuple[float, ...], batch: NDArray[np.float32]) -> None:
        """A slice of a single value: the network is asked only about the first of a kind."""
        with self._lock:
            known = self._empty.get(value)
            self.n_known += known is not None
            if known is None:
                known = np.zeros(self._target.shape[:2], dtype=self._target.dtype)
                decide_slice(self._run(batch)[0], known)
                self._empty[value] = known
        if known.any():
            self._target[:, :, k] = known

    def _run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        with self._lanes:
            began = time.perf_counter()
            result = self._engine.run(batch)
            self._spend("network", began)
        return result

    def _spend(self, stage: str, began: float) -> None:
        # Lost where two threads add at the very same moment: a figure, not a result.
        setattr(self.spent, stage, getattr(self.spent, stage) + time.perf_counter() - began)


def _share_out(elapsed: float, spent: StageSeconds, seconds: StageSeconds) -> None:
    in_all = spent.preprocess + spent.network + spent.restore
    if in_all > 0:
        seconds.preprocess += elapsed * spent.preprocess / in_all
        seconds.network += elapsed * spent.network / in_all
        seconds.restore += elapsed * spent.restore / in_all


def _class_dtype(plan: Plan) -> type[np.uint8 | np.uint16]:
    return np.uint8 if len(plan.labels) <= 255 else np.uint16
