"""A stack of tiny runs: who saw what, what the combiner sees, and one file at the end."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from rich.console import Console

from leanseg.datasets import read_splits
from leanseg.errors import LeansegError, RecipeError
from leanseg.evaluation import read_scores
from leanseg.inference import load_model
from leanseg.inference.memory import resident_bytes
from leanseg.modelfile import read_model
from leanseg.training import Run, load_recipe, open_run, start_run, train_run
from leanseg.training.folder import read_run
from leanseg.training.stack_members import FoldModel, Group, read_groups, run_of_labels
from leanseg.training.stacking import MapPreparer, Stack, stack_runs
from leanseg.volumes import read_volume

COMMON = [
    "training.threads=1",
    "training.precision='32'",
    "training.folds=all",
    "phases.0.epochs=2",
    "phases.0.steps_per_epoch=20",
    "packaging.export=false",
    "phases.0.optimiser={name: Adam, options: {lr: 0.005}}",
]
FLAT = [
    "name=flat",
    "network={name: msd-2d, options: {depth: 6}}",
    "plan.frame.axes=[24, 24, null]",
    "phases.0.sampler.options={margin: 2}",
    "data.labels={ball: [1, 2]}",
    "split={kind: k-fold, n_folds: 3}",
]
SOLID = [
    "name=solid",
    "network={name: msd-3d, options: {depth: 6, width: 2}}",
    "plan.frame.axes=[null, null, null]",
    "plan.patch.shape=[16, 16, 8]",
    "phases.0.sampler={name: patches}",
    "phases.0.augmentation=[]",
    "data.labels={ball: 1, core: 2}",
    "split={kind: k-fold, n_folds: 2, seed: 3}",
]


def trained(data: Path, folder: Path, *overrides: str) -> Run:
    recipe = load_recipe("monet-ct", [*COMMON, *overrides])
    run = start_run(recipe, data, folder, check=False)
    train_run(run, Console(file=io.StringIO()))
    return run


def unexported(run, model, display):
    """Exporting takes longer than all the rest."""
    return model


@pytest.fixture(scope="module")
def data(tmp_path_factory, make_tiny_dataset: Callable[..., Path]) -> Path:
    return make_tiny_dataset(tmp_path_factory.mktemp("data") / "balls", n_cases=6)


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    made = [trained(data, folder / "flat", *FLAT), trained(data, folder / "solid", *SOLID)]
    return [run.folder for run in made]


@pytest.fixture(scope="module")
def stacked(runs: list[Path], tmp_path_factory) -> SimpleNamespace:
    folder, said = tmp_path_factory.mktemp("stack") / "run", io.StringIO()
    console = Console(file=said, width=2000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("leanseg.training.finish._packaged", unexported)
        run = stack_runs(runs, folder, top=2, epochs=15, threads=1, console=console)
    return SimpleNamespace(run=run, folder=folder, said=said.getvalue())


def cases_seen(run: Path, fold: int) -> set[str]:
    """From the model file alone."""
    provenance = read_model(run / f"fold_{fold}" / "model.leanseg").provenance
    return {*provenance.training_cases, *provenance.monitor_cases}


def test_no_case_is_combined_from_a_network_that_saw_it(stacked, runs, monkeypatch) -> None:
    """By the record, and by the networks that are really run."""
    record = json.loads((stacked.folder / "stack.json").read_text())
    assert len(record["sources"]) == 6
    for case, sources in record["sources"].items():
        assert len(sources) == 4
        for source in sources:
            assert case not in cases_seen(Path(source["run"]), source["fold"])
    # Each map of the cache is what a network that did not see the case says of it, bit for bit.
    run = stacked.run
    groups = read_groups(runs, 2)
    stack = Stack.of(groups, [case.name for case in run.data.cases])
    preparer = MapPreparer(
        run.plan,
        run.data.label_values,
        None,
        run.cache,
        run.data.annotated,
        sources=stack.sources,
    )
    for case in run.data.cases[:3]:
        kept = preparer.prepare(case)
        assert not preparer.models  # from the cache
        start = 0
        for source in record["sources"][case.name]:
            path = Path(source["run"]) / f"fold_{source['fold']}" / "model.leanseg"
            assert case.name not in read_model(path).provenance.training_cases
            model = load_model(path)
            maps = model.pipeline.predict_maps(case.image, run.plan.final)
            found = kept.source.planes(0, len(maps))[:, start : start + maps.shape[1]]
            np.testing.assert_array_equal(found, maps.astype(np.float32))
            start += maps.shape[1]
        assert start == len(run.plan.channels) == 2 * 1 + 2 * 3


def test_test_cases_took_no_part_in_the_combiners_training(stacked) -> None:
    tested = []
    for fold, split in enumerate(read_splits(stacked.folder / "splits.json")):
        assert not {*split.train, *split.monitor} & {*split.test}
        scores = read_scores(stacked.folder / f"fold_{fold}" / "test" / "scores.json")
        assert {score.case for score in scores.cases} == {*split.test}
        tested += split.test
    assert sorted(tested) == [f"ball_{n:02d}" for n in range(6)]


def test_scores_are_those_of_the_written_masks(stacked, data: Path) -> None:
    (score, *_) = read_scores(stacked.folder / "fold_0" / "test" / "scores.json").cases
    path = stacked.folder / "fold_0" / "test" / "predictions" / f"{score.case}.nii.gz"
    mask, label = nib.load(path), nib.load(data / "labelsTr" / path.name)
    np.testing.assert_array_equal(mask.affine, label.affine)
    value = {"ball": 1, "core": 2}[score.label]
    p, y = np.asarray(mask.dataobj) == value, np.asarray(label.dataobj) == value
    dice = 2 * (p & y).sum() / (p.sum() + y.sum())
    assert score.metrics["dice"] == pytest.approx(dice, abs=1e-12)


def test_what_is_told(stacked) -> None:
    said = stacked.said
    assert "flat: 2 of 3 networks" in said
    assert "solid: 2 of 2 networks" in said
    assert said.count("(not a member)") == 1
    scores = [
        line.split("monitor Dice ")[1][:5] for line in said.splitlines() if "monitor D" in line
    ]
    assert scores[:3] == sorted(scores[:3], reverse=True)
    table = said[said.index("mean Dice over 6 test case(s)") :]
    # For members of one run the same network stands: that which did not see the case.
    for name in ("flat-1, flat-2: ball", "solid-1, solid-2: ball", "the stack: ball"):
        assert name in table


def test_the_stack_learned_and_is_one_file(stacked, data: Path) -> None:
    path = stacked.folder / "model.leanseg"
    model = read_model(path)
    assert list(model.stages) == ["flat-1", "flat-2", "solid-1", "solid-2", "combiner"]
    assert model.plan.final.inputs == ("flat-1", "flat-2", "solid-1", "solid-2")
    assert model.plan.labels == ("ball", "core")
    assert model.plan.input_shape(model.plan.final) == (8, 24, 24)
    assert len(model.members) == 5
    provenance = model.provenance
    known = (*provenance.training_cases, *provenance.monitor_cases)
    assert len(known) == len({*known}) == 6
    kept = provenance.training["members"]
    assert sorted(kept) == ["flat-1", "flat-2", "solid-1", "solid-2"]
    assert all(each["training_cases"] and each["recipe"]["network"] for each in kept.values())
    assert provenance.training["out_of_fold_dice"]["ball"] > 0.5
    # What the process has already depends on the tests before.
    ceiling = resident_bytes() + 400_000_000
    warm = load_model(path, max_memory=f"{ceiling // 10**6}MB")
    told: list[tuple[int, int]] = []
    image = data / "imagesTr" / "ball_01.nii.gz"
    scan = nib.load(image)
    volume = read_volume(image)
    warm.prepare(volume)
    found = warm.predict_timed(volume, None, lambda *each: told.append(each)).labels
    np.testing.assert_array_equal(found.affine, scan.affine)
    truth = np.asarray(nib.load(data / "labelsTr" / "ball_01.nii.gz").dataobj)
    p, y = found.array > 0, truth > 0
    assert 2 * (p & y).sum() / (p.sum() + y.sum()) > 0.5
    assert told[-1][0] == told[-1][1]


def test_an_empty_scan_is_background(stacked, tmp_path: Path) -> None:
    path = tmp_path / "empty.nii.gz"
    nib.save(nib.Nifti1Image(np.full((24, 24, 9), -1000, np.int16), np.eye(4)), path)
    model = load_model(stacked.folder / "model.leanseg")
    assert not model.predict(path).array.any()


def test_the_run_folder_is_one(stacked, tmp_path: Path) -> None:
    assert read_run(stacked.folder).recipe.network.name == "combiner"
    with pytest.raises(RecipeError, match=r"is a stack, which cannot be resumed.*leanseg stack"):
        open_run(stacked.folder)
    with pytest.raises(RecipeError, match="is itself a stack; give the runs"):
        stack_runs([stacked.folder], tmp_path / "of_stacks")
    with pytest.raises(RecipeError, match="is not an empty folder"):
        stack_runs([stacked.folder], stacked.folder)


def test_it_is_the_same_again(stacked, runs, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("leanseg.training.finish._packaged", unexported)
    made = [
        stack_runs(
            runs,
            tmp_path / str(n),
            top=2,
            epochs=1,
            threads=1,
            cache=stacked.run.cache.root,
            console=Console(file=io.StringIO()),
        )
        for n in range(2)
    ]
    first, second = (read_model(run.folder / "model.leanseg").weights_sha256 for run in made)
    assert first == second


def test_runs_on_other_data(runs, tmp_path: Path, make_tiny_dataset) -> None:
    other = trained(
        make_tiny_dataset(tmp_path / "data", seed=1), tmp_path / "run", *FLAT,
        "phases.0.epochs=1", "phases.0.steps_per_epoch=1",
        "training.folds=[0]",
    )  # fmt: skip
    with pytest.raises(RecipeError, match=r"was trained on other data than .*flat.*; stack runs"):
        stack_runs([runs[0], other.folder], tmp_path / "stack")
    # One fold of three: its monitor and training cases are known to the only network.
    with pytest.raises(RecipeError, match=r"only 2 case\(s\) are new.*train the runs with more"):
        stack_runs([other.folder], tmp_path / "stack")
    assert not (tmp_path / "stack").exists()
    with pytest.raises(RecipeError, match="is given twice"):
        stack_runs([runs[0], runs[0]], tmp_path / "stack")
    with pytest.raises(RecipeError, match="it is none of the runs that are stacked"):
        stack_runs(runs, tmp_path / "stack", labels_of=other.folder)
    with pytest.raises(RecipeError, match="best 0 networks"):
        stack_runs(runs, tmp_path / "stack", top=0)
    shutil.rmtree(other.folder / "fold_0")
    with pytest.raises(RecipeError, match="no fold of it is trained to its end"):
        stack_runs([other.folder], tmp_path / "stack")
    with pytest.raises(LeansegError, match="is not a run"):
        stack_runs([tmp_path], tmp_path / "stack")


def fold_model(run: object, fold: int, seen: str) -> FoldModel:
    return FoldModel(run, fold, 0.5, frozenset(seen))


def test_who_stands_for_a_member() -> None:
    one, two = SimpleNamespace(folder=Path("one")), SimpleNamespace(folder=Path("two"))
    best, second, third = (
        fold_model(one, 0, "abc"), fold_model(two, 0, "bd"), fold_model(one, 1, "ad")
    )  # fmt: skip
    group = Group("g", (best, second, third), 2)
    assert group.members == (best, second)
    assert group.unseen(best, "e") is best
    # Of the same run first, though another run's is ranked higher; then of the others.
    assert group.unseen(best, "c") is third
    assert group.unseen(best, "a") is second
    assert group.unseen(second, "d") is best
    assert Group("g", (best, third), 1).unseen(best, "a") is None


def test_a_case_that_all_saw_is_left_out_and_named() -> None:
    run = SimpleNamespace(
        folder=Path("one"),
        plan=SimpleNamespace(final=SimpleNamespace(is_sigmoid=True, labels=("x",), n_outputs=1)),
    )
    group = Group("g", (fold_model(run, 0, "ab"), fold_model(run, 1, "ac")), 5)
    stack = Stack.of([group], "abcd")
    assert stack.left_out == {"a": "g"}
    assert stack.lines()[-1].endswith("every network of a recipe saw them: a")
    assert stack.channels == ("g-1: x", "g-2: x")


def test_patients_count_as_seen_whole(runs, monkeypatch) -> None:
    monkeypatch.setattr(
        "leanseg.training.stack_members.patients_of",
        lambda cases: {case.name: str(int(case.name[-2:]) // 3) for case in cases},
    )
    (group, *_) = read_groups(runs, 2)
    for model in group.ranked:
        # Three cases a patient: of each one all or none.
        patients = [int(name[-2:]) // 3 for name in model.seen]
        assert all(patients.count(patient) == 3 for patient in patients)


def clash(name: str, **values: list[int]) -> Group:
    run = SimpleNamespace(
        folder=Path(name),
        plan=SimpleNamespace(labels=tuple(values)),
        data=SimpleNamespace(label_values=values),
    )
    return Group(name, (fold_model(run, 0, ""),), 1)


def test_whose_labels_it_has(tmp_path: Path) -> None:
    binary = clash("binary", kidney=[1, 2])
    both, other = clash("both", kidney=[1], tumour=[2]), clash("other", kidney=[1, 2], tumour=[2])
    assert run_of_labels([binary, both], None).folder == Path("both")
    assert run_of_labels([binary, both], Path("binary")).folder == Path("binary")
    with pytest.raises(
        RecipeError, match=r"both and other have 2 label.*kidney \[1\].*--labels-of RUN"
    ):
        run_of_labels([binary, both, other], None)
    assert run_of_labels([binary, both, other], Path("other")).folder == Path("other")
