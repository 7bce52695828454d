"""A random subset of a scan's slices (paper 002): every scan gives as many, however long it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from leanseg.augmentation.base import Bounds, Probability, augments
from leanseg.errors import RecipeError
from leanseg.frames import PreparedCase
from leanseg.plan import Stage
from leanseg.registry import Count
from leanseg.training.samplers.base import Sample, generator, in_batches, visits
from leanseg.training.seeds import Role, derive_seed

_COUNT = 16


@dataclass(frozen=True)
class _Slices:
    """Slices of a volume, each between two planes of the case.

    Attributes:
        below: One plane of each slice.
        above: The other one.
        weight: Of the other one, less than 1.
        told: How the volume was made, in words.
    """

    below: NDArray[np.intp]
    above: NDArray[np.intp]
    weight: NDArray[np.float32]
    told: str = ""

    @property
    def nearest(self) -> NDArray[np.intp]:
        """The plane whose classes each slice has.

        Between two planes this is what interpolating one-hot maps would decide as well.
        """
        return np.where(self.weight > 0.5, self.above, self.below)

    def take(self, index: NDArray[np.intp]) -> _Slices:
        """Some of them."""
        return _Slices(self.below[index], self.above[index], self.weight[index], self.told)


class SliceSubset:
    """A random subset of the slices of a case, drawn anew whenever the case is visited.

    A 3-D stage gets as many slices as its patch is deep, in their order along z. A 2-D stage gets
    `count` slices as that many samples in a row, in random order. Of a case with fewer slices all
    come, and some of them again. A pass visits each case once, in a new random order; so a pass
    of a 2-D stage has `count` samples a case. A patch smaller than the frame in-plane lies
    anywhere in it; around a smaller frame are zeros.

    Of the samples that are augmented, skipping and resampling come first, as in Algorithm 1: the
    subset is drawn from every k-th slice of the case, beginning at random, and from these
    resampled linearly to a random number; both are drawn for each sample. The samples are those
    that augmentations with the same `fraction` change (`ctia`, `mia`).

    Source: paper 002, "Preprocessing" (16 slices of those with a label) and "Image Augmentation"
    (slice skipping, slice interpolation). It gives no magnitudes; [1, 2, 3] and [0.8, 1.25] are
    our reading.

    Args:
        cases: The training cases.
        stage: Its patch and frame.
        seed: The run's seed.
        count: Slices of a visit, for a 2-D stage; None is 16.
        labelled_only: Leave out slices without a label. A case without any keeps all: it teaches
            background. So does one of whose label skipping leaves nothing: there it is not done.
        skip: Values of k, each as often as the others; [1] leaves no slice out.
        resample: Bounds of the factor by which the number of slices changes.
        fraction: Share of the samples for which `skip` and `resample` are drawn.

    Raises:
        RecipeError: A `count` or neighbours for a stage that cannot have them.
    """

    def __init__(
        self,
        cases: Sequence[PreparedCase],
        stage: Stage,
        seed: int,
        *,
        count: Count | None = None,
        labelled_only: bool = True,
        skip: Annotated[Sequence[Count], Field(min_length=1)] = (1,),
        resample: Bounds = (1.0, 1.0),
        fraction: Probability = 0.8,
    ) -> None:
        if stage.is_3d and count is not None:
            raise RecipeError(
                f"sampler 'slice-subset': option 'count' is {count}, but it is for 2-D networks; "
                f"leave it out, and 'plan.patch.shape' says how many ({stage.patch_shape[2]})"
            )
        if stage.patch.neighbours:
            raise RecipeError(
                "sampler 'slice-subset' takes slices without neighbours, but "
                f"'plan.patch.neighbours' is {stage.patch.neighbours}; make it 0, or choose "
                "another sampler"
            )
        self._cases, self._stage, self._seed = list(cases), stage, seed
        self._n_slices = stage.patch_shape[2] if stage.is_3d else count or _COUNT
        self._labelled_only = labelled_only
        self._skip, self._resample, self._fraction = skip, resample, fraction

    @property
    def _per_visit(self) -> int:
        return 1 if self._stage.is_3d else self._n_slices

    @property
    def n_samples(self) -> int:
        """Samples of one visit to each case."""
        return len(self._cases) * self._per_visit

    def epoch(self, epoch: int, n_batches: int, batch_size: int) -> list[list[Sample]]:
        """The batches of an epoch, in order.

        A sample's start is the seed of its visit and its number in it: what it shows is in `read`.
        """
        n, each = n_batches * batch_size, self._per_visit
        order = visits(self._seed, epoch, len(self._cases), -(-n // each))
        drawn = [derive_seed(self._seed, Role.SLICE, epoch, visit) for visit in range(len(order))]
        samples = [
            Sample(
                order[number // each],
                (drawn[number // each], number % each, 0),
                derive_seed(self._seed, Role.AUGMENTATION, epoch, number),
            )
            for number in range(n)
        ]
        return in_batches(samples, batch_size)

    def read(self, sample: Sample) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """Image (channel, *spatial) and classes (*spatial) of a sample."""
        case, (chosen, corner) = self._cases[sample.case], self._drawn(sample)
        planes, at = np.unique([chosen.below, chosen.above], return_inverse=True)
        read = np.concatenate([case.source.planes(plane, plane + 1) for plane in planes.tolist()])
        below, above = read[at.reshape(2, -1)]
        image = below + chosen.weight[:, None, None, None] * (above - below)
        classes = np.stack([case.classes[plane] for plane in chosen.nearest])
        shape = self._stage.patch_shape[:2]
        image = np.ascontiguousarray(_cut(image, corner, shape).transpose(1, 2, 3, 0))
        targets = case.targets(_cut(classes, corner, shape).transpose(1, 2, 0))
        if self._stage.is_3d:
            return image, np.ascontiguousarray(targets)
        return image[..., 0], targets[..., 0]

    def annotated(self, sample: Sample) -> tuple[bool, ...] | None:
        """For each label whether the sample's case annotates it; None for all."""
        return self._cases[sample.case].annotated

    def describe(self, sample: Sample) -> str:
        """As of `leanseg.training.samplers.base.Describes`."""
        return self._drawn(sample)[0].told

    def _drawn(self, sample: Sample) -> tuple[_Slices, tuple[int, int]]:
        """The slices of a sample, and where its patch begins in-plane."""
        case, (visit, number, _) = self._cases[sample.case], sample.start
        rng = np.random.default_rng(visit)
        in_plane = zip(case.source.shape[:2], self._stage.patch_shape[:2], strict=True)
        i, j = ((n - p) // 2 if n < p else int(rng.integers(n - p + 1)) for n, p in in_plane)
        n_planes = case.source.shape[2]
        every = np.arange(n_planes)
        volume = _Slices(every, every, np.zeros(n_planes, np.float32))
        usable = self._usable(case, volume)
        if augments(sample.seed, self._fraction):
            # From a stream of its own: where nothing varies all samples of a visit differ.
            varied = self._varied(n_planes, generator(sample.seed, Role.SLICE))
            found = self._usable(case, varied)
            if found.size:
                volume, usable = varied, found
        if not usable.size:
            usable = every
        missing = self._n_slices - len(usable)
        if missing > 0:
            index = np.append(usable, rng.choice(usable, missing))
        else:
            index = rng.choice(usable, self._n_slices, replace=False)
        if self._stage.is_3d:
            return volume.take(np.sort(index)), (i, j)
        return volume.take(rng.permutation(index)[number : number + 1]), (i, j)

    def _usable(self, case: PreparedCase, volume: _Slices) -> NDArray[np.intp]:
        """Which slices of a volume may be drawn; none where a label is wanted and not there."""
        if not self._labelled_only:
            return np.arange(len(volume.below))
        return np.flatnonzero(case.labelled_slices[volume.nearest])

    def _varied(self, n_planes: int, rng: np.random.Generator) -> _Slices:
        """A volume of every k-th plane, resampled."""
        step = int(rng.choice(np.asarray(self._skip)))
        kept = np.arange(rng.integers(min(step, n_planes)), n_planes, step)
        n = len(kept)
        n_out = max(round(n * rng.uniform(self._resample[0], self._resample[1])), 1)
        # Volumes end where they did, as everywhere that a volume is resized.
        places = ((np.arange(n_out) + 0.5) * n / n_out - 0.5).clip(0, n - 1)
        first = places.astype(np.intp)
        second = np.minimum(first + 1, n - 1)
        told = [f"1 in {step} slices"] if step > 1 else []
        told += [f"z × {n_out / n:.2f}"] if n_out != n else []
        weight = (places - first).astype(np.float32)
        return _Slices(kept[first], kept[second], weight, ", ".join(told))


def _cut(planes: NDArray[Any], corner: tuple[int, int], shape: tuple[int, ...]) -> NDArray[Any]:
    """A patch of planes (..., i, j), which may begin and end outside; there it is 0."""
    if planes.shape[-2:] == shape:
        return planes
    cut = np.zeros((*planes.shape[:-2], *shape), dtype=planes.dtype)
    ends = zip(corner, shape, planes.shape[-2:], strict=True)
    inside = [(max(a, 0), min(a + p, n), a) for a, p, n in ends]
    i, j = (slice(start - a, stop - a) for start, stop, a in inside)
    from_i, from_j = (slice(start, stop) for start, stop, _ in inside)
    cut[..., i, j] = planes[..., from_i, from_j]
    return cut
