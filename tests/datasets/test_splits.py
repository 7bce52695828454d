"""Splits: disjoint, covering, the same for the same seed, whatever the order of the names."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from itertools import combinations, pairwise
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leanseg.datasets import (
    Case,
    Dataset,
    Split,
    draw_monitor,
    read_splits,
    split,
    split_cases,
    write_splits,
)
from leanseg.datasets.splits import KINDS, size_ranges, slices_of
from leanseg.errors import DatasetError
from leanseg.volumes import reorient


def random_split(names, fraction=0.7, seed=0, monitor_fraction=0.1):
    (split,) = split_cases(
        names, "random", train_fraction=fraction, monitor_fraction=monitor_fraction, seed=seed
    )
    return split


def sizes(split):
    return len(split.train), len(split.monitor), len(split.test)


def everything(split):
    return (*split.train, *split.monitor, *split.test)


NAMES = st.lists(st.text("abcdef0123_", min_size=1), min_size=4, max_size=40, unique=True)


@given(NAMES, st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.integers(0, 2**32), st.randoms())
def test_random_split_properties(names, fraction, monitor_fraction, seed, random):
    split = random_split(names, fraction, seed, monitor_fraction)
    assert sorted(everything(split)) == sorted(names)
    assert all(sizes(split))
    others = len(names) - len(split.test)
    # Rounded down; but one case tests at the least, and two do not.
    exact = fraction * len(names)
    assert exact - 1 < others <= exact + 1e-6 or others in (2, len(names) - 1)
    assert abs(len(split.monitor) - monitor_fraction * others) <= 1
    shuffled = names.copy()
    random.shuffle(shuffled)
    assert random_split(shuffled, fraction, seed, monitor_fraction) == split


@given(NAMES, st.data(), st.integers(0, 2**32), st.randoms())
def test_k_folds_properties(names, data, seed, random):
    k = data.draw(st.integers(2, len(names)))
    folds = split_cases(names, n_folds=k, seed=seed)
    assert len(folds) == k
    tested = [name for fold in folds for name in fold.test]
    assert sorted(tested) == sorted(names)
    counts = [len(fold.test) for fold in folds]
    assert max(counts) - min(counts) <= 1
    for fold in folds:
        assert sorted(everything(fold)) == sorted(names)
        others = len(fold.train) + len(fold.monitor)
        assert len(fold.monitor) == max(1, round(0.1 * others))
    shuffled = names.copy()
    random.shuffle(shuffled)
    assert split_cases(shuffled, n_folds=k, seed=seed) == folds


def test_the_sizes_of_monets_public_code():
    """train_test_split(281 cases, test_size=.3), then 10 % of the 196: specification 1.3."""
    names = [f"pancreas_{i:03d}" for i in range(281)]
    assert sizes(random_split(names)) == (176, 20, 85)
    assert sizes(random_split(names, monitor_fraction=0)) == (196, 0, 85)


def test_sizes_are_rounded_as_scikit_learn_does():
    """The test part is its fraction rounded up, in exact arithmetic."""
    for n in range(3, 120):
        split = random_split([f"case_{i:03d}" for i in range(n)])
        assert len(split.test) == math.ceil(Fraction(3, 10) * n)
        assert len(split.monitor) == max(1, round(Fraction(1, 10) * (n - len(split.test))))


def test_nothing_tests_where_all_cases_train():
    assert random_split("cab", 1.0, monitor_fraction=0) == Split(("a", "b", "c"), (), ())
    assert random_split("a", 1, monitor_fraction=0) == Split(("a",), (), ())
    assert sizes(random_split([f"{i:02d}" for i in range(20)], 1.0)) == (18, 2, 0)
    with pytest.raises(DatasetError, match="train and monitor parts"):
        random_split("a", 1.0)


@pytest.mark.parametrize("kind", KINDS)
def test_no_monitor_part_where_the_last_epoch_is_kept(kind):
    measured = {name: len(name) for name in ("a", "bb", "ccc", "dddd")}
    for fold in split_cases(measured, kind, n_folds=2, monitor_fraction=0, measured=measured):
        assert fold.monitor == ()
        assert sorted(everything(fold)) == list(measured)


def test_the_seed_matters():
    names = [f"{i:02d}" for i in range(30)]
    assert random_split(names, seed=0) != random_split(names, seed=1)
    first, second = (split_cases(names, seed=seed) for seed in (0, 1))
    assert first != second
    alone = [split_cases(names, "leave-one-out", seed=seed)[0] for seed in (0, 1)]
    assert alone[0].test == alone[1].test
    assert alone[0].monitor != alone[1].monitor


def test_folds_draw_their_monitor_cases_each_anew():
    """Every case can monitor: none is kept out of it by its place among the names."""
    names = [f"{i:02d}" for i in range(30)]
    drawn = [set(fold.monitor) for fold in split_cases(names, "leave-one-out")]
    assert set.union(*drawn) == set(names)


TOO_FEW = "add labelled cases, or set split.monitor_fraction: 0 with selection: last, which needs"


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: random_split(["a", "b"]),
            rf"2 case\(s\) cannot be split into train, monitor and test: 3 are needed; {TOO_FEW}",
        ),
        (lambda: random_split(["a"], monitor_fraction=0), r"train and test: 2 are needed; add"),
        (lambda: split_cases(["a", "b"], "leave-one-out"), "3 are needed"),
        (
            lambda: split_cases(["a", "b"], n_folds=2),
            rf"1 case\(s\) .* train and monitor parts of fold 0: 2 are needed; {TOO_FEW}",
        ),
        (
            lambda: split_cases(["a", "b"], n_folds=3),
            r"2 case\(s\) cannot make 3 folds; add labelled cases, or choose fewer",
        ),
        (
            lambda: split_cases("ab", "random", patients={"a": "1", "b": "1"}),
            r"1 patient\(s\) cannot be split",
        ),
        (lambda: random_split(["a", "b", "a"]), "'a' is listed twice"),
        (lambda: random_split(["a", "b"], 1.5), r"train_fraction is 1\.5; choose .* up to 1"),
        (lambda: random_split([], 1.0), "at least one train case"),
        (lambda: random_split("abc", monitor_fraction=1.0), r"monitor_fraction is 1\.0; choose"),
        (lambda: random_split("abc", monitor_fraction=-0.1), r"monitor_fraction is -0\.1; choose"),
        (lambda: split_cases(["a", "b", "c"], n_folds=1), "1 folds"),
        (lambda: split_cases(["a", "b"], "halves"), "no split 'halves'; choose one of random"),
        (lambda: Split(("a", "b"), (), ("b",)), "'b' is listed twice"),
        (lambda: Split(("a",), ("b",), ("b",)), "'b' is listed twice"),
        (lambda: Split(("a",), ("a",), ("b",)), "'a' is listed twice"),
        (lambda: Split((), (), ("b",)), "at least one train case"),
        (lambda: Split(("a", "a"), (), ("b",)), "'a' is listed twice; list it once"),
    ],
)
def test_bad_splits_are_named(call, sentence):
    with pytest.raises(DatasetError, match=sentence):
        call()


def test_as_many_as_are_said_to_be_needed_are_enough():
    assert sizes(random_split("abc")) == (1, 1, 1)
    assert sizes(random_split("ab", monitor_fraction=0)) == (1, 0, 1)
    assert [sizes(fold) for fold in split_cases("abc", "leave-one-out")] == [(1, 1, 1)] * 3
    assert [sizes(fold) for fold in split_cases("abcd", n_folds=2)] == [(1, 1, 2)] * 2


@given(NAMES, st.integers(0, 100), st.sampled_from([0, 0.1]))
def test_written_splits_come_back(tmp_path_factory, names, seed, monitor_fraction):
    path = tmp_path_factory.mktemp("splits") / "splits.json"
    splits = split_cases(names, n_folds=2, seed=seed, monitor_fraction=monitor_fraction)
    write_splits(path, splits)
    assert read_splits(path, names) == splits
    entries = json.loads(path.read_text())
    assert [list(entry) for entry in entries] == [["train", "monitor", "test"]] * 2


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        # nnU-Net's, and the former one: what does not train is what is reported.
        ({"train": ["b", "a"], "val": ["c"]}, Split(("a", "b"), (), ("c",))),
        ({"train": ["b", "a"], "validation": ["c"]}, Split(("a", "b"), (), ("c",))),
        ({"train": ["a"], "test": ["c"]}, Split(("a",), (), ("c",))),
        ({"train": ["a"], "monitor": ["b"], "val": ["c"]}, Split(("a",), ("b",), ("c",))),
        # Beside test cases, it is what chooses the epoch.
        ({"train": ["a"], "val": ["b"], "test": ["c"]}, Split(("a",), ("b",), ("c",))),
    ],
)
def test_files_of_others(tmp_path, entry, expected):
    path = tmp_path / "splits_final.json"
    path.write_text(json.dumps([entry]))
    assert read_splits(path) == [expected]


def test_the_monitor_cases_of_nnunets_file_are_drawn_from_those_that_train(tmp_path):
    path = tmp_path / "splits_final.json"
    names = [f"case_{i:02d}" for i in range(50)]
    folds = [{"train": names[10:], "val": names[:10]}, {"train": names[:40], "val": names[40:]}]
    path.write_text(json.dumps(folds))
    listed = read_splits(path, names)
    drawn = draw_monitor(listed, 0.1, seed=3)
    assert [sizes(each) for each in drawn] == [(36, 4, 10)] * 2
    for each, fold in zip(drawn, folds, strict=True):
        assert list(each.test) == fold["val"]
        assert sorted((*each.train, *each.monitor)) == fold["train"]
    assert draw_monitor(listed, 0.1, seed=3) == drawn
    assert draw_monitor(listed, 0.1, seed=4) != drawn
    # What is there already is left alone, and so is everything where none is wanted.
    assert draw_monitor(drawn, 0.5, seed=3) == drawn
    assert draw_monitor(listed, 0) == listed


def test_a_patient_with_many_cases_does_not_monitor_where_another_can():
    patients = {f"many_{n}": "many" for n in range(10)} | {"one": "one"}
    listed = [Split(tuple(patients), (), ("other",))]
    for seed in range(10):
        (split,) = draw_monitor(listed, seed=seed, patients=patients)
        assert split.monitor == ("one",)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[", "line 1 column 2"),
        ("{}", "Input should be a valid list"),
        ("[]", "List should have at least 1"),
        ("[3]", "'0'"),
        ('[{"train": ["a"]}]', "Field required"),
        ('[{"train": ["a"], "val": [3]}]', "Input should be a valid string, but found 3"),
        ('[{"train": ["a"], "val": ["a"]}]', "'0': case 'a' is listed twice"),
        ('[{"train": ["a"], "val": ["x"]}]', r"names 1 case\(s\) .* x; correct"),
        ('[{"train": ["a"], "monitor": ["x"], "test": ["b"]}]', r"names 1 case\(s\) .* x; correct"),
        (
            '[{"train": ["a"], "monitor": [], "test": ["b"], "val": ["a"]}]',
            "the monitor part is there twice; keep one of",
        ),
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
    st.dictionaries(st.text("abcdef0123_", min_size=1), st.integers(0, 9), min_size=3, max_size=40),
    st.data(),
    st.integers(0, 2**32),
    st.randoms(),
)
def test_no_patient_is_in_two_parts(numbered, data, seed, random):
    patients = {name: f"patient {number}" for name, number in numbered.items()}
    n_patients = len(set(patients.values()))
    lengths = {name: len(name) for name in patients}
    if n_patients < 3:
        with pytest.raises(DatasetError, match=rf"{n_patients} patient\(s\) .* 3 are needed"):
            split_cases(patients, "random", patients=patients)
        return
    k = data.draw(st.integers(3, n_patients))
    shuffled = list(patients)
    random.shuffle(shuffled)
    found, again = (
        [
            split_cases(names, kind, n_folds=k, seed=seed, patients=patients, measured=lengths)
            for kind in KINDS
            if kind != "stated"
        ]
        for names in (patients, shuffled)
    )
    assert again == found
    for folds in found:
        for fold in folds:
            assert sorted(everything(fold)) == sorted(patients)
            assert all(sizes(fold))
            parts = [{patients[name] for name in part} for part in vars(fold).values()]
            assert all(one.isdisjoint(other) for one, other in combinations(parts, 2))
    for folds in found[1:]:
        assert sorted(name for fold in folds for name in fold.test) == sorted(patients)
    assert [len(folds) for folds in found] == [1, k, k, n_patients, k, k]


def test_leave_one_out():
    folds = split_cases(["c", "a", "b"], "leave-one-out", monitor_fraction=0)
    assert [fold.test for fold in folds] == [("a",), ("b",), ("c",)]
    assert folds[0].train == ("b", "c")


@given(
    st.dictionaries(
        st.text("abc0123", min_size=1),
        st.tuples(st.integers(20, 30).map(float), st.sampled_from([1.0, 3.0, 5.0])),
        min_size=4,
        max_size=30,
    ),
    st.data(),
)
def test_contiguous_folds_do_not_overlap_in_size(measured, data):
    k = data.draw(st.integers(2, len(measured)))
    folds = split_cases(measured, "contiguous", n_folds=k, measured=measured)
    counts = [len(fold.test) for fold in folds]
    assert max(counts) - min(counts) <= 1
    ranges = [[measured[name] for name in fold.test] for fold in folds]
    for smaller, larger in pairwise(ranges):
        assert max(smaller) <= min(larger)


def test_contiguous_folds_by_hand():
    measured = {"thick": (40, 5.0), "thin": (40, 1.0), "long": (90, 1.0), "short": (12, 5.0)}
    folds = split_cases(measured, "contiguous", n_folds=2, measured=measured)
    assert [fold.test for fold in folds] == [("short", "thin"), ("long", "thick")]


@pytest.fixture
def kits19(shared_data: Path) -> dict[str, tuple[float, float]]:
    """Slices of the 210 labelled cases; the thickness is not in the file."""
    path = shared_data / "kits19_masks" / "shapes.json"
    if not path.is_file():
        pytest.skip(f"the shapes of KiTS19 are not at {path}")
    shapes = json.loads(path.read_text())
    return {name: (float(shape[0]), 1.0) for name, shape in shapes.items()}


def by_size(measured, names) -> list[str]:
    return sorted(names, key=lambda name: (*measured[name], name))


def test_sequential_folds_of_organsegrstn():
    """`in_training_set` of its public code: folds - n % folds blocks of n // folds, then larger."""
    names = [f"{number:04d}" for number in range(1, 83)]
    folds = split_cases(reversed(names), "sequential", n_folds=4, monitor_fraction=0)
    assert [(fold.test[0], fold.test[-1]) for fold in folds] == [
        ("0001", "0020"),
        ("0021", "0040"),
        ("0041", "0061"),
        ("0062", "0082"),
    ]
    assert folds[1].train == (*names[:20], *names[40:])


