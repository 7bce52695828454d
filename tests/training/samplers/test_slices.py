"""Sampling depends on (seed, epoch, sample) alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import plans
from leanseg.errors import RecipeError
from leanseg.frames import CachedSource, PreparedCase
from leanseg.losses.base import IGNORED
from leanseg.training.loading import batches
from leanseg.training.samplers.base import Sample
from leanseg.training.samplers.registry import build_sampler
from leanseg.training.samplers.slices import Slices
from leanseg.training.seeds import Role, derive_seed
from leanseg.volumes import Box


def prepared(name, image, classes, ignored=None) -> PreparedCase:
    """A case from image (k, channel, i, j) and classes (k, i, j)."""
    region = Box((0, 0, 0), (*image.shape[2:], len(image)))
    return PreparedCase(name, CachedSource(image, region), classes, classes, ignored=ignored)


def sampler(cases, seed: int = 1, neighbours: int = 0, **options) -> Slices:
    _, _, i, j = cases[0].source.planes(0, 1).shape
    return Slices(cases, plans.slices((i, j), 2, neighbours=neighbours).final, seed, **options)


def made(n_cases: int = 5, n_slices: int = 12) -> list[PreparedCase]:
    """Cases that say their number in every voxel, each with its slice behind the point."""
    found = []
    for number in range(n_cases):
        image = np.full((n_slices, 1, 4, 4), number, np.float32)
        image += np.arange(n_slices, dtype=np.float32)[:, None, None, None] / 100
        classes = np.zeros((n_slices, 4, 4), np.uint8)
        classes[3:5, 1, 1] = 1
        found.append(prepared(f"case{number}", image, classes))
    return found


def at(index: int, case: int = 0) -> Sample:
    return Sample(case, (0, 0, index), 0)


def flat(batches_of_samples) -> list[Sample]:
    return [sample for batch in batches_of_samples for sample in batch]


@pytest.mark.parametrize("fraction", [None, 0.3])
def test_epoch_is_reproducible_and_epochs_differ(fraction) -> None:
    slices = sampler(made(), foreground_fraction=fraction)
    again = sampler(made(), foreground_fraction=fraction)
    assert slices.epoch(4, 10, 4) == again.epoch(4, 10, 4)
    places = [(s.case, s.start) for s in flat(slices.epoch(4, 10, 4))]
    assert places != [(s.case, s.start) for s in flat(slices.epoch(5, 10, 4))]
    other = sampler(made(), seed=2, foreground_fraction=fraction)
    assert slices.epoch(0, 10, 4) != other.epoch(0, 10, 4)
    assert [len(batch) for batch in slices.epoch(0, 3, 7)] == [7, 7, 7]


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    n_batches=st.integers(1, 7),
    batch_size=st.integers(1, 6),
    seed=st.integers(0, 2**32),
)
def test_a_pass_takes_every_slice_once(lengths, n_batches, batch_size, seed) -> None:
    """Whatever the length of an epoch: passes go on over its end."""
    cases = [prepared("a", np.zeros((n, 1, 2, 2), np.float32), labelled(n)) for n in lengths]
    slices = sampler(cases, seed)
    every = {(case, k) for case, n in enumerate(lengths) for k in range(n)}
    assert slices.n_samples == len(every)
    n_epochs = -(-3 * len(every) // (n_batches * batch_size))
    seen = [
        (sample.case, sample.start[2])
        for epoch in range(n_epochs)
        for sample in flat(slices.epoch(epoch, n_batches, batch_size))
    ]
    passes = [seen[n * len(every) :][: len(every)] for n in range(3)]
    for each in passes:
        assert sorted(each) == sorted(every)
    if len(every) > 12:
        assert passes[0] != passes[1]


def test_ignored_voxels_are_no_foreground() -> None:
    classes = np.zeros((9, 4, 4), np.uint8)
    classes[4, 1, 1] = 1
    classes[[0, 4, 7, 8], 2] = 2
    image = np.zeros((9, 1, 4, 4), np.float32)
    case = prepared("a", image, classes, ignored=2)
    drawn = flat(sampler([case], foreground_fraction=1.0).epoch(0, 10, 4))
    assert {sample.start[2] for sample in drawn} == {4}
    around = sampler([case], margin=2)
    assert around.n_samples == 4  # from 2 to 4 + 2, the last left out
    _, target = around.read(at(2))
    assert target.dtype == np.int32
    assert target.tolist() == [[0] * 4, [0, 1, 0, 0], [IGNORED] * 4, [0] * 4]
    # With nothing but ignored voxels all slices are kept, as without any label.
    empty = prepared("b", image, np.full_like(classes, 2), ignored=2)
    assert sampler([empty], margin=1).n_samples == 9


@settings(max_examples=30, deadline=None)
@given(n_cases=st.integers(1, 9), n_samples=st.integers(1, 60), seed=st.integers(0, 2**32))
def test_every_case_is_drawn_equally_often(n_cases: int, n_samples: int, seed: int) -> None:
    samples = flat(sampler(made(n_cases), seed, foreground_fraction=0.5).epoch(0, n_samples, 1))
    visits = np.bincount([sample.case for sample in samples], minlength=n_cases)
    assert len(samples) == n_samples
    assert visits.max() - visits.min() <= 1


@pytest.mark.parametrize("fraction", [0.0, 0.4, 1.0])
def test_share_of_foreground_slices(fraction: float) -> None:
    samples = flat(sampler(made(), 3, foreground_fraction=fraction).epoch(0, 1000, 4))
    share = np.mean([sample.start[2] in (3, 4) for sample in samples])
    # 2 of 12 slices hold the label; four standard deviations of a binomial share.
    expected = fraction + (1 - fraction) * 2 / 12
    assert share == pytest.approx(expected, abs=4 * np.sqrt(0.25 / 4000))


def test_a_case_without_label_is_drawn_too() -> None:
    empty = prepared("empty", np.zeros((4, 1, 2, 2), np.float32), np.zeros((4, 2, 2), np.uint8))
    samples = flat(sampler([empty], foreground_fraction=1.0).epoch(0, 50, 4))
    assert {sample.start[2] for sample in samples} == {0, 1, 2, 3}


def test_a_stage_of_patches_is_refused() -> None:
    stage = plans.patches((4, 4, 4)).final
    with pytest.raises(RecipeError, match=r"'slices' takes whole slices.*\[4, 4, 4\]"):
        Slices(made(1), stage, 1)


def test_seeds_of_different_purposes_differ() -> None:
    seeds = {derive_seed(7, role, 1, 2) for role in Role}
    assert len(seeds) == len(Role)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(7, Role.SLICE, 1, 2) != derive_seed(7, Role.SLICE, 2, 1)


def test_batches_do_not_depend_on_workers_or_on_where_one_begins() -> None:
    slices = sampler(made(), 5, foreground_fraction=0.3)
    samples = slices.epoch(0, 6, 4)
    here = list(batches(slices, samples, 2, workers=0))
    there = list(batches(slices, samples, 2, workers=2))
    assert [len(batch.image) for batch in here] == [4] * 6
    for one, other in zip(here, there, strict=True):
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.classes, other.classes)
        assert one.seeds == other.seeds
    late = list(batches(slices, samples[3:], 2, workers=0))
    assert torch.equal(late[0].image, here[3].image)
    sample = samples[1][2]
    image, classes = slices.read(sample)
    np.testing.assert_array_equal(image, np.float32(sample.case + sample.start[2] / 100))
    np.testing.assert_array_equal(here[1].image[2], image)
    np.testing.assert_array_equal(here[1].classes[2], classes)


def labelled(n_slices: int, *where: int) -> np.ndarray:
    classes = np.zeros((n_slices, 4, 4), dtype=np.uint8)
    classes[list(where), 1, 2] = 1
    return classes


def _range(classes: np.ndarray, margin: int) -> tuple[int, int]:
    """The slices that a case of numbered ones is left with."""
    image = np.arange(len(classes), dtype=np.float32)[:, None, None, None].repeat(4, 2).repeat(4, 3)
    found = sampler([prepared("case", image, classes)], margin=margin)
    numbers = [int(found.read(at(n))[0].flat[0]) for n in range(found.n_samples)]
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
    every = sampler([prepared("case", image, classes)], margin=16, count=48)
    read = [every.read(at(n)) for n in range(48)]
    found, found_classes = map(np.stack, zip(*read, strict=True))
    assert found.shape == (48, 2, 8, 8)
    assert found.dtype == np.float32
    # PyTorch resizes two axes: slices and, by a factor of one, everything else.
    rows = torch.from_numpy(image.reshape(1, 1, n_slices, -1))
    expected = torch.nn.functional.interpolate(
        rows, size=(48, rows.shape[3]), mode="bilinear", antialias=True
    )
    np.testing.assert_allclose(found.reshape(48, -1), expected[0, 0].numpy(), atol=1e-5)
    flat_classes = torch.from_numpy(classes.reshape(1, 1, n_slices, -1))
    nearest = torch.nn.functional.interpolate(
        flat_classes, size=(48, flat_classes.shape[3]), mode="nearest-exact"
    )
    np.testing.assert_array_equal(found_classes.reshape(48, -1), nearest[0, 0].numpy())


def test_an_unlabelled_case_teaches_background(rng) -> None:
    image = rng.random((100, 1, 8, 8), dtype=np.float32)
    found = sampler([prepared("case", image, labelled(100))], margin=16, count=48)
    assert found.n_samples == 48


def test_neighbours_come_with_all_their_channels(rng) -> None:
    image = rng.random((6, 2, 4, 4), dtype=np.float32)
    found, _ = sampler([prepared("case", image, labelled(6))], neighbours=1).read(at(0))
    np.testing.assert_array_equal(found, np.concatenate([image[0], image[0], image[1]]))


def kept_slices(slices: Slices) -> set[tuple[str, int]]:
    """Case and slice of each sample of a pass, told from numbered voxels."""
    (batch,) = slices.epoch(0, 1, slices.n_samples)
    values = [int(slices.read(sample)[0].flat[0]) for sample in batch]
    return {(chr(value // 1000), value % 1000) for value in values}


def numbered(name: str, classes: np.ndarray, ignored=None) -> PreparedCase:
    image = ord(name) * 1000 + np.arange(len(classes), dtype=np.float32)
    image = image[:, None, None, None].repeat(4, 2).repeat(4, 3)
    return prepared(name, image, classes, ignored)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=9), min_size=1, max_size=4),
    st.sampled_from([True, ["kidney"], ["tumour"], ["cyst", "tumour"]]),
    st.sampled_from([{}, {"tumour": "kidney"}, {"cyst": "tumour", "tumour": "kidney"}]),
    st.sampled_from([None, 0.5]),
    st.integers(0, 2**32),
)
def test_labelled_slices_alone(contents, labelled, inside, fraction, seed) -> None:
    """A slice holds one value at the most, 4 of nothing known; counted by hand."""
    stage = plans.slices((4, 4), ("cyst", "kidney", "tumour"), inside=inside).final
    members = {"cyst": {1}, "kidney": {2}, "tumour": {3}}
    if "tumour" in inside:
        members["kidney"] |= {3}
    if "cyst" in inside:
        members["tumour"] |= {1}
        members["kidney"] |= {1}
    wanted = set().union(*(members[name] for name in (members if labelled is True else labelled)))
    cases, expected = [], set()
    for name, values in zip("abcd", contents, strict=False):
        classes = np.zeros((len(values), 4, 4), np.uint8)
        classes[:, 2, 1] = values
        cases.append(numbered(name, classes, ignored=4))
        expected |= {(name, k) for k, value in enumerate(values) if value in wanted}
    slices = Slices(cases, stage, seed, labelled=labelled, foreground_fraction=fraction)
    assert slices.n_samples == len(expected)
    if not expected:
        with pytest.raises(RecipeError, match="no training case has a slice with "):
            slices.epoch(0, 1, 1)
    elif fraction is None:
        assert kept_slices(slices) == expected
    else:
        drawn = flat(slices.epoch(0, 300, 1))
        values = {int(slices.read(sample)[0].flat[0]) for sample in drawn}
        assert {(chr(value // 1000), value % 1000) for value in values} <= expected
        # Every case that takes part is drawn equally often.
        visits = np.bincount([sample.case for sample in drawn])
        assert len(visits) == len({name for name, _ in expected})
        assert visits.max() - visits.min() <= 1


def test_labelled_slices_of_a_resized_range() -> None:
    """Five slices around the label, resized to ten: those whose classes hold it."""
    case = numbered("a", labelled(30, 10, 11))
    slices = sampler([case], margin=2, count=10, labelled=True)
    # The range is 8 to 12, each slice of it twice: 10 is at 4 and 5, 11 at 6 and 7.
    assert slices.n_samples == 4
    plain = sampler([case], margin=2, count=10)
    for number in range(4):
        for found, expected in zip(
            slices.read(at(number)), plain.read(at(number + 4)), strict=True
        ):
            np.testing.assert_array_equal(found, expected)


def test_a_label_that_is_not_there_is_named() -> None:
    stage = plans.slices((4, 4), ("pancreas", "tumour")).final
    options = {"labelled": ["tumor"]}
    with pytest.raises(RecipeError, match=r"names 'tumor'.*did you mean 'tumour'"):
        build_sampler("slices", [], stage, 1, **options)
    for wrong in ("tumour", [], 1):
        with pytest.raises(RecipeError, match="option 'labelled' is"):
            build_sampler("slices", [], stage, 1, labelled=wrong)


def test_foreground_inside_another_label() -> None:
    cases = made(2, 30)
    for case in cases:
        case.classes[10:20, 1, 1] = 1
    cases[0].classes[14:17, 1, 1] = 2
    plan = plans.slices((4, 4), ("organ", "lesion"), inside={"lesion": "organ"})
    drawn = Slices(cases, plan.final, 1, foreground_fraction=1.0, foreground="inside")
    seen = {(s.case, s.start[2]) for s in flat(drawn.epoch(0, 400, 1))}
    assert {k for case, k in seen if case == 0} == {14, 15, 16}
    # A case without a lesion shows its organ.
    assert {k for case, k in seen if case == 1} == {3, 4, *range(10, 20)}
    with pytest.raises(RecipeError, match="no label lies inside another"):
        sampler(cases, foreground_fraction=1.0, foreground="inside")
