"""A run's folder, its files, and what is refused before anything is written."""

from __future__ import annotations

import gc
import hashlib
import io
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import load_file

import leanseg
from leanseg.datasets import Case, Split, read_splits
from leanseg.errors import DatasetError, LeansegError, RecipeError
from leanseg.evaluation import read_scores
from leanseg.inference import load_model
from leanseg.modelfile import read_model
from leanseg.training import Recipe, finish, load_recipe, open_run, start_run, train_run
from leanseg.training.loop import FoldTrainer


def quick(*overrides: str) -> Recipe:
    """What is tried before a run starts takes a moment."""
    network = "network={name: combiner, options: {}}"
    return load_recipe("monet-ct", [network, "plan.frame.axes=[24, 24, null]", *overrides])


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    recipe = load_recipe(
        "monet-ct",
        [
            "data.labels={ball: [1, 2]}",
            "plan.frame.axes=[24, 24, null]",
            "phases.0.sampler.options={margin: 2}",
            "phases.0.epochs=3",
            "phases.0.steps_per_epoch=50",
            "phases.0.optimiser.options.lr=0.005",
            "network={name: combiner, options: {base_filters: 8}}",
            "training.threads=1",
            "training.precision='32'",
            "training.folds=all",
            "split={kind: k-fold, n_folds: 2}",
        ],
    )
    output = io.StringIO()
    real, living = finish.finish_fold, []

    def noting(*arguments):
        living.append(sum(isinstance(each, FoldTrainer) for each in gc.get_objects()))
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finish, "finish_fold", noting)
        train_run(start_run(recipe, tiny_dataset, folder), Console(file=output, width=200))
    (folder / "log.txt").write_text(output.getvalue())
    (folder / "living.json").write_text(json.dumps(living))
    return folder


def test_what_only_training_needs_is_freed_before_the_export(run_folder: Path) -> None:
    assert json.loads((run_folder / "living.json").read_text()) == [0, 0]


def test_everything_the_design_names_is_there(run_folder: Path) -> None:
    for name in ("recipe.yaml", "plan.json", "splits.json", "environment.json", "data.json"):
        assert (run_folder / name).is_file(), name
    for fold in (0, 1):
        folder = run_folder / f"fold_{fold}"
        for name in ("checkpoint.safetensors", "state.pt", "metrics.jsonl", "summary.json"):
            assert (folder / name).is_file(), name
        assert list((folder / "tensorboard").glob("events*"))
        assert len(list((folder / "test" / "predictions").glob("*.nii.gz"))) == 3
    assert not list(run_folder.rglob("*writing*"))


def test_it_learned_something(run_folder: Path) -> None:
    rows = [
        json.loads(line)
        for line in (run_folder / "fold_0" / "metrics.jsonl").read_text().splitlines()
    ]
    assert rows[-1]["train_loss"] < rows[0]["train_loss"] - 0.1
    assert max(row["monitor_dice"] for row in rows) > 0.5


def test_scores_are_those_of_the_written_masks(run_folder: Path, tiny_dataset: Path) -> None:
    """The scores file against Dice computed here from the files with nibabel and numpy."""
    for fold in (0, 1):
        scored = run_folder / f"fold_{fold}" / "test"
        for score in read_scores(scored / "scores.json").cases:
            predicted = nib.load(scored / "predictions" / f"{score.case}.nii.gz")
            reference = nib.load(tiny_dataset / "labelsTr" / f"{score.case}.nii.gz")
            np.testing.assert_array_equal(predicted.affine, reference.affine)
            dice = dice_of(predicted.dataobj, reference.dataobj)
            assert score.metrics["dice"] == pytest.approx(dice, abs=1e-12)


def dice_of(predicted: object, reference: object) -> float:
    p, y = np.asarray(predicted) > 0, np.asarray(reference) > 0
    return float(2 * (p & y).sum() / (p.sum() + y.sum()))


