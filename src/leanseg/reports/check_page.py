"""The check of a dataset as one HTML file, with a picture of every case."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from leanseg.reports.overlay import Scene, SliceView, label_colours, slice_png
from leanseg.reports.page import number, png_address, render, svg_address, write_page
from leanseg.reports.plots import Group, box_plot

if TYPE_CHECKING:
    from leanseg.datasets.check import CheckResult
    from leanseg.datasets.check.facts import CaseFacts, GridFacts, Thumbnail

# With more labels than this, a table of their volumes would be wider than any screen.
_MOST_VOLUME_COLUMNS = 8
_THUMBNAIL_PX = 240


def write_check_page(
    result: CheckResult, path: str | Path, *, show_identifiers: bool = False
) -> Path:
    """Write the result of a check as HTML, whole or not at all.

    Args:
        result: With thumbnails, or the pictures are missing.
        path: The file.
        show_identifiers: Whether to name patients.

    Raises:
        RecipeError: If the path is a folder.
        LeansegError: If the file cannot be written.
    """
    return write_page(Path(path), check_page(result, show_identifiers=show_identifiers))


def check_page(result: CheckResult, *, show_identifiers: bool = False) -> str:
    """The result of a check as HTML."""
    labels = result.survey.labels
    colours = [reference for _, reference, _ in label_colours(labels)]
    shown = labels if len(labels) <= _MOST_VOLUME_COLUMNS else {}
    kinds = Counter((found.severity, found.title, found.advice) for found in result.findings)
    grids = [case.image for case in result.cases if case.image is not None]
    return render(
        "check.html.j2",
        kind="leanseg check",
        title=result.name,
        result=result,
        severities=list(result.counts()),
        kinds=kinds,
        spread_facts=_spread_facts(grids) if grids else {},
        spread_plots=list(_spread_plots(grids)) if grids else [],
        pictures=list(_pictures(result)),
        legend=[(name, c, "solid") for name, c in zip(labels, colours, strict=True)],
        anchor=_anchor,
        axes=_axes_text,
        volume_labels=shown,
        volume_heads=[f"{name} (ml)" for name in shown],
        show_identifiers=show_identifiers,
    )


def _anchor(case: str) -> str:
    """The identifier of a case's picture in the page."""
    return "case-" + "".join(c if c.isalnum() else f"_{ord(c):x}_" for c in case)


def _axes_text(values: Sequence[float], digits: int = 0) -> str:
    return " × ".join(number(float(value), digits) for value in values)


def _spread_facts(grids: Sequence[GridFacts]) -> dict[str, str]:
    spacing, size = _in_the_body(grids)
    orientations = Counter(grid.orientation for grid in grids).most_common()
    return {
        "Storage orientation": ", ".join(f"{n} {code}" for code, n in orientations),
        "Voxel types": ", ".join(dict.fromkeys(grid.dtype for grid in grids)),
        "Median spacing": _axes_text(np.median(spacing, axis=0), 2) + " mm",
        "Median field of view": _axes_text(np.median(size, axis=0)) + " mm",
    }


def _spread_plots(grids: Sequence[GridFacts]) -> Iterator[tuple[str, str]]:
    for values, title in zip(
        _in_the_body(grids), ("Spacing (mm)", "Field of view (mm)"), strict=True
    ):
        names = ("left-right", "back-front", "feet-head")
        groups = [Group(name, list(column)) for name, column in zip(names, values.T, strict=True)]
        figure = box_plot(groups, title)
        if figure is not None:
            yield svg_address(figure), f"{title} of every case along the three axes of the body"


def _in_the_body(grids: Sequence[GridFacts]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Spacing and field of view in mm, (case, axis), from left to right, back to front, upwards."""
    shapes, spacings = zip(*(grid.in_ras() for grid in grids), strict=True)
    return np.array(spacings), np.array(spacings) * np.array(shapes)


def _pictures(result: CheckResult) -> Iterator[dict[str, Any]]:
    """A picture of every case; none where the check was made without."""
    if all(case.thumbnail is None for case in result.cases):
        return
    for case in result.cases:
        yield {
            "case": case.name,
            "counts": Counter(found.severity for found in result.of_case(case.name)),
            "z_mm": None if case.thumbnail is None else case.thumbnail.image.affine[2, 3],
            "address": _thumbnail_address(case, result.survey.labels),
        }


def _thumbnail_address(case: CaseFacts, labels: Mapping[str, int]) -> str | None:
    if case.thumbnail is None:
        return None
    return png_address(thumbnail_png(case.thumbnail, labels))


def thumbnail_png(thumbnail: Thumbnail, labels: Mapping[str, int]) -> bytes:
    """A thumbnail as PNG, with the outlines of the labels."""
    return slice_png(
        Scene(thumbnail.image, thumbnail.labels),
        SliceView("axial", 0),
        labels=labels or None,
        window=(0, 255),
        longest_side_px=_THUMBNAIL_PX,
    )
