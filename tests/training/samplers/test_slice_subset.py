"""Random subsets of slices, by cases whose slices say their number."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import plans
from leanseg.augmentation import build_augmentation
from leanseg.augmentation.base import augments
from leanseg.errors import RecipeError
from leanseg.frames import CachedSource, PreparedCase
from leanseg.plan import Axis, Frame, Patch, Plan, Stage
from leanseg.training.loading import batches
from leanseg.training.samplers.base import Sample, generator
from leanseg.training.samplers.registry import build_sampler
from leanseg.training.samplers.slice_subset import SliceSubset
from leanseg.training.seeds import Role
from leanseg.volumes import Box

PLANE = (6, 5)
ALWAYS = {"fraction": 1.0}


def made(n_slices: int, labelled=(), channels: int = 1, plane=PLANE, name: str = "a"):
    """A case whose slices have their number in every voxel; the label's classes alternate."""
    image = np.zeros((n_slices, channels, *plane), np.float32)
    image += np.arange(n_slices, dtype=np.float32)[:, None, None, None]
    image += 1000 * np.arange(channels, dtype=np.float32)[:, None, None]
    classes = np.zeros((n_slices, *plane), np.uint8)
    for number in labelled:
        classes[number, 2:4, 1:3] = 1 + number % 2
    region = Box((0, 0, 0), (*plane, n_slices))
    return PreparedCase(name, CachedSource(image, region), classes, classes)


def stage(depth: int, in_plane=("whole", "whole"), axes=(*PLANE, None)) -> Stage:
    frame = Frame(axes=tuple(Axis(size=n) for n in axes))
    main = Stage(labels=("one", "two"), frame=frame, patch=Patch(*in_plane, depth))
    return Plan(channels=("CT",), stages=(main,)).final


def flat(epoch) -> list[Sample]:
    return [sample for batch in epoch for sample in batch]


def numbers(sampler: SliceSubset, sample: Sample) -> list[float]:
    """Of the slices of a sample, after all else about it was looked at."""
    image, classes = sampler.read(sample)
    assert image.dtype == np.float32 and classes.dtype == np.int32
    assert image.shape[1:] == classes.shape
    flat_image = image.reshape(image.shape[0], *PLANE, -1)
    assert (flat_image == flat_image[:, :1, :1]).all()
    return flat_image[0, 0, 0].tolist()


