from __future__ import annotations

import json
import shutil

import pytest

from leanseg.errors import DatasetError, FileFormatError
from leanseg.reports.run import read_run


def test_a_complete_run_misses_nothing(make_run):
    run = read_run(make_run())
    assert run.missing == ()
    assert run.name == "my run"
    assert run.labels == ("organ",)
    assert [score.case for score in run.cases] == ["case_0", "case_2", "case_4"]
    assert [row["epoch"] for row in run.folds[0].epochs] == [1, 2, 3, 4]


def test_folds_are_pooled_in_order(make_run):
    run = read_run(make_run(n_folds=2))
    assert [fold.index for fold in run.folds] == [0, 1]
    assert len(run.cases) == 6
    dice = [score.metrics["dice"] for score in run.cases]
    assert run.scores.summary["organ"]["dice"]["mean"] == pytest.approx(sum(dice) / 6)


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"nowhere: there is no such folder"):
        read_run(tmp_path / "nowhere")


def test_a_folder_that_is_not_a_run_is_told_what_is_expected(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"not a run.*recipe\.yaml.*leanseg train"):
        read_run(tmp_path)


def test_what_a_run_in_progress_lacks_is_named(make_run):
    folder = make_run(n_folds=2)
    shutil.rmtree(folder / "fold_1")
    shutil.rmtree(folder / "fold_0" / "validation")
    (folder / "fold_0" / "summary.json").unlink()
    (folder / "environment.json").unlink()
    missing = " ".join(read_run(folder).missing)
    for expected in ("environment.json", "summary.json", "scores.json", "1 of the split's 2"):
        assert expected in missing
    assert "data.json" not in missing


def test_the_line_that_training_is_writing_is_left_out(make_run):
    folder = make_run()
    metrics = folder / "fold_0" / "metrics.jsonl"
    metrics.write_text(metrics.read_text()[:-20])
    assert [row["epoch"] for row in read_run(folder).folds[0].epochs] == [1, 2, 3]


def test_a_damaged_line_in_the_middle_is_an_error(make_run):
    folder = make_run()
    metrics = folder / "fold_0" / "metrics.jsonl"
    first, *others = metrics.read_text().splitlines()
    metrics.write_text("\n".join([first[:-5], *others]))
    with pytest.raises(FileFormatError, match=r"metrics\.jsonl: line 1 "):
        read_run(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("plan.json", '{"labels": ["a"], "orientation": "XYZ"}', r"plan\.json: orientation"),
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
        read_run(folder)


def test_other_folders_are_not_folds(make_run):
    folder = make_run()
    (folder / "fold_old").mkdir()
    (folder / "cache").mkdir()
    assert len(read_run(folder).folds) == 1


def test_an_entry_is_found_by_its_name(make_run):
    folder = make_run()
    entry = read_run(folder).case_entry("case_3")
    assert entry in json.loads((folder / "data.json").read_text())["cases"]
    assert read_run(folder).case_entry("case_9") is None
