"""`leanseg ensemble`: folds of a run, or model files, as one model that predicts their mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import plans
from leanseg.inference import load_model, make_engine
from leanseg.modelfile import ModelFile, read_model, write_model


@pytest.fixture
def run_folder(tmp_path: Path, make_model: Callable[..., Path]) -> Path:
    """Folds whose networks give different answers, more than nine of them."""
    first = read_model(make_model(tmp_path / "first.leanseg"))
    (member,) = first.members
    for fold in range(11):
        weights = {
            name: array + array.dtype.type(fold) / 50 if array.dtype.kind == "f" else array
            for name, array in member.weights.items()
        }
        model = ModelFile.of(first.plan, replace(member, weights=weights))
        write_model(tmp_path / "run" / f"fold_{fold}" / "model.leanseg", model)
    return tmp_path / "run"


def test_the_folds_of_a_run(leanseg, run_folder: Path, make_scan, tmp_path: Path, rng) -> None:
    output = tmp_path / "all.leanseg"
    outcome = leanseg("ensemble", run_folder, "-o", output)
    assert outcome.status == 0, outcome.err
    assert "ensemble of 11" in outcome.out
    joined = read_model(output)
    folds = [read_model(run_folder / f"fold_{n}" / "model.leanseg") for n in range(11)]
    for member, fold in zip(joined.members, folds, strict=True):
        for name, array in fold.members[0].weights.items():
            np.testing.assert_array_equal(member.weights[name], array)
    shape = (1, *joined.plan.input_shape(joined.plan.final))
    batch = rng.random(shape, dtype=np.float32)
    alone = [make_engine(fold, name="torch").run(batch) for fold in folds]
    assert np.ptp(np.stack(alone), axis=0).max() > 0.01
    engine = load_model(output, engine="torch").engine
    np.testing.assert_allclose(engine.run(batch), np.mean(alone, axis=0), atol=1e-5)
    scan = make_scan(tmp_path / "ct.nii.gz")
    assert leanseg("predict", output, scan, "-o", tmp_path / "out").status == 0
    assert leanseg("info", output).out.count("name: monet") == 11


def test_runs_and_files_together(leanseg, run_folder: Path, make_model, tmp_path: Path) -> None:
    other = make_model(tmp_path / "other.leanseg", base_filters=8)
    output = tmp_path / "all.leanseg"
    outcome = leanseg("ensemble", run_folder, other, "--output", output)
    assert outcome.status == 0, outcome.err
    assert len(read_model(output).members) == 12


def test_what_makes_no_ensemble(leanseg, run_folder: Path, make_model, tmp_path: Path) -> None:
    output = tmp_path / "all.leanseg"
    (tmp_path / "empty").mkdir()
    one = run_folder / "fold_0" / "model.leanseg"
    other = make_model(tmp_path / "other.leanseg", plans.slices((64, 64)))
    for sources, said in (
        ([tmp_path / "empty"], "empty: holds no fold_*/model.leanseg"),
        ([one], "give at least two"),
        ([one, other], "other.leanseg: differs"),
        ([one, tmp_path / "no.leanseg"], "no.leanseg: cannot be read"),
    ):
        outcome = leanseg("ensemble", *sources, "-o", output)
        assert outcome.status == 2
        assert said in outcome.err
        assert len(outcome.err.strip().splitlines()) == 1
    assert not output.exists()
