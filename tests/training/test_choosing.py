"""Threshold and components chosen on monitor cases, against Dice by numpy and scipy."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from rich.console import Console
from scipy import ndimage

import leanseg
from leanseg.frames import CachedSource, PreparedCase
from leanseg.inference import Pipeline
from leanseg.modelfile import read_model
from leanseg.plan import Plan
from leanseg.training import load_recipe, start_run, train_run
from leanseg.training.choosing import Choice, choose_decision
from leanseg.training.planning import rules
from leanseg.training.planning.planner import Budget, plan_training
from leanseg.volumes import Box
from plans import patches, slices

SHAPE = (4, 12, 10)  # k, i, j


class Engine:
    """Says the probabilities that are its input."""

    lanes, batch_size, passes, calls = 1, 2, 1, 0

    def run(self, batch: np.ndarray) -> np.ndarray:
        self.calls += len(batch)
        return batch


def case(probabilities: np.ndarray, truth: np.ndarray, **known: object) -> PreparedCase:
    """A case of probabilities (k, output, i, j) and true classes (k, i, j)."""
    (k, _, i, j), own = probabilities.shape, truth.shape
    source = CachedSource(probabilities.astype(np.float32), Box((0, 0, 0), (*own[1:], own[0])))
    truth = truth.astype(np.uint8)
    return PreparedCase("case", source, np.zeros((k, i, j), np.uint8), truth, **known)


def chosen(plan: Plan, cases: Sequence[PreparedCase], folder: Path) -> Choice:
    engine = Engine()
    choice = choose_decision(Pipeline(plan, {"main": engine}), cases, folder)
    # The network has seen every plane once, and nothing is left on the disk.
    assert engine.calls == (sum(len(each.classes) for each in cases) if len(cases) > 2 else 0)
    assert not list(folder.iterdir())
    return choice


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    return 2 * (found & truth).sum() / (found.sum() + truth.sum())


def rim(inner: float, outer: float, doubtful: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """A true block, so probable in the middle, and in its first rows less."""
    truth = np.zeros(SHAPE, bool)
    truth[1:3, 2:10, 2:8] = True
    probability = np.where(truth, inner, 0.05)
    probability[1:3, 2 : 2 + doubtful, 2:8] = outer
    return probability[:, None], truth


def test_a_lower_threshold_that_is_clearly_better(tmp_path) -> None:
    cases = [case(*rim(0.9, low)) for low in (0.35, 0.38, 0.45)]
    choice = chosen(slices(SHAPE[1:]), cases, tmp_path)
    expected = {
        t: np.mean([dice(rim(0.9, low)[0][:, 0] > t, rim(0, 0)[1]) for low in (0.35, 0.38, 0.45)])
        for t in (0.3, 0.4, 0.5, 0.6, 0.7)
    }
    assert expected[0.3] == 1 > expected[0.4] > expected[0.5]
    assert choice.plan == slices(SHAPE[1:], threshold=0.3)
    assert choice.dice_before == pytest.approx(expected[0.5])
    assert choice.dice == 1
    assert str(choice) == (
        "chosen on 3 monitor cases: threshold 0.3 instead of 0.5; "
        f"mean Dice {expected[0.5]:.4f}, now 1.0000"
    )
    assert choice.to_json()["threshold"] == 0.3


def test_of_equally_good_thresholds_the_nearest(tmp_path) -> None:
    cases = [case(*rim(0.9, 0.45)) for _ in range(3)]
    assert chosen(slices(SHAPE[1:]), cases, tmp_path).plan.final.threshold == 0.4
    higher = slices(SHAPE[1:], threshold=0.75)
    cases = [case(*rim(0.72, 0.72)) for _ in range(3)]
    assert chosen(higher, cases, tmp_path).plan.final.threshold == 0.7


def test_a_gain_that_may_be_chance_changes_nothing(tmp_path) -> None:
    """One case in four gains 0.0105, the mean 0.0026; with all four it is the choice."""
    plan, (probabilities, truth) = slices(SHAPE[1:]), rim(0.9, 0.9)
    doubtful = probabilities.copy()
    doubtful[1, 0, 2, 2:4] = 0.45
    gain = 1 - dice(doubtful[:, 0] > 0.5, truth)
    assert gain / 4 < 0.005 < gain
    cases = [case(doubtful, truth), *[case(probabilities, truth)] * 3]
    choice = chosen(plan, cases, tmp_path)
    assert (choice.plan, choice.changes) == (plan, ())
    assert choice.dice == choice.dice_before == pytest.approx(1 - gain / 4)
    assert "no change is clearly better" in str(choice)
    assert chosen(plan, [case(doubtful, truth)] * 4, tmp_path).plan.final.threshold == 0.4


def test_what_one_case_pays_for_is_not_chosen(tmp_path) -> None:
    """Three gain much, one loses 0.03 by what a lower threshold finds beside its block."""
    plan, (gaining, truth) = slices(SHAPE[1:]), rim(0.9, 0.35)
    losing = rim(0.9, 0.9)[0]
    losing[1, 0, 0, 0:6] = 0.35
    loss = 1 - dice(losing[:, 0] > 0.3, truth)
    assert 0.02 < loss < 0.04
    cases = [case(gaining, truth)] * 3
    choice = chosen(plan, [*cases, case(losing, truth)], tmp_path)
    assert (choice.plan, choice.changes) == (plan, ())
    losing[1, 0, 0, 2:6] = 0.05
    assert 0 < 1 - dice(losing[:, 0] > 0.3, truth) < 0.02
    assert chosen(plan, [*cases, case(losing, truth)], tmp_path).plan.final.threshold == 0.3


def test_finding_what_is_not_there_is_a_loss(tmp_path) -> None:
    gaining, truth = rim(0.9, 0.35)
    nothing = np.zeros_like(truth)
    healthy = case(
        np.where(np.arange(12)[:, None] == 3, 0.35, 0.05) * np.ones(SHAPE)[:, None], nothing
    )
    plan = slices(SHAPE[1:])
    assert chosen(plan, [*[case(gaining, truth)] * 3, healthy], tmp_path).plan == plan
    clean = case(np.full((4, 1, 12, 10), 0.05), nothing)
    choice = chosen(plan, [*[case(gaining, truth)] * 3, clean], tmp_path)
    assert choice.plan.final.threshold == 0.3
    assert choice.dice == 1


def test_two_cases_are_too_few(tmp_path) -> None:
    choice = chosen(slices(SHAPE[1:]), [case(*rim(0.9, 0.35))] * 2, tmp_path)
    assert (choice.plan, choice.changes) == (slices(SHAPE[1:]), ())
    assert "of 2 monitor case(s) nothing is chosen, 3 are needed" in str(choice)


def one_hot(classes: np.ndarray, n: int) -> np.ndarray:
    """Certain probabilities (k, output, i, j) of classes (k, i, j)."""
    return (classes[:, None] == np.arange(n).reshape(1, n, 1, 1)).astype(np.float32)


def two_labels(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """What is found and true: of label 1 one block and found specks, of label 2 two true blocks."""
    rng = np.random.default_rng(seed)
    truth = np.zeros(SHAPE, np.uint8)
    truth[0:3, 1:6, 1:5] = 1
    truth[0:2, 8:11, 0:3], truth[0:2, 8:11, 6:9] = 2, 2
    found = truth.copy()
    for i in rng.permutation(np.arange(1, 7))[:3]:
        found[2, i, 8] = 1
    return found, truth


@pytest.mark.parametrize("before", [False, True, ["b"]])
def test_components_are_chosen_label_by_label(tmp_path, before) -> None:
    """Specks of "a" go; of "b" both pieces stay, or come back where the plan had dropped one."""
    pairs = [two_labels(seed) for seed in range(3)]
    cases = [case(one_hot(found, 3), truth) for found, truth in pairs]
    plan = slices(SHAPE[1:], ("a", "b"), largest_component=before)
    choice = chosen(plan, cases, tmp_path)
    assert choice.plan == slices(SHAPE[1:], ("a", "b"), largest_component=["a"])
    assert choice.dice == 1
    expected = []
    for found, truth in pairs:
        for number, name in ((1, "a"), (2, "b")):
            mask = found == number
            if before is True or (before and name in before):
                pieces, _ = ndimage.label(mask)
                mask = pieces == np.bincount(pieces.ravel())[1:].argmax() + 1
            expected.append(dice(mask, truth == number))
    assert choice.dice_before == pytest.approx(np.mean(expected))
    assert choice.to_json()["largest_component"] == ["a"]
    said = {
        False: "the largest component alone of a",
        True: "all components of b",
        ("b",): "the largest component alone of a; all components of b",
    }
    assert f": {said[before if isinstance(before, bool) else tuple(before)]};" in str(choice)


def test_components_of_a_label_that_few_cases_annotate(tmp_path) -> None:
    cases = [case(one_hot(found, 3), truth) for found, truth in map(two_labels, range(3))]
    cases[1] = replace(cases[1], annotated=(False, True))
    plan = slices(SHAPE[1:], ("a", "b"))
    assert chosen(plan, cases, tmp_path).plan == plan
    found, truth = two_labels(7)
    more = case(one_hot(found, 3), truth)
    choice = chosen(plan, [*cases, more], tmp_path)
    assert choice.plan.final.largest_component == ("a",)


def test_regions_threshold_first_then_from_the_outside(tmp_path) -> None:
    """A second kidney that is not there is found, with a tumour; and specks of tumour in the true
    one. Either is dropped by its own label's component, and both are found at 0.4 alone."""
    truth = np.zeros(SHAPE, np.uint8)
    truth[0:3, 1:8, 1:7] = 2
    truth[1:3, 2:5, 2:5] = 1
    tumour, kidney = (truth == 1) * 0.45, (truth > 0) * 0.45
    tumour[1, 6, 5:7] = 0.45
    kidney[1:3, 9:12, 7:10], tumour[2, 10, 8] = 0.45, 0.45
    probabilities = np.stack([tumour, kidney], axis=1)
    labels, inside = ("tumour", "kidney"), {"tumour": "kidney"}
    plan = slices(SHAPE[1:], labels, inside=inside)
    choice = chosen(plan, [case(probabilities, truth)] * 3, tmp_path)
    final = slices(SHAPE[1:], labels, inside=inside, threshold=0.4, largest_component=True)
    assert choice.plan == final
    assert (choice.dice_before, choice.dice) == (0, 1)
    assert choice.changes == (
        "threshold 0.4 instead of 0.5",
        "the largest component alone of kidney",
        "the largest component alone of tumour",
    )


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.9])
@pytest.mark.parametrize(
    ("make", "shape", "own"),
    [
        (slices, (9, 11), (5, 14, 10)),
        (slices, (14, 10), (5, 14, 10)),
        (patches, (6, 6, 4), (7, 13, 10)),
    ],
)
@pytest.mark.parametrize("labels", [1, 2])
def test_deciding_again_is_predicting(rng, make, shape, own, threshold, labels) -> None:
    """In-plane resized and not, and planes interpolated; one label and two regions."""
    options = {"threshold": threshold, "largest_component": True}
    if labels == 2:
        options["inside"] = {"organ 1": "organ 2"}
    plan = make(shape, labels, **options)
    frame = (5, *shape) if make is slices else (9, 10, 8)
    image = ndimage.gaussian_filter(rng.normal(size=(frame[0], labels, *frame[1:])), (1, 0, 1, 1))
    image = (1 / (1 + np.exp(-8 * image))).astype(np.float32)
    source = CachedSource(image, Box((0, 0, 0), (*own[1:], own[0])))
    pipeline, seen = Pipeline(plan, {"main": Engine()}), {}
    found = pipeline.predict_source(source, lambda k, planes: seen.update({k: planes.copy()}))
    kept = np.concatenate([seen[k] for k in sorted(seen)])
    assert kept.shape == (frame[0], labels, *frame[1:])
    assert 0 < found.mean() < labels
    np.testing.assert_array_equal(pipeline.decide_source(source, kept), found)


