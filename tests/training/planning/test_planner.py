"""Planning: budgets, refusals, odd data; and what is left of it in a run."""

from __future__ import annotations

import io
import itertools
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import leanseg
import leanseg.training.finish
from leanseg.cli.main import run as run_command
from leanseg.errors import DatasetError, LeansegError, RecipeError
from leanseg.modelfile import read_model
from leanseg.training import load_recipe, open_run, start_run, train_run
from leanseg.training.folder import Run
from leanseg.training.planning import (
    Budget,
    Planned,
    budget_of,
    cards_of,
    measuring,
    plan_training,
    planner,
    rules,
)
from leanseg.training.planning.measuring import Measured

AFFINE = np.diag([1.5, 1.5, 3.0, 1.0])
QUICK = ("packaging.export=false", "training.threads=1", "training.precision='32'")


def dataset_of(
    n: int, shape: tuple[int, int, int] = (20, 20, 9), in_cases: Sequence[int] | None = None
) -> leanseg.Dataset:
    """Ellipsoids in noise; their cores are labelled in some cases, or in all."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    cases = []
    for number in range(n):
        centre = (np.array(shape) - 1) / 2 + rng.uniform(-1, 1, 3)
        distance = np.linalg.norm((grid - centre) / (np.array(shape) / 2), axis=-1)
        label = (distance < 0.7).astype(np.uint8)
        if in_cases is None or number in in_cases:
            label[distance < 0.45] = 2
        image = (rng.normal(0, 25, shape) + 150 * (label > 0)).astype(np.int16)
        cases.append(leanseg.Case((image, AFFINE), (label, AFFINE), f"case {number}"))
    return leanseg.Dataset(cases, labels={"ball": 1, "core": 2}, channels=["CT"])


def console() -> Console:
    return Console(file=io.StringIO(), width=500)


def planned(data: leanseg.Dataset, budget: Budget, *overrides: str) -> Planned:
    return plan_training(data, budget, overrides=[*QUICK, *overrides], console=console())


def trained(data: leanseg.Dataset, folder: Path, *overrides: str, steps: int = 2) -> Run:
    """A run that was planned for some steps, with its plan left in it as `leanseg train` does."""
    plan = planned(data, budget_of(steps=steps), *overrides)
    run = start_run(plan.recipe, data, folder, check=False, console=console())
    plan.write(run.folder)
    train_run(run, console())
    return run


@pytest.fixture(scope="module")
def pair() -> leanseg.Dataset:
    return dataset_of(2)


@pytest.fixture(scope="module")
def run(pair: leanseg.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three steps with two cases, of which one tests."""
    return trained(pair, tmp_path_factory.mktemp("planned") / "run", steps=3)


def measured_at(voxels_per_second: Callable[[int], float], peak_bytes: int = 10**9) -> Callable:
    """Stands for the measurement: a machine that takes in so many voxels of a patch so large."""

    def measure(recipe: leanseg.Recipe, plan: object, precision: str | None) -> Measured:
        shape = recipe.plan.patch.shape
        n_voxels = int(np.prod(shape))
        step_s = n_voxels * recipe.phases[0].batch_size / voxels_per_second(n_voxels)
        return Measured(precision or "32", step_s, 2 * step_s, step_s / 6, peak_bytes, 250_000)

    return measure


# Budgets


