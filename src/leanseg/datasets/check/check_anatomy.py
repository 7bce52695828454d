"""Checks of organ sides: left against right, upper against lower."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import permutations

from leanseg.datasets.check.facts import CaseFacts, Survey
from leanseg.datasets.check.findings import Found, case_check

_SIDES = {"left": "left", "l": "left", "right": "right", "r": "right", "lt": "left", "rt": "right"}
# Where organs without a side in their name lie.
_SIDE_OF_ORGAN = {
    "liver": "right", "gallbladder": "right", "gall bladder": "right",
    "spleen": "left", "stomach": "left",
}  # fmt: skip
# From the head down; two organs are compared if their numbers differ.
_LEVELS = {
    0: ("brain",),
    1: ("thyroid", "thyroid gland"),
    2: ("lung", "lungs", "heart"),
    3: (*_SIDE_OF_ORGAN, "pancreas", "kidney", "kidneys"),
    4: ("bladder", "urinary bladder", "prostate", "uterus", "rectum"),
}
# Nearer than this, a centre says nothing about sides.
MARGIN_MM = 15.0
# A scan less wide than this may be cut to one half of the body; its middle says nothing.
NARROWEST_BODY_MM = 180.0

_Centres = Mapping[str, tuple[float, float, float]]
# How far something lies on its right side in mm, negative where it does not, and how to say that.
_Sign = tuple[float, str]


def side_of(label: str) -> tuple[str, str | None]:
    """The organ without its side, and the side: "left", "right" or None.

    "kidneyRight" and "right_kidney" have the same words.
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label)
    words = re.findall(r"[a-z]+", spaced.lower())
    sides = {_SIDES[word] for word in words if word in _SIDES}
    organ = " ".join(word for word in words if word not in _SIDES)
    return organ, sides.pop() if len(sides) == 1 else None


@case_check("flip-left-right")
def left_right(case: CaseFacts, survey: Survey) -> Iterator[Found]:
    """Left organs on the right of right ones; liver or spleen on the wrong side of the body."""
    centres = _centres(case, survey)
    against, for_it = _divided(_pairs(centres))
    if not against and not for_it:
        # The body's middle is less certain than two organs side by side: most must agree.
        against, for_it = _divided(_against_middle(centres, case))
        against = against if len(against) > len(for_it) else []
    if against:
        yield Found(f"{case.name}: {'; '.join(against)}", {"signs": against})


@case_check("flip-up-down")
def upside_down(case: CaseFacts, survey: Survey) -> Iterator[Found]:
    """Organs of the pelvis above those of the abdomen, and so on."""
    placed = [
        (level, label, z)
        for label, (_, _, z) in _centres(case, survey).items()
        for level, organs in _LEVELS.items()
        if side_of(label)[0] in organs
    ]
    against, for_it = _divided(
        (upper_z - lower_z, f"{lower} lies {lower_z - upper_z:.0f} mm above {upper}")
        for (upper_level, upper, upper_z), (lower_level, lower, lower_z) in permutations(placed, 2)
        if upper_level < lower_level
    )
    if len(against) > len(for_it):
        yield Found(f"{case.name}: {'; '.join(against)}", {"signs": against})


def _centres(case: CaseFacts, survey: Survey) -> _Centres:
    return {survey.name_of(label.value): label.centre_mm for label in case.labels}


def _divided(signs: Iterable[_Sign]) -> tuple[list[str], list[str]]:
    """Signs against and for the sides being right, without what is too near to tell."""
    clear = [(mm, text) for mm, text in signs if abs(mm) > MARGIN_MM]
    return [text for mm, text in clear if mm < 0], [text for mm, text in clear if mm > 0]


def _pairs(centres: _Centres) -> Iterator[_Sign]:
    """Signs from organs of which there are two sides; liver against spleen counts as such a pair.

    x grows to the patient's right.
    """
    by_organ: dict[str, dict[str, tuple[str, float]]] = {}
    for label, (x, _, _) in centres.items():
        organ, side = side_of(label)
        if side is None and organ in ("liver", "spleen"):
            organ, side = "liver and spleen", _SIDE_OF_ORGAN[organ]
        if side is not None:
            by_organ.setdefault(organ, {})[side] = (label, x)
    for sides in by_organ.values():
        if len(sides) == 2:
            (left, left_x), (right, right_x) = sides["left"], sides["right"]
            text = f"{left} lies {left_x - right_x:.0f} mm to the right of {right}"
            yield right_x - left_x, text


def _against_middle(centres: _Centres, case: CaseFacts) -> Iterator[_Sign]:
    """Signs from single organs against the middle of the body, where all of it is seen."""
    if not case.channels or case.channels[0].body_width_mm < NARROWEST_BODY_MM:
        return
    for label, (x, _, _) in centres.items():
        organ, side = side_of(label)
        side = side or _SIDE_OF_ORGAN.get(organ)
        if side is not None:
            to_the_right = x - case.channels[0].body_x_mm
            mm, other = (to_the_right, "left") if side == "right" else (-to_the_right, "right")
            yield mm, f"{label} lies {-mm:.0f} mm on the {other} of the body's middle"
