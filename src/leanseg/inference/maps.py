"""What networks say of a scan, kept as the input of another network: a stacked CNN (paper 002).

A map has a network's probabilities in the frame of the stage that combines them, in 16 bits. From
a network that sees the scan in just that frame they come as they are; from others resampled
linearly, once, from the network's own frame. What a network sees of the scan may be a box around
something: outside it all is background, and its probabilities come from the scan's resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.frames.interpolation import axis_taps, resize_planes
from leanseg.frames.source import planned_frame
from leanseg.frames.view import Scan
from leanseg.inference.decide import resize_probabilities
from leanseg.inference.stage_run import Floats, StageRun
from leanseg.plan import Stage
from leanseg.volumes import Box, reoriented_view

_BYTES = 2
# (k, output, i, j) in some frame.
Maps = NDArray[np.float16]


def no_maps(scan: Scan, stage: Stage, n_channels: int) -> Maps:
    """Room for the maps of a scan that a stage combines: (k, channel, i, j) of its frame."""
    _, (i, j, k) = planned_frame(scan, stage)
    return np.zeros((k, n_channels, i, j), dtype=np.float16)


def fill_background(maps: Maps, stage: Stage) -> None:
    """The maps (k, output, i, j) of a network that found nothing and is sure of it."""
    maps[...] = 0
    if not stage.is_sigmoid:
        maps[:, 0] = 1


@dataclass
class Keeper:
    """Keeps what a stage says while it runs, and brings it to the frame of another.

    Args:
        stage: Which runs.
        maps: (k, output, i, j) in the other stage's frame, filled by `finish`.
        orientation: Of that frame.
        box: What the running stage sees, in voxels of the scan turned to its orientation.
        whole: (i, j, k) of all of the scan in this orientation.
    """

    stage: Stage
    maps: Maps
    orientation: str
    box: Box
    whole: Sequence[int]

    def attach(self, run: StageRun) -> None:
        """Have a run fill what is kept."""
        if self.box.shape != tuple(self.whole):
            self._own = np.zeros(_shape(self.whole, self.stage.n_outputs), dtype=np.float16)
            fill_background(self._own, self.stage)
            # (i, j, k, output), of the box alone.
            run.probabilities = self._own.transpose(2, 3, 0, 1)[self.box.slices]
            return
        shape = _shape(run.source.shape, self.stage.n_outputs)
        alike = self.orientation == self.stage.frame.orientation and shape == self.maps.shape
        self._own = self.maps if alike else np.empty(shape, dtype=np.float16)
        run.on_planes = self._add

    def _add(self, start: int, planes: Floats) -> None:
        self._own[start : start + len(planes)] = planes

    def finish(self) -> None:
        """Fill the maps."""
        if self._own is not self.maps:
            own = reoriented_view(
                self._own.transpose(2, 3, 0, 1), self.stage.frame.orientation, self.orientation
            )
            resample(own.transpose(2, 3, 0, 1), self.maps)


def resample(own: NDArray[Any], out: Maps) -> None:
    """Maps (k, output, i, j) of any strides on another grid of the same extent, plane by plane.

    Linear, with half-pixel centres, and smoothing where an axis shrinks (`leanseg.volumes.resize`).
    """
    taps = axis_taps(len(own), len(out))
    for k, target in enumerate(out):
        part, first, last = (None, k, k + 1) if taps is None else taps.part(k, k + 1)
        planes = np.ascontiguousarray(own[first:last], dtype=np.float32)
        resize_probabilities(resize_planes(planes, part)[0], np.moveaxis(target, 0, 2))


def _shape(frame: Sequence[int], n_outputs: int) -> tuple[int, int, int, int]:
    return frame[2], n_outputs, frame[0], frame[1]


def kept_bytes(stage: Stage, frame: Sequence[int], scan: Scan, combiner: Stage) -> int:
    """What keeping a stage's map takes until it is in the combiner's frame, beside that."""
    whole, seen = planned_frame(scan, combiner)
    if stage.frame.region != "scan":
        frame = whole
    elif combiner.frame.orientation == stage.frame.orientation and tuple(frame) == seen:
        return 0
    planes = 4 * stage.n_outputs * (frame[0] * frame[1] + seen[0] * seen[1])
    # Of the planes that shrink to one, twice as many are read.
    return _BYTES * stage.n_outputs * int(np.prod(frame)) + planes * (1 + 2 * frame[2] // seen[2])


def maps_bytes(scan: Scan, stage: Stage, n_channels: int) -> int:
    """What the maps that a stage combines take."""
    return _BYTES * n_channels * int(np.prod(planned_frame(scan, stage)[1]))
