"""BIDS-like trees, with labels in derivatives or beside the scans."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import layout_samples as samples
from leanseg.datasets import load_case, open_dataset
from leanseg.errors import DatasetError

IMAGE, LABEL = next(iter(samples.CASES.values()))
DSEG = "derivatives/manual"


def scan(folder: Path, path: str) -> None:
    samples.save(folder / path, IMAGE)


def label(folder: Path, path: str, values: np.ndarray = LABEL) -> None:
    samples.save(folder / path, values.astype(np.uint8))


def table(folder: Path, path: str, *names: str) -> None:
    rows = [f"{value}\t{name}" for value, name in enumerate(names, start=1)]
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text("\n".join(["index\tname", *rows]) + "\n")


def test_contrasts_are_channels_sessions_and_runs_are_cases(tmp_path: Path) -> None:
    for case in ("sub-1_ses-a_run-1", "sub-1_ses-a_run-2", "sub-1_ses-b"):
        session = case.split("_")[1]
        for contrast in ("T1w", "ce-gad_T1w", "FLAIR"):
            scan(tmp_path, f"sub-1/{session}/anat/{case}_{contrast}.nii.gz")
    scan(tmp_path, "sub-1/ses-a/func/sub-1_ses-a_task-rest_bold.nii.gz")
    scan(tmp_path, "sub-1/ses-a/anat/sub-1_ses-a_run-1_desc-brain_mask.nii.gz")
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "bids"
    assert dataset.channels == ("FLAIR", "T1w", "ce-gad_T1w")
    assert [case.name for case in dataset.cases] == [
        "sub-1_ses-a_run-1",
        "sub-1_ses-a_run-2",
        "sub-1_ses-b",
    ]
    assert {case.metadata["patient"] for case in dataset.cases} == {"sub-1"}


def test_tables_higher_up_and_values_by_name(tmp_path: Path) -> None:
    for number in ("1", "2"):
        scan(tmp_path, f"sub-{number}/anat/sub-{number}_T1w.nii.gz")
        label(tmp_path, f"{DSEG}/sub-{number}/anat/sub-{number}_desc-x_dseg.nii.gz")
    label(tmp_path, f"{DSEG}/sub-1/anat/sub-1_space-MNI152_desc-x_dseg.nii.gz")
    table(tmp_path, f"{DSEG}/desc-x_dseg.tsv", "liver", "spleen")
    table(tmp_path, f"{DSEG}/desc-y_dseg.tsv", "other", "another")
    table(tmp_path, f"{DSEG}/sub-2/anat/sub-2_desc-x_dseg.tsv", "spleen", "kidney")
    dataset = open_dataset(tmp_path)
    assert dataset.labels == {"liver": 1, "spleen": 2, "kidney": 3}
    np.testing.assert_array_equal(load_case(dataset.cases[0], dataset)[1].array, LABEL)
    turned = load_case(dataset.cases[1], dataset)[1].array
    np.testing.assert_array_equal(turned, np.array([0, 2, 3])[LABEL])
    # Each table names what its label maps annotate; what the other one has besides is unknown.
    assert dataset.cases[0].annotated == {"liver", "spleen"}
    assert dataset.cases[1].annotated == {"spleen", "kidney"}


def test_masks_of_labels(tmp_path: Path) -> None:
    for number, organs in (("1", ("liver", "spleen")), ("2", ("liver",))):
        scan(tmp_path, f"sub-{number}/ct/sub-{number}_CT.nii.gz")
        for organ in organs:
            value = {"liver": 1, "spleen": 2}[organ]
            name = f"sub-{number}_label-{organ}_mask.nii.gz"
            label(tmp_path, f"{DSEG}/sub-{number}/ct/{name}", value == LABEL)
        label(tmp_path, f"{DSEG}/sub-{number}/ct/sub-{number}_desc-body_mask.nii.gz", LABEL >= 0)
    dataset = open_dataset(tmp_path)
    assert dataset.labels == {"liver": 1, "spleen": 2}
    assert [case.annotated for case in dataset.cases] == [None, {"liver"}]
    np.testing.assert_array_equal(load_case(dataset.cases[0], dataset)[1].array, LABEL)


def test_masks_lie_on_top_of_the_label_map(tmp_path: Path) -> None:
    scan(tmp_path, "sub-1/ct/sub-1_CT.nii.gz")
    label(tmp_path, f"{DSEG}/sub-1/sub-1_dseg.nii.gz")
    lesion = LABEL == 1
    lesion[np.unravel_index(lesion.argmax(), lesion.shape)] = False
    label(tmp_path, f"{DSEG}/sub-1/sub-1_label-lesion_mask.nii.gz", lesion)
    table(tmp_path, f"{DSEG}/dseg.tsv", "liver", "spleen")
    dataset = open_dataset(tmp_path)
    assert dataset.labels == {"liver": 1, "spleen": 2, "lesion": 3}
    found = load_case(dataset.cases[0], dataset)[1].array
    np.testing.assert_array_equal(found, np.where(lesion, 3, LABEL))


def test_described_masks_and_unnamed_values(tmp_path: Path) -> None:
    scan(tmp_path, "sub-1/anat/sub-1_T1w.nii.gz")
    label(tmp_path, "sub-1/anat/sub-1_desc-brain_mask.nii.gz", LABEL > 0)
    assert open_dataset(tmp_path).labels == {"brain": 1}
    label(tmp_path, "sub-1/anat/sub-1_dseg.nii.gz")
    assert open_dataset(tmp_path).labels == {"label_1": 1, "label_2": 2}


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    scan(tmp_path, "sub-1/anat/sub-1_T1w.nii.gz")
    scan(tmp_path, "sub-2/anat/sub-2_T1w.nii.gz")
    scan(tmp_path, "sub-2/anat/sub-2_T2w.nii.gz")
    with pytest.raises(DatasetError, match="sub-2 has T1w, T2w, but sub-1 has T1w; every case"):
        open_dataset(tmp_path)
    (tmp_path / "sub-2/anat/sub-2_T2w.nii.gz").unlink()
    label(tmp_path, "derivatives/a/sub-1/anat/sub-1_dseg.nii.gz")
    label(tmp_path, "derivatives/b/sub-1/anat/sub-1_dseg.nii.gz")
    with pytest.raises(DatasetError, match="are both label maps called 'sub-1'; keep one"):
        open_dataset(tmp_path)
    (tmp_path / "derivatives/b/sub-1/anat/sub-1_dseg.nii.gz").unlink()
    (tmp_path / "derivatives/a/dseg.tsv").write_text("value\tname\n1\tliver\n")
    with pytest.raises(DatasetError, match=r"dseg\.tsv: needs the columns index and name"):
        open_dataset(tmp_path)
