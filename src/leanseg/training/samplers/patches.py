"""Patches in 2-D and 3-D, a share of them around foreground."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field
from torch.nn import functional as F

from leanseg.errors import RecipeError
from leanseg.frames import Place, PreparedCase
from leanseg.plan import Stage
from leanseg.registry import Count, ThreeCounts
from leanseg.training.samplers.base import Sample, generator, repeated, visits
from leanseg.training.seeds import Role


def _pair(given: Any) -> Any:
    return tuple(given) if isinstance(given, list) else given


# Until which share of a phase, and the shape.
Coarse = Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ThreeCounts], BeforeValidator(_pair)]
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
        coarse: Patches are resampled to so many voxels at first, which makes steps quick: each
            shape until a share of the phase is behind, ascending.

    Raises:
        RecipeError: If such a shape is larger than the plan's, or the shares do not ascend.
    """

    def __init__(
        self,
        cases: Sequence[PreparedCase],
        stage: Stage,
        seed: int,
        *,
        foreground_fraction: Annotated[float, Field(ge=0, le=1)] = 1 / 3,
        repeats: Count = 1,
        coarse: Sequence[Coarse] = (),
    ) -> None:
        self._cases, self._stage, self._seed = list(cases), stage, seed
        self._fraction, self._repeats = foreground_fraction, repeats
        whole = stage.patch_shape
        ends = [0.0, *(end for end, _ in coarse)]
        if any(later <= earlier for earlier, later in pairwise(ends)) or any(
            n > most for _, shape in coarse for n, most in zip(shape, whole, strict=True)
        ):
            raise RecipeError(
                f"sampler 'patches': 'coarse' is {[list(each) for each in coarse]}; its shares "
                f"have to ascend, and its shapes to be within the plan's of {list(whole)}"
            )
        self._shapes = [*((end, (i, j, k)) for end, (i, j, k) in coarse), (math.inf, whole)]
        self._shape = whole
        self._foreground: dict[int, list[NDArray[np.intp]]] = {}

    def go_on(self, share: float) -> None:
        """Before an epoch: so much of the phase is behind, from 0 to 1."""
        self._shape = next(shape for end, shape in self._shapes if share < end)

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
        image, classes = read_patch(self._cases[sample.case], self._stage, sample.start)
        n_axes = classes.ndim
        if classes.shape == self._shape[:n_axes]:
            return image, classes
        return resampled(image, classes, self._shape[:n_axes])

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


def resampled(
    image: NDArray[np.float32], classes: NDArray[Any], shape: tuple[int, ...]
) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """A patch in fewer voxels: means of the image, the class at the middle of each voxel."""
    coarse = F.interpolate(torch.from_numpy(image)[None], shape, mode="area")[0].numpy()
    middles = [
        ((np.arange(n) + 0.5) * there / n).astype(np.intp)
        for n, there in zip(shape, classes.shape, strict=True)
    ]
    return coarse, classes[np.ix_(*middles)]
