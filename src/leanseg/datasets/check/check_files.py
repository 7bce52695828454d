"""Checks of files and grids: can they be read, do labels and channels fit, are scans alike."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from leanseg.datasets.check.facts import CaseFacts, GridFacts, Survey
from leanseg.datasets.check.findings import Found, case_check, dataset_check

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


def failures(case: CaseFacts, survey: Survey, kind: str) -> Iterator[Found]:
    """Sources that could not be read."""
    return (Found(message) for found, message in case.failures if found == kind)


for _kind in ("file-unreadable", "geometry-invalid", "spacing-zero"):
    case_check(_kind)(partial(failures, kind=_kind))


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


@case_check("header-note")
def header_notes(case: CaseFacts, survey: Survey) -> Iterator[Found]:
    """Headers that contradict themselves, leave something open, or say the unusual."""
    grids = (*case.images, *case.label_grids)
    return (Found(f"{grid.path}: {text}") for grid in grids for text in grid.header_notes)


@case_check("channel-grid-differs")
def channels_apart(case: CaseFacts, survey: Survey) -> Iterator[Found]:
    """Further channels that do not lie on the grid of the case's first."""
    return _apart(case, case.images[1:])


@case_check("grid-differs")
def labels_apart(case: CaseFacts, survey: Survey) -> Iterator[Found]:
    """Label maps that do not lie on the grid of the case's scan."""
    return _apart(case, case.label_grids)


def _apart(case: CaseFacts, grids: Sequence[GridFacts]) -> Iterator[Found]:
    for grid in grids:
        if grid.apart_mm is None:
            continue
        shape, scan_shape = _product(grid.shape), _product(case.images[0].shape)
        if math.isinf(grid.apart_mm):
            message = f"{grid.path} has shape {shape}, but its scan {scan_shape}"
        else:
            message = (
                f"{grid.path}: the same voxel lies up to {grid.apart_mm:.3g} mm from the scan's, "
                "though the shapes agree: perhaps only its header is wrong (--fix FOLDER "
                "--take-header then keeps the voxels and takes the scan's header)"
            )
        yield Found(message, {"apart_mm": grid.apart_mm})


@case_check("spacing-implausible")
def implausible_spacing(case: CaseFacts, survey: Survey) -> Iterator[Found]:
    """Spacings far outside of what scanners have, as in metres or micrometres."""
    low, high = PLAUSIBLE_SPACING_MM
    if case.image and (min(case.image.spacing_mm) < low or max(case.image.spacing_mm) > high):
        yield Found(f"{case.image.path}: has a spacing of {_product(case.image.spacing_mm)} mm")


@case_check("anisotropy")
def anisotropy(case: CaseFacts, survey: Survey) -> Iterator[Found]:
    """Scans whose voxels are more than ten times as long as wide."""
    if case.image is None:
        return
    ratio = max(case.image.spacing_mm) / min(case.image.spacing_mm)
    if ratio > LARGEST_ANISOTROPY:
        yield Found(
            f"{case.image.path}: voxels of {_product(case.image.spacing_mm)} mm "
            f"are {ratio:.0f} times as long as wide",
            {"ratio": ratio},
        )


@case_check("one-slice")
def one_slice(case: CaseFacts, survey: Survey) -> Iterator[Found]:
    """Scans of one slice."""
    if case.image is not None and 1 in case.image.shape:
        yield Found(f"{case.image.path}: has shape {_product(case.image.shape)}")


@dataset_check("spacing-outlier")
def spacing_outliers(survey: Survey) -> Iterator[Found]:
    """Spacings off the median by a factor of 2 and by 4 robust standard deviations."""
    spacings = {c.name: c.image.in_ras()[1] for c in survey.cases if c.image is not None}
    return _outliers(spacings, SPACING_FACTOR, "spacing {} is {:.3g} mm")


@dataset_check("size-outlier")
def size_outliers(survey: Survey) -> Iterator[Found]:
    """Fields of view off the median by a factor of 2.5 and by 4 robust standard deviations."""
    grids = {case.name: case.image.in_ras() for case in survey.cases if case.image is not None}
    sizes = {name: tuple(np.multiply(*grid).tolist()) for name, grid in grids.items()}
    return _outliers(sizes, SIZE_FACTOR, "the scan extends {} over {:.0f} mm")


def _outliers(
    values: dict[str, tuple[float, ...]], factor: float, sentence: str
) -> Iterator[Found]:
    """Cases of which one of three values, in mm along the body's axes, is unlike the others'."""
    if len(values) < FEWEST_FOR_OUTLIERS:
        return
    logs = np.log(list(values.values()))
    middles = np.median(logs, axis=0)
    deviations = np.median(np.abs(logs - middles), axis=0) * _MAD_TO_SD
    # A hair's breadth, so that exactly the factor is no outlier.
    limits = np.maximum(np.log(factor), DEVIATIONS * deviations) + 1e-9
    for n, axis in np.argwhere(np.abs(logs - middles) > limits):
        name = list(values)[n]
        value, median = values[name][axis], float(np.exp(middles[axis]))
        times = f"{value / median:.1f} times" if value > median else f"1/{median / value:.1f} of"
        message = f"{sentence.format(_AXES[axis], value)}, {times} the median of {median:.4g} mm"
        yield Found(message, {"axis": _AXES[axis], "mm": value, "median_mm": median}, name)


@dataset_check("orientation-mixed")
def mixed_orientations(survey: Survey) -> Iterator[Found]:
    """Scans stored in several orientations."""
    found = Counter(case.image.orientation for case in survey.cases if case.image is not None)
    if len(found) > 1:
        listed = ", ".join(f"{n} {code}" for code, n in found.most_common())
        yield Found(f"scans are stored as {listed}", dict(found))


@case_check("label-turned")
def turned_labels(case: CaseFacts, survey: Survey) -> Iterator[Found]:
    """Labels on the scan's own grid, but stored along other axes."""
    for grid in case.label_grids:
        if grid.turned:
            scan = case.images[0].orientation
            yield Found(f"{grid.path} is stored as {grid.orientation}, its scan as {scan}")


def _product(numbers: Sequence[float]) -> str:
    return " x ".join(f"{number:.4g}" for number in numbers)
