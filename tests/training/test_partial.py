"""Cases that annotate different organs train together; what is unknown is never background."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

import plans
from leanseg.datasets import open_dataset
from leanseg.datasets.case import Case, Dataset
from leanseg.errors import DatasetError, RecipeError
from leanseg.evaluation import read_scores
from leanseg.frames import CachedSource, PreparedCase
from leanseg.losses import build_loss
from leanseg.training import load_recipe, open_run, start_run, train_run
from leanseg.training.data import select_data
from leanseg.training.loading import batches
from leanseg.training.samplers.base import Sample
from leanseg.training.samplers.slices import Slices
from leanseg.training.tasks.base import Batch, Term
from leanseg.training.tasks.segmentation import Segmentation
from leanseg.volumes import Box


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory, make_tiny_dataset) -> tuple[Path, Path]:
    """Two datasets of balls with cores: one annotates balls alone, the other cores alone."""
    folders = []
    for name, kept, value in (("balls", 1, 5), ("cores", 2, 3)):
        folder = make_tiny_dataset(tmp_path_factory.mktemp(name) / name, n_cases=3, seed=kept)
        description = json.loads((folder / "dataset.json").read_text())
        description["name"] = name
        description["labels"] = {"0": "background", str(value): "Ball" if kept == 1 else "core"}
        (folder / "dataset.json").write_text(json.dumps(description))
        import nibabel as nib

        for file in (folder / "labelsTr").iterdir():
            loaded = nib.load(file)
            array = np.asarray(loaded.dataobj)
            array = np.where(array == kept, value, 0).astype(np.uint8)
            nib.save(nib.Nifti1Image(array, loaded.affine), file)
        folders.append(folder)
    return folders[0], folders[1]


def recipe_for(path: Path, labels: str = "{ball: [ball], core: [core]}"):
    path.write_text(
        f"""
name: partial
data:
  labels: {labels}
