"""Checks of what could be read at all: files, grids, channels, remarks of the DICOM reader."""

from __future__ import annotations

from collections.abc import Iterator

from leanseg.datasets.check.facts import CaseFacts, Survey
from leanseg.datasets.check.findings import Found, case_check


@case_check("file-unreadable")
def unreadable(case: CaseFacts, survey: Survey) -> Iterator[Found]:
    """Files that are missing, damaged, or cut short."""
    return _failures(case, "file-unreadable")


@case_check("geometry-invalid")
def invalid_geometry(case: CaseFacts, survey: Survey) -> Iterator[Found]:
    """Headers that describe no grid of voxels."""
    return _failures(case, "geometry-invalid")


@case_check("spacing-zero")
def zero_spacing(case: CaseFacts, survey: Survey) -> Iterator[Found]:
    """Headers that give 0 as the distance of voxels, which other tools silently take for 1 mm."""
    return _failures(case, "spacing-zero")


def _failures(case: CaseFacts, kind: str) -> Iterator[Found]:
    return (Found(failure.message) for failure in case.failures if failure.kind == kind)


@case_check("channels-missing")
def wrong_channels(case: CaseFacts, survey: Survey) -> Iterator[Found]:
    """Cases with more or fewer channels than the dataset names."""
    wanted = len(survey.channels)
    if case.image is not None and case.n_channels not in (0, wanted):
        yield Found(
            f"{case.image.path}: has {case.n_channels} channel(s), but the dataset names "
            f"{wanted} ({', '.join(survey.channels)})",
            {"found": case.n_channels, "wanted": wanted},
        )


@case_check("dicom-note")
def series_notes(case: CaseFacts, survey: Survey) -> Iterator[Found]:
    """What the reader of a DICOM series had to say."""
    return (Found(f"{grid.path}: {text}") for grid in case.images for text in grid.notes)
