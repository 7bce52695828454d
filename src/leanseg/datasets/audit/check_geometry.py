"""Checks of grids: do labels and channels fit their scan, does a scan fit the others."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median

from leanseg.datasets.audit.facts import CaseFacts, GridFacts, Survey
from leanseg.datasets.audit.findings import Finding

# With fewer cases a median says little.
FEWEST_FOR_OUTLIERS = 5
# An outlier is off the median by this factor ...
SPACING_FACTOR, SIZE_FACTOR = 2.0, 2.5
# ... and by this many scaled median absolute deviations, on a logarithmic scale.
DEVIATIONS = 4.0
_MAD_TO_SD = 1.4826

LARGEST_ANISOTROPY = 10.0
PLAUSIBLE_SPACING_MM = (0.02, 30.0)
_AXES = ("left-right", "back-front", "feet-head")


def grids_differ(survey: Survey) -> Iterator[Finding]:
    """Label maps, and further channels, that do not lie on the grid of the case's scan."""
    for case in survey.cases:
        for grid in case.label_grids:
            if grid.apart_mm is not None:
                yield _grid_finding(case, grid, "grid-differs")
        for grid in case.images[1:]:
            if grid.apart_mm is not None:
                yield _grid_finding(case, grid, "channel-grid-differs")


def _grid_finding(case: CaseFacts, grid: GridFacts, kind: str) -> Finding:
    image = case.images[0]
    if math.isinf(grid.apart_mm or 0.0):
        message = (
            f"{grid.path} has shape {_product(grid.shape)}, but its scan {_product(image.shape)}"
        )
    else:
        message = (
            f"{grid.path}: the same voxel lies up to {grid.apart_mm:.3g} mm from the scan's, "
            "though the shapes agree: perhaps only its header is wrong"
        )
    details = {
        "apart_mm": grid.apart_mm,
        "shape": list(grid.shape),
        "scan_shape": list(image.shape),
        "spacing_mm": list(grid.spacing_mm),
        "scan_spacing_mm": list(image.spacing_mm),
    }
    return Finding(case.name, kind, "error", message, details)


def turned_labels(survey: Survey) -> Iterator[Finding]:
    """Labels on the scan's own grid, but stored along other axes."""
    for case in survey.cases:
        for grid in case.label_grids:
            if grid.turned:
                message = (
                    f"{grid.path} is stored as {grid.orientation}, "
                    f"its scan as {case.images[0].orientation}"
                )
                yield Finding(case.name, "label-turned", "note", message)


def mixed_orientations(survey: Survey) -> Iterator[Finding]:
    """Scans stored in several orientations."""
    found = Counter(case.image.orientation for case in survey.cases if case.image is not None)
    if len(found) > 1:
        listed = ", ".join(f"{n} {code}" for code, n in found.most_common())
        yield Finding(
            None, "orientation-mixed", "note", f"scans are stored as {listed}", dict(found)
        )


def zero_spacing(survey: Survey) -> Iterator[Finding]:
    """Headers that give 0 as the distance of voxels, which readers silently take for 1 mm."""
    for case in survey.cases:
        for grid in (*case.images, *case.label_grids):
            if grid.has_zero_spacing:
                message = f"{grid.path}: its header gives a spacing of 0 mm"
                yield Finding(case.name, "spacing-zero", "error", message)


def implausible_spacing(survey: Survey) -> Iterator[Finding]:
    """Spacings far outside of what scanners have, as in metres or micrometres."""
    low, high = PLAUSIBLE_SPACING_MM
    for case in survey.cases:
        if case.image is None or case.image.has_zero_spacing:
            continue
        if min(case.image.spacing_mm) < low or max(case.image.spacing_mm) > high:
            message = f"{case.image.path}: has a spacing of {_spacing(case.image.spacing_mm)} mm"
            yield Finding(case.name, "spacing-implausible", "warning", message)


def anisotropy(survey: Survey) -> Iterator[Finding]:
    """Scans whose voxels are more than ten times as long as wide."""
    for case in survey.cases:
        if case.image is None:
            continue
        ratio = max(case.image.spacing_mm) / min(case.image.spacing_mm)
        if ratio > LARGEST_ANISOTROPY:
            message = (
                f"{case.image.path}: voxels of {_spacing(case.image.spacing_mm)} mm "
                f"are {ratio:.0f} times as long as wide"
            )
            yield Finding(case.name, "anisotropy", "warning", message, {"ratio": ratio})


def one_slice(survey: Survey) -> Iterator[Finding]:
    """Scans of one slice."""
    for case in survey.cases:
        if case.image is not None and 1 in case.image.shape:
            message = f"{case.image.path}: has shape {_product(case.image.shape)}"
            yield Finding(case.name, "one-slice", "warning", message)


def spacing_outliers(survey: Survey) -> Iterator[Finding]:
    """Spacings off the median by a factor of 2 and by 4 robust standard deviations."""
    cases = [case for case in survey.cases if case.image is not None]
    values = [case.image.in_ras()[1] for case in cases if case.image is not None]
    for n, axis, middle in _outliers(values, SPACING_FACTOR):
        value = values[n][axis]
        message = (
            f"spacing {_AXES[axis]} is {value:.3g} mm, "
            f"{_times(value, middle)} the median of {middle:.3g} mm"
        )
        yield Finding(
            cases[n].name,
            "spacing-outlier",
            "warning",
            message,
            {"axis": _AXES[axis], "spacing_mm": value, "median_mm": middle},
        )


def size_outliers(survey: Survey) -> Iterator[Finding]:
    """Fields of view off the median by a factor of 2.5 and by 4 robust standard deviations."""
    cases = [case for case in survey.cases if case.image is not None]
    values = []
    for case in cases:
        assert case.image is not None
        shape, spacing_mm = case.image.in_ras()
        values.append(tuple(n * mm for n, mm in zip(shape, spacing_mm, strict=True)))
    for n, axis, middle in _outliers(values, SIZE_FACTOR):
        value = values[n][axis]
        message = (
            f"the scan is {value:.0f} mm long {_AXES[axis]}, "
            f"{_times(value, middle)} the median of {middle:.0f} mm"
        )
        yield Finding(
            cases[n].name,
            "size-outlier",
            "warning",
            message,
            {"axis": _AXES[axis], "size_mm": value, "median_mm": middle},
        )


def _outliers(
    values: Sequence[tuple[float, ...]], factor: float
) -> Iterator[tuple[int, int, float]]:
    """Index of the case, axis and median of every outlier, case by case."""
    if len(values) < FEWEST_FOR_OUTLIERS:
        return
    limits = []
    for axis in range(3):
        logs = [math.log(value[axis]) for value in values]
        middle = median(logs)
        deviation = median(abs(log - middle) for log in logs) * _MAD_TO_SD
        limits.append((middle, max(math.log(factor), DEVIATIONS * deviation)))
    for n, value in enumerate(values):
        for axis, (middle, limit) in enumerate(limits):
            # A hair's breadth, so that exactly the factor is no outlier.
            if abs(math.log(value[axis]) - middle) > limit + 1e-9:
                yield n, axis, math.exp(middle)


def _times(value: float, middle: float) -> str:
    if value > middle:
        return f"{value / middle:.1f} times"
    return f"1/{middle / value:.1f} of"


def _product(shape: Sequence[int]) -> str:
    return " x ".join(str(n) for n in shape)


def _spacing(spacing_mm: Sequence[float]) -> str:
    return " x ".join(f"{mm:.3g}" for mm in spacing_mm)