def test_what_is_reported_took_no_part_in_training(run_folder: Path) -> None:
    """The scored cases are those of the test part, which is in no other."""
    for fold, split in enumerate(read_splits(run_folder / "splits.json")):
        folder = run_folder / f"fold_{fold}"
        scores = read_scores(folder / "test" / "scores.json")
        assert {score.case for score in scores.cases} == set(split.test)
        provenance = read_model(folder / "model.leanseg").provenance
        assert provenance.training_cases == split.train
        assert provenance.monitor_cases == split.monitor
        assert provenance.test_cases == split.test
        assert provenance.scores == {"ball": scores.summary["ball"]["dice"]["mean"]}


def test_the_monitored_dice_is_that_of_the_model_file(run_folder: Path, tiny_dataset: Path) -> None:
    """The loop's own monitoring and the file's prediction come to the same value."""
    for fold in (0, 1):
        folder = run_folder / f"fold_{fold}"
        summary = json.loads((folder / "summary.json").read_text())
        model = leanseg.load_model(folder / "model.leanseg", precision="f32")
        cases = read_splits(run_folder / "splits.json")[fold].monitor
        dice = [
            dice_of(
                model.predict(tiny_dataset / "imagesTr" / f"{case}.nii.gz").array,
                nib.load(tiny_dataset / "labelsTr" / f"{case}.nii.gz").dataobj,
            )
            for case in cases
        ]
        assert summary["best_monitor_dice"] == pytest.approx(np.mean(dice), abs=1e-9)


def test_the_model_file_carries_the_checkpoint(run_folder: Path, tiny_dataset: Path) -> None:
    folder = run_folder / "fold_1"
    model = read_model(folder / "model.leanseg")
    for name, array in load_file(folder / "checkpoint.safetensors").items():
        np.testing.assert_array_equal(model.members[0].weights[name], array)
    provenance = model.provenance
    assert provenance.data_name == "Balls"
    case = provenance.test_cases[0]
    mask = leanseg.load_model(folder / "model.leanseg", precision="f32").predict(
        tiny_dataset / "imagesTr" / f"{case}.nii.gz"
    )
    written = nib.load(folder / "test" / "predictions" / f"{case}.nii.gz")
    np.testing.assert_array_equal(mask.array, np.asarray(written.dataobj))


def test_log_names_what_happens(run_folder: Path) -> None:
    log = (run_folder / "log.txt").read_text()
    assert "fold 0: 2 training, 1 monitor and 3 test cases of Balls" in log
    assert "whole-case Dice ball" in log
    assert "training ended: all epochs done" in log


def test_refused_before_anything_is_written(tiny_dataset: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    refused = [
        (["network.name=monett"], "monett"),
        (["phases.0.loss.0.name=dise"], "dise"),
        (["phases.0.augmentation=[{name: afine}]"], "afine"),
        (["training.folds=[3]"], r"'training\.folds' asks for \[3\], but the split has 1"),
        (["data.channels=[MR]"], "names 'MR'"),
        (["split={kind: file}"], r"'split\.file' is missing"),
    ]
    for overrides, message in refused:
        with pytest.raises(LeansegError, match=message):
            start_run(quick(*overrides), tiny_dataset, output)
        assert not output.exists()
    with pytest.raises(DatasetError, match="nothing-here"):
        start_run(quick(), tmp_path / "nothing-here", output)


def test_folders_that_are_not_runs(run_folder: Path, tiny_dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="resume it with --resume"):
        start_run(quick(), tiny_dataset, run_folder)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RecipeError, match="is not an empty folder; give a new one"):
        start_run(quick(), tiny_dataset, tmp_path)
    with pytest.raises(RecipeError, match="is not a run"):
        open_run(tmp_path)


def test_changed_data_is_noticed(tmp_path: Path, tiny_dataset: Path) -> None:
    import shutil

    data = tmp_path / "data"
    shutil.copytree(tiny_dataset, data)
    start_run(quick(), data, tmp_path / "run")
    assert open_run(tmp_path / "run").data.name == "Balls"
    label = next((data / "labelsTr").iterdir())
    label.write_bytes(label.read_bytes() + b" ")
    with pytest.raises(DatasetError, match="changed since it started"):
        open_run(tmp_path / "run")
    label.unlink()
    with pytest.raises(DatasetError, match="not there any more"):
        open_run(tmp_path / "run")


