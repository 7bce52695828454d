"""A study from its file to its table: whole, interrupted, and with cells that fail."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from forked import killed_before_step
from leanseg.evaluation import Scores
from leanseg.evaluation.metrics import METRIC_NAMES
from leanseg.studies import load_study, read_study, run_study, write_results
from leanseg.studies.cells import ResolvedStudy, matrix
from leanseg.studies.results import CellResult, StudyResults


def test_killed_and_resumed_it_has_the_same_results(write_study, inline, tmp_path: Path) -> None:
    study = load_study(write_study())
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    said: list[str] = []
    outcome = run_study(study, whole, inline, tell=said.append)
    assert (outcome.n_kept, outcome.failed) == (0, {})
    assert said == [
        "checking balls",
        "tiny: 2 cells",
        "1/2 small-balls-fold0-seed42: done",
        "2/2 large-balls-fold0-seed42: done",
    ]
    write_results(read_study(whole))
    # In the first cell, and in the second after the first was gone on with.
    for steps in (3, 3):
        ended = killed_before_step(steps, lambda: run_study(study, killed, inline, checked=False))
        assert ended == -signal.SIGKILL
    assert len(read_study(killed).done) == 1
    outcome = run_study(study, killed, inline, tell=said.append)
    assert outcome.n_kept == 1
    assert said[-2:] == ["tiny: 2 cells, 1 of them are done", "2/2 large-balls-fold0-seed42: done"]
    write_results(read_study(killed))
    results = (whole / "results.csv").read_bytes()
    assert (killed / "results.csv").read_bytes() == results
    with (whole / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    # Two cells, two test cases, one label, two metrics.
    assert len(rows) == 2 * 2 * 1 * 2
    scores = json.loads(
        (whole / "cells/small-balls-fold0-seed42/fold_0/test/scores.json").read_text()
    )
    first = scores["cases"][0]
    assert rows[0]["case"] == first["case"]
    assert float(rows[0]["value"]) == first["metrics"]["dice"]


def test_a_cell_that_fails_is_named(capsys, write_study, inline, tmp_path: Path) -> None:
    """And does not stop the others; a study may grow; another dataset is scored, too."""
    datasets = {
        "balls": {
            "phantom": {"cases": 6, "size": 64, "slices": 20},
            "set": {"data.labels": {"liver": [1]}},
        },
        "more": {
            "phantom": {"cases": 2, "size": 64, "slices": 20, "seed": 1},
            "set": {"data.labels": {"liver": [1]}},
        },
    }
    keys = {"datasets": datasets, "evaluate_on": ["more"]}
    recipes = {"small": "own.yaml"}
    study = load_study(write_study(**keys, recipes=recipes))
    output = tmp_path / "out"
    run_study(study, output, inline, checked=False)
    scored = output / "cells/small-balls-fold0-seed42/elsewhere/more/scores.json"
    when = scored.stat().st_mtime_ns
    rate = "phases.main.optimiser.options.lr"
    recipes = {
        "bad": {"recipe": "own.yaml", "set": {rate: 1e30, "phases.main.clip_norm": None}},
        **recipes,
        "large": {"recipe": "own.yaml", "set": {"network.options.base_filters": 6}},
    }
    study = load_study(write_study(**keys, recipes=recipes))
    outcome = run_study(study, output, inline, checked=False)
    assert outcome.n_kept == 1
    assert [*outcome.failed] == ["bad-balls-fold0-seed42"]
    assert scored.stat().st_mtime_ns == when
    results = read_study(output)
    assert results.missing == ["bad-balls-fold0-seed42"]
    assert results.pairs == [("balls", "balls"), ("balls", "more")]
    assert {name: len(each.cases) for name, each in results.scores("balls", "more").items()} == {
        "small": 2,
        "large": 2,
    }
    tables, said = write_results(results)
    assert [table.title for table in tables] == [
        "balls: liver",
        "more, trained on balls: liver",
    ]
    assert "not done: bad-balls-fold0-seed42" in said
    assert "no cell is done" in (output / "table.md").read_text()
    # What is started is not changed.
    own = tmp_path / "own.yaml"
    own.write_text(own.read_text().replace("lr: 0.01", "lr: 0.02"))
    with pytest.raises(ValueError, match=r"cell small-balls.*not the one that it was started with"):
        run_study(study, output, inline, checked=False)


def scored(values: dict[str, dict[str, float | None]]) -> Scores:
    """Scores of cases: each label's Dice."""
    from leanseg.evaluation import LabelScore

    cases = tuple(
        LabelScore(case=case, label=label, metrics=dict.fromkeys(METRIC_NAMES) | {"dice": dice})
        for case, labels in values.items()
        for label, dice in labels.items()
    )
    return Scores({"a": (1,), "b": (2,)}, cases, {})


