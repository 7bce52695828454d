"""Training that leaves the finite numbers, or has nothing to learn: a sentence, and no model."""

from __future__ import annotations

import io
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from rich.console import Console

from leanseg.errors import DatasetError, LeansegError, RecipeError
from leanseg.reports.run_folder import read_run_folder
from leanseg.reports.run_report import report
from leanseg.training import load_recipe, loop, open_run, start_run, train_run
from leanseg.training.checkpoint import TrainingState
from leanseg.training.monitor import Scores
from leanseg.training.trainer import Trainer


def changed(folder: Path, kind: str, change) -> None:
    for path in (folder / kind).iterdir():
        image = nib.load(path)
        nib.save(nib.Nifti1Image(change(np.asarray(image.dataobj)), image.affine), path)


def trained(data: Path, recipe: Path, folder: Path, *settings: str) -> str:
    """What a training without a check says."""
    output = io.StringIO()
    run = start_run(load_recipe(recipe, settings), data, folder, check=False)
    train_run(run, Console(file=output, width=1000))
    return output.getvalue()


def assert_last_state_is_good(folder: Path) -> None:
    fold = folder / "fold_0"
    content = torch.load(fold / "state.pt", weights_only=True)
    assert all(tensor.isfinite().all() for tensor in content["network"].values())
    assert not (fold / "model.leanseg").exists()


@pytest.mark.parametrize(
    "settings",
    [
        ("phases.0.optimiser.options.lr=1.0e+10", "phases.0.clip_norm=null"),
        ("phases.0.optimiser.options.lr=1.0e+10",),
        (
            "phases.0.optimiser.options.lr=1.0e+30",
            "phases.0.epochs=1",
            "phases.0.steps_per_epoch=1",
        ),
    ],
)
def test_a_rate_that_is_too_high(tiny_dataset, tiny_recipe, tmp_path, settings):
    folder = tmp_path / "run"
    # Normalised, so that the first steps' losses are finite whatever the weights are.
    settings = (*settings, "network={name: monet, options: {base_filters: 4}}")
    with pytest.raises(
        RecipeError, match=r"fold_0: training diverged.*phases\.0\.optimiser\.options\.lr"
    ):
        # The only state is that from before the first step.
        trained(tiny_dataset, tiny_recipe, folder, "training.checkpoint_interval_s=60", *settings)
    assert_last_state_is_good(folder)
    assert read_run_folder(folder).folds[0].epochs == ()
    # The same again diverges again; with another rate it goes on from the last good state.
    with pytest.raises(RecipeError, match="diverged"):
        train_run(open_run(folder), Console(quiet=True))
    text = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(re.sub(r"\blr: \S+", "lr: 0.001", text))
    output = io.StringIO()
    (model,) = train_run(open_run(folder), Console(file=output, width=1000))
    assert model.is_file()
    assert "recipe.yaml was changed since the run started" in output.getvalue()


@pytest.mark.parametrize("at", [0, 5, 11])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_at_any_step(tiny_dataset, tiny_recipe, tmp_path, monkeypatch, at, value):
    step = Trainer._step
    monkeypatch.setattr(
        Trainer,
        "_step",
        lambda self, state, found: value if state.step == at else step(self, state, found),
    )
    with pytest.raises(RecipeError, match="the training loss is not finite"):
        trained(tiny_dataset, tiny_recipe, tmp_path / "run")
    assert_last_state_is_good(tmp_path / "run")
    state = torch.load(tmp_path / "run" / "fold_0" / "state.pt", weights_only=True)
    assert state["step"] == at


@pytest.mark.parametrize("where", ["network", "optimiser"])
def test_a_weight_and_a_moment(tiny_dataset, tiny_recipe, tmp_path, monkeypatch, where):
    step = Trainer._step

    def spoil(self, state, found):
        loss = step(self, state, found)
        if state.step == 3:
            weight = next(self.network.parameters())
            moments = self._optimisers[0].state[weight]
            spoilt = weight if where == "network" else moments["exp_avg"]
            spoilt.data.view(-1)[-1] = float("inf")
        return loss

    monkeypatch.setattr(Trainer, "_step", spoil)
    with pytest.raises(RecipeError, match="a weight is not finite"):
        trained(tiny_dataset, tiny_recipe, tmp_path / "run")
    assert_last_state_is_good(tmp_path / "run")