@pytest.mark.parametrize(
    ("asked", "budget"),
    [
        ({}, Budget(minutes=30)),
        ({"minutes": 5}, Budget(minutes=5)),
        ({"cpu_minutes": 5}, Budget(cpu_minutes=5)),
        ({"steps": 7, "memory": "2GB"}, Budget(steps=7, memory_bytes=2 * 10**9)),
        ({"quality": "fast"}, Budget(minutes=10)),
        ({"quality": "best"}, Budget(minutes=60, cross_validate=True)),
        ({"quality": "best", "steps": 7}, Budget(steps=7, cross_validate=True)),
    ],
)
def test_budgets(asked: dict, budget: Budget) -> None:
    assert budget_of(**asked) == budget


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"minutes": 5, "steps": 7}, "--minutes and --steps both say how long to train; give one"),
        ({"minutes": 0}, "--minutes is 0; give a number above zero"),
        ({"cpu_minutes": -1.5}, "--cpu-minutes is -1.5"),
        ({"minutes": float("nan")}, "--minutes is nan"),
        ({"cpu_minutes": float("inf")}, "--cpu-minutes is inf"),
        ({"quality": "great"}, "no quality 'great'; choose fast, balanced, best"),
        ({"memory": "lots"}, "'lots' is no amount of memory"),
        ({"memory": "2"}, "'2' has no unit"),
    ],
)
def test_budgets_that_are_none(asked: dict, sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        budget_of(**asked)


def test_three_seconds_are_kept_to(pair: leanseg.Dataset, tmp_path: Path) -> None:
    """Nothing is measured in so short a time, and at least half of it is for training."""
    started = time.monotonic()
    plan = planned(pair, budget_of(minutes=0.05))
    (phase,) = plan.recipe.phases
    assert phase.minutes == pytest.approx(0.025)
    assert (phase.epochs, phase.steps, phase.cpu_minutes) == (None, None, None)
    assert plan.card.memory_bytes is None
    start = start_run(plan.recipe, pair, tmp_path / "run", console=console())
    train_run(start, console())
    summary = json.loads((tmp_path / "run/fold_0/summary.json").read_text())
    assert summary["stopped_because"] == "time budget"
    assert summary["train_seconds"] < 3
    # Slow machines are not to fail; far more than the budget is a mistake.
    assert time.monotonic() - started < 60


def test_processor_minutes_count_training_alone(
    pair: leanseg.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "measure", measured_at(lambda n: 3e5))
    plan = planned(pair, budget_of(cpu_minutes=4))
    (phase,) = plan.recipe.phases
    assert (phase.cpu_minutes, phase.minutes) == (4, None)
    # The processor's seconds are twice the clock's here.
    assert (plan.card.cpu_minutes, plan.card.minutes) == (4, pytest.approx(2))
    view = plan.views[0]
    assert plan.card.steps == int(240 / (2 * 2 * view.n_voxels / 3e5))
    assert plan.card.model_bytes == 1_000_000
    # Mapped of 0.8 x 2 cases of 20 x 20 x 9 voxels: four bytes of the scan, one of classes.
    assert plan.card.memory_bytes == pytest.approx(10**9 + 1.6 * 3600 * 5)


def test_a_slower_machine_gets_coarser_voxels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, seen = dataset_of(1, (60, 60, 60)), []
    for rate in (1e4, 1e7):
        monkeypatch.setattr(measuring, "measure", measured_at(lambda n, rate=rate: rate))
        seen.append(planned(data, budget_of(minutes=4)).views[0])
    slow, fast = seen
    assert slow.voxels_mm > fast.voxels_mm
    assert slow.n_voxels < fast.n_voxels


def test_views_that_speak_for_each_other_end_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where large patches are slow and small ones quick, each measurement asks for the other."""
    calls = []

    def rate(n_voxels: int) -> float:
        calls.append(n_voxels)
        assert len(calls) < 20, "it goes on for ever"
        return 2e5 if n_voxels > 2 * 24**3 else 2e7

    monkeypatch.setattr(measuring, "measure", measured_at(rate))
    plan = planned(dataset_of(1, (60, 60, 60)), budget_of(minutes=2))
    assert len(calls) <= 4
    assert plan.card.steps


def test_a_short_measurement_on_this_machine(pair: leanseg.Dataset) -> None:
    plan = planned(pair, budget_of(cpu_minutes=0.6))
    card = plan.card
    assert card.steps and card.steps > 0
    assert card.model_bytes and 1e5 < card.model_bytes < 1e8
    assert card.memory_bytes and card.memory_bytes > 1e8
    assert card.scan_s and 0 < card.scan_s < 60
    assert card.disk_bytes and card.disk_bytes > card.model_bytes
    assert plan.recipe.training.precision == "32"


# Steps: nothing depends on a clock


def test_plans_by_steps_are_equal_and_give_the_same_bits(
    pair: leanseg.Dataset, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: object) -> None:
        raise AssertionError("something is measured")

    monkeypatch.setattr(measuring, "measure", fail)
    again = planned(pair, budget_of(steps=3))
    assert again.recipe == run.recipe
    other = start_run(again.recipe, pair, tmp_path / "again", console=console())
    train_run(other, console())
    weights = [
        (each.folder / "fold_0/checkpoint.safetensors").read_bytes() for each in (run, other)
    ]
    assert weights[0] == weights[1]


def test_a_run_keeps_what_was_planned_and_what_was_true(run: Run) -> None:
    content = json.loads((run.folder / "planning.json").read_text())
    assert content["fingerprint"]["n_cases"] == 2
    assert content["card"]["steps"] == 3
    assert {view["dimensions"] for view in content["views"]} == {2, 3}
    cards = cards_of(run.folder)
    assert cards is not None
    said, was = cards
    assert said.steps == was.steps == 3
    assert was.model_bytes == (run.folder / "fold_0/model.leanseg").stat().st_size
    assert was.scan_s is not None and was.scan_s > 0
    table = said.lines(was)
    assert table[0].split() == ["planned", "true"]
    assert ["steps", "3", "3"] in [line.split() for line in table]
    assert leanseg.report(run.folder).is_file()


def test_no_cards_without_a_plan_or_an_end(run: Run, tmp_path: Path) -> None:
    assert cards_of(tmp_path) is None
    shutil.copy(run.folder / "planning.json", tmp_path)
    assert cards_of(tmp_path) is None


# Odd data


@pytest.mark.parametrize(
    ("data", "n_test"),
    [
        (dataset_of(1), 0),
        (dataset_of(3, in_cases=[1]), 1),
        (dataset_of(1, (9, 7, 5)), 0),
        (dataset_of(2, (7, 6, 12)), 1),
    ],
    ids=["one case", "a class in one case", "smaller than a patch", "thin"],
)
@pytest.mark.usefixtures("undrawn")
def test_little_data_train_to_a_model_that_predicts(
    data: leanseg.Dataset, n_test: int, tmp_path: Path
) -> None:
    run = trained(data, tmp_path / "run")
    assert len(run.splits[0].test) == n_test
    model = read_model(run.model_files[0])
    assert model.plan.labels == ("ball", "core")
    mask = run.model.predict(data[0].image)
    assert mask.array.shape == data[0].image.shape
    cards = cards_of(run.folder)
    assert cards is not None
    assert (cards[1].scan_s is None) == (n_test == 0)
    page = leanseg.report(run.folder).read_text()
    assert ("Better than a constant mask?" in page) == (n_test > 0)
    assert ("the split keeps no case to test" in page) == (n_test == 0)
    assert "Not everything is there" not in page


def test_what_is_nowhere_cannot_be_learnt() -> None:
    shape = (10, 10, 10)
    image, label = np.zeros(shape, np.int16), np.zeros(shape, np.uint8)
    case = leanseg.Case((image, AFFINE), (label, AFFINE), "empty")
    data = leanseg.Dataset([case], labels={"ball": 1, "core": 2}, channels=["CT"])
    with pytest.raises(DatasetError, match="no case has a voxel of ball, core; correct the label"):
        planned(data, budget_of(steps=1))


def test_a_class_that_is_nowhere_does_not_stop_the_others() -> None:
    data = dataset_of(2, in_cases=[])
    plan = planned(data, budget_of(steps=1))
    assert "core: in no case" in plan.lines()
    assert plan.recipe.plan.frame.axes


def test_too_little_memory_is_refused_with_what_it_takes(pair: leanseg.Dataset) -> None:
    with pytest.raises(RecipeError, match=r"at least 0\.\d\d GB of memory, and there are 0\.01"):
        planned(pair, budget_of(steps=1, memory="10MB"))


def test_little_memory_makes_patches_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it is enough, though rounding leaves a patch above what was asked for."""
    data = dataset_of(1, (70, 70, 70))
    large = planned(data, budget_of(steps=1)).views[0]

    def memory(self: object, recipe: leanseg.Recipe) -> int:
        return int(np.prod(recipe.plan.patch.shape)) * 1000

    monkeypatch.setattr(planner._Planner, "_memory", memory)
    low = rules.PATCH_VOXELS[3][0]
    for most in (large.n_voxels // 2, large.n_voxels // 4, 2 * low):
        view = planned(data, replace(budget_of(steps=1), memory_bytes=most * 1000)).views[0]
        assert view.n_voxels <= most
        assert view.n_voxels < large.n_voxels


# Overrides


def test_overrides_count(pair: leanseg.Dataset) -> None:
    both = "data.labels={all: [1, 2]}"
    plan = planned(pair, budget_of(steps=4), both, "phases.0.optimiser.options.lr=0.125")
    assert plan.recipe.phases[0].optimiser.options["lr"] == 0.125
    assert [*plan.fingerprint.classes] == ["all"]
    assert plan.recipe.data.labels == {"all": [1, 2]}
    whole = planned(pair, budget_of(steps=4), "data={labels: {all: [1, 2]}}")
    assert whole.fingerprint == plan.fingerprint
    assert planned(pair, budget_of(steps=4), "name=mine").recipe.name == "mine"


@pytest.mark.parametrize(
    ("override", "kind", "sentence"),
    [
        ("phases.0.epohcs=3", RecipeError, "did you mean 'epochs'"),
        ("data.labels={x: heart}", RecipeError, "'heart'"),
        ("nonsense", RecipeError, "nonsense"),
    ],
)
def test_bad_overrides_are_named(
    pair: leanseg.Dataset, override: str, kind: type[LeansegError], sentence: str
) -> None:
    with pytest.raises(kind, match=sentence):
        planned(pair, budget_of(steps=4), override)


def test_folds_are_trained_where_every_case_is_to_test(pair: leanseg.Dataset) -> None:
    plan = planned(pair, budget_of(steps=4, quality="best"))
    assert plan.recipe.split.kind == "k-fold"
    assert plan.recipe.split.n_folds == 2
    assert plan.recipe.training.folds == "all"


# Finishing


@pytest.mark.usefixtures("undrawn")
def test_an_interrupted_training_is_finished(
    pair: leanseg.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted in the second epoch of many: the model is of the steps that were kept."""
    plan = planned(pair, budget_of(steps=4000), "training.checkpoint_interval_s=0")
    recipe = plan.recipe.with_overrides(["phases.0.steps_per_epoch=3"])
    run = start_run(recipe, pair, tmp_path / "run", console=console())
    with pytest.raises(RecipeError, match=r"fold_0: no step of training was kept"):
        train_run(run, console(), finish=True)
    steps = itertools.count()

    def interrupted(self: object, what: str) -> None:
        if next(steps) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(leanseg.training.loop.FoldTrainer, "_show", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_run(run, console())
    monkeypatch.undo()
    run = open_run(run.folder)
    (path,) = train_run(run, console(), finish=True)
    summary = json.loads((path.parent / "summary.json").read_text())
    assert summary["stopped_because"] == "finished by hand"
    assert summary["steps"] == 4
    assert run.model.predict(pair[0].image).array.shape == pair[0].image.shape
    assert leanseg.report(run.folder).is_file()
    # What is done is done, with --finish and without.
    for finish in (False, True):
        said = console()
        written = path.stat().st_mtime_ns
        assert train_run(open_run(run.folder), said, finish=finish) == [path]
        assert "fold 0: already done" in said.file.getvalue()
        assert path.stat().st_mtime_ns == written
    # The kept recipe gives the same bits.
    kept = load_recipe(path.parent / "recipe.yaml")
    other = start_run(kept, pair, tmp_path / "again", console=console())
    train_run(other, console())
    assert (other.folder / "fold_0/checkpoint.safetensors").read_bytes() == (
        run.folder / "fold_0/checkpoint.safetensors"
    ).read_bytes()


@pytest.mark.usefixtures("undrawn")
def test_folds_that_were_not_begun_are_left_out(
    pair: leanseg.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(pair, budget_of(steps=2, quality="best"))
    run = start_run(plan.recipe, pair, tmp_path / "run", console=console())
    plan.write(run.folder)
    real = leanseg.training.finish.finish_fold

    def killed_after(*given: object) -> None:
        real(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr(leanseg.training.finish, "finish_fold", killed_after)
    with pytest.raises(KeyboardInterrupt):
        train_run(run, console())
    monkeypatch.undo()
    said = console()
    assert train_run(run, said, finish=True) == [run.folder / "fold_0/model.leanseg"]
    assert "fold 1: no step of it is trained; it is left out" in said.file.getvalue()
    assert cards_of(run.folder) is not None
    assert leanseg.report(run.folder).is_file()
    # It can go on as if nothing had been.
    assert len(train_run(open_run(run.folder), console())) == 2


# The commands


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one sentence of a command that exits with 2."""
    with pytest.raises(SystemExit) as caught:
        run_command([str(each) for each in arguments])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("leanseg: ")
    assert len(error.splitlines()) == 1
    return error


@pytest.fixture(scope="module")
def folder(pair: leanseg.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two cases as files."""
    return leanseg.convert(pair, "plain", tmp_path_factory.mktemp("files") / "pair").folder


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--minutes", "5", "--steps", "3"], "--minutes and --steps both say how long"),
        (["--cpu-minutes", "0"], "--cpu-minutes is 0"),
        (["--quality", "great"], "choose fast, balanced, best"),
        (["--memory", "2"], "'2' has no unit"),
        (["--steps", "1", "--memory", "10MB"], "give it more (--memory)"),
        (["--steps", "1", "--set", "data.labels={x: heart}"], "'heart'"),
    ],
)
def test_both_commands_refuse_with_one_sentence(
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    tmp_path: Path,
    arguments: list[str],
    sentence: str,
) -> None:
    assert sentence in refused(capsys, "plan", folder, *arguments)
    output = tmp_path / "run"
    assert sentence in refused(capsys, "train", "--data", folder, "-o", output, *arguments)
    assert not output.exists()


def test_torchrun_is_told_to_plan_beforehand(
    capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    message = refused(capsys, "plan", folder, "--steps", "3")
    assert "write the plan with `leanseg plan DATA --output plan.yaml`" in message


def test_a_plan_is_written_trained_and_told(
    capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path
) -> None:
    path, output = tmp_path / "plan.yaml", tmp_path / "run"
    options = ["--steps", "2", *(part for each in QUICK for part in ("--set", each))]

    def ended(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            run_command([str(each) for each in arguments])
        return caught.value.code, *capsys.readouterr()

    status, told, _ = ended("plan", folder, "-o", path, *options)
    assert status == 0
    assert told.startswith("2 labelled cases: CT, 20 x 20 x 9 voxels of 1.5 x 1.5 x 3 mm")
    assert told.endswith(f"next: leanseg train {path} --data {folder}\n")
    status, told, _ = ended("train", "--data", folder, "-o", output, *options)
    assert status == 0
    assert load_recipe(output / "recipe.yaml") == load_recipe(path)
    assert "planned        true\n" in told
    assert "a mask that is the same for every scan has" in told
    assert told.endswith(f"next: leanseg report {output}\n")
    assert (output / "planning.json").is_file()
    status, told, error = ended("train", "--resume", output)
    assert (status, error) == (0, "")
    assert "fold 0: already done" in told
    status, _, error = ended("train", "--data", folder, "-o", output, *options)
    assert status == 2
    assert "resume it with --resume" in error


def test_the_best_quality_leaves_an_ensemble(
    capsys: pytest.CaptureFixture[str], folder: Path, tmp_path: Path
) -> None:
    quick = [part for each in QUICK for part in ("--set", each)]
    given = ["train", "--data", folder, "-o", tmp_path / "run", "--steps", "2", *quick]
    with pytest.raises(SystemExit) as caught:
        run_command([str(each) for each in (*given, "--quality", "best")])
    assert caught.value.code == 0
    path = tmp_path / "run" / "model.leanseg"
    assert f"model: {path}\n" in capsys.readouterr().out
    folds = [read_model(path.parent / f"fold_{n}" / "model.leanseg") for n in (0, 1)]
    weights = [member.weights for member in read_model(path).members]
    assert len(weights) == 2
    for own, fold in zip(weights, folds, strict=True):
        for name, each in fold.members[0].weights.items():
            assert np.array_equal(own[name], each)
