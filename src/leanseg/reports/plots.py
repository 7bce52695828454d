"""Learning curves and box plots as SVG inside the page."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from leanseg.reports.markup import Markup, embedded_image
from leanseg.reports.run import Fold

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1d252c"
MUTED = "#5c6770"
GRID = "#e3e7ea"
# Okabe and Ito's colours that keep their contrast on white.
SERIES_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#aa3377", "#b07c00", "#4477aa")


@dataclass(frozen=True)
class Curve:
    """What one panel of the learning curves shows.

    Attributes:
        title: Above the panel.
        keys: Keys of `metrics.jsonl` with the line style of each.
        logarithmic: Whether the vertical axis is.
    """

    title: str
    keys: Mapping[str, str]
    logarithmic: bool = False


CURVES = (
    Curve("Loss (dashed: training, solid: validation)", {"train_loss": "--", "val_loss": "-"}),
    Curve("Validation Dice", {"val_dice": "-"}),
    Curve("Learning rate", {"learning_rate": "-"}, logarithmic=True),
)


def new_figure(width_inch: float, height_inch: float) -> tuple[Figure, Axes]:
    """An empty figure with one panel in the report's style."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_inch, height_inch), layout="constrained")
    axes = figure.subplots()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(MUTED)
    axes.tick_params(colors=MUTED, labelsize=9, labelcolor=INK)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(y=0.08)
    return figure, axes


def as_svg(figure: Figure, description: str) -> Markup:
    """The figure as an SVG image inside the page; the same figure gives the same bytes."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "leanseg", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return embedded_image(buffer.getvalue(), "image/svg+xml", description)


def fold_colour(position: int) -> str:
    """The colour of the fold at `position` among those shown."""
    return SERIES_COLOURS[position % len(SERIES_COLOURS)]


def learning_curve(folds: Sequence[Fold], curve: Curve, against: str) -> Figure:
    """One panel of the learning curves.

    Args:
        folds: With at least one epoch each; one colour a fold.
        curve: What to show.
        against: "epoch" or "elapsed_s", which is shown in minutes.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = new_figure(4.2, 2.9)
    for position, fold in enumerate(folds):
        colour = fold_colour(position)
        x = _series(fold, against) / (60 if against == "elapsed_s" else 1)
        for key, style in curve.keys.items():
            y = _series(fold, key)
            # A single epoch is a point, which a line alone would not show.
            marker = "o" if len(x) == 1 else None
            axes.plot(x, y, style, color=colour, linewidth=1.5, marker=marker, markersize=4)
        best = best_epoch(fold)
        if best is not None:
            axes.axvline(x[best], color=colour, linewidth=0.9, linestyle=":")
            y = _series(fold, tuple(curve.keys)[-1])
            axes.plot(x[best], y[best], "o", color=colour, markersize=6, markerfacecolor="white")
    axes.set_title(curve.title, fontsize=10, loc="left", color=INK)
    axes.set_xlabel(
        "elapsed minutes" if against == "elapsed_s" else "epoch", fontsize=9, color=MUTED
    )
    if against == "epoch":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if curve.logarithmic:
        axes.set_yscale("log")
    if "val_dice" in curve.keys:
        axes.set_ylim(bottom=0)
    return figure


def best_epoch(fold: Fold) -> int | None:
    """Index of the last line marked best, which is the one whose weights are kept; or None."""
    marked = [index for index, row in enumerate(fold.epochs) if row.get("best")]
    return marked[-1] if marked else None


def _series(fold: Fold, key: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    values = (row.get(key) for row in fold.epochs)
    return np.array([np.nan if value is None else float(value) for value in values])


@dataclass(frozen=True)
class Group:
    """The values of one box.

    Attributes:
        name: Under the box.
        values: One number a case; None is undefined and not drawn.
        muted: Whether it is there for comparison only, and drawn in grey.
    """

    name: str
    values: Sequence[float | None]
    muted: bool = False


def box_plot(groups: Sequence[Group], title: str, *, limits: tuple[float, float | None]) -> Figure:
    """Boxes (quartiles and median, whiskers to 1.5 interquartile ranges) with every case a point.

    Args:
        groups: One box each, from left to right.
        title: Above the panel, with the unit.
        limits: Of the vertical axis; None leaves the upper one to the data.
    """
    width = max(4.2, 1.6 + 1.0 * len(groups))
    figure, axes = new_figure(width, 3.4)
    ticks = []
    for position, group in enumerate(groups):
        defined = sorted(value for value in group.values if value is not None)
        colour = MUTED if group.muted else SERIES_COLOURS[0]
        undefined = len(group.values) - len(defined)
        ticks.append(f"{group.name}\n{undefined} undefined" if undefined else group.name)
        if not defined:
            continue
        axes.boxplot(
            [defined],
            positions=[position],
            widths=0.5,
            showfliers=False,
            boxprops={"color": colour},
            whiskerprops={"color": colour},
            capprops={"color": colour},
            medianprops={"color": colour, "linewidth": 2.2},
        )
        # Neighbours in value step aside in turn, so that no point hides another.
        aside = 0.16 * np.array([(0.0, -1.0, 1.0, -0.5, 0.5)[n % 5] for n in range(len(defined))])
        axes.plot(position + aside, defined, "o", color=colour, markersize=4, alpha=0.65)
    axes.set_xticks(range(len(groups)), ticks)
    beside = max(0.6, 1.2 - len(groups) / 4)
    axes.set_xlim(-beside, len(groups) - 1 + beside)
    axes.set_ylim(*limits)
    axes.set_title(title, fontsize=10, loc="left", color=INK)
    return figure
