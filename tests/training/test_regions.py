"""Classes that contain each other: from the recipe to the scores of a run."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from rich.console import Console

from leanseg.datasets import open_dataset
from leanseg.errors import RecipeError
from leanseg.evaluation import read_scores
from leanseg.inference import load_model
from leanseg.modelfile import read_model
from leanseg.plan import Plan
from leanseg.reports.baseline import run_baseline
from leanseg.reports.run_folder import read_run_folder
from leanseg.reports.run_report import report
from leanseg.training import load_recipe, open_run, start_run, train_run
from leanseg.training.data import select_data


@pytest.mark.parametrize(
    ("labels", "inside"),
    [
        ("{core: core, whole: [ball, core]}", {"core": "whole"}),
        ("{whole: [1, 2], core: 2}", {"core": "whole"}),
        ("{core: 2, ball: 1}", {}),
    ],
)
def test_values_say_what_lies_inside_what(tiny_dataset, tiny_recipe, labels, inside) -> None:
    recipe = load_recipe(tiny_recipe, [f"data.labels={labels}"])
    stage = select_data(open_dataset(tiny_dataset), recipe).plan(recipe).final
    assert stage.inside == inside
    # The order is the recipe's.
    assert list(stage.labels) == list(recipe.data.labels)
    assert stage.n_outputs == (2 if inside else 3)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("{a: [3, 1], b: [1, 2]}", "the value 1 belongs to both 'a' and 'b', neither of which"),
        ("{a: [1, 2], b: [2, 1]}", "the value 1 belongs to both 'a' and 'b', neither of which"),
    ],
)
def test_other_overlaps_are_refused(tiny_dataset, tiny_recipe, tmp_path, labels, said) -> None:
    recipe = load_recipe(tiny_recipe, [f"data.labels={labels}"])
    with pytest.raises(RecipeError, match=f"recipe 'tiny': in 'data.labels' {said}"):
        start_run(recipe, tiny_dataset, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("undrawn")
def test_a_run_scores_regions_with_what_is_inside_them(tiny_dataset, tiny_recipe, tmp_path) -> None:
    settings = ["data.labels={core: [2], whole: [1, 2]}"]
    run = start_run(load_recipe(tiny_recipe, settings), tiny_dataset, tmp_path / "run")
    assert open_run(run.folder).plan.final.inside == {"core": "whole"}
    (path,) = train_run(run, Console(quiet=True))
    assert read_model(path).members[0].network.activation == "sigmoid"
    fold = run.fold_folder(0)
    scores = read_scores(fold / "test/scores.json")
    assert scores.labels == {"core": (1,), "whole": (1, 2)}
    files = {case.name: case for case in open_dataset(tiny_dataset).cases}
    model = load_model(path, engine="torch")
    for name in run.splits[0].test:
        predicted = np.asarray(nib.load(fold / f"test/predictions/{name}.nii.gz").dataobj)
        case = files[name]
        reference = np.asarray(nib.load(case.label_parts[0].source.path).dataobj)
        found = {s.label: s.metrics["dice"] for s in scores.cases if s.case == name}
        for label, mine, theirs in (
            ("core", predicted == 1, reference == 2),
            ("whole", predicted > 0, reference > 0),
        ):
            n = mine.sum() + theirs.sum()
            assert found[label] == pytest.approx(2 * (mine & theirs).sum() / n)
        again = model.predict(case.images[0].path).array
        np.testing.assert_array_equal(again, predicted)
        assert found["whole"] > 0
    rows = [json.loads(line) for line in (fold / "metrics.jsonl").read_text().splitlines()]
    assert list(rows[-1]["monitor_dice_per_label"]) == ["core", "whole"]

    folder = read_run_folder(run.folder)
    name = run.splits[0].test[0]
    _, shown = folder.volumes(name)
    reference = np.asarray(nib.load(files[name].label_parts[0].source.path).dataobj)
    np.testing.assert_array_equal(shown.array, np.array([0, 2, 1])[reference])
    baseline = run_baseline(folder)
    assert baseline.problem is None
    # A core in the middle of a ball is a worse guess than the ball around it.
    assert baseline.dice[name, "whole"] > baseline.dice[name, "core"]
    assert "1+2 whole (in the files: 1, 2)" in report(run.folder).read_text()


def test_a_region_is_there_where_what_is_inside_it_is(
    make_tiny_dataset, tiny_recipe, tmp_path, capsys
) -> None:
    """Balls that are all core: the whole has voxels though none is of it alone."""
    data = make_tiny_dataset(tmp_path / "data")
    for file in (data / "labelsTr").iterdir():
        image = nib.load(file)
        array = np.asarray(image.dataobj)
        nib.save(nib.Nifti1Image(np.where(array > 0, 2, 0).astype(np.uint8), image.affine), file)
    settings = ["data.labels={core: [2], whole: [1, 2]}", "phases.0.epochs=1"]
    run = start_run(load_recipe(tiny_recipe, settings), data, tmp_path / "run", check=False)
    train_run(run, Console(quiet=True))
    warnings = json.loads((run.fold_folder(0) / "summary.json").read_text())["warnings"]
    assert not any("whole" in sentence for sentence in warnings)


def test_plans_from_before_regions_are_read() -> None:
    old = {
        "version": 1,
        "channels": ["CT"],
        "stages": [{"kind": "network", "name": "main", "labels": ["liver", "tumour"]}],
    }
    plan = Plan.model_validate_json(json.dumps(old))
    assert plan.final.inside == {}
    assert "inside" not in plan.model_dump_json()
