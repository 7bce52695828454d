"""Whole volumes, for networks that see all of a frame at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import RecipeError
from leanseg.frames import PreparedCase
from leanseg.plan import Stage
from leanseg.registry import Count
from leanseg.training.samplers.base import Sample, repeated, visits
from leanseg.training.samplers.patches import read_patch


class Volumes:
    """One patch a case, in the middle of its frame, each pass in a new random order.

    Args:
        cases: The training cases.
        stage: Its patch is the whole frame, or at least as large as the frames are.
        seed: The run's seed.
        repeats: Batches that are made of the same cases, one after another: for tasks that
            draw something else each time, such as points.

    Raises:
        RecipeError: If a frame is larger than the patch.
    """

    def __init__(
        self, cases: Sequence[PreparedCase], stage: Stage, seed: int, *, repeats: Count = 1
    ) -> None:
        self._cases, self._stage, self._seed = list(cases), stage, seed
        self._repeats = repeats
        for case in self._cases:
            shape = case.source.shape
            if any(n > p for n, p in zip(shape, stage.patch_shape, strict=True)):
                raise RecipeError(
                    f"case {case.name}: its frame of {shape} voxels is larger than "
                    f"'plan.patch.shape' {stage.patch_shape}, and sampler 'volumes' takes whole "
                    "ones; enlarge the patch, or choose sampler 'patches'"
                )

    @property
    def n_samples(self) -> int:
        """Number of cases, as often as they are repeated."""
        return len(self._cases) * self._repeats

    def epoch(self, epoch: int, n_batches: int, batch_size: int) -> list[list[Sample]]:
        """The batches of an epoch, in order."""
        n_places = -(-n_batches // self._repeats) * batch_size
        order = visits(self._seed, epoch, len(self._cases), n_places)
        places = [(case, self._start(case)) for case in order]
        return repeated(places, n_batches, self._repeats, batch_size, self._seed, epoch)

    def _start(self, number: int) -> tuple[int, int, int]:
        shape, patch = self._cases[number].source.shape, self._stage.patch_shape
        i, j, k = ((n - p) // 2 for n, p in zip(shape, patch, strict=True))
        return i, j, k

    def read(self, sample: Sample) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """Image (channel, *spatial) and classes (*spatial) of a volume."""
        return read_patch(self._cases[sample.case], self._stage, sample.start)

    def annotated(self, sample: Sample) -> tuple[bool, ...] | None:
        """For each label whether the sample's case annotates it; None for all."""
        return self._cases[sample.case].annotated
