"""The error budget of cascades whose every figure is known, by numpy and scipy."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from hand_made_cascade import COARSE, FINE, cascade_plan, cube
from leanseg.datasets import Case, Dataset
from leanseg.errors import LeansegError
from leanseg.inference import Model
from leanseg.inference.error_budget import MARGINS, error_budget
from leanseg.modelfile import ModelFile
from leanseg.plan import Axis
from leanseg.volumes import Volume
from leanseg.volumes.windows import window_around
from plans import slices

LPS = np.diag([-1.0, -1.0, 2.5, 1.0])
SHAPE = (24, 24, 6)
LABELS = {"organ": 1, "lesion": 2}


@pytest.fixture
def make_model(known_engine):
    """Its networks are thresholds; of neighbouring slices the middle one counts."""

    def make(plan=None):
        plan = plan or cascade_plan()
        middle = plan.final.patch.neighbours
        engines = {
            name: known_engine(
                lambda batch, least=least: batch[:, middle : middle + 1] > least,
                shape=(4, *plan.input_shape(plan.network(name))),
                lanes=2,
            )
            for name, least in (("coarse", COARSE), ("fine", FINE))
        }
        return Model(ModelFile(plan, {}), lambda lanes: engines)

    return make


def dataset(*pairs, affine=LPS, labels=LABELS, **options):
    """Of grey values and label maps (i, j, k); None for a case without labels."""
    cases = [
        Case(
            (grey.astype(np.int16), affine),
            None if label is None else (label.astype(np.uint8), affine),
            f"case {number}",
            **options,
        )
        for number, (grey, label) in enumerate(pairs)
    ]
    return Dataset(cases, labels, ["CT"])


def dice(found, truth):
    return 2 * (found & truth).sum() / (found.sum() + truth.sum()) if truth.any() else None


def by_hand(grey, label, margin=2, multiple=1):
    """Everything of one case, slice by slice."""
    seen, organ, lesion = grey >= 10, label > 0, label == 2
    parts, n_parts = ndimage.label(lesion, np.ones((3, 3, 3)))
    boxes = {}
    for own in {*MARGINS, margin}:
        inside = boxes[own] = np.zeros(grey.shape, dtype=bool)
        for k in range(grey.shape[2]):
            window = window_around(seen[:, :, k], [(own, own)] * 2, multiple)
            if window is not None:
                inside[(*window, k)] = True
    true = np.zeros(grey.shape, dtype=bool)
    for k in range(grey.shape[2]):
        if organ[:, :, k].any():
            i, j = np.nonzero(organ[:, :, k])
            ends = [(max(0, x.min() - margin), x.max() + 1 + margin) for x in (i, j)]
            true[slice(*ends[0]), slice(*ends[1]), k] = True
    sizes = [int((parts == n).sum()) for n in range(1, n_parts + 1)]
    return {
        "labelled_slices": int(organ.any((0, 1)).sum()),
        "missed_slices": int((organ.any((0, 1)) & ~seen.any((0, 1))).sum()),
        "found_nothing": not seen.any(),
        "organ_dice": dice(seen, organ),
        "voxels": tuple(sizes),
        "kept": {
            own: tuple((boxes[own] & (parts == n + 1)).sum() / sizes[n] for n in range(n_parts))
            for own in sorted(boxes)
        },
        "dice_found": dice((grey >= 20) & boxes[margin], lesion),
        "dice_true": dice((grey >= 20) & true, lesion),
    }


def assert_by_hand(case, wanted):
    for name, value in wanted.items():
        found = getattr(case, name)
        if name == "kept":
            assert list(found) == list(value)
            found, value = ([x for own in each.values() for x in own] for each in (found, value))
        assert found == pytest.approx(value, abs=1e-12), name
    assert case.off_grid == 0


ORGAN = cube(SHAPE, ((6, 16), (8, 18), (1, 5)))
TWO_LESIONS = cube(SHAPE, ((7, 10), (9, 12), (1, 3)), ((12, 15), (14, 17), (3, 5)))


def painted(organ, lesion, false=None):
    """What stages find as it is: grey values, and the label map."""
    label = np.where(lesion, 2, organ * 1)
    grey = 10 * (organ | lesion) + 10 * lesion
    if false is not None:
        grey[false] = 20
    return grey, label


def test_every_figure_by_hand(make_model):
    grey, label = painted(ORGAN, TWO_LESIONS)
    # Slice 1 is missed, in slice 3 most of the organ, and the second stage misses some, too.
    grey[:, :, 1] = np.minimum(grey[:, :, 1], 9)
    grey[9:, :, 3] = 0
    grey[12, :, 4] = 15
    false, _ = painted(ORGAN, TWO_LESIONS, cube(SHAPE, ((0, 2), (0, 2), (0, 6))))
    budget = error_budget(make_model(), dataset((grey, label), (false, label)))
    first, second = budget.cases
    assert_by_hand(first, by_hand(grey, label))
    assert_by_hand(second, by_hand(false, label))
    assert (first.labelled_slices, first.missed_slices) == (4, 1)
    # By hand and eye: 9 of 18 voxels in slice 2; in slice 4 all 9, in slice 3 those of [6, 11).
    assert first.voxels == (18, 18)
    assert first.kept[2] == (0.5, 0.5)
    assert first.kept[5] == (0.5, pytest.approx((9 + 6) / 18))
    assert second.gain > 0
    summary = budget.summary
    assert summary["stage_1"]["missed_slices"] == 1
    assert summary["stage_1"]["found_nothing"] == []
    assert summary["kept"][2] == {
        "parts": 4, "mean": 0.75, "worst": 0.5, "lost": 0, "of_all_voxels": 0.75
    }  # fmt: skip
    lesions = summary["lesions"]
    assert [lesions[box]["n_lesions"] for box in ("found", "true")] == [4, 4]
    # What lies beside the organ is six slices with the found box, and nothing with the true one.
    assert [lesions[box]["false_positives"] for box in ("found", "true")] == [1, 0]
    assert lesions["found"]["by_diameter_mm"]["<10"]["sensitivity"] == 1
    assert "Stage 1 loses 25 % of the lesion voxels; the true box would" in budget.verdict


def test_a_plan_of_the_scans_own_axes(make_model):
    """As one that names them."""
    grey, label = painted(ORGAN, TWO_LESIONS)
    grey[9:, :, 3] = 0
    data = dataset((grey, label))

    def seen(codes):
        plan = cascade_plan()
        stages = [
            stage.model_copy(
                update={"frame": stage.frame.model_copy(update={"orientation": codes})}
            )
            for stage in plan.stages
        ]
        return error_budget(make_model(plan.model_copy(update={"stages": tuple(stages)})), data)

    assert seen("ijk") == seen("LPS")


def test_both_boxes_are_one_where_stage_1_is_right(make_model):
    budget = error_budget(make_model(), dataset(painted(ORGAN, TWO_LESIONS)))
    (case,) = budget.cases
    assert case.organ_dice == case.dice_found == case.dice_true == 1
    assert case.lesions_found == case.lesions_true
    assert all(share == 1 for shares in case.kept.values() for share in shares)
    assert budget.verdict.endswith("neither needs improving.")


NOTHING = cube(SHAPE)
EVERYTHING = ~NOTHING
CASES = {
    "no lesion": (ORGAN, NOTHING),
    "lesion alone": (NOTHING, TWO_LESIONS),
    "at the border": (
        cube(SHAPE, ((0, 4), (20, 24), (0, 6))),
        cube(SHAPE, ((0, 1), (23, 24), (0, 1))),
    ),
    "two organs": (
        cube(SHAPE, ((2, 5), (2, 5), (1, 3)), ((18, 22), (19, 21), (2, 4))),
        cube(SHAPE, ((3, 4), (3, 4), (1, 3)), ((19, 20), (19, 20), (3, 4))),
    ),
    "every side": (EVERYTHING, cube(SHAPE, ((0, 24), (11, 13), (2, 4)))),
    "nothing": (NOTHING, NOTHING),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("is_missed", [False, True])
def test_organs_of_all_kinds(make_model, name, is_missed):
    grey, label = painted(*CASES[name])
    if is_missed:
        grey = np.where(np.arange(24)[:, None, None] < 12, 0, grey)
    budget = error_budget(make_model(), dataset((grey, label)))
    assert_by_hand(budget.cases[0], by_hand(grey, label))
    assert budget.verdict.startswith("No case has lesion") == (not (label == 2).any())


def test_the_organ_alone(make_model):
    """Its rounds begin with the true box, and stay in it."""
    grey = np.where(ORGAN, 20, 0)
    label = ORGAN * 1
    grey[:, :, 1] = 0
    grey[8:, :, 2] = np.minimum(grey[8:, :, 2], 9)
    grey[8:, :, 3][ORGAN[8:, :, 3]] = 20
    plan = cascade_plan(("organ",), rounds=3, margin=0)
    budget = error_budget(make_model(plan), dataset((grey, label), labels={"organ": 1}))
    (case,) = budget.cases
    assert not budget.has_lesion
    assert case.lesions_found is None
    assert "lesions" not in budget.summary
    assert case.voxels == (400,)
    # Of four slices of 100 voxels one is missed, and of one [6, 8) alone is found.
    assert case.kept[0] == (0.55,)
    assert case.kept[5] == ((200 + 70) / 400 + 0.0,)
    assert case.dice_found == case.dice_true == pytest.approx(2 * 220 / 620)
    assert case.organ_dice == case.dice_found


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_true_box_finds_what_stage_1_does_not_lead_to(make_model, rounds):
    grey = np.where(ORGAN, 20, 0)
    first = np.where(np.arange(24)[:, None, None] < 8, grey, 0)
    model = make_model(cascade_plan(("organ",), rounds=rounds, margin=0))
    model.pipeline.engines["coarse"].function = lambda batch: np.where(
        np.arange(24)[:, None] < 8, batch > COARSE, 0
    )
    budget = error_budget(model, dataset((grey, ORGAN * 1), labels={"organ": 1}))
    (case,) = budget.cases
    assert case.dice_found == pytest.approx(dice(first > 0, ORGAN))
    assert case.dice_true == 1
    assert budget.verdict.endswith("improve stage 1 first.")


def random_case(rng):
    noise = ndimage.gaussian_filter(rng.normal(size=(24, 24, 6)), 2.5)
    grey = np.digitize(noise, np.quantile(noise, (0.9, 0.97))) * 10
    truth = ndimage.gaussian_filter(rng.normal(size=(24, 24, 6)), 2.5) + noise
    return grey, np.digitize(truth, np.quantile(truth, (0.85, 0.95)))


@pytest.mark.parametrize("multiple", [1, 5, 16])
@pytest.mark.parametrize("neighbours", [0, 2])
def test_noise_by_hand(make_model, rng, multiple, neighbours):
    grey, label = random_case(rng)
    plan = cascade_plan(multiple=multiple, neighbours=neighbours, margin=3)
    (case,) = error_budget(make_model(plan), dataset((grey, label))).cases
    wanted = by_hand(grey, label, 3, multiple)
    # The true box of `by_hand` knows no multiple.
    if multiple > 1:
        del wanted["dice_true"]
    assert_by_hand(case, wanted)


@pytest.mark.parametrize("codes", ["LPS", "RAS", "SPL"])
def test_orientation_does_not_matter(make_model, rng, stored_as, codes):
    grey, label = random_case(rng)
    volumes = [
        stored_as(Volume(each, LPS), codes)
        for each in (grey.astype(np.int16), label.astype(np.uint8))
    ]
    data = Dataset([Case(*volumes, name="case 0")], LABELS, ["CT"])
    (case,) = error_budget(make_model(), data).cases
    assert_by_hand(case, by_hand(grey, label))


@pytest.mark.parametrize(
    ("shape", "along_k"),
    [((12, 48), None), ((24, 24), Axis(size=3)), ((30, 20), Axis(spacing_mm=1.0))],
)
def test_the_found_box_is_what_the_model_predicts(make_model, rng, shape, along_k):
    """On grids of the frame's own, too; every slice of the frame is counted once."""
    grey, label = random_case(rng)
    model = make_model(cascade_plan(shape=shape, along_k=along_k, multiple=4))
    (case,) = error_budget(model, dataset((grey, label))).cases
    predicted = model.predict(grey.astype(np.int16), LPS).array == 2
    assert 0 < case.dice_found == dice(predicted, label == 2)
    n = 6 if along_k is None else along_k.length(6, 2.5)
    j, i, k = (
        (2 * np.arange(new) + 1) * old // (2 * new)
        for new, old in ((shape[1], 24), (shape[0], 24), (n, 6))
    )
    parts, n_parts = ndimage.label(label == 2, np.ones((3, 3, 3)))
    counts = np.bincount(parts[np.ix_(i, j, k)].ravel(), minlength=n_parts + 1)[1:]
    assert case.voxels == tuple(counts[counts > 0])
    assert case.off_grid == (counts == 0).sum()