@settings(max_examples=60, deadline=None)
@given(
    n_slices=st.integers(1, 40),
    labelled=st.sets(st.integers(0, 39)),
    labelled_only=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_volumes_are_subsets_in_order(n_slices, labelled, labelled_only, seed) -> None:
    labelled = {number for number in labelled if number < n_slices}
    case = made(n_slices, labelled, channels=2)
    sampler = SliceSubset([case], stage(8), seed, labelled_only=labelled_only)
    assert sampler.n_samples == 1
    usable = labelled if labelled and labelled_only else set(range(n_slices))
    for sample in flat(sampler.epoch(0, 3, 1)):
        found = numbers(sampler, sample)
        image, classes = sampler.read(sample)
        assert image.shape == (2, *PLANE, 8)
        np.testing.assert_array_equal(image[1], image[0] + 1000)
        assert found == sorted(found) and set(found) <= usable
        # Without replacement; where there are too few, all of them and some again.
        assert len(set(found)) == min(8, len(usable))
        for depth, number in enumerate(map(int, found)):
            np.testing.assert_array_equal(classes[..., depth], case.classes[number])


def test_every_visit_draws_anew_and_every_slice_is_as_likely() -> None:
    sampler = SliceSubset([made(20, range(20))], stage(5), 3)
    samples = flat(sampler.epoch(0, 2000, 1))
    drawn = [tuple(numbers(sampler, sample)) for sample in samples]
    assert len(set(drawn)) > 1500
    shares = np.bincount(np.array(drawn, int).ravel(), minlength=20) / 2000
    np.testing.assert_allclose(shares, 0.25, atol=4 * np.sqrt(0.25 * 0.75 / 2000))


@pytest.mark.parametrize(("count", "each"), [(None, 16), (1, 1), (5, 5)])
def test_slices_of_a_visit_come_one_after_another(count, each) -> None:
    cases = [made(30, range(3, 28), name=name) for name in "abcd"]
    sampler = SliceSubset(cases, stage(1), 2, count=count)
    assert sampler.n_samples == 4 * each
    samples = flat(sampler.epoch(1, 2 * each, 4))
    visits = [samples[start : start + each] for start in range(0, len(samples), each)]
    assert [{sample.case for sample in visit} for visit in visits] == [
        {visit[0].case} for visit in visits
    ]
    for part in (visits[:4], visits[4:8]):
        assert sorted(visit[0].case for visit in part) == [0, 1, 2, 3]
    drawn = [[numbers(sampler, sample)[0] for sample in visit] for visit in visits]
    for found in drawn:
        assert len(set(found)) == each and set(found) <= set(range(3, 28))
        # What an epoch's end cuts off is no particular slice.
        assert each == 1 or found != sorted(found)
    assert len({sample.seed for sample in samples}) == len(samples)


def test_what_is_drawn_depends_on_seed_and_epoch_alone() -> None:
    cases = [made(30, range(30)), made(25, range(25))]
    options = {"skip": [1, 2, 3], "resample": [0.8, 1.25], **ALWAYS}
    one, other = (SliceSubset(cases, stage(4), 7, **options) for _ in range(2))
    assert one.epoch(3, 5, 2) == other.epoch(3, 5, 2)
    assert one.epoch(3, 5, 2)[:3] == other.epoch(3, 3, 2)
    assert one.epoch(3, 5, 2) != one.epoch(4, 5, 2)
    assert one.epoch(3, 5, 2) != SliceSubset(cases, stage(4), 8, **options).epoch(3, 5, 2)
    samples = one.epoch(0, 4, 3)
    here, there = (list(batches(one, samples, 2, workers)) for workers in (0, 2))
    for a, b in zip(here, there, strict=True):
        assert torch.equal(a.image, b.image) and torch.equal(a.classes, b.classes)
    later = list(batches(other, samples[2:], 2, 0))
    assert torch.equal(later[0].image, here[2].image)


@pytest.mark.parametrize("step", [2, 3])
def test_skipping_keeps_every_kth_from_any(step) -> None:
    sampler = SliceSubset([made(40, range(40))], stage(6), 1, skip=[step], **ALWAYS)
    offsets = set()
    for sample in flat(sampler.epoch(0, 40, 1)):
        remainders = {int(number) % step for number in numbers(sampler, sample)}
        assert len(remainders) == 1
        assert sampler.describe(sample) == f"1 in {step} slices"
        offsets |= remainders
    assert offsets == set(range(step))


def test_each_step_is_as_likely() -> None:
    sampler = SliceSubset([made(40, range(40))], stage(6), 1, skip=[1, 2, 3], **ALWAYS)
    told = [sampler.describe(sample) for sample in flat(sampler.epoch(0, 900, 1))]
    for text in ("", "1 in 2 slices", "1 in 3 slices"):
        assert told.count(text) / 900 == pytest.approx(1 / 3, abs=0.07)


@settings(max_examples=40, deadline=None)
@given(
    n_slices=st.integers(1, 40), factor=st.floats(0.3, 3), step=st.integers(1, 3),
    seed=st.integers(0, 2**32),
)  # fmt: skip
def test_resampling_equals_numpy(n_slices, factor, step, seed) -> None:
    """By depths that take all: `numpy.interp` between the planes that skipping left."""
    n_kept = {len(range(offset, n_slices, step)) for offset in range(min(step, n_slices))}
    case = made(n_slices, range(n_slices))
    for n in n_kept:
        n_out = max(round(n * factor), 1)
        if n_out == 1:
            continue  # a 2-D stage
        sampler = SliceSubset(
            [case], stage(n_out), seed, skip=[step], resample=[factor, factor], **ALWAYS
        )
        for sample in flat(sampler.epoch(0, 3, 1)):
            varied = sampler._varied(n_slices, generator(sample.seed, Role.SLICE))
            image, classes = sampler.read(sample)
            offset = int(varied.below[0]) % step
            if len(range(offset, n_slices, step)) != n:
                continue
            centres = (np.arange(n_out) + 0.5) * n / n_out - 0.5
            expected = np.interp(centres, np.arange(n), offset + step * np.arange(n))
            np.testing.assert_allclose(image[0, 0, 0], expected, atol=1e-4)
            # Labels by one-hot maps, interpolated; where two are as large, either.
            planes = case.classes[offset::step]
            maps = np.stack([planes == value for value in range(3)]).astype(float)
            below = centres.clip(0, n - 1).astype(int)
            above = np.minimum(below + 1, n - 1)
            weight = (centres.clip(0, n - 1) - below)[:, None, None]
            shares = (1 - weight) * maps[:, below] + weight * maps[:, above]
            chosen = np.take_along_axis(shares, classes.transpose(2, 0, 1)[None], axis=0)[0]
            np.testing.assert_allclose(chosen, shares.max(axis=0), atol=1e-5)


def test_the_samples_that_ctia_changes_are_the_same() -> None:
    sampler = SliceSubset([made(40, range(40))], stage(6), 1, skip=[2], fraction=0.6)
    samples = flat(sampler.epoch(0, 400, 1))
    told = [bool(sampler.describe(sample)) for sample in samples]
    assert told == [augments(sample.seed, 0.6) for sample in samples]
    ctia = build_augmentation("ctia", fraction=0.6)
    assert told == [each is not None for each in ctia.draw([sample.seed for sample in samples])]
    assert np.mean(told) == pytest.approx(0.6, abs=0.1)


def test_a_label_that_skipping_would_lose_is_kept() -> None:
    sampler = SliceSubset([made(40, [17])], stage(4), 1, skip=[3], **ALWAYS)
    for sample in flat(sampler.epoch(0, 20, 1)):
        assert numbers(sampler, sample) == [17] * 4


def test_patches_lie_anywhere_in_plane_and_zeros_around_small_frames(rng) -> None:
    case = made(9, range(9))
    image = rng.random((9, 1, *PLANE), dtype=np.float32) + 1
    case = PreparedCase("a", CachedSource(image, case.source.region), case.classes, case.classes)
    sampler = SliceSubset([case], stage(4, (3, 8), (None, None, None)), 1)
    corners = set()
    for sample in flat(sampler.epoch(0, 30, 1)):
        found, classes = sampler.read(sample)
        assert found.shape == (1, 3, 8, 4) and classes.shape == (3, 8, 4)
        # 5 columns of 8: two of zeros before them, one behind, as in `Patches`.
        assert not found[:, :, :2].any() and not found[:, :, 7:].any()
        assert (found[:, :, 2:7] > 0).all()
        plane = found[0, :, 2:7, 0]
        ((k, i),) = [
            (k, i) for k in range(9) for i in range(4) if (image[k, 0, i : i + 3] == plane).all()
        ]
        np.testing.assert_array_equal(classes[:, 2:7, 0], case.classes[k, i : i + 3])
        corners.add(i)
    assert corners == {0, 1, 2, 3}


def test_ignored_voxels_are_no_label() -> None:
    case = made(9, [4])
    case.classes[7] = 3
    case = PreparedCase("a", case.source, case.classes, case.classes, ignored=3)
    sampler = SliceSubset([case], stage(2), 1)
    assert {n for s in flat(sampler.epoch(0, 9, 1)) for n in numbers(sampler, s)} == {4}


@pytest.mark.parametrize(
    ("options", "depth", "said"),
    [
        ({"count": 4}, 16, r"'count' is 4, but it is for 2-D .* says how many \(16\)"),
        ({"count": 0}, 1, "'count' is 0"),
        ({"skip": []}, 1, "'skip'"),
        ({"skip": [0]}, 1, "'skip'"),
        ({"resample": [1.25, 0.8]}, 1, r"should be \[lowest, highest\]"),
        ({"fraction": 2.0}, 1, "'fraction' is 2"),
    ],
)
def test_refused(options, depth, said) -> None:
    with pytest.raises(RecipeError, match=said) as caught:
        build_sampler("slice-subset", [], stage(depth), 1, **options)
    assert "\n" not in str(caught.value)


def test_neighbours_are_refused() -> None:
    neighbours = plans.slices(PLANE, 2, neighbours=1).final
    with pytest.raises(RecipeError, match=r"without neighbours, .*'plan.patch.neighbours' is 1"):
        build_sampler("slice-subset", [], neighbours, 1)
