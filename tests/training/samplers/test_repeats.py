"""Batches that are made of the same places, one after another."""

from __future__ import annotations

import numpy as np
import pytest

import plans
from leanseg.frames import CachedSource, PreparedCase
from leanseg.training.samplers import patches, volumes
from leanseg.volumes import Box

SHAPE = (12, 10, 8)


def case(name: str) -> PreparedCase:
    stored = np.zeros((SHAPE[2], 1, *SHAPE[:2]), np.float32)
    classes = np.zeros((SHAPE[2], *SHAPE[:2]), np.uint8)
    return PreparedCase(name, CachedSource(stored, Box((0, 0, 0), SHAPE)), classes, classes)


@pytest.mark.parametrize(
    ("sampler", "patch"), [(patches.Patches, (6, 6, 6)), (volumes.Volumes, SHAPE)]
)
def test_places_stay_and_seeds_do_not(sampler, patch) -> None:
    cases, stage = [case(name) for name in "abcdef"], plans.patches(patch, 1).final
    made = sampler(cases, stage, 5, repeats=4)
    assert made.n_samples == 4 * sampler(cases, stage, 5).n_samples
    # Two whole groups and a part of the third.
    batches = made.epoch(2, 10, 3)
    places = [[(sample.case, sample.start) for sample in batch] for batch in batches]
    assert len(batches) == 10
    for group in (places[:4], places[4:8], places[8:]):
        assert all(batch == group[0] for batch in group)
    # The first two groups visit all six cases; the third begins anew.
    visited = [number for batch in (places[0], places[4]) for number, _ in batch]
    assert sorted(visited) == list(range(6))
    assert places[0] != places[4] != places[8]
    seeds = [sample.seed for batch in batches for sample in batch]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize(
    ("sampler", "patch"), [(patches.Patches, (6, 6, 6)), (volumes.Volumes, SHAPE)]
)
def test_without_repeats_every_batch_is_elsewhere(sampler, patch) -> None:
    """As with one repeat; what is drawn for a place depends on its number alone."""
    cases, stage = [case(name) for name in "abcdef"], plans.patches(patch, 1).final
    ((first, second),) = [sampler(cases, stage, 5).epoch(0, 2, 3)]
    repeated = sampler(cases, stage, 5, repeats=2).epoch(0, 3, 3)
    assert [sample.seed for sample in first] == [sample.seed for sample in repeated[0]]
    assert [sample.start for sample in second] == [sample.start for sample in repeated[2]]
    assert sorted(sample.case for sample in first + second) == list(range(6))