def test_a_run_whose_model_decides_as_chosen(tmp_path, tiny_dataset, tiny_recipe) -> None:
    """After some steps everything is above 0.01, so that any other threshold is better."""
    listing = tmp_path / "splits.json"
    monitor = ["ball_02", "ball_04", "ball_05"]
    split = {"train": ["ball_00", "ball_03"], "monitor": monitor, "test": ["ball_01"]}
    listing.write_text(json.dumps([split]))
    settings = [
        f"split={{kind: file, file: '{listing}'}}",
        "training.choose_decision=true",
        "plan.threshold=0.01",
        "phases.0.steps_per_epoch=60",
        "phases.0.selection=last",
        "phases.0.epochs=1",
        "phases.0.optimiser.options.lr=0.005",
    ]
    run = start_run(load_recipe(tiny_recipe, settings), tiny_dataset, tmp_path / "run")
    said = io.StringIO()
    (path,) = train_run(run, Console(file=said, width=300))
    summary = json.loads((path.parent / "summary.json").read_text())["decision"]
    plan = read_model(path).plan.final
    assert plan.threshold == summary["threshold"] > 0.01
    assert list(plan.cleaned_labels) == summary["largest_component"]
    assert f"chosen on 3 monitor cases: threshold {plan.threshold:g} instead of 0.01" in " ".join(
        said.getvalue().split()
    )
    assert "threshold: 0.01" in (path.parent / "recipe.yaml").read_text()
    stored = Plan.model_validate_json((tmp_path / "run" / "plan.json").read_text())
    assert stored.final.threshold == 0.01
    model = leanseg.load_model(path)
    found = []
    for name in (*monitor, "ball_01"):
        scan = tiny_dataset / "imagesTr" / f"{name}.nii.gz"
        result = model.predict_timed(leanseg.read(scan), save_probabilities=True)
        mask = result.labels.array > 0
        above = result.probabilities.array[..., 0].astype(np.float32) > plan.threshold
        if plan.cleaned_labels:
            pieces, _ = ndimage.label(above)
            above = pieces == np.bincount(pieces.ravel())[1:].argmax() + 1
        # Probabilities are written in 16 bits.
        assert (mask == above).mean() > 0.99
        label = nib.load(tiny_dataset / "labelsTr" / f"{name}.nii.gz")
        found.append(dice(mask, np.asarray(label.dataobj) > 0))
    assert summary["dice"] == pytest.approx(np.mean(found[:3]), abs=1e-9)
    assert summary["dice"] > summary["dice_before"] + 0.005
    scored = leanseg.evaluation.read_scores(path.parent / "test" / "scores.json")
    assert scored.cases[0].metrics["dice"] == pytest.approx(found[3], abs=1e-9)


