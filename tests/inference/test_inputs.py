"""From paths to scans: files, folders and datasets, channels by name, names that clash."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from dicom_writer import write_series
from leanseg.datasets import load_case
from leanseg.errors import DatasetError, LeansegError
from leanseg.inference.inputs import DicomChoice, collect_tasks
from leanseg.plan import HounsfieldWindow
from plans import slices

CT = slices(window=HounsfieldWindow())


def scan(path: Path, n_channels: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (4, 4, 3) if n_channels == 1 else (4, 4, 3, n_channels)
    nib.save(nib.Nifti1Image(np.zeros(shape, dtype=np.int16), np.eye(4)), path)
    return path


def decathlon(folder: Path, channels: list[str]) -> Path:
    for name in ("b", "a"):
        scan(folder / "imagesTr" / f"{name}.nii.gz", len(channels))
        scan(folder / "labelsTr" / f"{name}.nii.gz")
    listing = {
        "name": "data",
        "labels": {"0": "background", "1": "organ"},
        "modality": {str(n): name for n, name in enumerate(channels)},
        "training": [
            {"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in "ba"
        ],
    }
    (folder / "dataset.json").write_text(json.dumps(listing))
    return folder


def names(tasks) -> list[str]:
    return [task.case.name for task in tasks]


def test_files_in_the_order_given(tmp_path: Path) -> None:
    files = [scan(tmp_path / name) for name in ("z.nii.gz", "a.b.nii", "m.nii.gz")]
    tasks = collect_tasks(files, CT)
    assert names(tasks) == ["z", "a.b", "m"]
    assert [task.case.images[0].path for task in tasks] == files
    assert {task.channel_indices for task in tasks} == {None}


def test_a_folder_sorted_by_name(tmp_path: Path) -> None:
    for name in ("c.nii.gz", "a.nii", "b_0000.nii.gz", "._a.nii.gz"):
        scan(tmp_path / name)
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "more").mkdir()
    assert names(collect_tasks([tmp_path], CT)) == ["a", "b_0000", "c"]


def test_a_pair_of_folders(tmp_path: Path) -> None:
    scan(tmp_path / "images" / "p1.nii.gz")
    scan(tmp_path / "images" / "p2.nii.gz")
    assert names(collect_tasks([tmp_path], CT)) == ["p1", "p2"]


def test_channels_in_several_files(tmp_path: Path) -> None:
    for name in ("p_0000", "p_0001", "q_0000", "q_0001"):
        scan(tmp_path / f"{name}.nii.gz")
    tasks = collect_tasks([tmp_path], slices(channels=("T1", "T2")))
    assert names(tasks) == ["p", "q"]
    assert [source.path.name for source in tasks[0].case.images] == [
        "p_0000.nii.gz",
        "p_0001.nii.gz",
    ]


@pytest.mark.parametrize("by_listing", [False, True])
def test_a_datasets_channels_by_name(tmp_path: Path, by_listing: bool) -> None:
    folder = decathlon(tmp_path / "data", ["FLAIR", "T1w", "T2w"])
    source = folder / "dataset.json" if by_listing else folder
    tasks = collect_tasks([source], slices(channels=("T2w", "FLAIR")))
    assert names(tasks) == ["a", "b"]
    assert {task.channel_indices for task in tasks} == {(2, 0)}


def test_as_many_channels_under_other_names(tmp_path: Path) -> None:
    tasks = collect_tasks([decathlon(tmp_path / "data", ["portal venous CT"])], CT)
    assert {task.channel_indices for task in tasks} == {None}


def test_channels_by_number_overrule(tmp_path: Path) -> None:
    folder = decathlon(tmp_path / "data", ["FLAIR", "T1w"])
    tasks = collect_tasks([folder], CT, [1])
    assert {task.channel_indices for task in tasks} == {(1,)}


def test_channels_that_the_dataset_lacks(tmp_path: Path) -> None:
    folder = decathlon(tmp_path / "data", ["FLAIR", "T1w"])
    with pytest.raises(
        DatasetError, match=r"has channels FLAIR, T1w, but the model needs CT; .* --channel"
    ):
        collect_tasks([folder], CT)


def test_a_missing_scan_is_left_to_the_reader(tmp_path: Path) -> None:
    """It must not stop the others."""
    present = scan(tmp_path / "a.nii.gz")
    assert names(collect_tasks([present, tmp_path / "gone.nii.gz"], CT)) == ["a", "gone"]


def test_what_is_neither_scan_nor_folder(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nowhere: there is no such scan or folder"):
        collect_tasks([tmp_path / "nowhere"], CT)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="the folder is empty"):
        collect_tasks([tmp_path], CT)


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["A/ct.nii.gz", "B/ct.nii"], ["A_ct", "B_ct"]),
        (["A/x/ct.nii.gz", "B/x/ct.nii.gz", "c.nii"], ["A_x_ct", "B_x_ct", "c"]),
        (["A/ct.nii", "B/ct.nii", "A_ct.nii"], ["A_ct", "B_ct", "A_ct_2"]),
    ],
)
def test_scans_of_one_name_are_told_apart_by_their_folders(tmp_path, paths, expected) -> None:
    found = names(collect_tasks([scan(tmp_path / path) for path in paths], CT))
    assert len(set(found)) == len(found)
    assert all(name.endswith(wanted) for name, wanted in zip(found, expected, strict=True))


def test_dicom_folders_of_one_name(tmp_path) -> None:
    folders = [series(tmp_path / name / "dicom") for name in ("A", "B")]
    assert names(collect_tasks(folders, CT)) == ["A_dicom", "B_dicom"]


def test_a_scan_given_twice(tmp_path: Path) -> None:
    path = scan(tmp_path / "ct.nii.gz")
    with pytest.raises(DatasetError, match=r"ct\.nii\.gz: is given 2 times"):
        collect_tasks([path, path], CT)


def test_a_dataset_that_names_missing_files(tmp_path: Path) -> None:
    folder = decathlon(tmp_path / "data", ["CT"])
    (folder / "imagesTr" / "a.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"names 1 file that does not exist: .*a\.nii\.gz"):
        collect_tasks([folder], CT)


def series(
    folder: Path, patient: str = "Doe^Jane", number: int = 2, depth: int = 4, **more
) -> Path:
    array = np.full((6, 5, depth), -7)
    affine = np.diag([-1.0, -1.0, 2.0, 1.0])
    write_series(folder, array, affine, patient=patient, series_number=number, **more)
    return folder


def zipped(folder: Path) -> Path:
    return Path(shutil.make_archive(str(folder), "zip", folder))


def test_a_dicom_folder_is_one_scan(tmp_path):
    series(tmp_path / "scan" / "deep" / "a")
    series(tmp_path / "scan" / "b", number=3, depth=9)
    (task,) = collect_tasks([tmp_path / "scan"], CT)
    assert task.case.name == "scan"
    assert task.case.images[0].options == {"modality": "CT"}
    # The one that fits is the larger one; a choice goes before that.
    assert load_case(task.case)[0].shape == (6, 5, 9)
    (task,) = collect_tasks([tmp_path / "scan"], CT, dicom=DicomChoice(series="2"))
    assert load_case(task.case)[0].shape == (6, 5, 4)


def test_a_model_for_any_intensity_takes_any_modality(tmp_path):
    series(tmp_path / "scan", modality="MR")
    anything = slices(channels=("MR",))
    (task,) = collect_tasks([tmp_path / "scan"], anything)
    assert load_case(task.case)[0].shape == (6, 5, 4)
    (task,) = collect_tasks([tmp_path / "scan"], CT)
    with pytest.raises(LeansegError, match="no CT scan"):
        load_case(task.case)


def test_dicom_zips_and_files(tmp_path):
    archive = zipped(series(tmp_path / "größe"))
    (task,) = collect_tasks([archive], CT)
    assert task.case.name == "größe"
    assert load_case(task.case)[0].shape == (6, 5, 4)
    inside = collect_tasks([archive / "IM0001"], CT)
    assert names(inside) == ["IM0001"]


def test_a_folder_of_patients_is_a_scan_each(tmp_path):
    for name in ("a", "b"):
        series(tmp_path / "many" / name / "study", patient=f"Patient {name}")
    zipped(series(tmp_path / "c", patient="Patient c")).rename(tmp_path / "many" / "c.zip")
    tasks = collect_tasks([tmp_path / "many"], CT)
    assert names(tasks) == ["a", "b", "c"]
    assert all(load_case(task.case)[0].shape == (6, 5, 4) for task in tasks)


def test_dicom_in_a_dataset_layout_is_a_dataset(tmp_path, rng):
    for name in ("a", "b"):
        series(tmp_path / "data" / "images" / name)
    tasks = collect_tasks([tmp_path / "data"], CT)
    assert names(tasks) == ["a", "b"]


def test_the_label_in_a_case_folder_is_no_scan(tmp_path):
    scan(tmp_path / "p1" / "ct.nii.gz")
    scan(tmp_path / "p1" / "labels.nii.gz")
    (task,) = collect_tasks([tmp_path / "p1"], CT)
    assert task.case.name == "p1"
    assert task.case.images[0].path.name == "ct.nii.gz"
