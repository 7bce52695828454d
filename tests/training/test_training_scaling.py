"""Grey values by training volumes in a run: which volumes, whose numbers, the same bits again."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from torch import nn

import leanseg
from leanseg.errors import LeansegError, RecipeError
from leanseg.modelfile import read_model
from leanseg.training import load_recipe, open_run, start_run, train_run
from leanseg.training.trainer import Trainer

ASKED = "plan.intensity={window: organ, scaling: {training_volumes: %d}}"


def start(tiny_recipe: Path, data: Path, folder: Path, n: int = 2, *more: str):
    overrides = [ASKED % n, "phases.0.epochs=1", "packaging.export=false", *more]
    recipe = load_recipe(tiny_recipe, overrides)
    return start_run(recipe, data, folder, check=False)


def pooled(run, names) -> tuple[float, float]:
    """Mean and standard deviation by numpy, of the scans' files."""
    values = []
    for name in names:
        voxels = run.data.case(name).image.array
        values.append(np.clip(voxels, *np.quantile(voxels, [0.6, 0.99])).ravel())
    together = np.concatenate(values)
    return float(together.mean()), float(together.std())


def numbers(model: Path) -> tuple[float, float]:
    scaling = read_model(model).plan.final.intensity.scaling
    return -scaling.add * scaling.divide_by, scaling.divide_by


@pytest.mark.usefixtures("undrawn")
def test_each_fold_has_the_numbers_of_its_own_training_cases(
    tiny_recipe, tiny_dataset, tmp_path, capsys
) -> None:
    folds = ["split={kind: k-fold, n_folds: 2}", "training.folds=all"]
    run = start(tiny_recipe, tiny_dataset, tmp_path / "run", 100, *folds)
    models = train_run(run)
    found = [numbers(model) for model in models]
    # All training cases, as there are fewer than were asked for; none that monitors or tests.
    for split, pair in zip(run.splits, found, strict=True):
        assert pair == pytest.approx(pooled(run, split.train))
    assert found[0] != found[1]
    said = " ".join(capsys.readouterr().out.split())
    assert f"CT mean {found[0][0]:.5g}, SD {found[0][1]:.5g}" in said
    summary = json.loads((run.fold_folder(0) / "summary.json").read_text())
    assert summary["intensity"]["scaling"]["divide_by"] == found[0][1]
    # The folder stays a run to all that reads it, and the model predicts.
    page = leanseg.report(run.folder).read_text()
    assert "100 windowed training volumes" in page
    scan = run.data.case(run.splits[0].test[0]).image
    assert open_run(run.folder).model.predict(scan).shape == scan.shape


def test_the_sample_is_drawn_by_the_seed(tiny_recipe, tiny_dataset, tmp_path) -> None:
    found = []
    for number, seed in enumerate((1, 1, 2, 3)):
        folder = tmp_path / str(number)
        run = start(tiny_recipe, tiny_dataset, folder, 2, f"training.seed={seed}")
        found.append(numbers(train_run(run)[0]))
        train = run.splits[0].train
        pairs = [pooled(run, (a, b)) for a in train for b in train if a < b]
        assert any(pair == pytest.approx(found[-1]) for pair in pairs)
    assert found[0] == found[1]
    assert len(set(found)) > 1


def test_an_interrupted_run_ends_at_the_same_bits(
    tiny_recipe, tiny_dataset, tmp_path, monkeypatch
) -> None:
    whole = train_run(start(tiny_recipe, tiny_dataset, tmp_path / "whole"))[0]
    run = start(tiny_recipe, tiny_dataset, tmp_path / "cut")
    step = Trainer._step

    def cut(self, state, found):
        if state.step == 2:
            raise KeyboardInterrupt
        return step(self, state, found)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_step", cut)
        with pytest.raises(KeyboardInterrupt):
            train_run(run)
    # The cache is for speed: without it the same numbers come out.
    shutil.rmtree(run.folder / "cache")
    resumed = train_run(open_run(run.folder))[0]
    hashes = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (whole, resumed)}
    assert len(hashes) == 1


def test_what_is_asked_in_vain(tiny_recipe, tiny_dataset) -> None:
    for override, message in (
        ("plan.intensity.window=liver", "no window 'liver', only organ, bone, lung, organ-hu"),
        ("plan.intensity.scaling={training_volumes: 0}", "training_volumes' has value 0"),
        ("plan.intensity.scaling={training_volumes: ten}", "training_volumes' has value 'ten'"),
        ("plan.intensity.scaling=[]", "plan.intensity.scaling"),
        ("plan.intensity.scaling=max", "'minmax' or 'zscore'"),
        ("plan.intensity.window={kind: quantile, low: 0.99, high: 0.6}", "0.99 must be below high"),
    ):
        with pytest.raises(RecipeError, match=message) as found:
            load_recipe(tiny_recipe, [override])
        assert "\n" not in str(found.value)
    two = load_recipe(tiny_recipe, ["plan.intensity.scaling=[{divide_by: 2}, {divide_by: 3}]"])
    with pytest.raises(LeansegError, match=r"scales 2 channel\(s\), but there are 1"):
        start_run(two, tiny_dataset, tiny_recipe.parent / "run", check=False)


def test_outside_training_there_are_no_training_volumes() -> None:
    scan = leanseg.Volume(np.zeros((8, 8, 4), np.int16), np.eye(4))
    for window in ("organ-hu", "organ"):
        intensity = leanseg.Intensity(window=window, scaling={"training_volumes": 3})
        with pytest.raises(RecipeError, match="only training turns them into numbers"):
            leanseg.sliding_window(
                nn.Conv2d(1, 1, 1),
                scan,
                leanseg.Frame(axes=(8, 8, None)),
                leanseg.Patch(8, 8, 1),
                intensity,
            )