def test_tables_by_hand(write_study, tmp_path: Path) -> None:
    """Seeds are averaged in each case, then cases; published figures stand beside."""
    published = [
        {"row": "small", "value": 0.5, "sd": 0.1, "note": "of 8 cases"},
        {"row": "gone", "value": 0.9, "label": "a", "reason": "no code"},
        {"row": "small", "value": 0.3, "label": "liver"},
    ]
    keys = {"metrics": ["dice"], "seeds": [1, 2], "published": published}
    study = load_study(write_study(**keys, recipes={"small": "own.yaml", "large": "own.yaml"}))
    values = {
        ("small", 1): {"x": {"a": 0.8, "b": 0.6}, "y": {"a": 0.4, "b": None}},
        ("small", 2): {"x": {"a": 0.6, "b": 0.4}, "y": {"a": 0.2, "b": 0.5}},
        ("large", 1): {"x": {"a": 0.1, "b": 0.3}, "y": {"a": 0.1, "b": 0.3}},
    }
    cells = {(cell.method, cell.seed): cell for cell in matrix(study)}
    summary = {"train_cpu_seconds": 90.0, "parameters": 7, "steps": 4}
    done = tuple(
        CellResult(cells[key], None, {"balls": scored(of_cell)}, summary)
        for key, of_cell in values.items()
    )
    resolved = ResolvedStudy(leanseg="0", study=study, cells=tuple(cells.values()))
    results = StudyResults(tmp_path, resolved, done)
    both, only_a, only_b = results.tables()
    small, large = both.rows
    # x: (0.7 + 0.5) / 2; y: (0.4 + 0.35) / 2, where a seed's mean leaves out what is undefined.
    figure = small.figures["dice"]
    assert figure.by_case == pytest.approx({"x": 0.6, "y": 0.375})
    assert figure.mean == pytest.approx(0.4875)
    assert figure.sd == pytest.approx(np.std([0.6, 0.375], ddof=1))
    assert figure.seed_sd == pytest.approx(np.std([(0.7 + 0.4) / 2, (0.5 + 0.35) / 2], ddof=1))
    assert figure.worst == pytest.approx(0.375)
    assert figure.published.value == 0.5
    assert (small.n_done, small.n_cells, large.n_done, large.n_cells) == (2, 2, 1, 2)
    assert (small.cpu_minutes, small.parameters, small.steps) == (1.5, 7, 4)
    assert large.figures["dice"].seed_sd is None
    assert [row.method for row in only_a.rows] == ["small", "large", "gone"]
    assert only_a.rows[2].notes == ("published alone: no code",)
    # A case that a seed does not define is left out of a label's own table, and counted.
    assert only_b.rows[0].figures["dice"].by_case == pytest.approx({"x": 0.5})
    rows, notes = only_b.cells()
    assert rows[0]["dice"] == "0.500 [1]"
    assert notes == ["[1] 1 case(s) have no dice"]
    rows, notes = both.cells()
    assert rows[0] == {
        "method": "small",
        "cells": "2/2",
        "cases": "2",
        "dice published": "0.500 ± 0.100 [1]",
        "dice": "0.487 ± 0.159",
        "dice over seeds": "± 0.088",
        "dice worst": "0.375",
        "CPU min": "1.50",
        "parameters": "7",
        "steps": "4",
    }
    assert notes == ["[1] of 8 cases"]
    _, said = write_results(results)
    assert "published without a reproduced figure: small, dice of liver: 0.300" in said
    assert "not done: large-balls-fold0-seed2" in said
    assert (tmp_path / "table.md").read_text().startswith("# Two small networks\n\n## balls")


def test_quick_is_marked_everywhere(write_study, inline, tmp_path: Path) -> None:
    path = write_study(recipes={"small": "own.yaml"}, quick={"budget": {"steps": 1}})
    study = load_study(path, quick=True)
    output = tmp_path / "out"
    run_study(study, output, inline, checked=False)
    write_results(read_study(output))
    assert "**QUICK: " in (output / "table.md").read_text()
    for name in ("results.csv", "table.csv"):
        with (output / name).open() as file:
            assert {row["quick"] for row in csv.DictReader(file)} == {"yes"}, name
    assert json.loads((output / "study.json").read_text())["study"]["is_quick"] is True


@pytest.mark.slow
def test_killed_at_ten_moments(write_study, tmp_path: Path) -> None:
    """2 x 2 x 2 cells by the command itself, killed with all its processes."""
    path = write_study(folds=[0, 1], seeds=[1, 2])
    command = [sys.executable, "-m", "leanseg", "study", str(path), "--jobs", "2", "--no-check"]

    def start(folder: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*command, "--output", str(folder)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    began = time.monotonic()
    process = start(tmp_path / "whole")
    assert process.wait() == 0, process.stderr.read().decode()
    whole_s = time.monotonic() - began
    rng = np.random.default_rng(17)
    n_kills = 0
    while n_kills < 10:
        process = start(tmp_path / "killed")
        try:
            process.wait(rng.uniform(0.2, 0.6) * whole_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            n_kills += 1
        else:
            # Done before the tenth: what is left of the moments falls on a study anew.
            (tmp_path / "killed").rename(tmp_path / f"killed before {n_kills}")
    process = start(tmp_path / "killed")
    assert process.wait() == 0, process.stderr.read().decode()
    expected = (tmp_path / "whole/results.csv").read_bytes()
    assert len(expected.splitlines()) == 1 + 8 * 2 * 2
    for folder in tmp_path.glob("killed*"):
        assert (folder / "results.csv").read_bytes() == expected, folder
    assert not re.findall(r"\.writing-", str([*tmp_path.rglob("*")]))
