"""The predictor: from a scan to a label map in the scan's own grid, a few slices at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.inference.engines import Engine
from leanseg.inference.postprocessing import postprocess
from leanseg.preprocessing import Plan, ScanSlices, SliceSource
from leanseg.volumes import Volume, reoriented_view, resize_slices


@dataclass
class StageSeconds:
    """Where the time of a prediction went, in seconds per stage."""

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
    """

    labels: Volume
    seconds: StageSeconds = field(default_factory=StageSeconds)


class Predictor:
    """Streams a scan through preprocessing, an engine and back.

    At no time does a map of class probabilities of the whole scan exist: a batch of slices is
    resized to the scan's resolution, decided, and forgotten.

    Args:
        engine: Runs the network.
        plan: The plan that the network was trained with.
        slices_per_batch: How many slices are in flight together; bounds the memory.
    """

    def __init__(self, engine: Engine, plan: Plan, slices_per_batch: int = 4) -> None:
        self.engine = engine
        self.plan = plan
        self.slices_per_batch = slices_per_batch

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
        for start in range(0, source.n_slices, self.slices_per_batch):
            started = time.perf_counter()
            batch = source.read(start, min(start + self.slices_per_batch, source.n_slices))
            prepared = time.perf_counter()
            result = self.engine.run(batch)
            seconds.preprocess += prepared - started
            seconds.network += time.perf_counter() - prepared
            yield start, result

    def decide(
        self, probabilities: NDArray[np.float32], in_plane_shape: tuple[int, int]
    ) -> NDArray[Any]:
        """Classes in the scan's own in-plane resolution.

        Probabilities are resized and then compared, class by class, so that no more than two
        float maps of the batch are held in that resolution.

        Args:
            probabilities: (slice, output, row, column) as an engine gives them.
            in_plane_shape: Rows and columns of the scan in plan orientation.

        Returns:
            Classes (slice, row, column), uint8 or, past 255 labels, uint16.
        """
        dtype = np.uint8 if len(self.plan.labels) <= 255 else np.uint16
        if probabilities.shape[1] == 1:
            full = resize_slices(probabilities[:, 0], in_plane_shape)
            return (full > np.float32(0.5)).astype(dtype)
        best = resize_slices(probabilities[:, 0], in_plane_shape)
        classes = np.zeros(best.shape, dtype=dtype)
        for number in range(1, probabilities.shape[1]):
            full = resize_slices(probabilities[:, number], in_plane_shape)
            higher = full > best
            np.copyto(classes, dtype(number), where=higher)
            np.copyto(best, full, where=higher)
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
            on_progress: Called with (slices done, slices in all) after every batch.

        Returns:
            The label map on exactly the scan's grid.

        Raises:
            DatasetError: If the scan does not have the plan's channels.
        """
        seconds = StageSeconds()
        started = time.perf_counter()
        source = ScanSlices(volume, self.plan, channel_indices)
        seconds.preprocess += time.perf_counter() - started
        dtype = np.uint8 if len(self.plan.labels) <= 255 else np.uint16
        labels = np.zeros(volume.shape, dtype=dtype, order="F")
        target = reoriented_view(labels, volume.orientation, self.plan.orientation)
        for start, batch in self.probabilities(source, seconds):
            began = time.perf_counter()
            classes = self.decide(batch, source.in_plane_shape)
            stop = start + len(classes)
            target[:, :, start:stop] = np.moveaxis(classes, 0, 2)
            seconds.restore += time.perf_counter() - began
            if on_progress is not None:
                on_progress(stop, source.n_slices)
        began = time.perf_counter()
        postprocess(np.moveaxis(target, 2, 0), self.plan)
        seconds.postprocess = time.perf_counter() - began
        return Prediction(volume.with_array(labels), seconds)
