from __future__ import annotations

import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from leanseg.errors import DatasetError, FileFormatError
from leanseg.reports.run_folder import read_run_folder


def test_a_complete_run_misses_nothing(make_run):
    run = read_run_folder(make_run())
    assert run.missing == ()
    assert run.name == "my run"
    assert run.labels == ("organ",)
    assert [score.case for score in run.cases] == ["case_0", "case_2", "case_4"]
    assert [row["epoch"] for row in run.folds[0].epochs] == [1, 2, 3, 4]


def test_folds_are_pooled_in_order(make_run):
    run = read_run_folder(make_run(n_folds=2))
    assert [fold.index for fold in run.folds] == [0, 1]
    assert len(run.cases) == 6
    dice = [score.metrics["dice"] for score in run.cases]
    assert run.scores.summary["organ"]["dice"]["mean"] == pytest.approx(sum(dice) / 6)


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"nowhere: there is no such folder"):
        read_run_folder(tmp_path / "nowhere")


def test_a_folder_that_is_not_a_run_is_told_what_is_expected(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"not a run.*recipe\.yaml.*leanseg train"):
        read_run_folder(tmp_path)


def test_what_a_run_in_progress_lacks_is_named(make_run):
    folder = make_run(n_folds=2)
    shutil.rmtree(folder / "fold_1")
    shutil.rmtree(folder / "fold_0" / "validation")
    (folder / "fold_0" / "summary.json").unlink()
    (folder / "environment.json").unlink()
    missing = " ".join(read_run_folder(folder).missing)
    for expected in ("environment.json", "summary.json", "scores.json", "1 of the split's 2"):
        assert expected in missing
    assert "data.json" not in missing


def test_the_line_that_training_is_writing_is_left_out(make_run):
    folder = make_run()
    metrics = folder / "fold_0" / "metrics.jsonl"
    metrics.write_text(metrics.read_text()[:-20])
    assert [row["epoch"] for row in read_run_folder(folder).folds[0].epochs] == [1, 2, 3]


def test_a_damaged_line_in_the_middle_is_an_error(make_run):
    folder = make_run()
    metrics = folder / "fold_0" / "metrics.jsonl"
    first, *others = metrics.read_text().splitlines()
    metrics.write_text("\n".join([first[:-5], *others]))
    with pytest.raises(FileFormatError, match=r"metrics\.jsonl: line 1 "):
        read_run_folder(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("plan.json", '{"stages": [], "orientation": "XYZ"}', r"plan\.json: stages"),
        ("plan.json", "{", r"plan\.json"),
        ("data.json", "{", r"data\.json: not readable as JSON"),
        ("environment.json", "[1]", r"environment\.json: expected a JSON object, found list"),
        ("fold_0/summary.json", "nonsense", r"summary\.json"),
        ("fold_0/validation/scores.json", '{"format": "other"}', r"scores\.json"),
    ],
)
def test_a_damaged_file_is_named(make_run, name, content, message):
    folder = make_run()
    (folder / name).write_text(content)
    with pytest.raises(FileFormatError, match=message):
        read_run_folder(folder)


def test_other_folders_are_not_folds(make_run):
    folder = make_run()
    (folder / "fold_old").mkdir()
    (folder / "cache").mkdir()
    assert len(read_run_folder(folder).folds) == 1


def test_scan_and_reference_are_what_training_saw(make_run):
    folder = make_run(labels=("organ", "tumour"))
    run = read_run_folder(folder)
    stored = nib.load(folder.parent / "data" / "case_3_label.nii.gz")
    np.testing.assert_array_equal(run.reference("case_3").array, np.asarray(stored.dataobj))
    scan = nib.load(folder.parent / "data" / "case_3.nii.gz")
    np.testing.assert_array_equal(run.image("case_3").array, np.asarray(scan.dataobj))


def test_merged_and_unannotated_labels_in_a_reference(make_run):
    folder = make_run(labels=("organ", "tumour"))
    content = json.loads((folder / "data.json").read_text())
    content["labels"] = {"both": 1, "organ": 2}
    content["label_values"] = {"both": [1, 2], "organ": [1]}
    for entry in content["cases"]:
        entry["annotated_classes"] = ["both"]
    (folder / "data.json").write_text(json.dumps(content))
    run = read_run_folder(folder)
    stored = np.asarray(nib.load(folder.parent / "data" / "case_1_label.nii.gz").dataobj)
    np.testing.assert_array_equal(run.reference("case_1").array, stored > 0)


def test_the_channel_that_the_network_sees(make_run):
    folder = make_run()
    scan = nib.load(folder.parent / "data" / "case_0.nii.gz")
    voxels = np.asarray(scan.dataobj)
    both = nib.Nifti1Image(np.stack([voxels, 2 * voxels], axis=-1), scan.affine)
    nib.save(both, folder.parent / "data" / "case_0.nii.gz")
    content = json.loads((folder / "data.json").read_text())
    content["cases"][0]["channel_indices"] = [1]
    (folder / "data.json").write_text(json.dumps(content))
    np.testing.assert_array_equal(read_run_folder(folder).image("case_0").array, 2 * voxels)


def test_a_case_that_the_run_does_not_know_is_named(make_run):
    with pytest.raises(DatasetError, match="case_9"):
        read_run_folder(make_run()).reference("case_9")
