"""Methods side by side: the same slice of a case for each, with outlines, as papers show them.

Papers 000 (figure 4), 003 (figures 7 to 9) and 004 (figures 5 and 6) have such figures.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

from leanseg.errors import LeansegError
from leanseg.files import written_whole
from leanseg.reports.case_maps import CaseMaps
from leanseg.reports.overlay import Scene, choose_slices, draw_slice, label_colours
from leanseg.reports.plots import INK, MUTED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg")
_PANEL_INCH = 2.6
_DPI = 130
# What fits above a panel in one line.
_TITLE_CHARACTERS = 28


def method_panels(
    cases: Sequence[CaseMaps],
    labels: Sequence[str],
    titles: Mapping[tuple[str, str], str] | None = None,
) -> Figure:
    """A row for each case, a column for each method; reference solid, prediction dashed.

    Shown is the axial slice with the largest area of the reference, cut to what is labelled.

    Args:
        cases: One or more.
        labels: Their names, in the order of their numbers.
        titles: (case, method) to what stands below a panel, such as its Dice.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.text import Text

    methods = list(dict.fromkeys(name for case in cases for name in case.predictions))
    numbers = {label: number for number, label in enumerate(labels, start=1)}
    heights = [_PANEL_INCH * _aspect(case) for case in cases]
    figure = Figure(
        figsize=(_PANEL_INCH * len(methods) + 0.3, sum(heights) + 0.35 * len(cases) + 0.7),
        dpi=_DPI,
        layout="constrained",
        facecolor="white",
    )
    panels = figure.subplots(len(cases), len(methods), squeeze=False, height_ratios=heights)
    for row, case in zip(panels, cases, strict=True):
        view = choose_slices(Scene(case.image, case.reference))[0]
        for axes, method in zip(row, methods, strict=True):
            axes.set_axis_off()
            if method not in case.predictions:
                axes.text(0.5, 0.5, "no mask", ha="center", color=MUTED, transform=axes.transAxes)
                continue
            scene = case.scene(method)
            draw_slice(axes, scene, view, labels=numbers, window=case.window, line_width=1.3)
            # In SVG, too, a name is text.
            below = (titles or {}).get((case.name, method), "")
            axes.text(
                0.5, -0.02, below, ha="center", va="top", fontsize=8, color=INK,
                transform=axes.transAxes,
            )  # fmt: skip
        row[0].text(
            -0.03, 0.5, case.name, rotation=90, ha="right", va="center", fontsize=9, color=INK,
            transform=row[0].transAxes,
        )  # fmt: skip
    for axes, method in zip(panels[0], methods, strict=True):
        axes.set_title(fill(method, _TITLE_CHARACTERS), fontsize=10, color=INK)
    entries = legend_entries(labels, ink=INK)
    figure.legend(
        handles=[
            Line2D([], [], color=c, ls="-" if line == "solid" else "--", linewidth=2, label=name)
            for name, c, line in entries
        ],
        loc="outside lower center",
        ncols=min(len(entries), max(2, int(figure.get_figwidth() // 1.5))),
        fontsize=8,
        frameon=False,
        labelcolor=INK,
    )
    for text in figure.findobj(Text):
        # A dollar in a name begins no formula.
        text.set_parse_math(False)
    return figure


def legend_entries(labels: Sequence[str], ink: str = "#ffffff") -> list[tuple[str, str, str]]:
    """Name, colour and style of the lines in pictures.

    Args:
        labels: Their names, in the order of their numbers.
        ink: Stands for lines of any colour.
    """
    colours = label_colours({label: number for number, label in enumerate(labels, start=1)})
    if len(colours) == 1:
        ((_, reference, prediction),) = colours
        return [("reference", reference, "solid"), ("prediction", prediction, "dashed")]
    lines = [("reference", ink, "solid"), ("prediction", ink, "dashed")]
    return lines + [(name, c[1], "solid") for name, c in zip(labels, colours, strict=True)]


def panels_png(
    cases: Sequence[CaseMaps],
    labels: Sequence[str],
    titles: Mapping[tuple[str, str], str] | None = None,
) -> bytes:
    """`method_panels` as a PNG file."""
    buffer = io.BytesIO()
    figure = method_panels(cases, labels, titles)
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def require_panels(path: Path) -> None:
    """Refuse a name of a file that is no picture.

    Raises:
        LeansegError: Naming the endings that there are.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise LeansegError(f"{path}: give a name that ends in {' or '.join(SUFFIXES)}")


def write_panels(
    path: Path,
    cases: Sequence[CaseMaps],
    labels: Sequence[str],
    titles: Mapping[tuple[str, str], str] | None = None,
) -> None:
    """`method_panels` as a PNG or SVG file, whole or not at all.

    Raises:
        LeansegError: If the file cannot be written, or its ending is another.
    """
    require_panels(path)
    with written_whole(path) as scratch:
        method_panels(cases, labels, titles).savefig(scratch, format=path.suffix.lower()[1:])


def _aspect(case: CaseMaps) -> float:
    """Height of its axial slices for a width of 1."""
    (i, j, _), (x, y, _) = case.image.shape, case.image.spacing_mm
    return float(min(max((j * y) / (i * x), 0.4), 2.0))
