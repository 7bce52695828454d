"""Checks of what could be read at all: files, channels, remarks of the DICOM reader."""

from __future__ import annotations

from collections.abc import Iterator

from leanseg.datasets.audit.facts import Survey
from leanseg.datasets.audit.findings import Finding


def failures(survey: Survey) -> Iterator[Finding]:
    """Files that cannot be read, are cut short, or hold no valid grid."""
    for case in survey.cases:
        for failure in case.failures:
            yield Finding(case.name, failure.kind, "error", failure.message)


def missing_channels(survey: Survey) -> Iterator[Finding]:
    """Cases with more or fewer channels than the dataset names."""
    wanted = len(survey.channels)
    for case in survey.cases:
        if case.image is None or case.n_channels in (0, wanted):
            continue
        message = (
            f"{case.image.path}: has {case.n_channels} channel(s), but the dataset names "
            f"{wanted} ({', '.join(survey.channels)})"
        )
        yield Finding(
            case.name,
            "channels-missing",
            "error",
            message,
            {"found": case.n_channels, "wanted": wanted},
        )


def series_notes(survey: Survey) -> Iterator[Finding]:
    """What the reader of a DICOM series had to say."""
    for case in survey.cases:
        for grid in (*case.images, *case.label_grids):
            for text in grid.notes:
                yield Finding(case.name, "dicom-note", "note", f"{grid.path}: {text}")
