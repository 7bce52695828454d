"""The abdomen's box on a drawn patient whose lungs, ribs, table and arms are known."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest

from leanseg.errors import DatasetError
from leanseg.frames import ScanView
from leanseg.frames.abdomen import find_abdomen
from leanseg.plan import Plan
from leanseg.volumes import Box, Volume, reoriented_view
from plans import whole

AXES = (("L", "R"), ("P", "A"), ("I", "S"))
ALL_48 = ["".join(c) for axes in permutations(AXES) for c in product(*axes)]
# All orders of the axes and all but one choice of their directions; the others take their time.
SOME = ALL_48[::7]
ORIENTATIONS = [
    pytest.param(codes, marks=() if codes in SOME else pytest.mark.slow) for codes in ALL_48
]
LABELS = ("spleen", "left kidney", "liver")
# (left-right, back-front, feet-head) in mm, of the voxels and the drawing.
SPACING = {"LR": 2.0, "PA": 2.5, "IS": 4.0}
SHAPE = (200, 140, 120)


def plan(orientation: str) -> Plan:
    return whole((20, 20, 20), LABELS, orientation=orientation, around="abdomen")


def patient(lungs_from: int = 90) -> np.ndarray:
    """Axes run to the left, to the front and to the head ("LAS")."""
    i, j, _ = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    radius = np.sqrt(((i - 100) / 70) ** 2 + ((j - 75) / 45) ** 2) + np.zeros(SHAPE)
    scan = np.full(SHAPE, -1000, np.int16)
    scan[radius < 1] = 40
    # Ribs, not in front of the belly.
    scan[(radius > 0.85) & (radius < 0.92) & (j < 100)] = 600
    scan[(radius < 0.7) & (np.arange(SHAPE[2]) >= lungs_from)] = -850
    scan[:, 10:16] = 0  # the table
    scan[5:17, 60:80] = 50  # an arm
    return scan


def found(scan: np.ndarray, orientation: str, look) -> Box:
    """The box in a drawing, seen in an orientation."""
    volume = Volume(scan, np.diag([-SPACING["LR"], SPACING["PA"], SPACING["IS"], 1]))
    view = ScanView(volume, orientation)
    np.testing.assert_array_equal(view.channels[0], reoriented_view(scan, "LAS", orientation))
    return find_abdomen(view, plan(orientation).final, look)


def back(box: Box, orientation: str) -> list[tuple[int, int]]:
    """The box's ranges in the drawing's own order and directions."""
    ranges = {}
    for axis, code in enumerate(orientation):
        number = next(n for n, pair in enumerate(AXES) if code in pair)
        start, stop = box.start[axis], box.stop[axis]
        if code not in "LAS":
            start, stop = SHAPE[number] - stop, SHAPE[number] - start
        ranges[number] = (start, stop)
    return [ranges[number] for number in range(3)]


def nothing(box: Box) -> np.ndarray:
    probabilities = np.zeros((4, 20, 20, 20), np.float32)
    probabilities[0] = 1
    return probabilities


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_ribs_and_lungs_bound_the_first_box(orientation):
    across, front, height = back(found(patient(), orientation, nothing), orientation)
    assert found(patient(), orientation, None) == found(patient(), orientation, nothing)
    # Ribs from 100 - 0.92 * 70 to 100 + 0.92 * 70; table and arm are left out.
    np.testing.assert_allclose(across, (36, 164), atol=6)
    # From the ribs at the back, 75 - 0.92 * 45, to 15 mm under the belly's skin at 75 + 45.
    np.testing.assert_allclose(front, (34, 114), atol=6)
    # 15 mm above the first slice of the lungs, and 200 mm high.
    np.testing.assert_allclose(height, (90 + 4 - 50, 90 + 4), atol=2)


def test_without_lungs_the_box_begins_at_the_top():
    box = found(patient(lungs_from=200), "LAS", nothing)
    assert box.stop[2] == SHAPE[2]
    assert box.start[2] == pytest.approx(SHAPE[2] - 50, abs=1)


@pytest.mark.parametrize("orientation", ["LAI", "RPS", "SAL"])
def test_organs_found_move_the_ends(orientation):
    first = found(patient(), orientation, nothing)
    axis = next(n for n, code in enumerate(orientation) if code in "IS")

    def organs(box: Box) -> np.ndarray:
        assert box == first
        probabilities = nothing(box)
        # From feet to head: the kidney in the twentieths 4 to 12, liver 8 to 16, spleen 9 to 14.
        for number, low, high in ((1, 9, 14), (2, 4, 12), (3, 8, 16)):
            place = [slice(6 * number, 6 * number + 2)] * 3
            place[axis] = (
                slice(low, high) if orientation[axis] == "S" else slice(20 - high, 20 - low)
            )
            probabilities[0][tuple(place)] = 0
            probabilities[number][tuple(place)] = 1
        return probabilities

    box = found(patient(), orientation, organs)
    before, after = back(first, orientation)[2], back(box, orientation)[2]
    height = before[1] - before[0]
    # 5 mm of margin at both ends, in slices of 4 mm.
    expected = (before[0] + height * 4 / 20 - 1.25, before[0] + height * 16 / 20 + 1.25)
    np.testing.assert_allclose(after, expected, atol=1)
    assert back(box, orientation)[:2] == back(first, orientation)[:2]


def test_organs_of_regions_move_the_ends_likewise():
    """Without a channel of the background, and with a liver that holds a lesion."""
    labels = ("liver lesion", *LABELS)
    stage = whole((20, 20, 20), labels, orientation="LAS", around="abdomen").final
    stage = stage.model_copy(update={"inside": {"liver lesion": "liver"}})
    volume = Volume(patient(), np.diag([-SPACING["LR"], SPACING["PA"], SPACING["IS"], 1]))
    view = ScanView(volume, "LAS")

    def organs(box: Box) -> np.ndarray:
        probabilities = np.full((4, 20, 20, 20), 0.4, np.float32)
        for number, low, high in ((0, 9, 12), (1, 9, 14), (2, 4, 12), (3, 8, 16)):
            probabilities[number, 5:9, 5:9, low:high] = 0.6
        return probabilities

    def classes(box: Box) -> np.ndarray:
        found = organs(box)[1:]
        return np.concatenate([1 - found.max(axis=0)[None], found])

    box = find_abdomen(view, stage, organs)
    assert box == find_abdomen(view, plan("LAS").final, classes)
    assert box != find_abdomen(view, stage, None)
    # Above its own threshold the stage finds nothing.
    strict = stage.model_copy(update={"threshold": 0.7})
    assert find_abdomen(view, strict, organs) == find_abdomen(view, stage, None)


def test_an_organ_that_the_box_cuts_widens_it():
    first = found(patient(), "LAS", nothing)

    def organs(box: Box) -> np.ndarray:
        probabilities = nothing(box)
        probabilities[3, 5:15, 5:15, 0:15] = 2
        return probabilities

    box = found(patient(), "LAS", organs)
    assert box.start[2] == pytest.approx(first.start[2] - 0.2 * 50, abs=1)
    assert box.stop[2] < first.stop[2]


def test_specks_do_not_count():

    def organs(box: Box) -> np.ndarray:
        probabilities = nothing(box)
        probabilities[3, 5:15, 5:15, 4:15] = 2
        probabilities[3, 2, 2, 19] = 2
        return probabilities

    box = found(patient(), "LAS", organs)
    first = found(patient(), "LAS", nothing)
    assert box.stop[2] == pytest.approx(first.start[2] + 50 * 15 / 20 + 1.25, abs=1)


def test_an_empty_scan_is_refused():
    with pytest.raises(DatasetError, match="no body"):
        found(np.full(SHAPE, -1000, np.int16), "LAS", nothing)
