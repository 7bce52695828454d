"""A threshold under change: its Dice is known by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hand_made_cascade import cube
from leanseg.datasets import Case, Dataset
from leanseg.errors import LeansegError
from leanseg.evaluation.changes import FACTORS, Factor
from leanseg.evaluation.robustness import UNCHANGED
from leanseg.inference import Model
from leanseg.inference import robustness as module
from leanseg.inference.robustness import robustness
from leanseg.modelfile import ModelFile, Provenance
from leanseg.plan import LinearScaling
from plans import slices

LPS = np.diag([-1.0, -1.0, 2.5, 1.0])
SHAPE = (24, 24, 12)
ORGAN = cube(SHAPE, ((6, 18), (8, 18), (2, 10)))
CORE = cube(SHAPE, ((8, 16), (8, 18), (2, 10)))
FALSE = cube(SHAPE, ((0, 2), (0, 4), (2, 10)))
# The threshold is 19.5.
GREY = np.select([CORE, ORGAN, FALSE], [60, 30, 10], -100)


@pytest.fixture
def make_model(known_engine):
    def make(labels=("organ",), **options):
        plan = slices((24, 24), labels, scaling=LinearScaling(divide_by=1.0, add=0.0), **options)
        # Every label by a threshold of its own; the first output is the background's.
        n = plan.final.n_outputs

        def run(batch):
            if n == 1:
                return batch[:, :1] > 19.5
            return np.concatenate([(batch[:, :1] > 19.5 + 25 * each) for each in range(n)], axis=1)

        engine = known_engine(run, shape=(4, 1, 24, 24))
        return Model(ModelFile(plan, {}), lambda lanes: {plan.final.name: engine})

    return make


def dataset(*pairs, labels=None, affine=LPS, **options):
    cases = [
        Case(
            (grey.astype(np.int16), affine),
            None if label is None else (label.astype(np.uint8), affine),
            f"case {number}",
            **options,
        )
        for number, (grey, label) in enumerate(pairs)
    ]
    return Dataset(cases, labels or {"organ": 1}, ["CT"])


def level(found, factor, name, label="organ"):
    return found.summary[factor][label]["levels"][name]


def test_offsets_by_hand(make_model):
    found = robustness(make_model(), dataset((GREY, ORGAN)), factors=["offset"])
    organ, core, false = ORGAN.sum(), CORE.sum(), FALSE.sum()
    with_false = 2 * organ / (2 * organ + false)
    for name, wanted in {
        UNCHANGED: 1,
        "-50 HU": 0,
        "-20 HU": 2 * core / (core + organ),
        "20 HU": with_false,
        "50 HU": with_false,
    }.items():
        assert level(found, "offset", name)["mean"] == pytest.approx(wanted), name
    above = found.summary["offset"]["organ"]["slopes"]["above"]["slope"]
    assert above == pytest.approx(np.polyfit([0, 20, 50], [1, with_false, with_false], 1)[0])


def test_orientation_changes_nothing(make_model):
    oblique = np.array([[0.1, 0, 2.5, 9], [-1, 0.1, 0.2, 8], [0.1, 1.1, -0.1, 7], [0, 0, 0, 1]])
    data = dataset((GREY, CORE), (np.roll(GREY, 3, 0), ORGAN), affine=oblique)
    found = robustness(make_model(), data, factors=["orientation"])
    assert found.labels_changed == {"orientation": 0}
    for name in FACTORS["orientation"].levels:
        assert level(found, "orientation", name)["difference"] == 0
        assert level(found, "orientation", name)["n_pairs"] == 2


def test_labels_that_change_are_told(make_model, monkeypatch):
    wrong = Factor(lambda scan, *_: scan.grey(np.zeros_like), {"x": 0}, "", "", unchanged=None)
    monkeypatch.setattr(module, "choose_factors", lambda *_, **__: {"orientation": wrong})
    found = robustness(make_model(), dataset((GREY, ORGAN)))
    assert found.labels_changed == {"orientation": ORGAN.sum()}


def test_noise_goes_by_seed_case_factor_and_level(make_model):
    data = dataset((GREY, ORGAN), (GREY, ORGAN))
    first, again, other = (
        robustness(make_model(), data, factors=names, seed=seed)
        for names, seed in ((["noise"], 1), (["scale", "noise"], 1), (["noise"], 2))
    )
    assert first.scores == tuple(s for s in again.scores if s.factor == "noise")
    assert first.scores != other.scores
    of_cases = [
        [s.dice["organ"] for s in first.scores if s.case == case and s.level != UNCHANGED]
        for case in first.cases
    ]
    assert of_cases[0] != of_cases[1]


def test_every_factor(make_model):
    steps, totals = [], []

    def begin(total):
        totals.append(total)
        return steps.append

    model = make_model()
    found = robustness(model, dataset((GREY, ORGAN), (GREY, None)), on_begin=begin)
    assert totals == [len(steps)] == [1 + sum(len(each.levels) for each in FACTORS.values())]
    assert found.notes == ("1 case(s) without the labels are left out",)
    assert found.cases == ("case 0",)
    own = level(found, "thickness", "2 mm")
    assert own["mean"] > 0.9
    # A box that is cut in the plane beside it, and along the slices through it, is found as it is.
    assert level(found, "end", "first third")["mean"] == 1
    values = {s.level: s.value for s in found.scores if s.factor == "thickness"}
    assert values[UNCHANGED] == 2.5
    assert values["5 mm"] == 5
    assert len(found.data_fingerprint) == 64


def test_cases_that_the_model_knows_are_told(make_model):
    model = make_model()
    known = Provenance(training_cases=("case 1", "other"))
    model.file = replace(model.file, provenance=known)
    found = robustness(model, dataset((GREY, ORGAN), (GREY, ORGAN)), factors=["scale"])
    assert [note.split(";")[0] for note in found.notes] == [
        "1 case(s) have the names of cases that trained the model"
    ]


def test_a_scan_of_one_slice(make_model):
    found = robustness(make_model(), dataset((GREY[:, :, 5:6], ORGAN[:, :, 5:6])))
    left_out = {note.split(",")[0] for note in found.notes}
    assert left_out == {"thickness", "dropped", "end"}
    assert level(found, "end", "first third")["n"] == 0
    assert level(found, "rotation", "4 degrees")["n"] == 1


def test_a_label_that_is_cut_away_has_no_dice(make_model):
    low = cube(SHAPE, ((6, 18), (8, 18), (0, 3)))
    found = robustness(make_model(), dataset((100 * low, low)), factors=["end"])
    assert level(found, "end", "first third")["mean"] is None
    assert level(found, "end", "last third")["mean"] == 1


def test_regions_and_ignored_voxels(make_model):
    """The lesion belongs to the organ; what is ignored counts for neither."""
    model = make_model(("organ", "lesion"), inside={"lesion": "organ"})
    label = np.select([FALSE, CORE, ORGAN], [3, 2, 1], 0)
    data = dataset(
        (np.where(FALSE, 99, GREY), label), labels={"organ": 1, "lesion": 2, "ignore": 3}
    )
    found = robustness(model, data, factors=["scale"])
    assert level(found, "scale", UNCHANGED, "organ")["mean"] == 1
    assert level(found, "scale", UNCHANGED, "lesion")["mean"] == 1
    # By --labels the same, and of one label alone.
    found = robustness(model, data, {"lesion": 2}, factors=["scale"])
    assert found.labels == ("lesion",)


def test_what_a_case_does_not_annotate_is_unknown(make_model):
    model = make_model(("organ", "lesion"), inside={"lesion": "organ"})
    labels = {"organ": 1, "lesion": 2}
    data = dataset((GREY, CORE * 2), labels=labels, annotated=["lesion"])
    found = robustness(model, data, factors=["scale"])
    assert level(found, "scale", UNCHANGED, "lesion")["mean"] == 1
    # Of what the lesion lies in the lesion alone is known.
    assert level(found, "scale", UNCHANGED, "organ")["n"] == 0


def test_refused(make_model):
    model, data = make_model(), dataset((GREY, ORGAN))
    for wrong, options, message in (
        (data, {"factors": ["blur"]}, "factor 'blur' is not known"),
        (dataset((GREY, None)), {}, "no case has labels to compare with"),
        (dataset((GREY, ORGAN), labels={"liver": 1}), {}, "none of the model's labels organ"),
        (data, {"labels": {"liver": 1}}, "has no label 'liver', but organ"),
        (data, {"ignored_values": [1]}, "the value 1 is ignored"),
        (dataset((GREY, ORGAN), annotated=[]), {}, "no case annotates organ"),
    ):
        with pytest.raises(LeansegError, match=message):
            robustness(model, wrong, **options)
