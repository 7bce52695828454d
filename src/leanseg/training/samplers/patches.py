"""Patches in 2-D and 3-D, a share of them around foreground."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from leanseg.frames import Place, PreparedCase
from leanseg.plan import Stage
from leanseg.registry import Count
from leanseg.training.samplers.base import Sample, generator, repeated, visits
from leanseg.training.seeds import Role

# Enough places of a class to choose among; a list of all takes the memory of a scan.
_MOST_PLACES = 10_000


class Patches:
    """Patches of the stage's shape, drawn with replacement, every case equally often.

    A share of them is centred on a voxel of a class, each class that the case has equally
    often and each of its voxels, so that small ones are seen as often as large ones (nnU-Net's
    rule, with a third). The others lie anywhere within the frame. Where the frame is smaller than a
    patch it lies in the middle, and zeros are around it, as in prediction.

    Args:
        cases: The training cases.
        stage: Its patch and frame.
        seed: The run's seed.
        foreground_fraction: Share of the samples that are centred on foreground.
        repeats: As `Volumes`, of the same patches.
    """

    def __init__(
        self,
        cases: Sequence[PreparedCase],
        stage: Stage,
        seed: int,
        *,
        foreground_fraction: Annotated[float, Field(ge=0, le=1)] = 1 / 3,
        repeats: Count = 1,
    ) -> None:
        self._cases, self._stage, self._seed = list(cases), stage, seed
        self._fraction, self._repeats = foreground_fraction, repeats
        self._foreground: dict[int, list[NDArray[np.intp]]] = {}

    @property
    def n_samples(self) -> int:
        """About as many patches as cover all frames without overlap, as often as repeated."""
        patch = self._stage.patch_shape
        return self._repeats * sum(
            int(np.prod([-(-n // p) for n, p in zip(case.source.shape, patch, strict=True)]))
            for case in self._cases
        )

    def epoch(self, epoch: int, n_batches: int, batch_size: int) -> list[list[Sample]]:
        """The batches of an epoch, in order."""
        n_places = -(-n_batches // self._repeats) * batch_size
        places = [
            (case, self._start(case, generator(self._seed, Role.SLICE, epoch, number)))
            for number, case in enumerate(visits(self._seed, epoch, len(self._cases), n_places))
        ]
        return repeated(places, n_batches, self._repeats, batch_size, self._seed, epoch)

    def _start(self, number: int, rng: np.random.Generator) -> tuple[int, int, int]:
        patch, shape = self._stage.patch_shape, self._cases[number].source.shape
        foreground = self._places(number) if rng.random() < self._fraction else []
        if foreground:
            centre = rng.choice(foreground[rng.integers(len(foreground))])
            wanted = [int(c) - p // 2 for c, p in zip(centre, patch, strict=True)]
        else:
            bounds = zip(shape, patch, strict=True)
            wanted = [int(rng.integers(max(n - p, 0) + 1)) for n, p in bounds]
        i, j, k = (
            (n - p) // 2 if n < p else min(max(start, 0), n - p)
            for start, n, p in zip(wanted, shape, patch, strict=True)
        )
        return i, j, k

    def _places(self, number: int) -> list[NDArray[np.intp]]:
        """Voxels (n, 3) of each class of a case."""
        if number not in self._foreground:
            rng = generator(self._seed, Role.FOREGROUND, number)
            classes = self._cases[number].classes
            found = []
            for value in range(1, len(self._stage.labels) + 1):
                flat = np.flatnonzero(classes == value)
                if flat.size > _MOST_PLACES:
                    flat = rng.choice(flat, _MOST_PLACES, replace=False)
                if flat.size:
                    k, i, j = np.unravel_index(flat, classes.shape)
                    found.append(np.stack([i, j, k], axis=1))
            self._foreground[number] = found
        return self._foreground[number]

    def read(self, sample: Sample) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """Image (channel, *spatial) and classes (*spatial) of a patch."""
        return read_patch(self._cases[sample.case], self._stage, sample.start)

    def annotated(self, sample: Sample) -> tuple[bool, ...] | None:
        """For each label whether the sample's case annotates it; None for all."""
        return self._cases[sample.case].annotated


def read_patch(
    case: PreparedCase, stage: Stage, start: tuple[int, int, int]
) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Image (channel, *spatial) and classes (*spatial) of a patch; outside the frame both are 0."""
    shape, source = stage.patch_shape, case.source
    place = Place.box(start, shape)
    around = stage.patch.neighbours
    if around:
        along = np.arange(start[2] - around, start[2] + around + 1).clip(0, source.shape[2] - 1)
        place = Place(place.i, place.j, along)
    image = source.read(place)
    classes = np.zeros(shape, dtype=case.classes.dtype)
    ends = zip(start, shape, source.shape, strict=True)
    inside = [(max(a, 0), min(a + n, length)) for a, n, length in ends]
    target = tuple(slice(lo - a, hi - a) for (lo, hi), a in zip(inside, start, strict=True))
    i, j, k = (slice(lo, hi) for lo, hi in inside)
    classes[target] = case.classes[k, i, j].transpose(1, 2, 0)
    targets = case.targets(classes)
    if stage.is_3d:
        return image, targets
    # Neighbours one after another, each with all its channels.
    return np.concatenate(np.moveaxis(image, 3, 0)), targets[..., 0]
