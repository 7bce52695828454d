"""What label names mean: coded concepts of SNOMED CT for organs, sides and lesions.

The concepts and the names that they go by stand in codes.csv, what is more special first. Codes
and meanings are those of DICOM PS3.16 (CID 7150 categories, 7151 and 7192 anatomy, 7159 and 7194
lesions, 244 laterality) and, for what these lack, of the public terminology that goes with the
TotalSegmentator classes. "sided organ" is one whose name tells left or right itself.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path


@dataclass(frozen=True)
class Concept:
    """A coded concept.

    Attributes:
        value: The code.
        meaning: What it stands for, in English.
        scheme: Who defines it: "SCT" for SNOMED CT, "NCIt" for the NCI Thesaurus.
    """

    value: str
    meaning: str
    scheme: str = "SCT"


@dataclass(frozen=True)
class Meaning:
    """What a segment is.

    Attributes:
        category: Anatomical structure, tissue, or abnormal structure.
        type: The organ, or the kind of lesion.
        side: Left or right, of the organ or of the organ that a lesion lies in; else None.
        region: The organ that a lesion lies in; None for organs and where it is not named.
        known: Whether the name was understood; else category and type say no more than that
            there is an anatomical structure.
        is_tumour: Whether it is a lesion that is called a tumour.
    """

    category: Concept
    type: Concept
    side: Concept | None = None
    region: Concept | None = None
    known: bool = True
    is_tumour: bool = False

    @property
    def is_lesion(self) -> bool:
        """Whether it is a lesion, not an organ."""
        return self.category == ABNORMAL


@dataclass(frozen=True)
class Entry:
    """A line of the table.

    Attributes:
        kind: "tumour" or another "lesion", "organ" or "sided organ", "tissue".
        concept: Its code.
        names: What it is called, each as words.
    """

    kind: str
    concept: Concept
    names: tuple[list[str], ...]


ANATOMY = Concept("91723000", "Anatomical Structure")
TISSUE = Concept("85756007", "Tissue")
ABNORMAL = Concept("49755003", "Morphologically Abnormal Structure")
LEFT = Concept("7771000", "Left")
RIGHT = Concept("24028007", "Right")

_LESIONS, _ORGANS = ("tumour", "lesion"), ("organ", "sided organ")
_SIDES = {"left": LEFT, "lt": LEFT, "l": LEFT, "right": RIGHT, "rt": RIGHT, "r": RIGHT}
# Parts that, named with an organ, mean the organ itself.
_FILLERS = frozenset(
    ("the", "of", "in", "a", "gland", "structure", "organ", "segmentation", "mask")
)
# What may stand with a lesion without making it another kind.
_ADJECTIVES = frozenset(
    ("necrotic", "solid", "cystic", "benign", "malignant", "residual", "recurrent", "main", "core")
)
_SPELLINGS = {
    "oesophagus": "esophagus",
    "oesophageal": "esophageal",
    "tumour": "tumor",
    "tumours": "tumors",
    "tumoral": "tumor",
    "oedema": "edema",
    "peritumoural": "peritumoral",
    "coeliac": "celiac",
    "artey": "artery",
}


@lru_cache(maxsize=1)
def table() -> tuple[Entry, ...]:
    """All concepts that labels can have, what is more special first."""
    with Path(__file__).with_name("codes.csv").open(encoding="utf-8", newline="") as file:
        return tuple(
            Entry(
                line["kind"],
                Concept(line["code"], line["meaning"], line["scheme"]),
                tuple(name.split() for name in line["names"].split("|")),
            )
            for line in csv.DictReader(file)
        )


@lru_cache(maxsize=1024)
def meaning_of(name: str) -> Meaning:
    """What a label name means.

    Case, underscores, hyphens, joined words ("KidneyLeft"), British or American spelling, the
    place of the side ("left kidney", "kidney_l") and numbers do not matter.

    Args:
        name: Of a label, such as "liver", "kidney_left" or "pancreas tumour".

    Returns:
        For a name that is not known, the category alone: an anatomical structure of no stated
        kind, or a lesion of no stated kind.
    """
    words = _words(name)
    sides = {_SIDES[word] for word in words if word in _SIDES}
    side = sides.pop() if len(sides) == 1 else None
    bare = [word for word in words if word not in _SIDES]
    unknown = Meaning(ANATOMY, ANATOMY, known=False)
    lesion, rest = _found(_LESIONS, bare)
    if lesion is not None:
        organ, left = _found(_ORGANS, rest)
        if set(left) - _ADJECTIVES:  # such as "tumour bed", which is no tumour
            return unknown
        region = None if organ is None else organ.concept
        return Meaning(ABNORMAL, lesion.concept, side, region, is_tumour=lesion.kind == "tumour")
    for category, kinds in ((ANATOMY, _ORGANS), (TISSUE, ("tissue",))):
        # "left atrium" has a concept of its own.
        sided = bare if side is None else [side.meaning.lower(), *bare]
        for tried in (sided, bare):
            entry, left = _found(kinds, tried)
            if entry is not None and not left:
                has_side = entry.kind == "sided organ"
                return Meaning(category, entry.concept, None if has_side else side)
    return unknown


def _words(name: str) -> list[str]:
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = re.findall(r"[^\W_]+", spaced.lower())
    # A number tells one lesion from the next; a letter with a number names a vertebra.
    words = [
        word if re.fullmatch(r"[a-z]\d+", word) else word.strip("0123456789") for word in words
    ]
    return [_SPELLINGS.get(word, word) for word in words if word and word not in _FILLERS]


def _found(kinds: Sequence[str], words: list[str]) -> tuple[Entry | None, list[str]]:
    """The entry of the longest name of some kinds that occurs in the words, and other words."""
    matches = [
        (len(name), start, entry)
        for entry in table()
        if entry.kind in kinds
        for name in entry.names
        for start in range(len(words) - len(name) + 1)
        if words[start : start + len(name)] == name
    ]
    if not matches:
        return None, words
    # Of names of equal length the first in the table counts, and its first place.
    length, start, entry = max(matches, key=lambda match: match[0])
    return entry, words[:start] + words[start + length :]
