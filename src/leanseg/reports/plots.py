"""Learning curves and box plots in the style of the pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leanseg.reports.run_folder import Fold

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
    Curve(
        "Loss (dashed: training, solid: monitor cases)", {"train_loss": "--", "monitor_loss": "-"}
    ),
    Curve("Dice of the monitor cases", {"monitor_dice": "-"}),
    Curve("Learning rate", {"learning_rate": "-"}, logarithmic=True),
)


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


def style_axes(axes: Axes) -> None:
    """Light lines and small letters, as all figures have them."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(colors=MUTED, labelsize=9, labelcolor=INK)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def new_figure(width_inch: float, height_inch: float) -> tuple[Figure, Axes]:
    """An empty figure with one panel in the style of the pages."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_inch, height_inch), layout="constrained")
    axes = figure.subplots()
    style_axes(axes)
    axes.margins(y=0.08)
    return figure, axes


def series_colour(position: int) -> str:
    """The colour of the fold or model at `position` among those shown."""
    return SERIES_COLOURS[position % len(SERIES_COLOURS)]


def learning_curve(folds: Sequence[Fold], curve: Curve, against: str) -> Figure:
    """One panel of the learning curves; a ring marks the epoch whose weights are kept.

    Args:
        folds: With at least one epoch each; one colour a fold.
        curve: What to show.
        against: "epoch" or "elapsed_s", which is shown in minutes.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = new_figure(4.2, 2.9)
    for position, fold in enumerate(folds):
        colour, best = series_colour(position), fold.best_epoch
        x = _series(fold, against) / (60 if against == "elapsed_s" else 1)
        for key, style in curve.keys.items():
            y = _series(fold, key)
            # Not every epoch looks at the monitor cases; the line goes from look to look.
            known = np.isfinite(y)
            # A single epoch is a point, which a line alone would not show.
            marker = "o" if known.sum() == 1 else None
            line: dict[str, Any] = {
                "color": colour,
                "linewidth": 1.5,
                "marker": marker,
                "markersize": 4,
            }
            axes.plot(x[known], y[known], style, **line)
        if best is not None:
            axes.axvline(x[best], color=colour, linewidth=0.9, linestyle=":")
            axes.plot(x[best], y[best], "o", color=colour, markersize=6, markerfacecolor="white")
    axes.set_title(curve.title, fontsize=10, loc="left", color=INK)
    label = "elapsed minutes" if against == "elapsed_s" else "epoch"
    axes.set_xlabel(label, fontsize=9, color=MUTED)
    if against == "epoch":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if curve.logarithmic:
        axes.set_yscale("log")
    elif "monitor_dice" in curve.keys:
        axes.set_ylim(bottom=0)
    return figure


def _series(fold: Fold, key: str) -> NDArray[np.float64]:
    # numpy writes None as NaN, which is not drawn.
    return np.array([row.get(key) for row in fold.epochs], dtype=np.float64)


def box_plot(
    groups: Sequence[Group], title: str, *, upper_limit: float | None = None
) -> Figure | None:
    """Boxes (quartiles and median, whiskers to 1.5 interquartile ranges) with every case a point.

    Args:
        groups: One box each, from left to right.
        title: Above the panel, with the unit.
        upper_limit: Of the vertical axis, which starts at 0; None leaves it to the data.

    Returns:
        None if no group has a value.
    """
    figure, axes = new_figure(max(4.2, 1.6 + 1.0 * len(groups)), 3.4)
    ticks, largest = [], None
    for position, group in enumerate(groups):
        defined = sorted(value for value in group.values if value is not None)
        undefined = len(group.values) - len(defined)
        ticks.append(f"{group.name}\n{undefined} undefined" if undefined else group.name)
        if defined:
            _draw_box(axes, position, defined, MUTED if group.muted else SERIES_COLOURS[0])
            largest = max(defined[-1], largest or 0.0)
    axes.set_xticks(range(len(groups)), ticks)
    beside = max(0.6, 1.2 - len(groups) / 4)
    axes.set_xlim(-beside, len(groups) - 1 + beside)
    axes.set_ylim(0, upper_limit or (largest or 1.0) * 1.08)
    axes.set_title(title, fontsize=10, loc="left", color=INK)
    return None if largest is None else figure


def _draw_box(axes: Axes, position: int, values: Sequence[float], colour: str) -> None:
    style: Any = {f"{part}props": {"color": colour} for part in ("box", "whisker", "cap")}
    style["medianprops"] = {"color": colour, "linewidth": 2.2}
    axes.boxplot([values], positions=[position], widths=0.5, showfliers=False, **style)
    # Neighbours in value step aside in turn, so that no point hides another.
    aside = 0.16 * np.array([(0.0, -1.0, 1.0, -0.5, 0.5)[n % 5] for n in range(len(values))])
    axes.plot(position + aside, values, "o", color=colour, markersize=4, alpha=0.65)
