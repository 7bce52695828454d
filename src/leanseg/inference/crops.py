"""Two networks as one: the second sees each slice around what the first finds there (paper 003)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from leanseg.inference.engines import Engine
from leanseg.plan import Crop, Plan, Stage
from leanseg.volumes.windows import FOUND, Window, agree, window_around

Floats = NDArray[np.float32]


class CroppingEngine(Engine):
    """Runs a network on slices, and another on the box around what the first finds in each.

    Args:
        first: Gives one probability.
        second: Takes the slices' channels and that probability, at any size that is a multiple
            of the crop's; gives one probability.
        crop: How the box is found.
        keeps_first: Whether the first one's probability is an output of its own.

    Attributes:
        n_found: Slices in which the first found something.
    """

    def __init__(self, first: Engine, second: Engine, crop: Crop, *, keeps_first: bool) -> None:
        self._first, self._second, self._crop = first, second, crop
        self._keeps_first = keeps_first
        self.name, self.precision, self.device = first.name, first.precision, first.device
        self.lanes, self.batch_size = min(first.lanes, second.lanes), first.batch_size
        self.shape, self.passes = first.shape, first.passes + second.passes
        self.n_found = 0
        self._lock = Lock()

    def run(self, batch: Floats) -> Floats:
        """Probabilities (batch, output, i, j) of a batch of slices; 0 outside the boxes."""
        found = self._first.run(batch)
        fine = np.zeros_like(found)
        n_found = 0
        for image, coarse, answer in zip(batch, found, fine, strict=True):
            n_found += self._look(image, coarse, answer)
        with self._lock:
            self.n_found += n_found
        return np.concatenate((found, fine), axis=1) if self._keeps_first else fine

    def _look(
        self, image: Floats, coarse: Floats, answer: Floats, box: Window | None = None
    ) -> bool:
        """Fill (1, i, j) with what the second says; whether there was anything to look at.

        It looks within the box, if there is one, else around what was found.
        """
        seen = coarse
        for number in range(self._crop.rounds):
            window = box or window_of(seen[0] >= FOUND, self._crop)
            if window is None:
                return number > 0
            before = answer[0] >= FOUND
            crop = np.concatenate((image[:, *window], seen[:, *window]))
            answer[...] = 0
            answer[0][window] = self._second.run(np.ascontiguousarray(crop[None]))[0, 0]
            if number and agree(before, answer[0] >= FOUND):
                break
            seen = answer.copy()
        return True

    def memory_bytes(self) -> int:
        """Of both, and the maps of a slice for every lane."""
        pixels = math.prod(self.shape[2:])
        maps = 4 * self.lanes * pixels * (self.shape[1] + 4 * self.shape[0] + 3)
        return self._first.memory_bytes() + self._second.memory_bytes() + maps

    def release(self) -> None:
        """Give back the working memory of both."""
        self._first.release()
        self._second.release()


def engine_of(stage: Stage, plan: Plan, engines: Mapping[str, Engine]) -> Engine:
    """What runs a stage: its network's engine, with that of the stage it crops around.

    Args:
        stage: The stage.
        plan: Its plan.
        engines: By the stages' names.
    """
    own, crop = engines[stage.name], stage.patch.crop
    if crop is None:
        return own
    kept = plan.network_outputs(stage) < stage.n_outputs
    return CroppingEngine(engines[crop.stage], own, crop, keeps_first=kept)


def window_of(mask: NDArray[np.bool_], crop: Crop) -> Window | None:
    """The box around a mask (i, j); None where it is empty."""
    return window_around(mask, [(crop.margin, crop.margin)] * 2, crop.multiple)
