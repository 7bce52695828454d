"""The page of a check: complete, self-contained, safe against names, pictures upright."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from html_reader import Page
from leanseg.datasets.check import KINDS, CheckResult, Finding
from leanseg.datasets.check.facts import (
    CaseFacts,
    ChannelFacts,
    GridFacts,
    LabelFacts,
    Survey,
    Thumbnail,
)
from leanseg.reports.check_page import check_page, thumbnail_png
from leanseg.volumes import Volume

NASTY = '<script>alert("1")</script>&'


def picture(labels=None):
    grey = np.zeros((60, 40, 1), np.uint8)
    grey[5:55, 5:35] = 90
    affine = np.diag([-1.0, -2.0, 1.0, 1.0])
    affine[2, 3] = -12.5
    return Thumbnail(Volume(grey, affine), labels)


def finding(case, kind, message, details=None):
    about = KINDS[kind]
    return Finding(case, kind, about.severity, about.title, about.advice, message, details or {})


def case(name, **changes):
    grid = GridFacts(f"images/{name}.nii.gz", (60, 40, 9), (1.0, 2.0, 5.0), "LPS", "int16")
    labels = np.zeros((60, 40, 1), np.uint8)
    labels[10:25, 10:20] = 2
    facts = CaseFacts(
        name,
        images=(grid,),
        n_channels=1,
        channels=(ChannelFacts(-1000, -990, -80, 300, 1200),),
        has_labels=True,
        labels=(LabelFacts(2, 150, 12.3, (0.0, 0.0, 0.0)),),
        patient="Mustermann",
        thumbnail=picture(labels),
    )
    return replace(facts, **changes)


@pytest.fixture
def audit() -> CheckResult:
    cases = (
        case("a"),
        case(NASTY, images=(), channels=(), labels=(), thumbnail=None),
        case("c", annotated=("liver",), thumbnail=picture()),
    )
    findings = (
        finding(NASTY, "file-unreadable", f"/data/{NASTY}.nii.gz: is damaged"),
        finding("a", "duplicate-scan", "a and c are one", {"cases": ["a", "c"]}),
        finding(None, "orientation-mixed", "scans are stored as 1 LPS, 1 RAS"),
    )
    survey = Survey({"liver": 2, "spleen": 5}, True, ("CT",), cases)
    return CheckResult("Demo", Path("/data"), "plain", survey, findings)


def test_nothing_is_fetched_and_nothing_is_injected(audit):
    text = check_page(audit)
    page = Page(text)
    page.assert_self_contained()
    assert NASTY in page.words


def test_everything_is_told(audit):
    words = Page(check_page(audit)).words
    for expected in (
        "Training may not start yet", "1 error, 1 warning, 1 note", "file cannot be read",
        "Copy or export the named files again.", "a and c are one", "1 LPS, 1 RAS",
        "60 × 40 × 9", "1.00 × 2.00 × 5.00", "−990", "12.3", "no picture", "z = −12.5 mm",
    ):  # fmt: skip
        assert expected in words, expected
    # Paths are told from the dataset on.
    assert "/data/<" not in words
    assert "Mustermann" not in words
    assert "Mustermann" in Page(check_page(audit, show_identifiers=True)).words


def test_a_healthy_dataset_says_so(audit):
    healthy = replace(audit, findings=())
    words = Page(check_page(healthy)).words
    assert "Training may start" in words
    assert "Nothing was found." in words


def test_pictures_are_missing_where_none_were_made(audit):
    bare = tuple(replace(case, thumbnail=None) for case in audit.cases)
    page = check_page(replace(audit, survey=replace(audit.survey, cases=bare)))
    assert 'id="pictures"' not in page
    assert "<figure" not in page


def test_a_survey_of_nothing_readable_is_a_page(audit):
    broken = tuple(
        replace(case, images=(), channels=(), labels=(), thumbnail=None) for case in audit.cases
    )
    Page(check_page(replace(audit, survey=replace(audit.survey, cases=broken))))


def test_the_picture_has_the_body_s_proportions_and_the_label_s_outline(audit):
    import matplotlib.image

    def pixels(thumbnail):
        data = thumbnail_png(thumbnail, {"liver": 2, "spleen": 5})
        return matplotlib.image.imread(io.BytesIO(data), format="png")[..., :3]

    with_label, without = pixels(audit.cases[0].thumbnail), pixels(audit.cases[2].thumbnail)
    # 40 rows of 2 mm, 60 columns of 1 mm.
    assert with_label.shape[0] == 240
    assert with_label.shape[1] == 180
    rows, columns = np.nonzero(np.abs(with_label - without).max(axis=2) > 0.2)
    # The outline runs around the label, 3 pixels to a mm, and nothing else changes.
    assert rows.min() == pytest.approx(10 * 6, abs=4)
    assert rows.max() == pytest.approx(20 * 6, abs=4)
    assert columns.min() == pytest.approx(10 * 3, abs=4)
    assert columns.max() == pytest.approx(25 * 3, abs=4)
    inside = with_label[72:108, 42:66] - without[72:108, 42:66]
    assert np.abs(inside).max() < 0.02


def test_png_lies_in_the_page(audit):
    found = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", check_page(audit))
    assert len(found) == 2
    assert all(base64.b64decode(data).startswith(b"\x89PNG") for data in found)