def test_too_few_monitor_cases_are_told(tmp_path, tiny_dataset, tiny_recipe) -> None:
    settings = ["training.choose_decision=true", "phases.0.epochs=1"]
    run = start_run(load_recipe(tiny_recipe, settings), tiny_dataset, tmp_path / "run")
    said = io.StringIO()
    (path,) = train_run(run, Console(file=said, width=300))
    assert "of 1 monitor case(s) nothing is chosen, 3 are needed" in " ".join(
        said.getvalue().split()
    )
    assert read_model(path).plan == run.plan


def test_the_planner_leaves_time_for_it(tmp_path, make_tiny_dataset) -> None:
    """Half of so short a budget is training, whatever reading takes; of that two looks go off."""
    data = leanseg.open_dataset(make_tiny_dataset(tmp_path / "data", 40))
    minutes = []
    for chooses in ("false", "true"):
        overrides = [f"training.choose_decision={chooses}"]
        planned = plan_training(data, Budget(minutes=0.4), overrides=overrides)
        minutes.append(planned.recipe.phases[0].minutes)
        assert planned.recipe.training.choose_decision == (chooses == "true")
    # Three cases of 24 x 24 x 9 voxels are seen in two patches of 24 x 24 x 8 each.
    look_s = 3 * 2 * 24 * 24 * 8 / rules.VOXELS_PER_SECOND / 3
    assert minutes == pytest.approx([0.2 - 2 * look_s / 60] * 2, abs=1e-9)