@given(NAMES, st.data(), st.integers(0, 2**32))
def test_sequential_folds_are_blocks(names, data, seed):
    k = data.draw(st.integers(2, len(names)))
    folds = split_cases(names, "sequential", n_folds=k, seed=seed)
    assert [name for fold in folds for name in fold.test] == sorted(names)
    counts = [len(fold.test) for fold in folds]
    assert counts == sorted(counts)
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize(
    ("fraction", "n", "expected"), [(0.77, 281, (216, 0, 65)), (0.76, 82, (62, 0, 20))]
)
def test_the_sizes_of_paper_003(fraction, n, expected):
    names = [f"{number:03d}" for number in range(n)]
    assert sizes(random_split(names, fraction, monitor_fraction=0)) == expected


def test_contiguous_folds_of_kits19(kits19):
    """Paper 002's five folds, with the true slice counts: 29 to 1059."""
    folds = split_cases(kits19, "contiguous", n_folds=5, measured=kits19)
    assert [len(fold.test) for fold in folds] == [42] * 5
    tests = [name for fold in folds for name in by_size(kits19, fold.test)]
    assert sorted(tests) == sorted(kits19)
    counts = [kits19[name][0] for name in tests]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (29, 1059)
    for fold in folds:
        assert sorted((*fold.train, *fold.monitor, *fold.test)) == sorted(kits19)
        assert len(fold.monitor) == 17
        outside = [kits19[name][0] for name in (*fold.train, *fold.monitor)]
        own = [kits19[name][0] for name in fold.test]
        assert not any(min(own) < n < max(own) for n in outside)
    # Of cases with as many slices the names count.
    assert tests == by_size(kits19, kits19)
    told = size_ranges(folds, {name: n for name, (n, _) in kits19.items()})
    assert told[0].startswith("fold 0 tests on 42 case(s) of 29 to ")
    assert told[4].endswith(" to 1059 slices")


