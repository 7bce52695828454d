"""Cases and datasets made in code, of files, volumes and arrays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from leanseg.datasets import Case, Dataset, convert, open_dataset, split
from leanseg.errors import DatasetError
from leanseg.volumes import Volume

AFFINE = np.diag([-1.0, -1.0, 2.5, 1.0])
IMAGE = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
LABEL = (IMAGE % 3).astype(np.uint8)
PAIR = (IMAGE, AFFINE)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    for name, array in (("p1", IMAGE), ("p1_label", LABEL)):
        nib.save(nib.Nifti1Image(array, AFFINE), tmp_path / f"{name}.nii.gz")
    return tmp_path / "p1.nii.gz", tmp_path / "p1_label.nii.gz"


@pytest.mark.parametrize("kind", ["path", "text", "volume", "arrays"])
def test_whatever_holds_voxels_makes_a_case(files: tuple[Path, Path], kind: str) -> None:
    given = {
        "path": files,
        "text": tuple(map(str, files)),
        "volume": (Volume(IMAGE, AFFINE), Volume(LABEL, AFFINE)),
        "arrays": (PAIR, (LABEL.tolist(), AFFINE.tolist())),
    }[kind]
    data = Dataset([Case(*given)], labels={"liver": 1, "spleen": 2})
    assert data[0].name == ("p1" if kind in ("path", "text") else "case_000")
    np.testing.assert_array_equal(data[0].image.array, IMAGE)
    np.testing.assert_array_equal(data[0].label.array, LABEL)
    np.testing.assert_array_equal(data[0].image.affine, AFFINE)
    assert data.channels == ("channel_0",)


def test_channels_in_a_list_or_in_one_array() -> None:
    several = Dataset([Case([PAIR, PAIR])])
    assert several.channels == ("channel_0", "channel_1")
    np.testing.assert_array_equal(several[0].image.array, np.stack([IMAGE, IMAGE], axis=-1))
    assert several[0].label is None
    assert Dataset([Case((np.stack([IMAGE] * 3, -1), AFFINE))]).channels[-1] == "channel_2"


def test_order_names_and_labels_of_a_dataset() -> None:
    data = Dataset([Case(PAIR, PAIR, "b"), Case(PAIR, (LABEL, AFFINE)), Case(PAIR, name="a")])
    assert [case.name for case in data] == ["b", "case_001", "a"]
    assert data["a"] is data[2]
    assert len(data) == 3
    # Nobody names them: the values that occur.
    assert list(data.labels.values()) == list(range(1, 60))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Dataset([]), "there is no case"),
        (lambda: Dataset([Case(PAIR, name="a")] * 2), "2 cases are called 'a'"),
        (lambda: Dataset([Case(PAIR)], {"liver": 0}), r"values \[0\]; number them"),
        (lambda: Dataset([Case(PAIR)], {"liver": 1, "spleen": 1}), r"values \[1, 1\]"),
    ],
)
def test_what_makes_no_dataset(make, sentence: str) -> None:
    with pytest.raises(DatasetError, match=sentence):
        make()


def test_a_part_changes_and_the_rest_stays() -> None:
    case = Case(PAIR, (LABEL, AFFINE), "a", annotated=["liver"], metadata={"patient": "7"})
    bare = replace(case, label_parts=())
    assert (bare.name, bare.images, bare.metadata) == ("a", case.images, {"patient": "7"})
    assert case.annotates("liver")
    assert not case.annotates("spleen")
    assert not bare.annotates("liver")


def test_arrays_become_files(tmp_path: Path) -> None:
    data = Dataset([Case(PAIR, (LABEL, AFFINE), n) for n in "ab"], {"x": 1, "y": 2}, ["CT"])
    done = convert(data, "nnunet", tmp_path / "out")
    assert (done.n_copied, done.n_written) == (0, 4)
    stored = open_dataset(tmp_path / "out")
    assert dict(stored.labels) == {"x": 1, "y": 2}
    for case in stored:
        np.testing.assert_array_equal(case.image.array, IMAGE)
        np.testing.assert_array_equal(case.label.array, LABEL)


def sized(n_slices: int, n_lesion: int, patient: str) -> Case:
    label = np.zeros((4, 4, n_slices), np.uint8)
    label.ravel()[:n_lesion] = 2
    metadata = {"patient": patient}
    return Case((label, np.eye(4)), (label, np.eye(4)), f"{n_slices:02d}", metadata=metadata)


@pytest.mark.parametrize("kind", ["random", "k-fold", "leave-one-out", "contiguous", "stratified"])
def test_every_kind_of_split_keeps_patients_together(kind: str) -> None:
    cases = [sized(n, 20 - n, str(n // 2)) for n in range(2, 12)]
    unlabelled = Case((LABEL, AFFINE), name="none")
    data = Dataset([*cases, unlabelled], {"liver": 1, "lesion": 2})
    patients = {case.name: case.metadata["patient"] for case in cases}
    folds = split(data, kind, n_folds=5)
    for fold in folds:
        parts = (fold.train, fold.monitor, fold.test)
        assert sorted(name for part in parts for name in part) == sorted(patients)
        assert sum(len({patients[name] for name in part}) for part in parts) == 5
    assert len(folds) == (1 if kind == "random" else 5)
    if kind == "contiguous":
        assert next(fold.test for fold in folds) == ("02", "03")


def test_splits_that_cannot_be_made() -> None:
    data = Dataset([sized(n, 1, str(n)) for n in (3, 4)], {"lesion": 2})
    with pytest.raises(DatasetError, match="there is no split 'odd'; choose one of random"):
        split(data, "odd")
    with pytest.raises(DatasetError, match="there is no label 'lung' to split by"):
        split(data, "stratified", by="lung", n_folds=2)
