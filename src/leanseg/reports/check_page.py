"""The check of a dataset as one HTML file, with a picture of every case."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from leanseg.files import write_text
from leanseg.reports.overlay import Scene, SliceView, label_colours, slice_png
from leanseg.reports.page import number, png_address, render, svg_address
from leanseg.reports.plots import Group, box_plot

if TYPE_CHECKING:
    from leanseg.datasets.check import CheckResult
    from leanseg.datasets.check.facts import GridFacts, Thumbnail

# With more labels than this, a table of their volumes would be wider than any screen.
_MOST_VOLUME_COLUMNS = 8
_THUMBNAIL_PX = 240


def write_check_page(
    result: CheckResult, path: str | Path, *, show_identifiers: bool = False
) -> None:
    """Write the result of a check as HTML, whole or not at all.

    Args:
        result: With thumbnails, or the pictures are missing.
        path: The file.
        show_identifiers: Whether to name patients.

    Raises:
        LeansegError: If the file cannot be written.
    """
    page = check_page(result, show_identifiers=show_identifiers)
    write_text(Path(path), page, in_new_folder=False)


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
        spread=_spread(grids) if grids else None,
        pictures={
            case.name: png_address(thumbnail_png(case.thumbnail, labels))
            for case in result.cases
            if case.thumbnail is not None
        },
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


def _spread(grids: Sequence[GridFacts]) -> dict[str, Any]:
    """Facts and plots of the cases' spacing and field of view, along the axes of the body."""
    shapes, spacings = zip(*(grid.in_ras() for grid in grids), strict=True)
    spacing_mm = np.array(spacings)
    size_mm = spacing_mm * np.array(shapes)
    orientations = Counter(grid.orientation for grid in grids).most_common()
    facts = {
        "Storage orientation": ", ".join(f"{n} {code}" for code, n in orientations),
        "Voxel types": ", ".join(dict.fromkeys(grid.dtype for grid in grids)),
        "Median spacing": _axes_text(np.median(spacing_mm, axis=0), 2) + " mm",
        "Median field of view": _axes_text(np.median(size_mm, axis=0)) + " mm",
    }
    plots = []
    for values, title in ((spacing_mm, "Spacing (mm)"), (size_mm, "Field of view (mm)")):
        axes = zip(("left-right", "back-front", "feet-head"), values.T.tolist(), strict=True)
        figure = box_plot([Group(name, column) for name, column in axes], title)
        if figure is not None:
            plots.append((svg_address(figure), f"{title} of every case along the axes of the body"))
    return {"facts": facts, "plots": plots}


def thumbnail_png(thumbnail: Thumbnail, labels: Mapping[str, int]) -> bytes:
    """A thumbnail as PNG, with the outlines of the labels."""
    return slice_png(
        Scene(thumbnail.image, thumbnail.labels),
        SliceView("axial", 0),
        labels=labels,
        window=(0, 255),
        longest_side_px=_THUMBNAIL_PX,
    )