def test_a_split_file(tmp_path: Path, tiny_dataset: Path) -> None:
    listing = tmp_path / "splits.json"
    parts = '"train": ["ball_00", "ball_03"], "monitor": ["ball_05"], "test": ["ball_01"]'
    listing.write_text(f"[{{{parts}}}]")
    overrides = [f"split={{kind: file, file: '{listing}'}}"]
    run = start_run(quick(*overrides), tiny_dataset, tmp_path / "run")
    assert run.splits == (Split(("ball_00", "ball_03"), ("ball_05",), ("ball_01",)),)
    # nnU-Net's file: what it validates on tests, and one case that trains there monitors here.
    listing.write_text('[{"train": ["ball_00", "ball_03"], "val": ["ball_01"]}]')
    run = start_run(quick(*overrides), tiny_dataset, tmp_path / "nnunet")
    (split,) = run.splits
    assert split.test == ("ball_01",)
    assert sorted((*split.train, *split.monitor)) == ["ball_00", "ball_03"]
    assert len(split.monitor) == 1
    last = [*overrides, "split.monitor_fraction=0", "phases.0.selection=last"]
    with pytest.raises(RecipeError, match="phase 'main' needs monitor cases"):
        start_run(quick(*last), tiny_dataset, tmp_path / "last")
    assert not (tmp_path / "last").exists()
    last.append("phases.0.schedule={name: cosine}")
    run = start_run(quick(*last), tiny_dataset, tmp_path / "last")
    assert run.splits == (Split(("ball_00", "ball_03"), (), ("ball_01",)),)
    listing.write_text('[{"train": ["ball_00", "ball_77"], "val": ["ball_01"]}]')
    with pytest.raises(DatasetError, match="ball_77"):
        start_run(quick(*overrides), tiny_dataset, tmp_path / "other")


def in_memory(folder: Path) -> leanseg.Dataset:
    """The tiny dataset as arrays; all its cases are of one patient."""
    files = leanseg.open_dataset(folder)
    cases = [Case(case.image, case.label, case.name, metadata={"patient": "7"}) for case in files]
    return leanseg.Dataset(cases, labels=files.labels, channels=files.channels)


def test_a_split_file_with_a_patient_in_two_parts(tmp_path: Path, tiny_dataset: Path) -> None:
    listing = tmp_path / "splits.json"
    listing.write_text('[{"train": ["ball_00"], "monitor": ["ball_03"], "test": ["ball_01"]}]')
    overrides = [f"split={{kind: file, file: '{listing}'}}"]
    with pytest.raises(DatasetError, match="trains on ball_00, monitors ball_03 and tests on"):
        leanseg.train(
            in_memory(tiny_dataset), "monet-ct", output=tmp_path / "run", overrides=overrides
        )
    assert not (tmp_path / "run").exists()


def test_arrays_train_like_files_and_the_run_can_be_resumed(
    tmp_path: Path, tiny_dataset: Path, tiny_recipe: Path
) -> None:
    listing = tmp_path / "splits.json"
    listing.write_text(
        '[{"train": ["ball_00", "ball_03"], "monitor": ["ball_05"], "test": ["ball_01"]}]'
    )
    settings = ["phases.0.epochs=1", f"split={{kind: file, file: '{listing}'}}"]
    weights = []
    for name, data in (("arrays", in_memory(tiny_dataset)), ("files", tiny_dataset)):
        leanseg.train(
            data, tiny_recipe, output=tmp_path / name, overrides=settings, check=name == "files"
        )
        weights.append((tmp_path / name / "fold_0" / "checkpoint.safetensors").read_bytes())
    assert weights[0] == weights[1]
    assert leanseg.resume(tmp_path / "arrays").model.labels == {"ball": 1}


