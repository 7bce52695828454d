from __future__ import annotations

import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from leanseg.errors import FileFormatError, LeansegError, RecipeError
from leanseg.reports.run_folder import read_run_folder


def test_a_complete_run_misses_nothing(make_run):
    run = read_run_folder(make_run())
    assert run.missing == []
    assert run.labels == {"organ": 1}
    assert [score.case for score in run.scores.cases] == ["case_0", "case_2", "case_4"]
    assert [row["epoch"] for row in run.folds[0].epochs] == [1, 2, 3, 4]


def test_folds_are_pooled_in_order(make_run):
    run = read_run_folder(make_run(n_folds=2))
    assert [fold.index for fold in run.folds] == [0, 1]
    dice = [score.metrics["dice"] for score in run.scores.cases]
    assert len(dice) == 6
    assert run.scores.summary["organ"]["dice"]["mean"] == pytest.approx(sum(dice) / 6)


@pytest.mark.parametrize("name", ["recipe.yaml", "plan.json", "data.json", "environment.json"])
def test_a_folder_that_is_not_a_run_is_told_what_is_expected(make_run, name):
    folder = make_run()
    (folder / name).unlink()
    said = "is not a run" if name == "recipe.yaml" else f"{name}: cannot be read.*train again"
    with pytest.raises(LeansegError, match=said):
        read_run_folder(folder)
    with pytest.raises(RecipeError, match="nowhere: is not a run"):
        read_run_folder(folder / "nowhere")


def test_what_a_run_in_progress_lacks_is_named(make_run):
    folder = make_run(n_folds=2)
    shutil.rmtree(folder / "fold_1")
    shutil.rmtree(folder / "fold_0" / "test")
    (folder / "fold_0" / "summary.json").unlink()
    missing = " ".join(read_run_folder(folder).missing)
    for expected in ("summary.json", "scores.json", "1 of the split's 2"):
        assert expected in missing


def test_the_line_that_training_is_writing_is_left_out(make_run):
    folder = make_run()
    metrics = folder / "fold_0" / "metrics.jsonl"
    metrics.write_text(metrics.read_text()[:-20])
    assert [row["epoch"] for row in read_run_folder(folder).folds[0].epochs] == [1, 2, 3]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plan.json", '{"stages": [], "orientation": "XYZ"}'),
        ("plan.json", "{"),
        ("data.json", "{}"),
        ("environment.json", "nonsense"),
        ("fold_0/summary.json", "nonsense"),
        ("fold_0/test/scores.json", '{"format": "other"}'),
    ],
)
def test_a_damaged_file_is_named(make_run, name, content):
    folder = make_run()
    (folder / name).write_text(content)
    with pytest.raises(FileFormatError, match=name):
        read_run_folder(folder)


def test_a_run_whose_validation_cases_were_reported_is_refused(make_run):
    """Its scores are of the cases that chose the epoch; the page would call them test cases."""
    folder = make_run()
    (folder / "fold_0" / "test").rename(folder / "fold_0" / "validation")
    with pytest.raises(RecipeError, match=r"my run: is a run of an older leanseg.*train again"):
        read_run_folder(folder)


def test_other_folders_are_not_folds(make_run):
    folder = make_run()
    (folder / "fold_old").mkdir()
    (folder / "cache").mkdir()
    assert len(read_run_folder(folder).folds) == 1


def test_scan_and_reference_are_what_training_saw(make_run):
    folder = make_run(labels=("organ", "tumour"))
    image, reference = read_run_folder(folder).volumes("case_3")
    stored = nib.load(folder.parent / "data" / "case_3_label.nii.gz")
    np.testing.assert_array_equal(reference.array, np.asarray(stored.dataobj))
    scan = nib.load(folder.parent / "data" / "case_3.nii.gz")
    np.testing.assert_array_equal(image.array, np.asarray(scan.dataobj))


def test_merged_and_unannotated_labels_in_a_reference(make_run):
    folder = make_run(labels=("organ", "tumour"))
    content = json.loads((folder / "data.json").read_text())
    content["label_values"] = {"organ": [1, 2], "tumour": [1]}
    content["annotated"] = {name: ["organ"] for name in content["annotated"]}
    (folder / "data.json").write_text(json.dumps(content))
    _, reference = read_run_folder(folder).volumes("case_1")
    stored = np.asarray(nib.load(folder.parent / "data" / "case_1_label.nii.gz").dataobj)
    np.testing.assert_array_equal(reference.array, stored > 0)


def test_the_channel_that_the_network_sees(make_run):
    folder = make_run()
    scan = nib.load(folder.parent / "data" / "case_0.nii.gz")
    voxels = np.asarray(scan.dataobj)
    both = nib.Nifti1Image(np.stack([voxels, 2 * voxels], axis=-1), scan.affine)
    nib.save(both, folder.parent / "data" / "case_0.nii.gz")
    content = json.loads((folder / "data.json").read_text()) | {"channel_indices": [1]}
    (folder / "data.json").write_text(json.dumps(content))
    image, _ = read_run_folder(folder).volumes("case_0")
    np.testing.assert_array_equal(image.array, 2 * voxels)


def test_ignored_voxels_are_told_from_background(make_run):
    folder = make_run(labels=("organ", "tumour"))
    assert read_run_folder(folder).ignored is None
    path = folder.parent / "data" / "case_1_label.nii.gz"
    stored = nib.load(path)
    array = np.asarray(stored.dataobj).copy()
    array[:4] = 7
    nib.save(nib.Nifti1Image(array, stored.affine), path)
    content = json.loads((folder / "data.json").read_text()) | {"ignored_values": [7]}
    (folder / "data.json").write_text(json.dumps(content))
    run = read_run_folder(folder)
    _, reference = run.volumes("case_1")
    assert run.ignored == 3
    np.testing.assert_array_equal(reference.array, np.where(array == 7, 3, array))
