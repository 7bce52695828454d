"""Codes of label names, against the dictionary of the standard that pydicom carries."""

from __future__ import annotations

import pytest

from leanseg.volumes.dicom import codes
from leanseg.volumes.dicom.codes import meaning_of

KIDNEY, LIVER, NEOPLASM = "64033007", "10200004", "108369006"
# SNOMED CT concepts beyond those of DICOM's context groups, from other public terminologies.
BEYOND = {"110765007", "74281007", "68455001", "181674001", "78333006", "75297007", "67769002"}


def test_every_code_means_what_the_standard_says():
    concepts = pytest.importorskip("pydicom.sr._concepts_dict").concepts
    meanings: dict[tuple[str, str], set[str]] = {}
    for scheme, named in concepts.items():
        for entry in named.values():
            for value, (meaning, _) in entry.items():
                meanings.setdefault((scheme, value), set()).add(meaning.lower())
    used = [entry.concept for entry in codes.table()]
    used += [codes.ANATOMY, codes.TISSUE, codes.ABNORMAL, codes.LEFT, codes.RIGHT]
    for concept in used:
        if concept.value not in BEYOND:
            assert concept.meaning.lower() in meanings[concept.scheme_designator, concept.value]
    assert len(used) > 90


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("liver", LIVER),
        ("Liver", LIVER),
        ("spleen_2", "78961009"),
        ("gall bladder", "28231008"),
        ("Oesophagus", "32849002"),
        ("esophagus", "32849002"),
        ("urinary_bladder", "89837001"),
        ("postcava", "64131007"),
        ("portal_vein_and_splenic_vein", "110765007"),
        ("portal vein", "32764006"),
        ("heart_atrium_left", "82471001"),
        ("lung", "39607008"),
        ("vertebrae_L1", "66794005"),
        ("small_bowel", "30315005"),
        ("brain", "12738006"),
    ],
)
def test_organs(name, code):
    meaning = meaning_of(name)
    assert (meaning.type.value, meaning.region, meaning.side) == (code, None, None)
    assert meaning.category == codes.ANATOMY
    assert not meaning.is_lesion


@pytest.mark.parametrize(
    "name", ["kidney_left", "left kidney", "Left_Kidney", "KidneyLeft", "kidney-L", "L kidney"]
)
def test_sides(name):
    meaning = meaning_of(name)
    assert (meaning.type.value, meaning.side) == (KIDNEY, codes.LEFT)


def test_sides_with_numbers_and_both():
    assert meaning_of("rib_right_1").side == codes.RIGHT
    assert meaning_of("left and right kidney").side is None
    assert meaning_of("vertebrae_L1").side is None  # not "left"


@pytest.mark.parametrize(
    ("name", "code", "region"),
    [
        ("liver tumour", NEOPLASM, LIVER),
        ("liver_tumor", NEOPLASM, LIVER),
        ("liver_lesion", "52988006", LIVER),
        ("tumour", NEOPLASM, None),
        ("GTV-1", NEOPLASM, None),
        ("kidney cyst", "367643001", KIDNEY),
        ("liver metastases", "14799000", LIVER),
        ("peritumoral edema", "79654002", None),
        ("oedema", "79654002", None),
        ("enhancing tumor", "C113842", None),
        ("non-enhancing tumor", "C81175", None),
        ("brain tumour", NEOPLASM, "12738006"),
    ],
)
def test_lesions(name, code, region):
    meaning = meaning_of(name)
    assert meaning.type.value == code
    assert (meaning.region and meaning.region.value) == region
    assert meaning.category == codes.ABNORMAL


def test_side_of_a_lesion_is_that_of_its_organ():
    meaning = meaning_of("left kidney tumor")
    assert (meaning.type.value, meaning.region.value) == (NEOPLASM, KIDNEY)
    assert meaning.side == codes.LEFT


@pytest.mark.parametrize("name", ["PTV", "thing", "tumour bed", "liver remnant", "", "1", "肝臓"])
def test_unknown_names_claim_nothing(name):
    meaning = meaning_of(name)
    assert not meaning.known
    assert meaning.type == meaning.category == codes.ANATOMY