def test_a_time_budget_ends_with_a_model_and_is_replayed(
    tiny_dataset: Path, tmp_path: Path
) -> None:
    recipe = quick(
        "phases.0.steps_per_epoch=200",
        "phases.0.epochs=null",
        "phases.0.minutes=0.03",
        "phases.0.schedule={name: cosine}",
        "training.threads=1",
        "training.precision=auto",
        "packaging.export=false",
    )
    run = start_run(recipe, tiny_dataset, tmp_path / "run")
    train_run(run, Console(file=io.StringIO()))
    summary = json.loads((tmp_path / "run" / "fold_0" / "summary.json").read_text())
    assert summary["stopped_because"] == "time budget"
    assert 0.9 < summary["train_seconds"] < 4
    assert summary["steps"] > 0
    assert read_model(tmp_path / "run" / "fold_0" / "model.leanseg").plan.labels == (
        "ball",
        "core",
    )
    # The kept recipe gives the same bits, whatever the clock says.
    kept = load_recipe(tmp_path / "run" / "fold_0" / "recipe.yaml")
    assert kept.phases[0].pace and kept.training.precision == summary["precision"] != "auto"
    train_run(start_run(kept, tiny_dataset, tmp_path / "again"), Console(file=io.StringIO()))
    digests = {
        hashlib.sha256((tmp_path / name / "fold_0/checkpoint.safetensors").read_bytes()).digest()
        for name in ("run", "again")
    }
    assert len(digests) == 1


def test_a_damaged_state_is_refused(tiny_dataset: Path, tmp_path: Path) -> None:
    run = start_run(quick(), tiny_dataset, tmp_path / "run")
    (tmp_path / "run" / "fold_0").mkdir()
    (tmp_path / "run" / "fold_0" / "state.pt").write_bytes(b"not a state")
    with pytest.raises(LeansegError, match=r"state\.pt: is not a readable training state"):
        train_run(run, Console(file=io.StringIO()))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["network={name: obelisk-hybrid-tcia}"], "3-D|axes|rows|dimension"),
        (["network={name: unet-16}"], "multiples of 16"),
        (["network={name: mone}"], "'monet'"),
        (
            ["plan.patch.shape=[24, 24, 4]"],
            "does not take patches of 24 x 24 x 4 .*is it a 2-D network",
        ),
        (
            [
                "network={name: nnunet-3d, options: {base_filters: 2, shape: [32, 32, 32]}}",
                "plan.patch.shape=[16, 24, 24]",
                "phases.0.sampler={name: patches}",
                "training.precision=bf16-mixed",
            ],
            "gradients on processors are wrong with 16 bits; choose 32 or auto",
        ),
    ],
)
def test_networks_that_do_not_fit_are_refused_before_anything_is_made(
    tmp_path, tiny_dataset, tiny_recipe, settings, said
):
    recipe = load_recipe(tiny_recipe, settings)
    with pytest.raises(LeansegError, match=said):
        start_run(recipe, tiny_dataset, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_network_of_monai_trains_and_its_model_file_predicts(tmp_path, tiny_dataset, tiny_recipe):
    settings = [
        "network={name: 'monai:BasicUNet', options: {features: [4, 4, 4, 8, 8, 4]}}",
        "plan.frame.axes=[32, 32, null]",
        "phases.0.epochs=1",
    ]
    run = start_run(load_recipe(tiny_recipe, settings), tiny_dataset, tmp_path / "run")
    (path,) = train_run(run, Console(quiet=True))
    scan = run.data.cases[0].images[0].path
    assert load_model(path).predict(scan).array.shape == (24, 24, 9)


def test_a_network_of_the_users_own_is_run_for_a_model_file_only_when_allowed(
    tmp_path, tiny_dataset, tiny_recipe, monkeypatch
):
    (tmp_path / "my_networks.py").write_text(
        "from torch import nn\n\n"
        "class Plain(nn.Sequential):\n"
        "    def __init__(self, in_channels, out_channels):\n"
        "        super().__init__(nn.Conv2d(in_channels, out_channels, 3, padding=1))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    settings = ["network={name: 'my_networks:Plain'}", "phases.0.epochs=1"]
    run = start_run(load_recipe(tiny_recipe, settings), tiny_dataset, tmp_path / "run")
    (path,) = train_run(run, Console(quiet=True))
    with pytest.raises(LeansegError, match="my_networks:Plain"):
        load_model(path)
    scan = run.data.cases[0].images[0].path
    assert load_model(path, allow_imports=True).predict(scan).array.shape == (24, 24, 9)
