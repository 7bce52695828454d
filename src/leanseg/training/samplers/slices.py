"""Whole slices for 2-D networks: all of a case, those around its labels, or those that hold any."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from leanseg.errors import RecipeError
from leanseg.frames import Place, PreparedCase
from leanseg.frames.interpolation import axis_taps, resize_planes
from leanseg.plan import Stage
from leanseg.registry import Count, Whole, did_you_mean
from leanseg.training.samplers.base import Sample, generator, in_batches, visits
from leanseg.training.seeds import Role, derive_seed
from leanseg.volumes import nearest_indices


class Slices:
    """Whole slices, each pass over them in a new random order.

    A pass takes every slice once, as the public code of paper 000 does. With
    `foreground_fraction` slices are drawn instead, with replacement: every case equally often,
    that share of the samples from slices with a label and the others from all.

    Args:
        cases: The training cases.
        stage: Sees whole slices.
        seed: The run's seed.
        margin: Training sees slices from this many before the first labelled one to as many
            behind the last, this one left out, within the scan (paper 000, public loader); None
            for all slices. A case without any labelled slice keeps them all: it teaches
            background.
        count: That range is resized along the slice axis to this many; None keeps its own.
        foreground_fraction: Share of samples from slices with a label; None draws none.
        foreground: Which label: "any", or one that lies "inside" another, so that the lesions in
            an organ are seen; of a case that has none of these, any.
        labelled: True leaves slices without any label out, a list those without any of its
            labels (paper 003, section 4.1). A region counts with what lies inside it. A case
            without such slices takes no part.

    Raises:
        RecipeError: If the stage does not see whole slices, or does not have a label.
    """

    def __init__(
        self,
        cases: Sequence[PreparedCase],
        stage: Stage,
        seed: int,
        *,
        margin: Whole | None = None,
        count: Count | None = None,
        foreground_fraction: Annotated[float, Field(ge=0, le=1)] | None = None,
        foreground: Literal["any", "inside"] = "any",
        labelled: bool | Annotated[Sequence[str], Field(min_length=1)] = False,
    ) -> None:
        if stage.patch.shape != ("whole", "whole", 1):
            raise RecipeError(
                f"sampler 'slices' takes whole slices, but 'plan.patch.shape' is "
                f"{list(stage.patch.shape)}; make it [whole, whole, 1], or choose another sampler"
            )
        self._neighbours = stage.patch.neighbours
        wanted, inner = _values(stage, labelled), None
        if foreground == "inside":
            if not stage.inside:
                raise RecipeError(
                    "sampler 'slices': option 'foreground' is 'inside', but no label lies inside "
                    f"another ({', '.join(stage.labels)}); make it 'any'"
                )
            inner = sorted({value for name in stage.inside for value in stage.label_values[name]})
        found = [_CaseSlices(case, margin, count, wanted, inner) for case in cases]
        self._cases = [case for case in found if case.n_slices]
        self._seed, self._fraction = seed, foreground_fraction
        self._wanted = "any label" if isinstance(labelled, bool) else " or ".join(labelled)

    @property
    def n_samples(self) -> int:
        """Number of slices of all cases."""
        return sum(case.n_slices for case in self._cases)

    def epoch(self, epoch: int, n_batches: int, batch_size: int) -> list[list[Sample]]:
        """The batches of an epoch, in order.

        Raises:
            RecipeError: If `labelled` leaves no slice of any case.
        """
        if not self._cases:
            raise RecipeError(
                f"sampler 'slices': no training case has a slice with {self._wanted}; correct "
                "'data.labels' or the label maps, or leave out option 'labelled'"
            )
        n = n_batches * batch_size
        places = self._in_turn(epoch, n) if self._fraction is None else self._drawn(epoch, n)
        return in_batches(
            [
                Sample(case, (0, 0, k), derive_seed(self._seed, Role.AUGMENTATION, epoch, number))
                for number, (case, k) in enumerate(places)
            ],
            batch_size,
        )

    def _in_turn(self, epoch: int, n_samples: int) -> list[tuple[int, int]]:
        """The epoch's part of an endless row of passes, each in an order of its own."""
        first, n = epoch * n_samples, self.n_samples
        ends = np.cumsum([case.n_slices for case in self._cases])
        passes = range(first // n, -(-(first + n_samples) // n))
        orders = [generator(self._seed, Role.SLICE, number).permutation(n) for number in passes]
        chosen = np.concatenate(orders)[first - passes[0] * n :][:n_samples]
        cases = np.searchsorted(ends, chosen, side="right")
        return [
            (int(case), int(index - (ends[case - 1] if case else 0)))
            for case, index in zip(cases, chosen, strict=True)
        ]

    def _drawn(self, epoch: int, n_samples: int) -> list[tuple[int, int]]:
        found = []
        for index, number in enumerate(visits(self._seed, epoch, len(self._cases), n_samples)):
            rng, case = generator(self._seed, Role.SLICE, epoch, index), self._cases[number]
            if rng.random() < (self._fraction or 0) and case.foreground.size:
                found.append((number, int(rng.choice(case.foreground))))
            else:
                found.append((number, int(rng.integers(case.n_slices))))
        return found

    def read(self, sample: Sample) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """Image (channel, i, j) and classes (i, j) of a slice."""
        return self._cases[sample.case].read(sample.start[2], self._neighbours)

    def annotated(self, sample: Sample) -> tuple[bool, ...] | None:
        """For each label whether the sample's case annotates it; None for all."""
        return self._cases[sample.case].case.annotated


class _CaseSlices:
    """The slices of one case that training sees."""

    def __init__(
        self,
        case: PreparedCase,
        margin: int | None,
        count: int | None,
        wanted: Sequence[int] | None,
        inner: Sequence[int] | None,
    ) -> None:
        self.case = case
        self._start, self._stop = _range(case, margin)
        self._count = count or self._stop - self._start
        # For each slice of the range, the one of the case whose classes it has.
        self._nearest = self._start + nearest_indices(self._stop - self._start, self._count)
        self._kept, self._inner = np.arange(self._count), inner
        if wanted is not None:
            self._kept = np.flatnonzero(case.slices_with(wanted)[self._nearest])
        self.n_slices = len(self._kept)

    @cached_property
    def foreground(self) -> NDArray[np.intp]:
        """Those that hold a label; where there are any, one that lies inside another."""
        seen = self._nearest[self._kept]
        found = self.case.labelled_slices[seen]
        if self._inner is not None and (inner := self.case.slices_with(self._inner)[seen]).any():
            found = inner
        return np.flatnonzero(found)

    def read(self, number: int, neighbours: int) -> tuple[NDArray[np.float32], NDArray[Any]]:
        index = int(self._kept[number])
        source, k = self.case.source, int(self._nearest[index])
        classes = self.case.targets(self.case.classes[k])
        taps = axis_taps(self._stop - self._start, self._count)
        if taps is None or neighbours:
            image = source.read(Place.slice(source.shape, k, neighbours))
            # Neighbours one after another, each with all its channels.
            return np.concatenate(np.moveaxis(image, 3, 0)), classes
        part, first, last = taps.part(index, index + 1)
        planes = source.planes(self._start + first, self._start + last)
        return resize_planes(planes, part)[0], classes


def _values(stage: Stage, labelled: bool | Sequence[str]) -> list[int] | None:
    """The classes of which a slice has to hold one; None where it may hold none.

    Raises:
        RecipeError: If the stage does not have a label.
    """
    if labelled is False:
        return None
    members = stage.label_values
    names = stage.labels if labelled is True else labelled
    for name in names:
        if name not in members:
            raise RecipeError(
                f"sampler 'slices': option 'labelled' names {name!r}, which is none of the labels "
                f"({', '.join(members)}){did_you_mean([name], members)}"
            )
    return sorted({value for name in names for value in members[name]})


def _range(case: PreparedCase, margin: int | None) -> tuple[int, int]:
    n_slices = len(case.classes)
    labelled = np.flatnonzero(case.labelled_slices) if margin is not None else np.array([])
    if margin is None or labelled.size == 0:
        return 0, n_slices
    start = max(int(labelled[0]) - margin, 0)
    return start, max(min(int(labelled[-1]) + margin, n_slices), start + 1)
