"""Whole slices for 2-D networks: from all of a case, or from around its labels (paper 000)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from leanseg.frames import Place, PreparedCase
from leanseg.frames.interpolation import axis_taps, resize_planes
from leanseg.training.seeds import Role, derive_seed
from leanseg.volumes import nearest_indices


class LabelCentredSlices(BaseModel):
    """Training sees only a range of slices around the label (paper 000, public loader).

    The range is [first labelled - margin, last labelled + margin), floored at the volume's
    ends, resized along the slice axis to `count` slices (None keeps the range's own slices).
    A case without any labelled slice keeps them all: it teaches background.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    margin: int = Field(default=16, ge=0)
    count: int | None = Field(default=48, ge=1)


@dataclass(frozen=True)
class TrainingSlices:
    """The slices of one case that training sees.

    Attributes:
        case: The case.
        rule: Which of its slices; None for all.
        neighbours: Slices on either side that are further channels (2.5-D).
    """

    case: PreparedCase
    rule: LabelCentredSlices | None = None
    neighbours: int = 0

    @cached_property
    def _range(self) -> tuple[int, int]:
        n_slices = len(self.case.classes)
        labelled = np.flatnonzero(self.case.labelled_slices)
        if self.rule is None or labelled.size == 0:
            return 0, n_slices
        start = max(int(labelled[0]) - self.rule.margin, 0)
        stop = min(int(labelled[-1]) + self.rule.margin, n_slices)
        return start, max(stop, start + 1)

    @property
    def n_slices(self) -> int:
        """How many there are."""
        start, stop = self._range
        count = None if self.rule is None else self.rule.count
        return stop - start if count is None else count

    @cached_property
    def _nearest(self) -> NDArray[np.intp]:
        """For each of the slices, the one of the case whose classes it has."""
        start, stop = self._range
        return start + nearest_indices(stop - start, self.n_slices)

    @cached_property
    def foreground(self) -> NDArray[np.intp]:
        """Those that hold any label."""
        return np.flatnonzero(self.case.labelled_slices[self._nearest])

    def read(self, index: int) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """One of them.

        Args:
            index: Below `n_slices`.

        Returns:
            Image (channel, i, j), and classes (i, j).
        """
        start, stop = self._range
        source, k = self.case.source, int(self._nearest[index])
        classes = self.case.targets(self.case.classes[k])
        taps = axis_taps(stop - start, self.n_slices)
        if taps is None or self.neighbours:
            image = source.read(Place.slice(source.shape, k, self.neighbours))
            # Neighbours one after another, each with all its channels.
            return np.concatenate(np.moveaxis(image, 3, 0)), classes
        part, first, last = taps.part(index, index + 1)
        return resize_planes(source.planes(start + first, start + last), part)[0], classes


@dataclass(frozen=True)
class Sample:
    """One training slice and the seed of its augmentation."""

    case: int
    slice_index: int
    augmentation_seed: int


class SliceSampler:
    """Draws the samples of an epoch.

    Every case is visited equally often; a share of the samples comes from slices with a label,
    the others from all slices that training sees.

    Args:
        cases: The training cases.
        seed: The run's seed.
        foreground_fraction: Share of samples from slices with a label.
    """

    def __init__(
        self, cases: Sequence[TrainingSlices], seed: int, foreground_fraction: float
    ) -> None:
        self._cases = list(cases)
        self._seed = seed
        self._fraction = foreground_fraction

    @property
    def n_slices(self) -> int:
        """Number of slices of all cases."""
        return sum(case.n_slices for case in self._cases)

    def epoch(self, epoch: int, n_samples: int) -> list[Sample]:
        """The samples of an epoch, in order."""
        n_cases = len(self._cases)
        rounds = -(-n_samples // n_cases)
        order = np.concatenate(
            [
                np.random.default_rng(
                    derive_seed(self._seed, Role.CASE_ORDER, epoch, number)
                ).permutation(n_cases)
                for number in range(rounds)
            ]
        )
        return [self._sample(epoch, index, int(order[index])) for index in range(n_samples)]

    def _sample(self, epoch: int, index: int, number: int) -> Sample:
        generator = np.random.default_rng(derive_seed(self._seed, Role.SLICE, epoch, index))
        case = self._cases[number]
        if generator.random() < self._fraction and case.foreground.size:
            chosen = int(generator.choice(case.foreground))
        else:
            chosen = int(generator.integers(case.n_slices))
        return Sample(number, chosen, derive_seed(self._seed, Role.AUGMENTATION, epoch, index))