def test_a_look_at_the_monitor_cases(tiny_dataset, tiny_recipe, tmp_path, monkeypatch):
    scores = Scores(float("nan"), 0.0, {"ball": 0.0})
    monkeypatch.setattr(loop, "look", lambda *_: scores)
    with pytest.raises(RecipeError, match="the monitored loss is not finite"):
        trained(tiny_dataset, tiny_recipe, tmp_path / "run")
    assert_last_state_is_good(tmp_path / "run")


def test_finite_is_what_numpy_says():
    for value in (0.0, -1e38, np.inf, np.nan):
        state = TrainingState("32", network={"w": torch.tensor([1.0, value]), "n": torch.tensor(3)})
        state.optimisers = [{"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": []}]
        assert state.is_finite == np.isfinite(np.float32(value))


@pytest.mark.parametrize("scaling", ["minmax", "zscore", "{divide_by: 1024, add: 1}"])
@pytest.mark.parametrize("values", ["constant", "huge"])
def test_grey_values(make_tiny_dataset, tiny_recipe, tmp_path, scaling, values):
    """Whatever comes of them: a model of finite weights, or a sentence."""
    data = make_tiny_dataset(tmp_path / "data")
    high, low = (7.0, 7.0) if values == "constant" else (3e38, -3e38)
    changed(data, "imagesTr", lambda a: np.where(a > 0, high, low).astype(np.float32))
    settings = (f"plan.intensity={{window: {{kind: none}}, scaling: {scaling}}}",)
    try:
        trained(data, tiny_recipe, tmp_path / "run", *settings)
    except LeansegError as error:
        assert "diverged" in str(error) or "imagesTr" in str(error)
        assert not (tmp_path / "run" / "fold_0" / "model.leanseg").exists()
    else:
        state = torch.load(tmp_path / "run" / "fold_0" / "state.pt", weights_only=True)
        assert all(tensor.isfinite().all() for tensor in state["best_network"].values())


def test_values_that_32_bits_cannot_scale_are_refused_with_the_scan(
    make_tiny_dataset, tiny_recipe, tmp_path, recwarn
):
    data = make_tiny_dataset(tmp_path / "data")
    changed(data, "imagesTr", lambda a: np.where(a > 0, 3e38, -3e38).astype(np.float32))
    with pytest.raises(LeansegError, match=r"ball_\d\d\.nii\.gz: its grey values leave the range"):
        trained(data, tiny_recipe, tmp_path / "run", "plan.intensity={window: {kind: none}}")
    assert not [each for each in recwarn if issubclass(each.category, RuntimeWarning)]
    assert not list((tmp_path / "run" / "cache").rglob("*.npy"))


def test_labels_that_are_empty_everywhere(make_tiny_dataset, tiny_recipe, tmp_path):
    data = make_tiny_dataset(tmp_path / "data")
    changed(data, "labelsTr", np.zeros_like)
    with pytest.raises(DatasetError, match="no training case of fold 0 has a voxel of ball"):
        trained(data, tiny_recipe, tmp_path / "run")


@pytest.mark.usefixtures("undrawn")
def test_a_class_that_no_training_case_has(make_tiny_dataset, tiny_recipe, tmp_path):
    """MIC-DKFZ/nnUNet#2976: one case alone has it, and in some folds it does not train."""
    data = make_tiny_dataset(tmp_path / "data")
    only = data / "labelsTr" / "ball_00.nii.gz"
    kept = nib.load(only)
    kept = nib.Nifti1Image(np.asarray(kept.dataobj), kept.affine)
    changed(data, "labelsTr", lambda a: np.minimum(a, 1))
    nib.save(kept, only)
    settings = (
        "data={}",
        "split={kind: k-fold, n_folds: 6}",
        "training.folds=all",
        "phases.0.epochs=1",
        "phases.0.steps_per_epoch=1",
    )
    said = trained(data, tiny_recipe, tmp_path / "run", *settings)
    run = read_run_folder(tmp_path / "run")
    assert "is in no training case" in report(tmp_path / "run").read_text()
    for number, split in enumerate(run.splits):
        for part, cases in (
            ("training", split.train),
            ("monitor", split.monitor),
            ("test", split.test),
        ):
            absent = "ball_00" not in cases
            sentence = f"fold {number}: class 'core' is in no {part} case"
            assert (sentence in said) == absent
            assert any(sentence in each for each in run.warnings) == absent
