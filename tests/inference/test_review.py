"""Confidence and facts by hand, and every verdict."""

from __future__ import annotations

import numpy as np
import pytest

import plans
from leanseg.inference.confidence import Confidence
from leanseg.inference.facts import Facts, Look
from leanseg.inference.review import judge
from leanseg.modelfile import LabelGate, ReviewRecord, UsualRange
from leanseg.volumes import Volume, reorient

GATE = LabelGate(
    usual={"volume": UsualRange(low=np.log(100), high=np.log(400), spread=np.log(4))},
    may_be_empty=False,
    review_at=0.25,
    reject_at=1,
    acceptable=0.6,
    pass_at=0.7,
    line=(0.1, 0.8, -0.1),
    error=0.4,
    coverage=0.9,
    n_cases=20,
)
RECORD = ReviewRecord(
    data_name="data",
    data_fingerprint="0",
    seed=0,
    n_known=30,
    scan={"spacing_2": UsualRange(low=np.log(2), high=np.log(5), spread=np.log(2.5))},
    labels={"liver": GATE},
)


def verdict(confidence=0.9, volume=200.0, mm=3.0, record=RECORD, **gate):
    if gate:
        changed = GATE.model_copy(update=gate)
        record = record.model_copy(update={"labels": {"liver": changed}})
    labels = {"liver": {"volume": volume} if volume else {}}
    return judge(record, Facts({"spacing_2": mm}, labels), {"liver": confidence})


def test_pass() -> None:
    review = verdict()
    own = review.labels["liver"]
    assert review.verdict == "PASS"
    # 0.1 + 0.8 x 0.9, and 0.4 of (1 - 0.82 + 0.05) to either side.
    assert (own.expected, own.low, own.high) == pytest.approx((0.82, 0.728, 0.912))
    assert review.reason == (
        "liver: Dice is expected at 0.82 (90 % interval 0.73 to 0.91), and nothing is unusual"
    )


@pytest.mark.parametrize(
    ("given", "expected", "reason"),
    [
        ({"confidence": 0.7}, "REVIEW", "below 0.70"),
        ({"confidence": 0.1}, "REJECT", "all of it below 0.60"),
        # A distance of ln(1.6) / ln(4) = 0.34 of the range.
        ({"volume": 640.0}, "REVIEW", "liver: the volume is 640 ml, but 100 to 400 ml in known"),
        ({"volume": 10.0}, "REJECT", "liver: the volume is 10 ml"),
        ({"mm": 20.0}, "REJECT", "the voxel size along the third axis is 20 mm, but 2 to 5 mm"),
        ({"volume": 0}, "REJECT", "the label is missing, but all known cases have it"),
        ({"volume": 0, "may_be_empty": True}, "REVIEW", "the label is missing"),
        ({"confidence": None}, "REVIEW", "confidence is not known"),
        ({"record": RECORD.model_copy(update={"n_known": 2})}, "REVIEW", "too few to say"),
    ],
)
def test_what_does_not_pass(given, expected, reason) -> None:
    review = verdict(**given)
    assert review.verdict == expected
    assert reason in review.reason
    assert "\n" not in review.reason


def test_confidence_by_hand() -> None:
    # One label: of 0.9 and 0.6 the mask, 0.3 counts for what may be missed, 0.01 for nothing.
    one = Confidence(plans.slices((2, 2)).final)
    one.add(0, np.array([0.9, 0.6, 0.3, 0.01], dtype=np.float32).reshape(1, 1, 2, 2))
    assert one.by_label == {"organ": pytest.approx(2 * 1.5 / (2 + 1.8), abs=1e-6)}
    # Two labels that exclude one another; planes in any order.
    p = np.array([[0.1, 0.7, 0.2], [0.4, 0.25, 0.35], [0.97, 0.02, 0.01]], dtype=np.float32)
    two = Confidence(plans.slices((3, 1), 2).final)
    two.add(1, p[1:].T.reshape(1, 3, 2, 1))
    two.add(0, p[:1].T.reshape(1, 3, 1, 1))
    assert two.by_label == {
        "organ 1": pytest.approx(2 * 0.7 / (1 + 0.95), abs=1e-6),
        "organ 2": None,
    }


@pytest.fixture
def scan(rng):
    """A body of 100 HU in air, and in it an organ of 200 HU, in LPS."""
    grey = np.full((40, 30, 20), -1000, dtype=np.int16)
    grey[6:34, 5:25] = 100
    label = np.zeros(grey.shape, dtype=np.uint8)
    label[8:12, 9:19, 6:10] = label[20, 10, 12] = 1
    grey[label > 0] = 200
    grey += rng.integers(-3, 4, grey.shape, dtype=np.int16)
    affine = np.diag([-2.0, -2.0, 5.0, 1.0])
    return Volume(grey, affine), Volume(label, affine)


def test_facts_by_hand(scan) -> None:
    image, label = scan
    plan = plans.slices()
    facts = Look(image, plan, None, is_ct=True).facts(label.array, "LPS", {"organ": [1]})
    assert facts.scan["is_ct"] == 1
    assert facts.scan["body"] == pytest.approx(28 / 40 * 20 / 30)
    assert [facts.scan[f"extent_{n}"] for n in range(3)] == pytest.approx([80, 60, 100])
    assert facts.scan["hu_50"] == pytest.approx(100, abs=3)
    own = facts.labels["organ"]
    assert own["volume"] == pytest.approx(161 * 20 / 1000)
    # The single voxel is less than a hundredth.
    assert own["parts"] == 1
    assert own["edge"] == 0
    along = (160 * 9.5 + 20) / 161
    assert own["place_0"] == pytest.approx((along - 6) / 27)
    assert own["inside_hu_50"] == pytest.approx(200, abs=3)


def test_facts_do_not_depend_on_how_a_scan_is_stored(scan) -> None:
    plan = plans.slices()
    found = []
    for codes in ("LPS", "RIP"):
        image, label = (reorient(each, codes) for each in scan)
        look = Look(image, plan, None, is_ct=True)
        found.append(look.facts(label.array, codes, {"organ": [1]}))
    assert (found[0].scan, found[0].labels) == (found[1].scan, found[1].labels)


def test_an_empty_result_has_no_facts(scan) -> None:
    image, label = scan
    look = Look(image, plans.slices(), None, is_ct=True)
    assert look.facts(np.zeros_like(label.array), "LPS", {"organ": [1]}).labels == {"organ": {}}


def test_a_plan_of_the_scans_own_axes_looks_at_these(rng):
    scan = Volume(rng.random((30, 32, 28)).astype(np.float32), np.diag([-1.0, 2.0, 3.0, 1.0]))
    own, named = plans.slices(orientation="ijk"), plans.slices(orientation=scan.orientation)
    looks = [Look(scan, plan, None, is_ct=False).scan for plan in (own, named)]
    assert looks[0] == looks[1]
