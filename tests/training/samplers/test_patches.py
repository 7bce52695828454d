"""Patches and volumes: where they lie, what they hold, how often each class is in the middle."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import plans
from leanseg.errors import RecipeError
from leanseg.frames import CachedSource, PreparedCase
from leanseg.plan import Frame, Patch, Stage
from leanseg.training.loading import batches
from leanseg.training.samplers.base import Sample
from leanseg.training.samplers.patches import Patches
from leanseg.training.samplers.volumes import Volumes
from leanseg.volumes import Box


def prepared(classes: np.ndarray, n_channels: int = 1, **options) -> PreparedCase:
    """A case whose voxels are numbered, from classes (i, j, k)."""
    shape = (n_channels, *classes.shape)
    image = np.arange(1, np.prod(shape) + 1, dtype=np.float32).reshape(shape)
    stored = np.ascontiguousarray(image.transpose(3, 0, 1, 2))
    source = CachedSource(stored, Box((0, 0, 0), classes.shape))
    kept = np.ascontiguousarray(classes.transpose(2, 0, 1))
    return PreparedCase("a", source, kept, kept, **options)


def image_of(case: PreparedCase) -> np.ndarray:
    """The whole image (channel, i, j, k)."""
    return case.source.planes(0, case.source.shape[2]).transpose(1, 2, 3, 0)


def drawn(patches: Patches, n: int, epoch: int = 0) -> list[Sample]:
    return [sample for batch in patches.epoch(epoch, n, 1) for sample in batch]


def whole(shape: tuple[int, int, int], n_labels: int = 2) -> Stage:
    return plans.patches(shape, n_labels).final


def test_share_of_foreground_and_classes_equally_often() -> None:
    """A class of one voxel is in the middle as often as one of hundreds."""
    classes = np.zeros((40, 40, 40), np.uint8)
    classes[10:18, 10:18, 10:18] = 1
    classes[30, 30, 30] = 2
    stage, n = whole((8, 8, 8)), 3000
    patches = Patches([prepared(classes)], stage, 3, foreground_fraction=0.5)
    centres = [tuple(start + 4 for start in sample.start) for sample in drawn(patches, n)]
    hits = np.bincount([classes[centre] for centre in centres], minlength=3) / n
    # Patches that lie anywhere have their middle in the ball by chance.
    by_chance = 0.5 * 512 / 33**3
    tolerance = 4 * np.sqrt(0.25 / n)
    assert hits[1] == pytest.approx(0.25 + by_chance, abs=tolerance)
    assert hits[2] == pytest.approx(0.25, abs=tolerance)
    # Each of a class's voxels, not always the same.
    assert len({centre for centre in centres if classes[centre] == 1}) > 300


def test_ignored_voxels_are_not_looked_for() -> None:
    classes = np.zeros((20, 20, 20), np.uint8)
    classes[:10] = 3
    classes[15, 15, 15] = 1
    case = prepared(classes, ignored=3)
    patches = Patches([case], whole((4, 4, 4)), 3, foreground_fraction=1.0)
    assert {sample.start for sample in drawn(patches, 30)} == {(13, 13, 13)}
    _, target = patches.read(Sample(0, (8, 13, 13), 0))
    np.testing.assert_array_equal(target[:2], -1)
    assert (target[2:] >= 0).all()


shapes = st.tuples(*[st.integers(1, 12)] * 3)


@settings(max_examples=60, deadline=None)
@given(frame=shapes, patch=shapes, seed=st.integers(0, 2**32), data=st.data())
def test_patches_lie_within_the_frame_or_around_its_middle(frame, patch, seed, data) -> None:
    classes = np.zeros(frame, np.uint8)
    where = data.draw(st.tuples(*[st.integers(0, n - 1) for n in frame]))
    classes[where] = 1
    case = prepared(classes, 2)
    patches = Patches([case], whole(patch), seed, foreground_fraction=0.5)
    before = [
        max((p - n) // 2, 0) + (p > n and (p - n) % 2) for n, p in zip(frame, patch, strict=True)
    ]
    around = [(b, max(p - n, 0) - b) for b, n, p in zip(before, frame, patch, strict=True)]
    padded = np.pad(image_of(case), ((0, 0), *around))
    padded_classes = np.pad(classes, around)
    for sample in drawn(patches, 6):
        begin = [start + b for start, b in zip(sample.start, before, strict=True)]
        places = tuple(slice(b, b + p) for b, p in zip(begin, patch, strict=True))
        assert all(b >= 0 for b in begin)
        image, target = patches.read(sample)
        expected, expected_classes = padded[:, *places], padded_classes[places]
        if patch[2] == 1:
            expected, expected_classes = expected[..., 0], expected_classes[..., 0]
        np.testing.assert_array_equal(image, expected)
        np.testing.assert_array_equal(target, expected_classes)


def test_a_frame_that_is_even_smaller_lies_exactly_in_the_middle() -> None:
    case = prepared(np.ones((4, 6, 2), np.uint8))
    patches = Patches([case], whole((8, 6, 4)), 1)
    (sample,) = drawn(patches, 1)
    image, target = patches.read(sample)
    margins = ((2, 2), (0, 0), (1, 1))
    np.testing.assert_array_equal(image, np.pad(image_of(case), ((0, 0), *margins)))
    np.testing.assert_array_equal(target, np.pad(np.ones((4, 6, 2)), margins))


def test_neighbours_of_a_patch_come_with_all_their_channels() -> None:
    """2.5-D: the last slice is repeated past the ends, as in prediction."""
    case = prepared(np.zeros((6, 6, 3), np.uint8), 2)
    stage = Stage(labels=("a",), frame=Frame(), patch=Patch(4, 4, 1, neighbours=1))
    image, target = Patches([case], stage, 1).read(Sample(0, (1, 2, 0), 0))
    part = image_of(case)[:, 1:5, 2:6]
    expected = np.concatenate([part[..., 0], part[..., 0], part[..., 1]])
    np.testing.assert_array_equal(image, expected)
    assert target.shape == (4, 4)


@pytest.mark.parametrize("kind", [Patches, Volumes])
def test_the_same_for_any_number_of_workers(kind, rng) -> None:
    cases = [prepared(rng.integers(0, 3, (7, 8, 9)).astype(np.uint8)) for _ in range(3)]
    sampler = kind(cases, whole((9, 9, 9)), 5)
    samples = sampler.epoch(2, 3, 2)
    assert samples == kind(cases, whole((9, 9, 9)), 5).epoch(2, 3, 2)
    here = list(batches(sampler, samples, 2, workers=0))
    there = list(batches(sampler, samples, 2, workers=2))
    for one, other in zip(here, there, strict=True):
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.classes, other.classes)
        assert one.seeds == other.seeds
    assert len({seed for batch in here for seed in batch.seeds}) == 6


def test_a_pass_of_patches_covers_the_frames() -> None:
    cases = [prepared(np.zeros(shape, np.uint8)) for shape in ((16, 16, 8), (17, 4, 8))]
    # 2 x 2 x 1 patches of 8 x 8 x 8, and 3 x 1 x 1.
    assert Patches(cases, whole((8, 8, 8)), 1).n_samples == 4 + 3


def test_volumes_in_turn_and_repeated() -> None:
    cases = [prepared(np.zeros((6, 6, 6), np.uint8)) for _ in range(4)]
    volumes = Volumes(cases, whole((8, 7, 6)), 1, repeats=3)
    assert volumes.n_samples == 12
    found = volumes.epoch(0, 6, 2)
    numbers = [[sample.case for sample in batch] for batch in found]
    assert numbers[0] == numbers[1] == numbers[2]
    assert numbers[3] == numbers[4] == numbers[5]
    assert sorted(numbers[0] + numbers[3]) == [0, 1, 2, 3]
    # The same cases, but something else is drawn each time.
    assert len({sample.seed for batch in found for sample in batch}) == 12
    for start in {sample.start for batch in found for sample in batch}:
        assert start == (-1, -1, 0)


def test_a_frame_larger_than_the_patch_is_no_volume() -> None:
    cases = [prepared(np.zeros((6, 6, 7), np.uint8))]
    with pytest.raises(RecipeError, match=r"case a: its frame of \(6, 6, 7\) voxels is larger"):
        Volumes(cases, whole((8, 8, 6)), 1)
