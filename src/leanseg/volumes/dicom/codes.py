"""What label names mean: coded concepts of SNOMED CT for organs, sides and lesions.

The concepts and the names that they go by stand in codes.csv, what is more special first. Codes
and meanings are those of DICOM PS3.16 (CID 7150 categories, 7151 and 7192 anatomy, 7159 and 7194
lesions, 244 laterality) and, for what these lack, of the public terminology that goes with the
TotalSegmentator classes. "sided organ" is one whose name tells left or right itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from pydicom.sr.coding import Code

from leanseg.volumes.dicom import values


@dataclass(frozen=True)
class Meaning:
    """What a segment is.

    Attributes:
        category: Anatomical structure, tissue, or abnormal structure.
        type: The organ, or the kind of lesion; the category again where the name says nothing.
        side: Left or right, of the organ or of the organ that a lesion lies in; else None.
        region: The organ that a lesion lies in; None for organs and where it is not named.
        is_tumour: Whether it is a lesion that is called a tumour.
    """

    category: Code
    type: Code
    side: Code | None = None
    region: Code | None = None
    is_tumour: bool = False

    @property
    def known(self) -> bool:
        """Whether the name was understood."""
        return bool(self.type != self.category)

    @property
    def is_lesion(self) -> bool:
        """Whether it is a lesion, not an organ."""
        return self.category is ABNORMAL


@dataclass(frozen=True)
class Entry:
    """A line of the table.

    Attributes:
        kind: "tumour" or another "lesion", "organ" or "sided organ", "tissue".
        concept: Its code.
        names: What it is called, each as words.
    """

    kind: str
    concept: Code
    names: tuple[list[str], ...]


ANATOMY = Code("91723000", "SCT", "Anatomical Structure")
TISSUE = Code("85756007", "SCT", "Tissue")
ABNORMAL = Code("49755003", "SCT", "Morphologically Abnormal Structure")
LEFT, RIGHT = Code("7771000", "SCT", "Left"), Code("24028007", "SCT", "Right")

_LESIONS, _HEALTHY = ("tumour", "lesion"), ("organ", "sided organ", "tissue")
_SIDES = {"left": LEFT, "lt": LEFT, "l": LEFT, "right": RIGHT, "rt": RIGHT, "r": RIGHT}
# Parts that, named with an organ, mean the organ itself.
_FILLERS = {"the", "of", "in", "a", "gland", "structure", "organ", "segmentation", "mask"}
# What may stand with a lesion without making it another kind.
_ADJECTIVES = {"necrotic", "solid", "cystic", "benign", "malignant"}
_ADJECTIVES |= {"residual", "recurrent", "main", "core"}


@lru_cache(maxsize=1)
def table() -> tuple[Entry, ...]:
    """All concepts that labels can have, what is more special first."""
    return tuple(
        Entry(
            line["kind"],
            Code(line["code"], line["scheme"], line["meaning"]),
            tuple(name.split() for name in line["names"].split("|")),
        )
        for line in values.table("codes.csv")
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
    lesion, rest = _found(_LESIONS, bare)
    if lesion is not None:
        organ, left = _found(_HEALTHY, rest)
        if set(left) - _ADJECTIVES:  # such as "tumour bed", which is no tumour
            return Meaning(ANATOMY, ANATOMY)
        region = None if organ is None else organ.concept
        return Meaning(ABNORMAL, lesion.concept, side, region, is_tumour=lesion.kind == "tumour")
    # "left atrium" has a concept of its own.
    sided = bare if side is None else [side.meaning.lower(), *bare]
    for tried in (sided, bare):
        entry, left = _found(_HEALTHY, tried)
        if entry is not None and not left:
            category = TISSUE if entry.kind == "tissue" else ANATOMY
            return Meaning(category, entry.concept, None if entry.kind == "sided organ" else side)
    return Meaning(ANATOMY, ANATOMY)


def _words(name: str) -> list[str]:
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = re.findall(r"[^\W_]+", spaced.lower())
    # A number tells one lesion from the next; a letter with a number names a vertebra.
    words = [
        word if re.fullmatch(r"[a-z]\d+", word) else word.strip("0123456789") for word in words
    ]
    # British to American spelling, as in the table: oesophagus, oedema, coeliac, tumour.
    words = [word.replace("oe", "e").replace("tumour", "tumor") for word in words]
    return [word for word in words if word and word not in _FILLERS]


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
