"""Sampling depends on (seed, epoch, sample) alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from leanseg.preprocessing import TrainingCase
from leanseg.training.sampling import Role, SliceSampler, derive_seed

from leanseg.training.loading import batches


def cases(n_cases: int = 5, n_slices: int = 12) -> list[TrainingCase]:
    made = []
    for number in range(n_cases):
        image = np.full((n_slices, 1, 4, 4), number, np.float32)
        image += np.arange(n_slices, dtype=np.float32)[:, None, None, None] / 100
        classes = np.zeros((n_slices, 4, 4), np.uint8)
        classes[3:5, 1, 1] = 1
        made.append(TrainingCase(f"case{number}", image, classes))
    return made


def test_epoch_is_reproducible_and_epochs_differ() -> None:
    sampler = SliceSampler(cases(), seed=1, foreground_fraction=0.3)
    again = SliceSampler(cases(), seed=1, foreground_fraction=0.3)
    assert sampler.epoch(4, 40) == again.epoch(4, 40)
    assert sampler.epoch(4, 40) != sampler.epoch(5, 40)
    assert sampler.epoch(0, 40) != SliceSampler(cases(), 2, 0.3).epoch(0, 40)
    # A longer epoch begins with the shorter one: a sample depends on nothing after it.
    assert sampler.epoch(4, 40)[:7] == sampler.epoch(4, 7)


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
    empty = TrainingCase("empty", np.zeros((4, 1, 2, 2), np.float32), np.zeros((4, 2, 2), np.uint8))
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
    np.testing.assert_array_equal(here[1].image[1], material[sample.case].image[sample.slice_index])
