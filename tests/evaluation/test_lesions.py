"""Scores of single lesions, against components by SciPy and numbers by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp
from scipy.ndimage import label

import leanseg
from leanseg.errors import LeansegError, MissingDependencyError
from leanseg.evaluation.lesions import Lesion, LesionScores, lesion_scores, summarise_lesions

pytest.importorskip("panoptica", reason="needs leanseg[lesions]")

CORNERS = np.ones((3, 3, 3))
masks = hnp.arrays(np.bool_, (6, 5, 4), elements=hnp.from_dtype(np.dtype(bool)))


def boxes(*corners, shape=(20, 20, 20)):
    """Cubes with a side of 2 voxels at these corners."""
    mask = np.zeros(shape, bool)
    for i, j, k in corners:
        mask[i : i + 2, j : j + 2, k : k + 2] = True
    return mask


def test_a_hand_case():
    """A large lesion half found, a small one missed, and something that is none."""
    truth = boxes((10, 10, 10), (12, 10, 10), (2, 2, 2))
    found = lesion_scores(boxes((12, 10, 10), (17, 17, 17)), truth, (1, 2, 3))
    large, small = found.lesions
    assert (large.volume_ml, small.volume_ml) == pytest.approx((0.096, 0.048))
    assert large.diameter_mm == pytest.approx((6 * 96 / np.pi) ** (1 / 3))
    assert (large.found, small.found) == (True, False)
    assert (large.dice, small.dice) == pytest.approx((2 / 3, 0))
    assert (found.n_predicted, found.false_positives) == (2, 1)


def test_an_affine_measures_as_its_spacing():
    affine = np.array([[0, 0, -3, 5], [1, 0, 0, 6], [0, 2, 0, 7], [0, 0, 0, 1.0]])
    truth = boxes((2, 2, 2))
    assert lesion_scores(truth, truth, affine) == lesion_scores(truth, truth, (1, 2, 3))


@pytest.mark.parametrize("filled", [(), (0,), (1,)])
def test_no_lesion_in_either_or_in_one(filled):
    empty, full = boxes(), boxes((2, 2, 2))
    prediction, reference = (full if n in filled else empty for n in (0, 1))
    found = lesion_scores(prediction, reference, (1, 1, 1))
    assert [lesion.found for lesion in found.lesions] == [False] * (1 in filled)
    assert found.n_predicted == found.false_positives == (0 in filled)


def test_voxels_that_touch_at_a_corner_are_one_lesion():
    truth = boxes((2, 2, 2), (4, 4, 4), (7, 4, 4))
    assert len(lesion_scores(truth, truth, (1, 1, 1)).lesions) == 2


def test_lesions_at_the_border_are_lesions():
    truth = boxes((0, 0, 0), (18, 18, 18))
    found = lesion_scores(truth, truth, (1, 1, 1))
    assert [lesion.dice for lesion in found.lesions] == [1, 1]


def test_a_component_over_two_lesions_finds_the_one_it_fits_best():
    truth = boxes((2, 2, 2), (2, 2, 5), (2, 2, 7))
    bridge = np.zeros_like(truth)
    bridge[2:4, 2:4, 2:9] = True
    found = lesion_scores(bridge, truth, (1, 1, 1))
    # 28 voxels over lesions of 16 and 8.
    assert found.lesions == (
        Lesion(0.016, pytest.approx(3.1265, abs=1e-3), True, pytest.approx(32 / 44)),
        Lesion(0.008, pytest.approx(2.4814, abs=1e-3), False, 0.0),
    )
    assert found.false_positives == 0


def test_pieces_of_one_lesion_are_no_false_positives():
    truth = np.zeros((20, 5, 5), bool)
    truth[2:12, 2:4, 2:4] = True
    pieces = truth.copy()
    pieces[5:8] = False
    found = lesion_scores(pieces, truth, (1, 1, 1))
    assert [lesion.dice for lesion in found.lesions] == pytest.approx([2 * 28 / 68])
    assert (found.n_predicted, found.false_positives) == (2, 0)


def test_more_lesions_than_a_byte_counts(rng):
    """Each is matched to its own, whatever their number."""
    truth = np.zeros((40, 40, 40), bool)
    truth[::4, ::4, ::4] = True
    found = lesion_scores(truth, truth, (1, 1, 1))
    assert len(found.lesions) == 1000
    assert all(lesion.dice == 1 for lesion in found.lesions)


@given(masks, masks)
@settings(max_examples=60, deadline=None)
def test_what_any_two_masks_have(prediction, reference):
    """Components, their sizes and what overlaps nothing, by SciPy."""
    found = lesion_scores(prediction, reference, (1, 1, 1))
    parts, n_parts = label(prediction, CORNERS)
    lesions, n_lesions = label(reference, CORNERS)
    assert (found.n_predicted, len(found.lesions)) == (n_parts, n_lesions)
    alone = set(range(1, n_parts + 1)) - set(parts[reference])
    assert found.false_positives == len(alone)
    sizes = sorted(np.bincount(lesions.ravel())[1:], reverse=True)
    assert [1000 * lesion.volume_ml for lesion in found.lesions] == pytest.approx(sizes)
    n_found = sum(lesion.found for lesion in found.lesions)
    touched = set(lesions[prediction]) - {0}
    # A component finds one lesion at most.
    assert min(1, len(touched)) <= n_found <= min(len(touched), n_parts)
    assert all((lesion.dice > 0) == lesion.found for lesion in found.lesions)
    # Each component goes to the lesion that it fits best.
    best = {}
    for part in set(range(1, n_parts + 1)) - alone:
        of_part = parts == part
        ious = [
            ((lesions == n) & of_part).sum() / ((lesions == n) | of_part).sum()
            for n in range(1, n_lesions + 1)
        ]
        if sorted(ious)[-1:] == sorted(ious)[-2:-1]:
            return
        best.setdefault(int(np.argmax(ious)) + 1, []).append(part)
    expected = []
    for lesion, its in best.items():
        a, b = lesions == lesion, np.isin(parts, its)
        expected.append(2 * (a & b).sum() / (a.sum() + b.sum()))
    assert sorted(x.dice for x in found.lesions if x.found) == pytest.approx(sorted(expected))


def test_a_summary_by_hand():
    lesions = [
        Lesion(0.1, 5.0, False, 0.0),
        Lesion(0.5, 10.0, True, 0.4),
        Lesion(2.0, 19.9, False, 0.0),
        Lesion(20.0, 30.0, True, 0.8),
    ]
    found = summarise_lesions(
        [LesionScores(tuple(lesions[:3]), 4, 3), LesionScores(tuple(lesions[3:]), 1, 0)]
    )
    by_size = found.pop("by_diameter_mm")
    assert found == {
        "n_scans": 2,
        "n_predicted": 5,
        "false_positives": 3,
        "false_positives_per_scan": 1.5,
        "precision": pytest.approx(0.4),
        "n_lesions": 4,
        "n_found": 2,
        "sensitivity": 0.5,
        "dice": pytest.approx(0.3),
    }
    assert [each["n_lesions"] for each in by_size.values()] == [1, 2, 0, 1]
    assert [each["sensitivity"] for each in by_size.values()] == [0, 0.5, None, 1]
    assert list(by_size) == ["<10", "10-20", "20-30", ">=30"]


def test_without_the_package(monkeypatch):
    monkeypatch.setattr("leanseg.errors.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'leanseg\[lesions\]'"):
        lesion_scores(boxes(), boxes(), (1, 1, 1))


def test_labels_that_are_not_scored_are_refused():
    truth = boxes((2, 2, 2)).astype(np.uint8)
    options = {"affine": np.eye(4), "lesions": ["cyst"]}
    with pytest.raises(LeansegError, match=r"lesions of 'cyst' cannot be scored.*\(tumour\)"):
        leanseg.evaluate(truth, truth, {"tumour": 1}, **options)