def test_largest_component_as_in_prediction(make_model):
    grey, label = painted(ORGAN, TWO_LESIONS)
    plan = cascade_plan()
    last = plan.final.model_copy(update={"largest_component": ("lesion",)})
    plan = plan.model_copy(update={"stages": (plan.stages[0], last)})
    (case,) = error_budget(make_model(plan), dataset((grey, label))).cases
    assert case.dice_found == case.dice_true == pytest.approx(2 / 3)


def test_ignored_voxels_count_nowhere(make_model):
    grey, label = painted(ORGAN, TWO_LESIONS, cube(SHAPE, ((0, 2), (0, 2), (0, 6))))
    label[:2, :2] = 3
    for options in ({"labels": {**LABELS, "ignore": 3}}, {}):
        ignored = [] if options else [3]
        data = dataset((grey, label), **options)
        (case,) = error_budget(make_model(), data, ignored_values=ignored).cases
        assert case.organ_dice == case.dice_found == 1
        assert case.labelled_slices == 4
        assert case.lesions_found.false_positives == 0


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    found=arrays(bool, (17, 13, 2), elements=st.booleans(), fill=st.just(False)),
    truth=arrays(bool, (17, 13, 2)),
    multiple=st.integers(1, 12),
    margin=st.integers(0, 20),
)
def test_a_wider_margin_keeps_no_less(known_engine, found, truth, multiple, margin):
    plan = cascade_plan(("organ",), (17, 13), margin=margin, multiple=multiple)
    engines = {
        name: known_engine(lambda batch: batch[:, :1] > COARSE, shape=(4, n, 17, 13))
        for name, n in (("coarse", 1), ("fine", 2))
    }
    model = Model(ModelFile(plan, {}), lambda lanes: engines)
    (case,) = error_budget(model, dataset((found * 10, truth * 1), labels={"organ": 1})).cases
    shares = [*case.kept.values()]
    assert list(case.kept) == sorted({*MARGINS, margin})
    assert all(0 <= share <= 1 for each in shares for share in each)
    assert all(
        a <= b for narrow, wide in pairwise(shares) for a, b in zip(narrow, wide, strict=True)
    )


