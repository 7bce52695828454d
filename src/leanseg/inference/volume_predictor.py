"""Prediction with 3-D networks that see a whole region at once, resized to one shape."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import DatasetError
from leanseg.inference.engines import Engine
from leanseg.inference.postprocessing import postprocess
from leanseg.inference.predictor import Prediction, StageSeconds
from leanseg.inference.region import find_region
from leanseg.inference.restore import restore
from leanseg.preprocessing import Plan
from leanseg.preprocessing.region_input import (
    plan_spacing_mm,
    region_input,
    scan_channels,
)
from leanseg.volumes import Box, Volume, reoriented_view

SLICES_PER_BLOCK = 8


class VolumePredictor:
    """From a scan to a label map through one pass of a 3-D network.

    The probabilities are brought to the scan's resolution a few slices and one class at a time, so
    that no map of all classes in that resolution ever exists.

    Args:
        engine: Runs the network.
        plan: The plan, with a `volume_shape`.
        slices_per_block: Slices of the scan that a thread decides together; bounds the memory.
    """

    def __init__(
        self, engine: Engine, plan: Plan, slices_per_block: int = SLICES_PER_BLOCK
    ) -> None:
        if plan.volume_shape is None:
            msg = "the plan has no volume_shape, so it is not one of a 3-D network"
            raise DatasetError(msg)
        self.engine = engine
        self.plan = plan
        self.slices_per_block = slices_per_block
        self.postprocessing_bytes: int | None = None

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
            on_progress: Called with (slices done, slices in all) while the result is restored.

        Returns:
            The label map on exactly the scan's grid; background outside the region.

        Raises:
            DatasetError: If the scan does not have the plan's channels, or the region is not
                found in it.
        """
        seconds = StageSeconds()
        channels = scan_channels(volume, self.plan, channel_indices)
        spacing = plan_spacing_mm(volume, self.plan)
        scout = self.engine.scout()
        try:
            box = find_region(channels, spacing, self.plan, self._timed(scout, channels, seconds))
        except DatasetError as error:
            raise DatasetError(f"{volume.path or 'the scan'}: {error}") from error
        probabilities = self._timed(self.engine, channels, seconds)(box)
        dtype = np.uint8 if len(self.plan.labels) <= 255 else np.uint16
        labels = np.zeros(volume.shape, dtype=dtype, order="F")
        target = reoriented_view(labels, volume.orientation, self.plan.orientation)
        began = time.perf_counter()
        threads = max(2, self.engine.lanes)
        restore(probabilities, target[box.slices], self.slices_per_block, threads, on_progress)
        del probabilities
        restored = time.perf_counter()
        seconds.restore += restored - began
        postprocess(np.moveaxis(target, 2, 0), self.plan, self.postprocessing_bytes)
        seconds.postprocess = time.perf_counter() - restored
        return Prediction(volume.with_array(labels), seconds)

    def _timed(
        self, engine: Engine, channels: list[NDArray[Any]], seconds: StageSeconds
    ) -> Callable[[Box], NDArray[np.float32]]:
        def run(box: Box) -> NDArray[np.float32]:
            started = time.perf_counter()
            batch = region_input(channels, self.plan, box)
            prepared = time.perf_counter()
            result: NDArray[np.float32] = engine.run(batch)[0]
            seconds.preprocess += prepared - started
            seconds.network += time.perf_counter() - prepared
            return result

        return run