plan: {{frame: {{axes: [32, 32, null]}}}}
network: {{name: unet, options: {{base_filters: 4}}}}
split: {{kind: k-fold, n_folds: 3}}
packaging: {{export: false}}
phases: [{{epochs: 1, steps_per_epoch: 3, batch_size: 4}}]
training: {{threads: 1, precision: "32"}}
"""
    )
    return load_recipe(path)


def test_a_run_on_two_datasets_scores_what_is_annotated(tmp_path, halves):
    run = start_run(recipe_for(tmp_path / "r.yaml"), halves, tmp_path / "run")
    assert {len(known) for known in run.data.annotated.values()} == {1}
    assert run.plan.labels == ("ball", "core")
    train_run(run, Console(quiet=True))
    scores = read_scores(tmp_path / "run/fold_0/test/scores.json")
    for name in run.splits[0].test:
        known = [score.label for score in scores.cases if score.case == name]
        assert known == (["ball"] if name.startswith("balls") else ["core"])
    again = open_run(tmp_path / "run")
    assert again.data == run.data
    from leanseg.reports.run_report import report

    page = report(tmp_path / "run").read_text()
    assert "Traceback" not in page


def known_case(name: str, flags: tuple[bool, ...] | None) -> PreparedCase:
    rng = np.random.default_rng(len(name))
    image = rng.normal(size=(2, 1, 6, 6)).astype(np.float32)
    classes = rng.integers(0, 3, (2, 6, 6)).astype(np.uint8)
    for number, known in enumerate(flags or (), start=1):
        if not known:
            classes[classes == number] = 0
    source = CachedSource(image, Box((0, 0, 0), (6, 6, 2)))
    return PreparedCase(name, source, classes, classes, flags)


STAGE = plans.slices((6, 6), ("ball", "core")).final


def batch_of(*cases: PreparedCase) -> Batch:
    samples = [Sample(case, (0, 0, 0), 0) for case in range(len(cases))]
    (batch,) = batches(Slices(cases, STAGE, 1), [samples], 2, 0)
    return batch


def test_no_gradient_reaches_what_a_case_does_not_annotate():
    cases = [
        known_case("all", None),
        known_case("ball", (True, False)),
        known_case("c", (False, True)),
    ]
    batch = batch_of(*cases)
    assert batch.annotated is not None
    assert batch.annotated.tolist() == [[True, True], [True, False], [False, True]]
    logits = torch.randn(3, 3, 6, 6, generator=torch.Generator().manual_seed(1), requires_grad=True)
    loss = Segmentation(STAGE, [Term(build_loss("dice"))]).loss(lambda image: logits, batch)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient[1, 2] == 0).all() and (gradient[2, 1] == 0).all()
    assert (gradient[0] != 0).any(dim=(1, 2)).all()
    assert (gradient[1, 1] != 0).any() and (gradient[2, 2] != 0).any()
    # Taken for background, the same voxels would have pushed the class down.
    (naive,) = torch.autograd.grad(build_loss("dice")(logits, batch.classes), logits)
    assert (naive[1, 2] > 0).any()


def test_complete_cases_say_nothing_to_the_loss():
    assert batch_of(known_case("a", None)).annotated is None


def dataset_of(labels: dict[str, int], *annotated: set[str] | None) -> Dataset:
    cases = tuple(
        Case(Path(__file__), Path(__file__), f"case {n}", annotated=known)
        for n, known in enumerate(annotated)
    )
    return Dataset(cases, labels, ("CT",))


LABELS = {"liver": 1, "liver lesion": 2, "left kidney": 3, "right kidney": 4}
BOTH_LIVER = {"liver", "liver lesion"}


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("{liver: liver}", [("liver",), ("liver",)]),
        # A liver with its lesions is known only where both are.
        ("{liver: [liver, liver_lesion]}", [("liver",), ()]),
        ("{liver: [1, 2]}", [("liver",), ()]),
        ("{liver: [liver, 'liver lesion?']}", [("liver",), ("liver",)]),
        ("{liver: [liver, 'gallbladder?']}", [("liver",), ("liver",)]),
        ("{a: liver, b: [lesion liver]}", [("a", "b"), ("a",)]),
    ],
)
def test_a_class_is_annotated_when_all_its_labels_are(tmp_path, labels, expected):
    dataset = dataset_of(LABELS, BOTH_LIVER, {"liver"}, BOTH_LIVER)
    data = select_data(dataset, recipe_for(tmp_path / "r.yaml", labels))
    found = [data.annotated.get(f"case {n}", ()) for n in range(2)]
    assert found == expected
    assert [case.name for case in data.cases if case.name == "case 1"] == (
        ["case 1"] if expected[1] else []
    )


@pytest.mark.parametrize(
    ("labels", "classes", "ignored"),
    [
        ("null", {"liver": [1], "spleen": [2]}, (3,)),
        ("{liver: liver}", {"liver": [1]}, (3,)),
        ("{liver: [liver, ignore]}", {"liver": [1, 3]}, ()),
        ("{liver: liver, doubt: [3]}", {"liver": [1], "doubt": [3]}, ()),
    ],
)
@pytest.mark.parametrize("name", ["ignore", "IGNORE"])
def test_ignore_is_no_class_unless_the_recipe_says_so(tmp_path, name, labels, classes, ignored):
    known = {"liver", "spleen", name}
    dataset = dataset_of({"liver": 1, "spleen": 2, name: 3}, known, known)
    data = select_data(dataset, recipe_for(tmp_path / "r.yaml", labels))
    assert data.label_values == classes
    assert data.ignored_values == ignored


def test_a_dataset_of_ignored_voxels_alone_has_no_class(tmp_path):
    dataset = dataset_of({"ignore": 1}, {"ignore"}, {"ignore"})
    with pytest.raises(DatasetError, match="names no foreground label"):
        select_data(dataset, recipe_for(tmp_path / "r.yaml", "null"))


def test_a_run_leaves_out_ignored_voxels(tmp_path, make_tiny_dataset):
    import nibabel as nib

    folder = make_tiny_dataset(tmp_path / "data", n_cases=3)
    listing = folder / "dataset.json"
    content = json.loads(listing.read_text())
    content["labels"] = {"0": "background", "1": "ball", "2": "core", "3": "Ignore"}
    listing.write_text(json.dumps(content))
    for file in (folder / "labelsTr").iterdir():
        loaded = nib.load(file)
        array = np.asarray(loaded.dataobj).astype(np.uint8)
        array[:12, :, ::2] = 3
        nib.save(nib.Nifti1Image(array, loaded.affine), file)
    run = start_run(recipe_for(tmp_path / "r.yaml", "null"), folder, tmp_path / "run")
    assert run.plan.labels == ("ball", "core")
    assert run.data.ignored_values == (3,)
    train_run(run, Console(quiet=True))
    assert open_run(run.folder).data == run.data
    place = run.folder / "fold_0/test"
    scores = read_scores(place / "scores.json")
    assert scores.settings["ignored_values"] == [3]
    dice = {}
    for score in scores.cases:
        reference = np.asarray(nib.load(run.data.case(score.case).label_path).dataobj)
        predicted = np.asarray(nib.load(place / f"predictions/{score.case}.nii.gz").dataobj)
        value = {"ball": 1, "core": 2}[score.label]
        masks = [each[reference != 3] == value for each in (predicted, reference)]
        dice[score.label] = 2 * (masks[0] & masks[1]).sum() / sum(mask.sum() for mask in masks)
        assert score.metrics["dice"] == pytest.approx(dice[score.label])


def test_labels_that_nobody_annotates_and_unknown_names_are_refused(tmp_path):
    dataset = dataset_of(LABELS, {"liver", "left kidney"}, {"liver", "right kidney"})
    kidneys = "{liver: liver, kidneys: [left kidney, right kidney]}"
    with pytest.raises(DatasetError, match="no case annotates all that class 'kidneys'"):
        select_data(dataset, recipe_for(tmp_path / "r.yaml", kidneys))
    with pytest.raises(RecipeError, match=r"data\.labels\.x.*'heart'.*liver, liver lesion"):
        select_data(dataset, recipe_for(tmp_path / "r.yaml", "{x: heart}"))
    # One case is enough to learn from.
    found = select_data(dataset, recipe_for(tmp_path / "r.yaml", "{k: [left kidney]}"))
    assert [case.name for case in found.cases] == ["case 0"]


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("{kind: leave-one-out}", 6),
        ("{kind: contiguous, n_folds: 3}", 3),
        ("{kind: stratified, n_folds: 2}", 2),
        ("{kind: stratified, n_folds: 2, by: ball}", 2),
    ],
)
def test_every_kind_of_split_starts_a_run(tmp_path, tiny_dataset, tiny_recipe, section, expected):
    recipe = load_recipe(tiny_recipe, [f"split={section}"])
    run = start_run(recipe, tiny_dataset, tmp_path / "run")
    assert len(run.splits) == expected
    names = [case.name for case in open_dataset(tiny_dataset).cases]
    assert sorted(name for split in run.splits for name in split.test) == names


def test_stratifying_by_an_unknown_class_is_refused(tmp_path, tiny_dataset, tiny_recipe):
    recipe = load_recipe(tiny_recipe, ["split={kind: stratified, n_folds: 2, by: cyst}"])
    with pytest.raises(RecipeError, match=r"split\.by.*'cyst'.*ball"):
        start_run(recipe, tiny_dataset, tmp_path / "run")
