"""Prediction with 3-D networks that see a scan in overlapping tiles."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import DatasetError
from leanseg.inference.engines import Engine
from leanseg.inference.postprocessing import postprocess
from leanseg.inference.predictor import Prediction, StageSeconds
from leanseg.inference.restore import decide_slices
from leanseg.inference.tile_kernels import cut_tile
from leanseg.inference.tiles import RollingBlend, depth_needed, plane_ranges, tile_starts
from leanseg.preprocessing import Plan
from leanseg.preprocessing.region_input import plan_spacing_mm, scan_channels
from leanseg.preprocessing.resampled import ResampledScan, resampled_shape
from leanseg.volumes import Volume, axis_weights, reoriented_view

SLICES_PER_BLOCK = 8


@dataclass(frozen=True)
class Layout:
    """Where a scan's tiles lie, in voxels of the resampled scan.

    Attributes:
        scan_shape: (i, j, k) of the scan in the plan's orientation.
        shape: (i, j, k) of the resampled scan.
        starts: Along i, j and k; negative where the scan is smaller than a tile.
        depth: Planes along k whose probabilities are held at the same time.
    """

    scan_shape: tuple[int, int, int]
    shape: tuple[int, int, int]
    starts: tuple[tuple[int, ...], ...]
    depth: int

    @classmethod
    def of(
        cls, plan: Plan, scan_shape: tuple[int, int, int], spacing_mm: Sequence[float]
    ) -> Layout:
        """The layout for a scan of a shape and spacing (in the plan's orientation)."""
        assert plan.tile_shape is not None
        shape = resampled_shape(scan_shape, spacing_mm, plan.spacing_mm)
        starts = tuple(
            tile_starts(length, tile, plan.tile_overlap)
            for length, tile in zip(shape, plan.tile_shape, strict=True)
        )
        along = axis_weights(shape[2], scan_shape[2])
        depth = depth_needed(starts[2], plan.tile_shape[2], shape[2], along)
        return cls(scan_shape, shape, starts, depth)

    @property
    def n_tiles(self) -> int:
        """How many tiles there are."""
        return int(np.prod([len(starts) for starts in self.starts]))


def tile_memory_bytes(
    plan: Plan,
    scan_shape: tuple[int, int, int],
    spacing_mm: Sequence[float],
    *,
    lanes: int = 1,
    slices_per_block: int = SLICES_PER_BLOCK,
) -> int:
    """Memory that a prediction holds besides the scan, the label map and the engine.

    Args:
        plan: The plan, with a `tile_shape`.
        scan_shape: (i, j, k) in the plan's orientation.
        spacing_mm: Likewise.
        lanes: Of the engine.
        slices_per_block: Of the predictor.
    """
    assert plan.tile_shape is not None
    layout = Layout.of(plan, scan_shape, spacing_mm)
    in_plane = layout.shape[0] * layout.shape[1]
    own_in_plane = scan_shape[0] * scan_shape[1]
    tile, channels = int(np.prod(plan.tile_shape)), len(plan.channels)
    depth = min(plan.tile_shape[2], layout.shape[2])
    shrinking = -(-scan_shape[2] // layout.shape[2])
    # Slices of the scan that a block of planes lies between.
    own_slices = min(scan_shape[2], (slices_per_block + 2) * shrinking)
    numbers = {
        "probabilities": layout.depth * (plan.n_outputs + 1) * in_plane,
        "planes": depth * channels * in_plane,
        "tiles": (lanes + 2) * (channels + plan.n_outputs) * tile + tile,
        "reading": own_slices * (2 * own_in_plane + in_plane) + slices_per_block * in_plane,
        "restoring": slices_per_block * (plan.n_outputs * in_plane + 4 * own_in_plane),
    }
    return 4 * sum(numbers.values())


class TilePredictor:
    """From a scan to a label map through overlapping tiles, layer by layer along the third axis.

    The scan is resampled to the plan's spacing some planes at a time; tiles run in as many threads
    as the engine has lanes; their probabilities are blended in a window of planes as deep as a
    tile; planes that no later tile touches are brought to the scan's resolution a few slices at a
    time, decided and forgotten. So no more than that window ever exists in floating point numbers.

    Args:
        engine: Runs the network.
        plan: The plan, with a `tile_shape`.
        slices_per_block: Planes and slices that are resampled together; bounds the memory.
    """

    def __init__(
        self, engine: Engine, plan: Plan, slices_per_block: int = SLICES_PER_BLOCK
    ) -> None:
        if plan.tile_shape is None:
            msg = "the plan has no tile_shape, so its network does not see tiles"
            raise DatasetError(msg)
        self.engine = engine
        self.plan = plan
        self.slices_per_block = slices_per_block
        self.postprocessing_bytes: int | None = None
        self._tile = plan.tile_shape

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
            on_progress: Called with (tiles done, tiles in all) after every tile.

        Returns:
            The label map on exactly the scan's grid.

        Raises:
            DatasetError: If the scan does not have the plan's channels.
        """
        seconds = StageSeconds()
        began = time.perf_counter()
        channels = scan_channels(volume, self.plan, channel_indices)
        spacing = plan_spacing_mm(volume, self.plan)
        scan = ResampledScan(channels, self.plan, spacing)
        layout = Layout.of(self.plan, channels[0].shape, spacing)
        dtype = np.uint8 if len(self.plan.labels) <= 255 else np.uint16
        labels = np.zeros(volume.shape, dtype=dtype, order="F")
        target = reoriented_view(labels, volume.orientation, self.plan.orientation)
        restoring = _Restoring(self.plan, layout, target, self.slices_per_block)
        seconds.preprocess = time.perf_counter() - began
        for done, (start, last, probabilities) in enumerate(
            self._probabilities(scan, layout, seconds), start=1
        ):
            began = time.perf_counter()
            restoring.add(probabilities, start)
            if last:
                restoring.finish_layer(start[2])
            seconds.restore += time.perf_counter() - began
            if on_progress is not None:
                on_progress(done, layout.n_tiles)
        began = time.perf_counter()
        postprocess(np.moveaxis(target, 2, 0), self.plan, self.postprocessing_bytes)
        seconds.postprocess = time.perf_counter() - began
        return Prediction(volume.with_array(labels), seconds)

    def _probabilities(
        self, scan: ResampledScan, layout: Layout, seconds: StageSeconds
    ) -> Iterator[tuple[tuple[int, int, int], bool, NDArray[np.float32]]]:
        """Start of each tile, whether it is its layer's last, and its probabilities, in order.

        The order is fixed, so that the sums are the same with any number of threads.
        """
        lanes = max(1, self.engine.lanes)
        running: deque[tuple[tuple[int, int, int], bool, Future[NDArray[np.float32]]]] = deque()

        def next_result() -> tuple[tuple[int, int, int], bool, NDArray[np.float32]]:
            start, last, future = running.popleft()
            began = time.perf_counter()
            result = future.result()
            # The time that the network held up everything else.
            seconds.network += time.perf_counter() - began
            return start, last, result

        pool = ThreadPoolExecutor(lanes, "leanseg-tiles")
        try:
            for start, last, tile in self._tiles(scan, layout, seconds):
                running.append((start, last, pool.submit(self._run, tile)))
                # One more than there are lanes, so that none waits for the next tile.
                if len(running) > lanes:
                    yield next_result()
            while running:
                yield next_result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _run(self, tile: NDArray[np.float32]) -> NDArray[np.float32]:
        result: NDArray[np.float32] = self.engine.run(tile[None])[0]
        return result

    def _tiles(
        self, scan: ResampledScan, layout: Layout, seconds: StageSeconds
    ) -> Iterator[tuple[tuple[int, int, int], bool, NDArray[np.float32]]]:
        """Start of each tile, whether it is its layer's last, and its voxels (channel, i, j, k)."""
        rows, columns, n_planes = layout.shape
        n_channels, depth = len(self.plan.channels), min(self._tile[2], n_planes)
        window = np.empty((depth, n_channels, rows, columns), dtype=np.float32)
        read = 0
        for k in layout.starts[2]:
            began = time.perf_counter()
            stop = min(k + self._tile[2], n_planes)
            read = self._read(scan, window, max(read, k, 0), stop)
            seconds.preprocess += time.perf_counter() - began
            places = [(i, j, k) for i in layout.starts[0] for j in layout.starts[1]]
            for number, start in enumerate(places, start=1):
                began = time.perf_counter()
                tile = np.empty((n_channels, *self._tile), dtype=np.float32)
                cut_tile(window, *start, n_planes, tile)
                seconds.preprocess += time.perf_counter() - began
                yield start, number == len(places), tile

    def _read(self, scan: ResampledScan, window: NDArray[np.float32], start: int, stop: int) -> int:
        """Read planes into the ring, block by block; returns `stop`."""
        depth = len(window)
        while start < stop:
            # A block ends where the ring does.
            n = min(self.slices_per_block, stop - start, depth - start % depth)
            scan.read(start, window[start % depth : start % depth + n])
            start += n
        return stop


class _Restoring:
    """Blends tiles, and writes the classes of the scan's slices as soon as they are known."""

    def __init__(
        self, plan: Plan, layout: Layout, target: NDArray[Any], slices_per_block: int
    ) -> None:
        assert plan.tile_shape is not None
        self._blend = RollingBlend(layout.shape, plan.tile_shape, plan.n_outputs, layout.depth)
        self._layout = layout
        self._along = axis_weights(layout.shape[2], layout.scan_shape[2])
        self._first, self._last = plane_ranges(self._along)
        self._target = target
        self._slices_per_block = slices_per_block
        self._decided = 0

    def add(self, probabilities: NDArray[np.float32], start: tuple[int, int, int]) -> None:
        """Add a tile (output, i, j, k)."""
        self._blend.add(probabilities, start)

    def finish_layer(self, start: int) -> None:
        """All tiles that begin at `start` along the third axis have been added."""
        layers = self._layout.starts[2]
        number = layers.index(start) + 1
        stop = layers[number] if number < len(layers) else self._layout.shape[2]
        self._blend.finish(stop)
        ready = int(np.searchsorted(self._last, stop))
        while self._decided < ready:
            end = min(self._decided + self._slices_per_block, ready)
            block = slice(self._decided, end)
            first, last = int(self._first[block][0]), int(self._last[block][-1])
            means = self._blend.blended(first, self._along[block, first : last + 1])
            decide_slices(means, self._target[:, :, block])
            self._decided = end
