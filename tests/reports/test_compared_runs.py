"""`leanseg compare` of runs: all their folds' test cases, and the data behind them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from leanseg.cli.main import run as run_command

pytest.importorskip("statsmodels", reason="needs leanseg[statistics]")


@pytest.fixture
def runs(make_run: Callable[..., Path], tmp_path: Path) -> tuple[Path, Path]:
    """A run of two folds, and the same with every Dice 0.1 higher but that of one case."""
    first = make_run(n_folds=2)
    second = tmp_path / "better"
    shutil.copytree(first, second)
    for path in second.glob("fold_*/test/scores.json"):
        content = json.loads(path.read_text())
        for case in content["cases"]:
            case["metrics"]["dice"] += 0.0 if case["case"] == "case_0" else 0.1
        path.write_text(json.dumps(content))
    return first, second


def compared(*arguments: object) -> int:
    try:
        run_command(["compare", *map(str, arguments)])
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def test_all_folds_are_compared(runs, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    assert compared(*runs, "--strata", "slices", "-o", out) == 0
    groups = json.loads((out / "compare.json").read_text())["groups"]
    assert [(g["stratum"], len(g["cases"])) for g in groups] == [(None, 6), ("12 slices", 6)]
    pair = groups[0]["pairs"][0]
    assert (pair["first"], pair["second"], pair["better"]) == ("my run", "better", "better")
    assert pair["mean_difference"] == pytest.approx(0.5 / 6)


def test_a_run_in_progress(runs, capsys) -> None:
    first, second = runs
    (second / "fold_1/test/scores.json").unlink()
    assert compared(first, second) == 0
    said = capsys.readouterr().out
    assert "better: fold_1 has no scores yet" in said
    assert "cases that better lacks: case_1, case_3, case_5" in said
    (second / "fold_0/test/scores.json").unlink()
    assert compared(first, second) == 2
    said = capsys.readouterr().err
    assert "better: this run has no scores of test cases yet" in said
    assert said.count("\n") == 1
