"""The checks: each a function from a survey to findings, and one line here."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from leanseg.datasets.audit import (
    check_anatomy,
    check_files,
    check_geometry,
    check_identity,
    check_intensity,
    check_labels,
)
from leanseg.datasets.audit.facts import Survey
from leanseg.datasets.audit.findings import Finding

Check = Callable[[Survey], Iterable[Finding]]

CHECKS: tuple[Check, ...] = (
    check_files.failures,
    check_files.missing_channels,
    check_files.series_notes,
    check_geometry.grids_differ,
    check_geometry.zero_spacing,
    check_geometry.implausible_spacing,
    check_geometry.anisotropy,
    check_geometry.one_slice,
    check_geometry.spacing_outliers,
    check_geometry.size_outliers,
    check_geometry.mixed_orientations,
    check_geometry.turned_labels,
    check_labels.not_whole,
    check_labels.undeclared,
    check_labels.unlisted,
    check_labels.empty_maps,
    check_labels.absent,
    check_labels.unlabelled,
    check_labels.unannotated,
    check_labels.held_but_unannotated,
    check_intensity.not_finite,
    check_intensity.constant,
    check_intensity.not_hounsfield,
    check_intensity.padding,
    check_anatomy.left_right,
    check_anatomy.upside_down,
    check_identity.duplicates,
    check_identity.same_patients,
    check_identity.split_leaks,
)
