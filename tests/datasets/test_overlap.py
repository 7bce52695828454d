"""Voxels that two labels claim: refused where labels become one map, but for nested ones."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import TypeAdapter

from leanseg.datasets import Case, Dataset, LabelPart, VolumeSource, convert, open_dataset
from leanseg.datasets.check import check
from leanseg.datasets.load import load_label
from leanseg.errors import DatasetError
from leanseg.evaluation import evaluate
from leanseg.volumes import Volume

SHAPE, AFFINE = (9, 8, 6), np.diag([-1.0, -1, 2, 1])
masks = hnp.arrays(np.bool_, (3, 2, 2))


def parts(*arrays: np.ndarray, covers: bool = False) -> tuple[LabelPart, ...]:
    return tuple(
        LabelPart(VolumeSource.of((array.astype(np.uint8), AFFINE)), value=n, covers=covers)
        for n, array in enumerate(arrays, 1)
    )


@settings(max_examples=300, deadline=None)
@given(lower=masks, upper=masks, covers=st.booleans())
def test_two_masks(lower: np.ndarray, upper: np.ndarray, covers: bool) -> None:
    both = int((lower & upper).sum())
    is_within = both == upper.sum() and (lower & ~upper).any()
    image, made = Volume(np.zeros(lower.shape), AFFINE), parts(lower, upper, covers=covers)
    result = check(Dataset([Case((image.array, AFFINE), made)], {"a": 1, "b": 2}))
    found = [f.message for f in result.findings if f.kind == "label-overlap"]
    if covers or not both or is_within:
        merged = np.where(upper, 2, lower)
        np.testing.assert_array_equal(load_label(made, image).array, merged)
        assert not found
    else:
        with pytest.raises(DatasetError, match=f": {both} voxels of case 'x' are both label 1 and"):
            load_label(made, image, "x")
        assert found == [f"array in memory: {both} voxels of case_000 are both a and b"]


def box(start: int, stop: int) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[start:stop, 2:6, 1:5] = 1
    return mask


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, AFFINE), path)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table of two cases; in the second one liver and spleen share voxels."""
    lines = ["case,image,label:liver,label:spleen"]
    for case, start in (("good", 5), ("bad", 3)):
        save(tmp_path / case / "ct.nii.gz", np.arange(np.prod(SHAPE)).reshape(SHAPE).astype("i2"))
        save(tmp_path / case / "liver.nii.gz", box(1, 5))
        save(tmp_path / case / "spleen.nii.gz", box(start, 8))
        lines.append(f"{case},{case}/ct.nii.gz,{case}/liver.nii.gz,{case}/spleen.nii.gz")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    return tmp_path / "list.csv"


def test_every_way_to_one_map_names_case_classes_and_number(table: Path, tmp_path: Path) -> None:
    dataset = open_dataset(table)
    sentence = r"bad/spleen\.nii\.gz: 32 voxels of case 'bad' are both liver and spleen"
    with pytest.raises(DatasetError, match=sentence):
        convert(dataset, "plain", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    (finding,) = (f for f in check(dataset).findings if f.severity == "error")
    assert finding.message.endswith("32 voxels of bad are both liver and spleen")
    save(tmp_path / "predicted" / "bad.nii.gz", box(1, 8))
    with pytest.raises(DatasetError, match="32 voxels of case 'bad' are both"):
        evaluate(tmp_path / "predicted" / "bad.nii.gz", table)


def test_masks_in_a_folder_are_layered_by_no_alphabet(tmp_path: Path) -> None:
    save(tmp_path / "p1" / "ct.nii.gz", np.zeros(SHAPE, np.int16))
    for organ, mask in (("cyst", box(2, 4)), ("kidney", box(1, 8))):
        save(tmp_path / "p1" / "segmentations" / f"{organ}.nii.gz", mask)
    (case,) = open_dataset(tmp_path, "casefolders")
    # The kidney would hide all of the cyst.
    with pytest.raises(DatasetError, match="32 voxels of case 'p1' are both label 1 and label 2"):
        _ = case.label


def test_a_part_is_stored_with_its_right_to_cover() -> None:
    for part in parts(box(1, 2), covers=True) + parts(box(1, 2)):
        stored = part.to_json()
        assert TypeAdapter(LabelPart).validate_python(stored).covers is part.covers
        # Data files of runs that were started before know no such key.
        assert ("covers" in stored) is part.covers
