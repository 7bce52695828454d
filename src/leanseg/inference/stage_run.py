"""One stage on one scan: what every way through it shares."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.frames.source import Source
from leanseg.inference.decide import decide_slice, resize_probabilities
from leanseg.inference.engines import Engine
from leanseg.inference.engines.activation import sigmoid, softmax
from leanseg.plan import Stage

Floats = NDArray[np.float32]
Progress = Callable[[int, int], None]


@dataclass
class StageSeconds:
    """Where the time of a prediction went, in seconds per step.

    Steps run side by side in several threads. The wall-clock time of that part is divided among
    them in proportion to the time that threads spent in each, so that they add up to it.
    """

    preprocess: float = 0.0
    network: float = 0.0
    restore: float = 0.0
    postprocess: float = 0.0

    @contextmanager
    def during(self, step: str) -> Iterator[None]:
        """Add the time that a block takes to a step."""
        began = time.perf_counter()
        yield
        # Lost where two threads add at the very same moment: a figure, not a result.
        setattr(self, step, getattr(self, step) + time.perf_counter() - began)

    def share_out(self, elapsed: float, spent: StageSeconds) -> None:
        """Divide a stretch of wall-clock time in proportion to what threads spent."""
        in_all = sum(vars(spent).values())
        for step, seconds in vars(spent).items() if in_all else ():
            setattr(self, step, getattr(self, step) + elapsed * seconds / in_all)


@dataclass(frozen=True)
class Settings:
    """How a scan is predicted; none of it changes the result.

    Attributes:
        threads: Threads that take slices; None: one for every lane of the engine, and at least
            two, so that one prepares and restores while the other has the network.
        batch_size: Slices given to the engine together; None leaves it to the engine.
        slices_per_block: Slices of the scan that are restored together from a 3-D network.
    """

    threads: int | None = None
    batch_size: int | None = None
    slices_per_block: int = 8

    def threads_for(self, lanes: int) -> int:
        """How many threads there will be."""
        return self.threads or max(2, lanes)


@dataclass
class StageRun:
    """A stage at work on a scan.

    Attributes:
        stage: The stage.
        engine: Runs its network.
        source: The scan in its frame.
        target: Label map (i, j, k) of the source's region in the scan's own resolution, in the
            frame's orientation; zeros, filled where `decides`.
        settings: How it is done.
        on_progress: Called with (done, in all), ever more done.
        on_planes: Called with the first plane and probabilities (plane, output, i, j) in the
            frame, in any order.
        probabilities: (i, j, k, output) on the same grid as `target`, filled; None if not wanted.
        seconds: Added to.
        slices_skipped: Slices for which the network did not run, since they hold a single value;
            counted where slices run one by one.
        is_empty: Whether the whole region holds one and the same value; told there too.
        decides: Whether a label map is wanted.
        scale: What is done to probabilities before they are kept; None for nothing.
    """

    stage: Stage
    engine: Engine
    source: Source
    target: NDArray[Any]
    settings: Settings = Settings()
    on_progress: Progress | None = None
    on_planes: Callable[[int, Floats], None] | None = None
    probabilities: NDArray[Any] | None = None
    seconds: StageSeconds = field(default_factory=StageSeconds)
    slices_skipped: int = 0
    is_empty: bool = False
    decides: bool = True
    scale: Callable[[Floats], Floats] | None = None

    def decide(self, k: int, probabilities: Floats) -> None:
        """Fill slice k of the target from averages (output, i, j) in the frame in-plane."""
        stage, (i_kind, j_kind, _) = self.stage, self.source.restoring
        is_logits, threshold = stage.averages == "logits", stage.threshold
        if self.decides:
            regions = stage.outer_first if stage.is_regions else None
            if is_logits:
                threshold = math.log(threshold / (1 - threshold))
            decide_slice(
                probabilities,
                self.target[:, :, k],
                regions,
                threshold,
                kinds=(i_kind, j_kind),
                is_logits=is_logits,
            )
        if self.probabilities is not None:
            own = self.probabilities[:, :, k]
            needs = self.scale is not None or is_logits
            finish = self._finish if needs else None
            resize_probabilities(probabilities, own, (i_kind, j_kind), finish)

    def tell(self, start: int, planes: Floats) -> None:
        """Planes (plane, output, i, j) of the frame, from `start` on, are known."""
        if self.on_planes is not None:
            is_logits = self.stage.averages == "logits"
            self.on_planes(start, self._probabilities(planes, axis=1) if is_logits else planes)

    def _finish(self, maps: Floats) -> Floats:
        """What is kept of averages (i, j, output)."""
        if self.stage.averages == "logits":
            maps = self._probabilities(maps, axis=2)
        return maps if self.scale is None else self.scale(maps)

    def _probabilities(self, logits: Floats, axis: int) -> Floats:
        logits = logits.copy()
        return sigmoid(logits) if self.stage.is_sigmoid else softmax(logits, axis)
