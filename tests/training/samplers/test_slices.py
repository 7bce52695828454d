"""Sampling depends on (seed, epoch, sample) alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leanseg.frames import CachedSource, PreparedCase
from leanseg.losses.base import IGNORED
from leanseg.training.loading import batches
from leanseg.training.samplers.slices import LabelCentredSlices, SliceSampler, TrainingSlices
from leanseg.training.seeds import Role, derive_seed
from leanseg.volumes import Box


def training(name, image, classes, rule=None, neighbours: int = 0) -> TrainingSlices:
    """Slices of a case, from image (k, channel, i, j) and classes (k, i, j)."""
    region = Box((0, 0, 0), (*image.shape[2:], len(image)))
    case = PreparedCase(name, CachedSource(image, region), classes, classes)
    return TrainingSlices(case, rule, neighbours)


def cases(n_cases: int = 5, n_slices: int = 12) -> list[TrainingSlices]:
    made = []
    for number in range(n_cases):
        image = np.full((n_slices, 1, 4, 4), number, np.float32)
        image += np.arange(n_slices, dtype=np.float32)[:, None, None, None] / 100
        classes = np.zeros((n_slices, 4, 4), np.uint8)
        classes[3:5, 1, 1] = 1
        made.append(training(f"case{number}", image, classes))
    return made


def test_epoch_is_reproducible_and_epochs_differ() -> None:
    sampler = SliceSampler(cases(), seed=1, foreground_fraction=0.3)
    again = SliceSampler(cases(), seed=1, foreground_fraction=0.3)
    assert sampler.epoch(4, 40) == again.epoch(4, 40)
    assert sampler.epoch(4, 40) != sampler.epoch(5, 40)
    assert sampler.epoch(0, 40) != SliceSampler(cases(), 2, 0.3).epoch(0, 40)
    # A longer epoch begins with the shorter one: a sample depends on nothing after it.
    assert sampler.epoch(4, 40)[:7] == sampler.epoch(4, 7)


def test_ignored_voxels_are_no_foreground() -> None:
    classes = np.zeros((9, 4, 4), np.uint8)
    classes[4, 1, 1] = 1
    classes[[0, 4, 7, 8], 2] = 2
    image = np.zeros((9, 1, 4, 4), np.float32)
    source = CachedSource(image, Box((0, 0, 0), (4, 4, 9)))
    case = PreparedCase("a", source, classes, classes, ignored=2)
    assert TrainingSlices(case).foreground.tolist() == [4]
    around = TrainingSlices(case, LabelCentredSlices(margin=2, count=None))
    assert around.n_slices == 4  # from 2 to 4 + 2, the last left out
    _, target = around.read(2)
    assert target.dtype == np.int64
    assert target.tolist() == [[0] * 4, [0, 1, 0, 0], [IGNORED] * 4, [0] * 4]
    # With nothing but ignored voxels all slices are kept, as without any label.
    empty = PreparedCase("b", source, np.full_like(classes, 2), classes, ignored=2)
    assert TrainingSlices(empty, LabelCentredSlices(margin=1, count=None)).n_slices == 9


@settings(max_examples=30, deadline=None)
@given(n_cases=st.integers(1, 9), n_samples=st.integers(1, 60), seed=st.integers(0, 2**32))
def test_every_case_is_visited_equally_often(n_cases: int, n_samples: int, seed: int) -> None:
    samples = SliceSampler(cases(n_cases), seed, 0.5).epoch(0, n_samples)
    visits = np.bincount([sample.case for sample in samples], minlength=n_cases)
    assert len(samples) == n_samples
    assert visits.max() - visits.min() <= 1


@pytest.mark.parametrize("fraction", [0.0, 0.4, 1.0])
def test_share_of_foreground_slices(fraction: float) -> None:
    samples = SliceSampler(cases(), 3, fraction).epoch(0, 4000)
    share = np.mean([sample.slice_index in (3, 4) for sample in samples])
    # 2 of 12 slices hold the label; four standard deviations of a binomial share.
    expected = fraction + (1 - fraction) * 2 / 12
    assert share == pytest.approx(expected, abs=4 * np.sqrt(0.25 / 4000))


def test_a_case_without_label_is_sampled_too() -> None:
    empty = training("empty", np.zeros((4, 1, 2, 2), np.float32), np.zeros((4, 2, 2), np.uint8))
    assert {s.slice_index for s in SliceSampler([empty], 0, 1.0).epoch(0, 200)} == {0, 1, 2, 3}


def test_seeds_of_different_purposes_differ() -> None:
    seeds = {derive_seed(7, role, 1, 2) for role in Role}
    assert len(seeds) == len(Role)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(7, Role.SLICE, 1, 2) != derive_seed(7, Role.SLICE, 2, 1)


def test_batches_do_not_depend_on_workers_or_on_where_one_begins() -> None:
    material = cases()
    samples = SliceSampler(material, 5, 0.3).epoch(0, 22)
    here = list(batches(material, samples, 4, workers=0))
    there = list(batches(material, samples, 4, workers=2))
    assert [len(batch.image) for batch in here] == [4, 4, 4, 4, 4, 2]
    for one, other in zip(here, there, strict=True):
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.classes, other.classes)
        assert one.augmentation_seeds == other.augmentation_seeds
    late = list(batches(material, samples, 4, workers=0, first_batch=3))
    assert torch.equal(late[0].image, here[3].image)
    sample = samples[5]
    image, classes = material[sample.case].read(sample.slice_index)
    np.testing.assert_array_equal(here[1].image[1], image)
    np.testing.assert_array_equal(here[1].classes[1], classes)


def labelled(n_slices: int, *where: int) -> np.ndarray:
    classes = np.zeros((n_slices, 4, 4), dtype=np.uint8)
    classes[list(where), 1, 2] = 1
    return classes


def _range(classes: np.ndarray, margin: int) -> tuple[int, int]:
    """The slices that a case of numbered ones is left with."""
    image = np.arange(len(classes), dtype=np.float32)[:, None, None, None].repeat(4, 2).repeat(4, 3)
    found = training("case", image, classes, LabelCentredSlices(margin=margin, count=None))
    numbers = [int(found.read(n)[0].flat[0]) for n in range(found.n_slices)]
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    return numbers[0], numbers[-1] + 1


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (labelled(100, 40, 60), (24, 76)),  # [zmin - 16, zmax + 16), open above
        (labelled(100, 3, 60), (0, 76)),  # floored at 0
        (labelled(100, 40, 95), (24, 100)),  # and at the end
        (labelled(20, 0, 19), (0, 20)),
        (labelled(100), (0, 100)),  # no label: everything
    ],
)
def test_the_range_of_paper_000(classes: np.ndarray, expected: tuple[int, int]) -> None:
    assert _range(classes, 16) == expected


def test_the_upper_end_is_open_even_without_a_margin() -> None:
    assert _range(labelled(10, 3, 6), 0) == (3, 6)
    assert _range(labelled(10, 3), 0) == (3, 4)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.data(), st.integers(0, 20))
def test_the_range_holds_slices(n_slices: int, data, margin: int) -> None:
    where = data.draw(st.sets(st.integers(0, n_slices - 1), max_size=4))
    classes = labelled(n_slices, *where)
    start, stop = _range(classes, margin)
    assert 0 <= start < stop <= n_slices
    if where and margin:
        assert set(np.flatnonzero(classes.any(axis=(1, 2)))) <= set(range(start, stop))


@pytest.mark.parametrize("n_slices", [30, 48, 90, 131])
def test_training_slices_are_resized_to_48(rng, n_slices: int) -> None:
    image = rng.random((n_slices, 2, 8, 8), dtype=np.float32)
    classes = labelled(n_slices, 0, n_slices - 1)
    classes[::3, 3, 3] = 2
    every = training("case", image, classes, LabelCentredSlices())
    found, found_classes = map(np.stack, zip(*map(every.read, range(48)), strict=True))
    assert found.shape == (48, 2, 8, 8)
    assert found.dtype == np.float32
    # PyTorch resizes two axes: slices and, by a factor of one, everything else.
    flat = torch.from_numpy(image.reshape(1, 1, n_slices, -1))
    expected = torch.nn.functional.interpolate(
        flat, size=(48, flat.shape[3]), mode="bilinear", antialias=True
    )
    np.testing.assert_allclose(found.reshape(48, -1), expected[0, 0].numpy(), atol=1e-5)
    flat_classes = torch.from_numpy(classes.reshape(1, 1, n_slices, -1))
    nearest = torch.nn.functional.interpolate(
        flat_classes, size=(48, flat_classes.shape[3]), mode="nearest-exact"
    )
    np.testing.assert_array_equal(found_classes.reshape(48, -1), nearest[0, 0].numpy())


def test_an_unlabelled_case_teaches_background(rng) -> None:
    image = rng.random((100, 1, 8, 8), dtype=np.float32)
    found = training("case", image, labelled(100), LabelCentredSlices())
    assert (found.n_slices, found.foreground.size) == (48, 0)


def test_neighbours_come_with_all_their_channels(rng) -> None:
    image = rng.random((6, 2, 4, 4), dtype=np.float32)
    found, _ = training("case", image, labelled(6), neighbours=1).read(0)
    np.testing.assert_array_equal(found, np.concatenate([image[0], image[0], image[1]]))
