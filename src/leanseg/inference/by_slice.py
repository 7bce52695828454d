"""2-D networks: every slice is prepared, seen and decided on its own.

Threads take slices through all steps, so that no step waits for another and every core is busy. At
no time does a map of class probabilities of the whole scan exist: a few slices are decided in the
scan's resolution, and forgotten. The result does not depend on the number of threads.
"""

from __future__ import annotations

import math
import time
from threading import BoundedSemaphore, Lock

import numpy as np

from leanseg.frames.source import Constant, Portion
from leanseg.inference.blend import GaussianBlend
from leanseg.inference.layer import Layer
from leanseg.inference.stage_run import Floats, Settings, StageRun, StageSeconds
from leanseg.inference.threads import run_in_threads
from leanseg.inference.tiles import cut_tile
from leanseg.plan import Stage

# Floating point maps of one slice in the scan's resolution that a thread holds: five while it is
# prepared and at most as many again while it is decided, measured with these dimensions.
_MAPS_PER_THREAD = 8
_INTERLEAVED_SLICES = 16


def run_by_slice(run: StageRun) -> None:
    """Take all slices of a stage's region through its network."""
    slices = _Slices(run)
    began = time.perf_counter()
    threads = run.settings.threads_for(run.engine.lanes)
    portions = run.source.portions(slices.batch_size)
    run_in_threads(threads, portions, slices.take, run.target.shape[2], run.on_progress)
    run.seconds.share_out(time.perf_counter() - began, slices.spent)
    run.slices_skipped, run.is_empty = slices.n_known, slices.is_empty


class _Slices:
    """One scan on its way; `take` runs in several threads."""

    def __init__(self, run: StageRun) -> None:
        self._run = run
        self.batch_size = run.settings.batch_size or run.engine.batch_size
        i, j, _ = run.source.shape
        patch = run.stage.patch
        self._layer = Layer.over((i, j, 1), run.stage.patch_shape, patch.overlap, patch.tiling)
        # More threads in the network than it has lanes would only hold memory.
        self._lanes = BoundedSemaphore(max(1, run.engine.lanes))
        self._lock = Lock()
        self._answers: dict[tuple[float, ...], Floats] = {}
        self._has_content = False
        self.spent = StageSeconds()
        self.n_known = 0

    @property
    def is_empty(self) -> bool:
        """Whether all slices, now that they are done, held one and the same value."""
        return not self._has_content and len(self._answers) <= 1

    def take(self, portion: Portion) -> int:
        """Slices from scan to label map; how many there were."""
        with self.spent.during("preprocess"):
            inputs, constants = self._inputs(portion)
        full = [n for n, value in enumerate(constants) if value is None]
        if full:
            self._has_content = True
        for first in range(0, len(full), self.batch_size):
            chosen = full[first : first + self.batch_size]
            whole = len(chosen) == len(inputs)
            probabilities = self._network(inputs if whole else inputs[chosen])
            self._decide([portion.start + n for n in chosen], probabilities)
        for n, value in enumerate(constants):
            if value is not None:
                self._decide([portion.start + n], self._answer(value, inputs[n : n + 1]))
        return portion.n_slices

    def _inputs(self, portion: Portion) -> tuple[Floats, list[Constant]]:
        """(slice, channel, i, j), with neighbouring slices as further channels."""
        around, source = self._run.stage.patch.neighbours, self._run.source
        if not around:
            return source.prepare(portion)
        last = source.shape[2] - 1
        stop = portion.start + portion.n_slices
        first = max(0, portion.start - around)
        planes = source.planes(first, min(stop + around, last + 1))
        shifts = range(-around, around + 1)
        wanted = [np.arange(portion.start + n, stop + n).clip(0, last) - first for n in shifts]
        inputs = np.concatenate([planes[indices] for indices in wanted], axis=1)
        return inputs, [None] * portion.n_slices

    def _answer(self, value: tuple[float, ...], inputs: Floats) -> Floats:
        """For a slice of a single value: the network is asked only about the first of a kind."""
        with self._lock:
            known = self._answers.get(value)
            self.n_known += known is not None
            if known is None:
                known = self._answers[value] = self._network(inputs)
        return known

    def _decide(self, places: list[int], probabilities: Floats) -> None:
        with self.spent.during("restore"):
            for k, one in zip(places, probabilities, strict=True):
                self._run.decide(k, one)
        if self._run.on_planes is not None:
            with self._lock:
                # Slices of a single value, which are not among them, leave gaps.
                for k, one in zip(places, probabilities, strict=True):
                    self._run.tell(k, one[None])

    def _network(self, inputs: Floats) -> Floats:
        """Probabilities (slice, output, i, j) of the frame."""
        with self._lanes, self.spent.during("network"):
            if self._layer.is_single:
                return self._run.engine.run(inputs)
            return np.concatenate([self._in_patches(one) for one in inputs])

    def _in_patches(self, one: Floats) -> Floats:
        """A slice (channel, i, j) that is larger or smaller than a patch: (1, output, i, j)."""
        layer, stage = self._layer, self._run.stage
        tiling = stage.patch.tiling
        blend = GaussianBlend(layer.shape, layer.patch, stage.n_outputs, 1, tiling=tiling)
        places = list(layer.in_plane())
        for first in range(0, len(places), self.batch_size):
            chosen = places[first : first + self.batch_size]
            patches = np.empty((len(chosen), len(one), *layer.patch), dtype=np.float32)
            for (i, j), patch in zip(chosen, patches, strict=True):
                cut_tile(one[None], (i, j, 0), 1, patch)
            found = self._run.engine.run(patches[..., 0])
            for (i, j), probabilities in zip(chosen, found, strict=True):
                blend.add(probabilities[..., None], (i, j, 0))
        blend.finish(1)
        return blend.planes(0, 1)


def memory_bytes(
    stage: Stage,
    frame_shape: tuple[int, ...],
    region_shape: tuple[int, ...],
    n_channels: int,
    itemsize: int,
    settings: Settings,
    *,
    lanes: int,
    batch_size: int,
    interleaves: bool,
) -> int:
    """What taking slices through a network holds besides scan, label map and engine.

    Args:
        stage: The stage.
        frame_shape: (i, j, k) of its frame.
        region_shape: (i, j, k) of the region in the scan's resolution.
        n_channels: Of the scan.
        itemsize: Bytes of one of its voxels.
        settings: Threads.
        lanes: Of the engine.
        batch_size: Slices that the engine is given together.
        interleaves: Whether slices of the scan interleave in memory.
    """
    own, seen = math.prod(region_shape[:2]), math.prod(frame_shape[:2])
    per_slice = stage.in_channels(n_channels) + 2 * stage.n_outputs
    maps = 4 * _MAPS_PER_THREAD * max(own, seen)
    inputs = 4 * batch_size * per_slice * seen
    together = _INTERLEAVED_SLICES * (own * itemsize + 4 * n_channels * seen) if interleaves else 0
    return settings.threads_for(lanes) * (maps + inputs + together)
