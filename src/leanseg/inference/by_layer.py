"""3-D networks: patches layer by layer along the third axis, blended and restored as they come.

The scan is resampled to the frame some planes at a time; patches run in as many threads as the
engine has lanes; planes that no later patch touches are brought to the scan's resolution a few
slices at a time, decided and forgotten. So no more than a window of planes as deep as a patch ever
exists in floating point numbers. A patch that is the whole frame is a layer of one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np

from leanseg.frames.interpolation import axis_taps, resize_planes
from leanseg.frames.source import Source
from leanseg.inference.blend import GaussianBlend, SinglePatch
from leanseg.inference.layer import Layer, ready_slices
from leanseg.inference.stage_run import Floats, Settings, StageRun
from leanseg.inference.threads import run_in_threads
from leanseg.inference.tiles import cut_tile
from leanseg.plan import Stage

# Beyond its ends, to either side together (`leanseg.volumes.resize.cubic_weights`).
_SLICES_OF_A_SPLINE = 24
Start = tuple[int, int, int]
# Where it begins, whether it is the last of its layer, and its voxels or probabilities.
Patch = tuple[Start, bool, Floats]


def run_by_layer(run: StageRun) -> None:
    """Take a stage's region through its network, patch by patch.

    The order of the sums is fixed, so that they are the same with any number of threads.
    """
    patch = run.stage.patch
    layer = Layer.over(run.source.shape, run.stage.patch_shape, patch.overlap, patch.tiling)
    restoring = _Restoring(run, layer)
    patches = _patches(run, layer)
    found = _of_one(run, patches) if layer.is_single else probabilities_of(run, patches)
    for done, (start, is_last, probabilities) in enumerate(found, start=1):
        with run.seconds.during("restore"):
            restoring.blender.add(probabilities, start)
            if is_last:
                restoring.finish(layer.starts[2].index(start[2]))
        if run.on_progress is not None and not layer.is_single:
            run.on_progress(done, layer.n_patches)


def decide_again(run: StageRun, planes: Floats) -> None:
    """Decide a stage's region from what its network said before; the network does not run.

    Args:
        run: The stage.
        planes: Probabilities (plane, output, i, j) of its whole frame.
    """
    restoring = _Restoring(run, Layer.over(run.source.shape, run.source.shape, 0.0))
    restoring.blender.add(np.moveaxis(planes, 0, 3), (0, 0, 0))
    restoring.finish(0)


def whole_frame(source: Source) -> Floats:
    """A frame as one input of a network: (1, channel, i, j, k)."""
    planes = source.planes(0, source.shape[2])
    return np.ascontiguousarray(planes.transpose(1, 2, 3, 0))[None]


def probabilities_of(run: StageRun, patches: Iterator[Patch]) -> Iterator[Patch]:
    """Patches through the network, in as many threads as the engine has lanes; in their order.

    Args:
        run: The stage.
        patches: Where each begins, whether it is the last of those that are blended with it, and
            its voxels (channel, i, j, k).

    Yields:
        The same with its probabilities (output, i, j, k).
    """
    lanes = max(1, run.engine.lanes)
    running: deque[tuple[Start, bool, Future[Floats]]] = deque()

    def next_result() -> Patch:
        start, is_last, future = running.popleft()
        # The time that the network held up everything else.
        with run.seconds.during("network"):
            return start, is_last, future.result()

    pool = ThreadPoolExecutor(lanes, "leanseg-patches")
    try:
        for start, is_last, patch in patches:
            running.append((start, is_last, pool.submit(_through_network, run, patch)))
            del patch
            # One more than there are lanes, so that none waits for the next patch.
            if len(running) > lanes:
                yield next_result()
        while running:
            yield next_result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _of_one(run: StageRun, patches: Iterator[Patch]) -> Iterator[Patch]:
    """The same of a single patch, in this thread: what another's allocator kept would stay."""
    ((start, is_last, patch),) = patches
    with run.seconds.during("network"):
        result = _through_network(run, patch)
    del patch
    yield start, is_last, result


def _through_network(run: StageRun, patch: Floats) -> Floats:
    found: Floats = run.engine.run(patch[None] if run.stage.is_3d else patch[None, ..., 0])[0]
    return found if run.stage.is_3d else found[..., None]


def _patches(run: StageRun, layer: Layer) -> Iterator[Patch]:
    """Start of each patch, whether it is its layer's last, and its voxels (channel, i, j, k)."""
    if layer.is_single:
        with run.seconds.during("preprocess"):
            patch = whole_frame(run.source)[0]
        yield (0, 0, 0), True, patch
        return
    n_planes, depth = layer.shape[2], min(layer.patch[2], layer.shape[2])
    window: Floats | None = None
    read = 0
    for k in layer.starts[2]:
        stop = min(k + layer.patch[2], n_planes)
        with run.seconds.during("preprocess"):
            window = _read_planes(run, window, depth, max(read, k, 0), stop)
        read = stop
        places = [(i, j, k) for i, j in layer.in_plane()]
        for number, start in enumerate(places, start=1):
            with run.seconds.during("preprocess"):
                patch = np.empty((window.shape[1], *layer.patch), dtype=np.float32)
                cut_tile(window, start, n_planes, patch)
            yield start, number == len(places), patch