def test_ties_in_slices_are_broken_the_same_way_each_time(kits19, rng):
    """By thickness, then by name, whatever the order in which the cases come."""
    thickness = dict(zip(sorted(kits19), rng.choice([0.5, 1.0, 5.0], len(kits19)), strict=True))
    measured = {name: (n, float(thickness[name])) for name, (n, _) in kits19.items()}
    assert len({n for n, _ in measured.values()}) < len(measured)
    expected = [tuple(sorted(part)) for part in np.split(np.array(by_size(measured, measured)), 5)]
    for _ in range(3):
        names = [str(name) for name in rng.permutation(list(measured))]
        shuffled = {name: measured[name] for name in names}
        folds = split_cases(names, "contiguous", n_folds=5, measured=shuffled)
        assert [fold.test for fold in folds] == expected


def test_more_contiguous_folds_than_cases(kits19):
    with pytest.raises(DatasetError, match=r"210 case\(s\) cannot make 211 folds") as found:
        split_cases(kits19, "contiguous", n_folds=211, measured=kits19)
    assert "\n" not in str(found.value)


def test_slices_are_counted_from_headers(tmp_path, monkeypatch):
    """Along the axis of the orientation, however the scan is stored; no voxel is read."""
    affine = np.eye(4)[[2, 0, 1, 3]] * np.array([3.0, 1.5, 1.5, 1.0])
    image = nib.Nifti1Image(np.zeros((6, 4, 9), np.int16), affine @ np.diag([1, -1, 1, 1]))
    nib.save(image, tmp_path / "scan.nii.gz")
    case = Case(tmp_path / "scan.nii.gz")
    read = reorient(case.image, "LPS")
    monkeypatch.setattr(Case, "image", property(lambda case: 1 / 0))
    assert slices_of(case) == (read.shape[2], pytest.approx(read.spacing_mm[2]))
    assert slices_of(case, "SPL")[0] in (4, 6, 9)


def test_stated_folds():
    """A patient is where its first case is, and what states no fold is nowhere."""
    stated = {"a": "2", "b": "10", "c": "1", "d": "1", "b copy": "1"}
    folds = split_cases(
        [*stated, "unstated"],
        "stated",
        monitor_fraction=0,
        patients={"b": "B", "b copy": "B"},
        measured=stated,
    )
    assert [fold.test for fold in folds] == [("c", "d"), ("a",), ("b", "b copy")]
    assert folds[0].train == ("a", "b", "b copy")
    with pytest.raises(DatasetError, match="state 1 fold"):
        split_cases(["a", "b"], "stated", measured={"a": "1", "b": "1"})


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
            assert all(len(names & set(fold.test)) == 1 for fold in folds)
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
        sizes = sorted(int(name[-1]) // 2 for name in fold.test)
        assert sizes == [0, 1, 2, 3]
    with pytest.raises(DatasetError, match="no label 'ignore' to split by; choose one of organ"):
        split(data, "stratified", n_folds=2, by="ignore")