def test_cases_that_cannot_be_used_are_left_out(make_model):
    pair = painted(ORGAN, TWO_LESIONS)
    budget = error_budget(make_model(), dataset(pair, (pair[0], None)))
    assert [case.case for case in budget.cases] == ["case 0"]
    assert budget.notes == ("1 case(s) without all of the labels are left out",)


def test_values_of_labels(make_model):
    """The lesion's need not be named among the organ's, and names are found in any spelling."""
    grey, label = painted(ORGAN, TWO_LESIONS)
    label = np.array([0, 5, 7])[label]
    for labels in ({"organ": 5, "lesion": 7}, {"organ": (5, 7), "Lesion": 7}):
        (case,) = error_budget(make_model(), dataset((grey, label)), labels).cases
        assert case.organ_dice == case.dice_found == 1


def test_bad_input(make_model):
    grey, label = painted(ORGAN, TWO_LESIONS)
    data = dataset((grey, label))
    plain = Model(ModelFile(slices(), {}), lambda lanes: {})
    with pytest.raises(LeansegError, match="the model: is no cascade"):
        error_budget(plain, data)
    with pytest.raises(LeansegError, match="has no label 'lesion', which the model has, but organ"):
        error_budget(make_model(), dataset((grey, label > 0), labels={"organ": 1}))
    with pytest.raises(LeansegError, match="--labels: has no label 'organ'"):
        error_budget(make_model(), data, {"lesion": 2})
    with pytest.raises(LeansegError, match="no case has labels to compare with"):
        error_budget(make_model(), dataset((grey, None)))
    with pytest.raises(LeansegError, match="no case annotates all of organ, lesion"):
        error_budget(make_model(), dataset((grey, label), annotated=["organ"]))
    with pytest.raises(LeansegError, match="the value 2 is ignored and also belongs"):
        error_budget(make_model(), data, ignored_values=[2])
