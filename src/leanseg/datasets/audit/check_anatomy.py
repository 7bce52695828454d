"""Checks of organ sides: left against right, upper against lower."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from leanseg.datasets.audit.facts import CaseFacts, Survey
from leanseg.datasets.audit.findings import Finding

_SIDES = {"left": "left", "l": "left", "right": "right", "r": "right", "lt": "left", "rt": "right"}
# Where organs without a side in their name lie.
_ON_THE_RIGHT = ("liver", "gallbladder", "gall bladder")
_ON_THE_LEFT = ("spleen", "stomach")
# From the head down; two organs are compared if their numbers differ.
_LEVELS = {
    0: ("brain",),
    1: ("thyroid", "thyroid gland"),
    2: ("lung", "lungs", "heart"),
    3: (*_ON_THE_RIGHT, *_ON_THE_LEFT, "pancreas", "kidney", "kidneys"),
    4: ("bladder", "urinary bladder", "prostate", "uterus", "rectum"),
}
# Nearer than this, a centre says nothing about sides.
MARGIN_MM = 15.0
# A scan less wide than this may be cut to one half of the body; its middle says nothing.
NARROWEST_BODY_MM = 180.0

_Centres = Mapping[str, tuple[float, float, float]]


def words_of(label: str) -> list[str]:
    """The words of a label's name: "kidneyRight" and "right_kidney" have the same."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label)
    return re.sub(r"[^a-z]+", " ", spaced.lower()).split()


def side_of(label: str) -> tuple[str, str | None]:
    """The organ without its side, and the side: "left", "right" or None."""
    words = words_of(label)
    sides = {_SIDES[word] for word in words if word in _SIDES}
    organ = " ".join(word for word in words if word not in _SIDES)
    return organ, sides.pop() if len(sides) == 1 else None


def left_right(survey: Survey) -> Iterator[Finding]:
    """Left organs on the right of right ones; liver or spleen on the wrong side of the body."""
    for case in survey.cases:
        centres = _centres(survey, case)
        against, for_it = _paired_sides(centres)
        if not against and not for_it:
            # The body's middle is less certain than two organs side by side: most must agree.
            against, for_it = _single_sides(centres, case)
            against = against if len(against) > len(for_it) else []
        if against:
            message = f"{case.name}: {'; '.join(against)}"
            yield Finding(case.name, "flip-left-right", "warning", message, {"signs": against})


def upside_down(survey: Survey) -> Iterator[Finding]:
    """Organs of the pelvis above those of the abdomen, and so on."""
    for case in survey.cases:
        placed = [
            (level, label, centre[2])
            for label, centre in _centres(survey, case).items()
            for level, organs in _LEVELS.items()
            if side_of(label)[0] in organs
        ]
        against, n_right = [], 0
        for upper_level, upper, upper_z in placed:
            for lower_level, lower, lower_z in placed:
                if upper_level < lower_level and abs(upper_z - lower_z) > MARGIN_MM:
                    if lower_z > upper_z:
                        against.append(f"{lower} lies {lower_z - upper_z:.0f} mm above {upper}")
                    else:
                        n_right += 1
        if len(against) > n_right:
            message = f"{case.name}: {'; '.join(against)}"
            yield Finding(case.name, "flip-up-down", "warning", message, {"signs": against})


def _centres(survey: Survey, case: CaseFacts) -> dict[str, tuple[float, float, float]]:
    return {survey.name_of(label.value): label.centre_mm for label in case.labels}


def _paired_sides(centres: _Centres) -> tuple[list[str], list[str]]:
    """Signs against and for the sides being right, from organs of which there are two sides.

    Liver against spleen counts as such a pair. x grows to the patient's right.
    """
    by_organ: dict[str, dict[str, tuple[str, float]]] = {}
    for label, centre in centres.items():
        organ, side = side_of(label)
        if side is not None:
            by_organ.setdefault(organ, {})[side] = (label, centre[0])
        elif organ in ("liver", "spleen"):
            side = "right" if organ == "liver" else "left"
            by_organ.setdefault("liver and spleen", {})[side] = (label, centre[0])
    against, for_it = [], []
    for sides in by_organ.values():
        if len(sides) < 2:
            continue
        (left, left_x), (right, right_x) = sides["left"], sides["right"]
        if left_x - right_x > MARGIN_MM:
            against.append(f"{left} lies {left_x - right_x:.0f} mm to the right of {right}")
        elif right_x - left_x > MARGIN_MM:
            for_it.append(left)
    return against, for_it


def _single_sides(centres: _Centres, case: CaseFacts) -> tuple[list[str], list[str]]:
    """Signs from single organs against the middle of the body, where all of it is seen."""
    against: list[str] = []
    for_it: list[str] = []
    middle, width = case.body_centre_x_mm, case.body_width_mm
    if middle is None or width is None or width < NARROWEST_BODY_MM:
        return against, for_it
    for label, centre in centres.items():
        organ, side = side_of(label)
        if side is None:
            side = "right" if organ in _ON_THE_RIGHT else "left" if organ in _ON_THE_LEFT else None
        if side is None:
            continue
        to_its_side = centre[0] - middle if side == "right" else middle - centre[0]
        if to_its_side < -MARGIN_MM:
            other = "left" if side == "right" else "right"
            against.append(
                f"{label} lies {-to_its_side:.0f} mm on the {other} of the body's middle"
            )
        elif to_its_side > MARGIN_MM:
            for_it.append(label)
    return against, for_it
