"""Regions that contain each other, from scan to label map, scores and files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from dicom_writer import write_series
from leanseg import evaluate
from leanseg.evaluation import evaluate_masks
from leanseg.frames import CachedSource, PreparedCase, class_map
from leanseg.inference import Model, Pipeline
from leanseg.inference.formats import FORMATS
from leanseg.inference.inputs import collect_tasks
from leanseg.inference.jobs import predict_all
from leanseg.modelfile import Member, ModelFile, NetworkSpec, read_model, write_model
from leanseg.plan import Around, Axis, Frame, Patch, Plan, Stage
from leanseg.training.monitor import look
from leanseg.volumes import Box, Volume, on_grid_of, read_volume, write_volume
from leanseg.volumes.dicom.rtstruct_reader import read_rtstruct
from leanseg.volumes.dicom.seg_reader import read_dicom_seg
from plans import slices

AFFINE = np.array([[-0.8, 0, 0, 40], [0, -0.8, 0, 30], [0, 0, 2.5, -60], [0, 0, 0, 1.0]])
SHAPE = (14, 12, 6)
# Neither the outer nor the inner ones come first.
LABELS = ("tumour", "kidney", "cyst", "liver")
INSIDE = {"tumour": "kidney", "cyst": "tumour"}
MEMBERS = {"tumour": (1, 3), "kidney": (2, 1, 3), "cyst": (3,), "liver": (4,)}
# Grey values of parts of the phantom, and the class that the innermost region gives them.
GREY = {0: 0, 20: 2, 40: 1, 60: 3, 80: 4}


def phantom() -> Volume:
    """A kidney with a tumour with a cyst, and a liver beside it, told by their grey values."""
    array = np.zeros(SHAPE, dtype=np.int16)
    array[1:8, 1:11, 1:5] = 20
    array[2:7, 3:9, 1:4] = 40
    array[3:5, 4:6, 2:3] = 60
    array[9:13, 2:8, 0:4] = 80
    # Brightness is scaled by the darkest and the brightest voxel.
    array[0, 0, :], array[13, 11, :] = -20, 100
    return Volume(np.asfortranarray(array), AFFINE)


def truth(scan: Volume) -> np.ndarray:
    return np.vectorize(lambda grey: GREY.get(grey, 0))(scan.array).astype(np.uint8)


def sees(batch: np.ndarray) -> np.ndarray:
    """What the regions are, from grey values scaled to [0, 1]: one certain channel each."""
    grey = np.rint(batch[:, :1] * 120 - 20)
    found = [(grey >= 40) & (grey <= 60), (grey >= 20) & (grey <= 60), grey == 60, grey == 80]
    return np.concatenate(found, axis=1).astype(np.float32)


def region_plan(**options) -> Plan:
    return slices(SHAPE[:2], LABELS, inside=INSIDE, **options)


def model_of(known_engine, function=sees) -> Model:
    spec = NetworkSpec(name="monet", in_channels=1, out_channels=4, activation="sigmoid")
    file = ModelFile.of(region_plan(), Member(spec, {}))
    return Model(file, lambda lanes: {"main": known_engine(function)})


def test_the_phantom_is_one_number_a_voxel(known_engine, stored_as) -> None:
    scan, model = phantom(), model_of(known_engine)
    assert model.labels == {"tumour": 1, "kidney": 2, "cyst": 3, "liver": 4}
    assert model.label_values == MEMBERS
    for codes in ("LPS", "RAI", "SAL"):
        turned = stored_as(scan, codes)
        found = model.predict(turned)
        assert set(np.unique(found.array)) == {0, 1, 2, 3, 4}
        np.testing.assert_array_equal(found.array, truth(turned))


def test_probabilities_are_those_of_the_regions(known_engine) -> None:
    scan = phantom()
    found = model_of(known_engine).predict_timed(scan, save_probabilities=True).probabilities
    assert found.array.shape == (*SHAPE, 4)
    labels = truth(scan)
    for channel, values in enumerate(MEMBERS.values()):
        np.testing.assert_array_equal(found.array[..., channel], np.isin(labels, values))


def test_where_nothing_runs_no_probability_stands(known_engine) -> None:
    first = slices(SHAPE[:2], ("body",)).final.model_copy(update={"name": "first"})
    frame = Frame(axes=(Axis(size=14), Axis(size=12), Axis()), region=Around(stage="first"))
    second = Stage(labels=LABELS, inside=INSIDE, frame=frame)
    nothing = {"first": known_engine(np.zeros_like), "main": known_engine(sees)}
    pipeline = Pipeline(Plan(stages=(first, second)), nothing)
    found = pipeline.predict(phantom(), probabilities=np.dtype(np.float32))
    assert not found.probabilities.array.any()


def test_an_inner_region_wins_outside_its_outer_one(known_engine) -> None:
    def tumour_alone(batch: np.ndarray) -> np.ndarray:
        return sees(batch) * np.array([1, 0, 1, 1], dtype=np.float32).reshape(1, 4, 1, 1)

    scan = phantom()
    found = model_of(known_engine, tumour_alone).predict(scan).array
    expected = truth(scan)
    expected[expected == 2] = 0
    np.testing.assert_array_equal(found, expected)


def test_scores_are_of_a_region_with_all_inside_it(rng, known_engine) -> None:
    scan = phantom()
    predicted = model_of(known_engine).predict(scan).array
    reference = np.where(rng.random(SHAPE) < 0.3, rng.integers(0, 5, SHAPE), truth(scan))
    scores = evaluate_masks(
        predicted, reference.astype(np.uint8), AFFINE, model_of(known_engine).label_values
    )
    assert [score.label for score in scores] == list(LABELS)
    for score, values in zip(scores, MEMBERS.values(), strict=True):
        mine, theirs = np.isin(predicted, values), np.isin(reference, values)
        dice = 2 * (mine & theirs).sum() / (mine.sum() + theirs.sum())
        assert score.metrics["dice"] == pytest.approx(dice)
    assert scores[1].metrics["prediction_ml"] == pytest.approx(7 * 10 * 4 * 0.8 * 0.8 * 2.5 / 1000)


def test_monitoring_scores_likewise(rng, known_engine) -> None:
    image = rng.random((3, 1, 14, 12)).astype(np.float32)
    classes = rng.integers(0, 5, (3, 14, 12)).astype(np.uint8)
    source = CachedSource(image, Box((0, 0, 0), (14, 12, 3)))
    case = PreparedCase("a", source, classes, classes)

    def soft(batch: np.ndarray) -> np.ndarray:
        return np.concatenate([batch, batch**2, batch**4, 1 - batch], axis=1)

    pipeline = Pipeline(region_plan(), {"main": known_engine(soft)})
    scores = look(pipeline, [case])
    maps = soft(image)
    predicted = np.zeros_like(classes)
    for number in (2, 4, 1, 3):  # outer ones first
        predicted[maps[:, number - 1] > 0.5] = number
    losses = []
    for channel, (name, values) in enumerate(MEMBERS.items()):
        mine, theirs = np.isin(predicted, values), np.isin(classes, values)
        dice = 2 * (mine & theirs).sum() / (mine.sum() + theirs.sum())
        assert scores.dice_per_label[name] == pytest.approx(dice)
        p = maps[:, channel].astype(np.float64)
        losses.append(1 - (2 * p[theirs].sum() + 1) / (p.sum() + theirs.sum() + 1))
    assert scores.loss == pytest.approx(np.mean(losses), rel=1e-6)
    # A label that the case does not annotate takes no part.
    known = look(pipeline, [replace(case, annotated=(True, False, True, True))])
    assert known.dice_per_label["kidney"] is None
    assert known.loss == pytest.approx(np.mean([losses[n] for n in (0, 2, 3)]), rel=1e-6)


def test_class_maps_hold_the_innermost() -> None:
    stage = region_plan().final
    values = {"tumour": [5, 6], "kidney": [6, 4, 5], "cyst": [6], "liver": [9]}
    label = Volume(np.arange(12, dtype=np.uint8).reshape(2, 2, 3), np.diag([-1.0, -1, 1, 1]))
    found = class_map(label, stage, values).transpose(1, 2, 0).ravel()
    assert found.tolist() == [0, 0, 0, 0, 2, 1, 3, 0, 0, 4, 0, 0]


def test_the_largest_part_of_each_region(known_engine) -> None:
    array = np.zeros((20, 20, 1), dtype=np.int16)
    array[1:12, 1:12] = 20
    array[2:6, 2:6], array[8:10, 8:10] = 40, 40  # two tumours in the kidney
    array[15:18, 15:18], array[16, 16] = 20, 40  # another kidney with a tumour
    array[0, 19], array[19, 0] = -20, 100
    plan = slices((20, 20), LABELS, inside=INSIDE, largest_component=True)
    found = Pipeline(plan, {"main": known_engine(sees)}).predict(Volume(array, AFFINE))
    expected = np.zeros(array.shape, dtype=np.uint8)
    expected[1:12, 1:12] = 2
    expected[2:6, 2:6] = 1
    np.testing.assert_array_equal(found.labels.array, expected)


def test_the_largest_part_of_an_inner_region_alone(known_engine) -> None:
    array = np.zeros((20, 20, 1), dtype=np.int16)
    array[1:12, 1:12], array[15:18, 15:18] = 20, 20
    array[2:6, 2:6], array[8:10, 8:10], array[16, 16] = 40, 40, 40
    array[0, 19], array[19, 0] = -20, 100
    plan = slices((20, 20), LABELS, inside=INSIDE, largest_component=["tumour"])
    found = Pipeline(plan, {"main": known_engine(sees)}).predict(Volume(array, AFFINE))
    # Both kidneys stay; what was tumour beside the largest is kidney now.
    expected = np.where(array >= 20, 2, 0)
    expected[19, 0] = 0
    expected[2:6, 2:6] = 1
    np.testing.assert_array_equal(found.labels.array, expected)


@pytest.mark.parametrize(("labels", "grey"), [(["kidney"], (20, 60)), (["tumour"], (40, 60))])
def test_a_box_around_a_region_holds_what_is_inside_it(known_engine, labels, grey) -> None:
    first = region_plan().final.model_copy(update={"name": "first"})
    frame = Frame(axes=(Axis(),) * 3, region=Around(stage="first", labels=labels))
    second = Stage(labels=("any",), frame=frame, patch=Patch(4, 4, 2))
    engines = {"first": known_engine(sees), "main": known_engine(np.ones_like)}
    scan = phantom()
    found = Pipeline(Plan(stages=(first, second)), engines).predict(scan).labels.array
    where = np.argwhere((scan.array >= grey[0]) & (scan.array <= grey[1]))
    expected = np.zeros(SHAPE, dtype=bool)
    sides = zip(where.min(0), where.max(0), strict=True)
    expected[tuple(slice(low, high + 1) for low, high in sides)] = True
    np.testing.assert_array_equal(found, expected)


@pytest.fixture
def series(tmp_path: Path, rng) -> Path:
    write_series(tmp_path / "scan", phantom().array, AFFINE, rng=rng, patient="Doe^Jane")
    return tmp_path / "scan"


def test_volumes_and_files_of_every_format(series, tmp_path, known_engine) -> None:
    model = model_of(known_engine)
    image = read_volume(series)
    labels = truth(image)
    written = {}
    for form, kind in FORMATS.items():
        tasks = collect_tasks([series], model.plan)
        (result,) = predict_all(model, tasks, tmp_path / "out", form=form)
        assert result.status == "done", result.message
        written[form] = tmp_path / "out" / f"scan{kind.suffix}"
        for name, values in MEMBERS.items():
            expected = np.isin(labels, values).sum() * 0.8 * 0.8 * 2.5 / 1000
            assert result.volumes_ml[name] == pytest.approx(expected, rel=1e-4)
    np.testing.assert_array_equal(read_volume(written["nifti"]).array, labels)
    # Segments and structures hold what is inside them, as their names say.
    for name, values in MEMBERS.items():
        expected = np.isin(labels, values)
        found, _ = read_dicom_seg(written["dicom-seg"], image, segments={name: 1})
        np.testing.assert_array_equal(on_grid_of(image, found).array, expected)
        found, _ = read_rtstruct(written["rtstruct"], image, {name: 1})
        np.testing.assert_array_equal(found.array, expected)
    # A label map has one number a voxel there too.
    found, names = read_dicom_seg(written["dicom-labelmap"])
    assert names == model.labels
    np.testing.assert_array_equal(on_grid_of(image, found).array, labels)


def test_a_model_file_says_what_its_outputs_are(tmp_path) -> None:
    weights = {"w": np.ones(2, dtype=np.float32)}
    spec = NetworkSpec(name="monet", in_channels=1, out_channels=4, activation="sigmoid")
    path = tmp_path / "m.leanseg"
    write_model(path, ModelFile.of(region_plan(), Member(spec, weights)))
    read = read_model(path)
    assert read.members[0].network == spec
    assert read.plan == region_plan()
    with pytest.raises(ValidationError, match="activation is softmax, but the plan's labels ask"):
        _ = ModelFile.of(
            region_plan(), Member(NetworkSpec(name="monet", in_channels=1, out_channels=4), {})
        ).manifest


def test_a_file_without_regions_is_written_as_before_there_were_any() -> None:
    spec = NetworkSpec(name="monet", in_channels=1, out_channels=1)
    assert spec.model_dump() == {
        **{"name": "monet", "in_channels": 1, "out_channels": 1},
        "options": {},
    }
    assert NetworkSpec.model_validate(spec.model_dump()) == spec


def test_evaluating_written_masks(tmp_path, known_engine) -> None:
    """`leanseg evaluate` with the values of a region and of all inside it."""
    scan = phantom()
    write_volume(tmp_path / "mask.nii.gz", model_of(known_engine).predict(scan))
    write_volume(tmp_path / "truth.nii.gz", scan.with_array(truth(scan)))
    values = {name: list(own) for name, own in MEMBERS.items()}
    scores = evaluate(tmp_path / "mask.nii.gz", tmp_path / "truth.nii.gz", values)
    assert [score.metrics["dice"] for score in scores.cases] == [1, 1, 1, 1]
    expected = 7 * 10 * 4 * 0.8 * 0.8 * 2.5 / 1000
    assert scores.cases[1].metrics["prediction_ml"] == pytest.approx(expected, rel=1e-4)
