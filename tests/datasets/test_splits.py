"""Splits: disjoint, covering, the same for the same seed, whatever the order of the names."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leanseg.datasets import (
    Case,
    Dataset,
    Split,
    read_splits,
    split,
    split_cases,
    write_splits,
)
from leanseg.datasets.splits import KINDS
from leanseg.errors import DatasetError


def random_split(names, fraction=0.7, seed=0, patients=None):
    (split,) = split_cases(names, "random", train_fraction=fraction, seed=seed, patients=patients)
    return split


NAMES = st.lists(st.text("abcdef0123_", min_size=1), min_size=2, max_size=40, unique=True)


@given(NAMES, st.floats(0.01, 0.99), st.integers(0, 2**32), st.randoms())
def test_random_split_properties(names, fraction, seed, random):
    split = random_split(names, fraction, seed)
    assert set(split.train) | set(split.validation) == set(names)
    assert not set(split.train) & set(split.validation)
    assert abs(len(split.train) - fraction * len(names)) <= 1
    shuffled = names.copy()
    random.shuffle(shuffled)
    assert random_split(shuffled, fraction, seed) == split


@given(NAMES, st.data(), st.integers(0, 2**32), st.randoms())
def test_k_folds_properties(names, data, seed, random):
    k = data.draw(st.integers(2, len(names)))
    folds = split_cases(names, n_folds=k, seed=seed)
    assert len(folds) == k
    validated = [name for fold in folds for name in fold.validation]
    assert sorted(validated) == sorted(names)
    sizes = [len(fold.validation) for fold in folds]
    assert max(sizes) - min(sizes) <= 1
    for fold in folds:
        assert set(fold.train) == set(names) - set(fold.validation)
    shuffled = names.copy()
    random.shuffle(shuffled)
    assert split_cases(shuffled, n_folds=k, seed=seed) == folds


@pytest.mark.parametrize(("n", "train"), [(24, 17), (6, 4), (281, 197), (2, 1), (3, 2)])
def test_seventy_percent(n, train):
    split = random_split([f"case_{i:03d}" for i in range(n)])
    assert (len(split.train), len(split.validation)) == (train, n - train)


def test_exact_number_as_in_the_paper():
    split = random_split([str(i) for i in range(281)], 196 / 281)
    assert (len(split.train), len(split.validation)) == (196, 85)


def test_the_seed_matters():
    names = [f"{i:02d}" for i in range(30)]
    assert random_split(names, seed=0) != random_split(names, seed=1)
    assert split_cases(names, seed=0) != split_cases(names, seed=1)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: random_split(["a"]), r"1 case\(s\) cannot be split into 2"),
        (lambda: random_split(["a", "b", "a"]), "'a' is listed twice"),
        (lambda: random_split(["a", "b"], 1.0), r"train_fraction is 1\.0"),
        (lambda: split_cases(["a", "b", "c"], n_folds=1), "1 folds"),
        (lambda: split_cases(["a", "b"], n_folds=3), r"2 case\(s\) cannot be split into 3"),
        (lambda: split_cases(["a", "b"], "halves"), "no split 'halves'; choose one of random"),
        (lambda: Split(("a", "b"), ("b",)), "'b' is listed twice"),
        (lambda: Split((), ("b",)), "at least one training case"),
        (lambda: Split(("a",), ()), "at least one validation case"),
        (lambda: Split(("a", "a"), ("b",)), "'a' is listed twice; list it once"),
    ],
)
def test_bad_splits_are_named(call, sentence):
    with pytest.raises(DatasetError, match=sentence):
        call()


@given(NAMES, st.integers(0, 100))
def test_written_splits_come_back(tmp_path_factory, names, seed):
    path = tmp_path_factory.mktemp("splits") / "splits.json"
    splits = split_cases(names, n_folds=2, seed=seed)
    write_splits(path, splits)
    assert read_splits(path, names) == splits
    assert [set(entry) for entry in json.loads(path.read_text())] == [{"train", "validation"}] * 2


def test_nnunet_key_is_accepted(tmp_path):
    path = tmp_path / "splits_final.json"
    path.write_text('[{"train": ["b", "a"], "val": ["c"]}]')
    assert read_splits(path) == [Split(("a", "b"), ("c",))]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[", "line 1 column 2"),
        ("{}", "Input should be a valid list"),
        ("[]", "List should have at least 1"),
        ('[{"train": ["a"]}]', "Field required"),
        ('[{"train": ["a"], "val": [3]}]', "Input should be a valid string, but found 3"),
        ('[{"train": ["a"], "val": ["a"]}]', "'0': case 'a' is listed twice"),
        ('[{"train": ["a"], "val": ["x"]}]', r"names 1 case\(s\) .* x; correct"),
    ],
)
def test_bad_files_are_named(tmp_path, text, sentence):
    path = tmp_path / "splits.json"
    path.write_text(text)
    with pytest.raises(DatasetError, match=rf"splits\.json.*{sentence}"):
        read_splits(path, names=["a", "b"])


def test_missing_file(tmp_path):
    with pytest.raises(DatasetError, match=r"none\.json: cannot be read"):
        read_splits(tmp_path / "none.json")


@given(
    st.dictionaries(st.text("abcdef0123_", min_size=1), st.integers(0, 9), min_size=2, max_size=40),
    st.data(),
    st.integers(0, 2**32),
)
def test_no_patient_is_on_both_sides(numbered, data, seed):
    patients = {name: f"patient {number}" for name, number in numbered.items()}
    n_patients = len(set(patients.values()))
    lengths = {name: len(name) for name in patients}
    if n_patients < 2:
        with pytest.raises(DatasetError, match="1 patient"):
            split_cases(patients, "random", patients=patients)
        return
    k = data.draw(st.integers(2, n_patients))
    found = [
        split_cases(patients, kind, n_folds=k, seed=seed, patients=patients, measured=lengths)
        for kind in KINDS
    ]
    for folds in found:
        for fold in folds:
            assert sorted((*fold.train, *fold.validation)) == sorted(patients)
            training = {patients[name] for name in fold.train}
            assert training.isdisjoint(patients[name] for name in fold.validation)
    for folds in found[1:]:
        assert sorted(name for fold in folds for name in fold.validation) == sorted(patients)
    assert [len(folds) for folds in found] == [1, k, n_patients, k, k]


def test_leave_one_out():
    folds = split_cases(["c", "a", "b"], "leave-one-out")
    assert [fold.validation for fold in folds] == [("a",), ("b",), ("c",)]
    assert folds[0].train == ("b", "c")


@given(
    st.dictionaries(
        st.text("abc0123", min_size=1),
        st.tuples(st.integers(20, 30).map(float), st.sampled_from([1.0, 3.0, 5.0])),
        min_size=2,
        max_size=30,
    ),
    st.data(),
)
def test_contiguous_folds_do_not_overlap_in_size(sizes, data):
    k = data.draw(st.integers(2, len(sizes)))
    folds = split_cases(sizes, "contiguous", n_folds=k, measured=sizes)
    counts = [len(fold.validation) for fold in folds]
    assert max(counts) - min(counts) <= 1
    ranges = [[sizes[name] for name in fold.validation] for fold in folds]
    for smaller, larger in pairwise(ranges):
        assert max(smaller) <= min(larger)


def test_contiguous_folds_by_hand():
    sizes = {"thick": (40, 5.0), "thin": (40, 1.0), "long": (90, 1.0), "short": (12, 5.0)}
    folds = split_cases(sizes, "contiguous", n_folds=2, measured=sizes)
    assert [fold.validation for fold in folds] == [("short", "thin"), ("long", "thick")]


def test_stratified_folds_share_out_the_large_lesions():
    # The three largest lesions of 9 are in three different folds, as are the three smallest.
    amounts = {f"case {n}": 10.0**n for n in range(9)}
    drawn = [
        split_cases(amounts, "stratified", n_folds=3, seed=seed, measured=amounts)
        for seed in range(20)
    ]
    for folds in drawn:
        for third in (range(3), range(3, 6), range(6, 9)):
            names = {f"case {n}" for n in third}
            assert all(len(names & set(fold.validation)) == 1 for fold in folds)
    assert drawn[1] != drawn[2]


def test_cases_are_not_dealt_out_by_what_they_ignore():
    """By default the last label counts, which "ignore" mostly is."""
    cases = []
    for number in range(8):
        label = np.zeros((10, 1, 1), np.uint8)
        label[: number + 1] = 1
        label[9 - number % 2 * (8 - number) :] = 2
        pair = (label, np.eye(4))
        cases.append(Case(pair, pair, f"case {number}"))
    data = Dataset(cases, {"organ": 1, "ignore": 2})
    expected = split(data, "stratified", n_folds=2, by="organ")
    assert split(data, "stratified", n_folds=2) == expected
    for fold in expected:  # one of each two neighbours in size
        sizes = sorted(int(name[-1]) // 2 for name in fold.validation)
        assert sizes == [0, 1, 2, 3]
    with pytest.raises(DatasetError, match="no label 'ignore' to split by; choose one of organ"):
        split(data, "stratified", n_folds=2, by="ignore")