def _read_planes(run: StageRun, window: Floats | None, depth: int, start: int, stop: int) -> Floats:
    """The ring of planes with planes [start, stop) read into it, block by block."""
    while window is None or start < stop:
        # A block ends where the ring does.
        n = min(run.settings.slices_per_block, stop - start, depth - start % depth)
        if window is None:
            planes = run.source.planes(start, start + n)
            window = np.empty((depth, *planes.shape[1:]), dtype=np.float32)
            window[start % depth : start % depth + n] = planes
        else:
            run.source.planes(start, start + n, window[start % depth : start % depth + n])
        start += n
    return window


class _Restoring:
    """Blends patches, and writes the classes of the scan's slices as soon as they are known."""

    def __init__(self, run: StageRun, layer: Layer) -> None:
        self._run, self._layer = run, layer
        self._n_slices = int(run.target.shape[2])
        self._taps = axis_taps(layer.shape[2], self._n_slices, run.source.restoring[2])
        self.blender: GaussianBlend | SinglePatch = SinglePatch()
        # Between patches the engine's threads keep the cores busy.
        self._threads = run.settings.threads_for(run.engine.lanes)
        if not layer.is_single:
            depth = layer.depth_needed(self._taps)
            self.blender = GaussianBlend(
                layer.shape,
                layer.patch,
                run.stage.n_outputs,
                depth,
                tiling=run.stage.patch.tiling,
            )
            self._threads = 1
        self._finished = self._decided = 0

    def finish(self, number: int) -> None:
        """All patches of a layer, by its number along the third axis, have been added."""
        stop = self._layer.finished_before(number)
        self.blender.finish(stop)
        if self._run.on_planes is not None:
            # One at a time: each is a copy.
            for k in range(self._finished, stop):
                self._run.tell(k, self.blender.planes(k, k + 1))
        self._finished = stop
        ready = ready_slices(self._taps, stop)
        starts = range(self._decided, ready, self._run.settings.slices_per_block)
        self._decided = ready
        restore = partial(self._restore, ready)
        if self._threads > 1:
            run_in_threads(self._threads, starts, restore, self._n_slices, self._run.on_progress)
            return
        for start in starts:
            restore(start)

    def _restore(self, ready: int, start: int) -> int:
        """Decide a block of slices: planes are interpolated first, then each slice in-plane.

        With anti-aliasing where an axis shrinks (`leanseg.volumes.resize`).
        """
        stop = min(start + self._run.settings.slices_per_block, ready)
        first, last, taps = start, stop, None
        if self._taps is not None:
            taps, first, last = self._taps.part(start, stop)
        planes = resize_planes(self.blender.planes(first, last), taps)
        for k, one in enumerate(planes, start=start):
            self._run.decide(k, one)
        return stop - start


def memory_bytes(
    stage: Stage,
    frame_shape: tuple[int, int, int],
    region_shape: tuple[int, ...],
    n_channels: int,
    settings: Settings,
    *,
    lanes: int,
    passes: int = 1,
) -> tuple[int, int]:
    """What taking patches through a network holds besides scan, label map and engine.

    Args:
        stage: The stage.
        frame_shape: (i, j, k) of its frame.
        region_shape: (i, j, k) of the region in the scan's resolution.
        n_channels: Of the scan.
        settings: Slices per block.
        lanes: Of the engine.
        passes: Of the engine; of several, two results are there at the same time.

    Returns:
        While the network runs, and while its results are brought to the scan's resolution. The
        two come one after the other for a patch that is the whole frame, else together, and are
        then the same.
    """
    patching = stage.patch
    layer = Layer.over(frame_shape, stage.patch_shape, patching.overlap, patching.tiling)
    block, outputs = settings.slices_per_block, stage.n_outputs
    seen, own = frame_shape[0] * frame_shape[1], region_shape[0] * region_shape[1]
    threads = settings.threads_for(lanes) if layer.is_single else 1
    # Slices of the scan that a block of planes lies between.
    shrinking = -(-region_shape[2] // frame_shape[2])
    reach = (block + 2) * shrinking
    if stage.frame.resampling == "spline":
        # Those that a spline needs around a block, and the ones of the block before.
        reach = 2 * (block + _SLICES_OF_A_SPLINE) * shrinking
    slices = region_shape[2] if layer.is_single else min(region_shape[2], reach)
    reading = slices * n_channels * seen + 5 * own
    restoring = threads * restoring_values(stage, seen, own, settings)
    patch = int(np.prod(stage.patch_shape))
    if layer.is_single:
        inputs, results = n_channels * patch, min(passes, 2) * outputs * patch
        running = max(reading + 2 * inputs, inputs + results)
        return 4 * running, 4 * (outputs * patch + restoring)
    depth = layer.depth_needed(axis_taps(frame_shape[2], region_shape[2]))
    blend = GaussianBlend.memory_bytes(frame_shape, stage.patch_shape, outputs, depth)
    window = min(layer.patch[2], frame_shape[2]) * n_channels * seen
    patches = (lanes + 2) * (n_channels + outputs) * patch
    together = blend + 4 * (window + patches + reading + restoring)
    return together, together


def restoring_values(stage: Stage, seen: int, own: int, settings: Settings) -> int:
    """Numbers that one thread holds while it brings planes to the scan's resolution.

    Args:
        stage: The stage.
        seen: Voxels of a plane in the frame.
        own: In the scan's resolution.
        settings: Slices per block.
    """
    return 2 * (settings.slices_per_block + 2) * stage.n_outputs * seen + 6 * own
