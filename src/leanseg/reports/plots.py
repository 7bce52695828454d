"""Learning curves and box plots in the style of the pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leanseg.evaluation.masks import LabelScore
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


def known_curves(folds: Sequence[Fold]) -> list[Curve]:
    """Those of `CURVES` of which some fold has a value: not every run has monitor cases."""
    return [
        curve
        for curve in CURVES
        if any(row.get(key) is not None for f in folds for row in f.epochs for key in curve.keys)
    ]


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


def learning_curve(
    folds: Sequence[Fold], curve: Curve, against: str, colours: Sequence[str] | None = None
) -> Figure:
    """One panel of the learning curves; a ring marks the epoch whose weights are kept.

    Args:
        folds: With at least one epoch each.
        curve: What to show.
        against: "epoch" or "elapsed_s", which is shown in minutes.
        colours: Of each fold; None gives each its own.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = new_figure(4.2, 2.9)
    for position, fold in enumerate(folds):
        colour, best = series_colour(position), fold.best_epoch
        if colours is not None:
            colour = colours[position]
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
    groups: Sequence[Group],
    title: str,
    *,
    upper_limit: float | None = None,
    joined: bool = False,
) -> Figure | None:
    """Boxes (quartiles and median, whiskers to 1.5 interquartile ranges) with every case a point.

    Args:
        groups: One box each, from left to right.
        title: Above the panel, with the unit.
        upper_limit: Of the vertical axis, which starts at 0 unless groups are joined; None leaves
            it to the data.
        joined: Whether all groups are of the same cases, whose points lines then join.

    Returns:
        None if no group has a value.
    """
    figure, axes = new_figure(max(4.2, 1.6 + 1.0 * len(groups)), 3.4)
    ticks, largest = [], None
    if joined:
        values = np.array([group.values for group in groups], dtype=np.float64)
        axes.plot(np.arange(len(groups)), values, color=MUTED, linewidth=0.6, alpha=0.35)
    for position, group in enumerate(groups):
        defined = sorted(value for value in group.values if value is not None)
        undefined = len(group.values) - len(defined)
        ticks.append(f"{group.name}\n{undefined} undefined" if undefined else group.name)
        if defined:
            colour = series_colour(position) if joined else SERIES_COLOURS[0]
            _draw_box(axes, position, defined, MUTED if group.muted else colour, joined)
            largest = max(defined[-1], largest or 0.0)
    axes.set_xticks(range(len(groups)), ticks)
    beside = max(0.6, 1.2 - len(groups) / 4)
    axes.set_xlim(-beside, len(groups) - 1 + beside)
    if not joined:
        axes.set_ylim(0, upper_limit or (largest or 1.0) * 1.08)
    elif upper_limit is not None:
        # Pairs are told apart by their slope, so the axis shows no more than the cases.
        axes.set_ylim(top=min(upper_limit, axes.get_ylim()[1]))
    axes.set_title(title, fontsize=10, loc="left", color=INK)
    return None if largest is None else figure


def _draw_box(
    axes: Axes, position: int, values: Sequence[float], colour: str, is_joined: bool
) -> None:
    style: Any = {f"{part}props": {"color": colour} for part in ("box", "whisker", "cap")}
    style["medianprops"] = {"color": colour, "linewidth": 2.2}
    axes.boxplot([values], positions=[position], widths=0.5, showfliers=False, **style)
    # Neighbours in value step aside in turn, so that no point hides another.
    steps = (0.0,) if is_joined else (0.0, -1.0, 1.0, -0.5, 0.5)
    aside = 0.16 * np.array([steps[n % len(steps)] for n in range(len(values))])
    axes.plot(position + aside, values, "o", color=colour, markersize=4, alpha=0.65)


def bland_altman(groups: Mapping[str, Sequence[LabelScore]], label: str) -> Figure | None:
    """Agreement of predicted with reference volumes: difference against mean, a panel a method.

    Lines are the mean difference (bias) and the limits of agreement, 1.96 SD to either side
    (Bland and Altman, Lancet 1986; 327: 307-310).

    Args:
        groups: Method to the scores of its cases.
        label: For the titles.

    Returns:
        None if no case has both volumes.
    """
    from matplotlib.figure import Figure

    pairs = {
        name: np.array(
            [
                (score.metrics["reference_ml"], score.metrics["prediction_ml"])
                for score in scores
                if None not in (score.metrics["reference_ml"], score.metrics["prediction_ml"])
            ],
            dtype=np.float64,
        ).reshape(-1, 2)
        for name, scores in groups.items()
    }
    if not any(len(values) for values in pairs.values()):
        return None
    figure = Figure(figsize=(1.2 + 3.2 * len(pairs), 3.4), layout="constrained")
    panels = figure.subplots(1, len(pairs), squeeze=False, sharex=True, sharey=True)[0]
    for position, (axes, (name, values)) in enumerate(zip(panels, pairs.items(), strict=True)):
        style_axes(axes)
        apart, middle = values[:, 1] - values[:, 0], values.mean(axis=1)
        colour = series_colour(position)
        axes.plot(middle, apart, "o", color=colour, markersize=4, alpha=0.65)
        axes.axhline(0, color=MUTED, linewidth=0.8)
        title = f"{label}, {name}" if name else label
        if len(apart) > 1:
            bias, limit = apart.mean(), 1.96 * apart.std(ddof=1)
            axes.axhline(bias, color=colour, linewidth=1.5)
            for end in (bias - limit, bias + limit):
                axes.axhline(end, color=colour, linewidth=1, linestyle="--")
            ends = f"{_signed(bias - limit)} to {_signed(bias + limit)}"
            title += f"\nbias {_signed(bias)} ml, limits {ends} ml"
        axes.margins(0.08, 0.15)
        axes.set_title(title, fontsize=10, loc="left", color=INK)
        axes.set_xlabel("mean of both volumes (ml)", fontsize=9, color=MUTED)
    panels[0].set_ylabel("prediction − reference (ml)", fontsize=9, color=MUTED)
    return figure


def _signed(value: float) -> str:
    return f"{value:+.3g}".replace("-", "−")
