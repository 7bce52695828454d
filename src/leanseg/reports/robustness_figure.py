"""The picture of `leanseg robustness`: Dice over the levels of every factor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from leanseg.evaluation.robustness import UNCHANGED, Robustness
from leanseg.files import written_whole
from leanseg.reports.plots import INK, MUTED, series_colour, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 3


def robustness_figure(found: Robustness) -> Figure:
    """A panel for each factor: mean Dice of each label, with one SD to either side."""
    from matplotlib.figure import Figure

    n_columns = min(_COLUMNS, len(found.factors))
    n_rows = -(-len(found.factors) // n_columns)
    figure = Figure(figsize=(4.6 * n_columns, 3.2 * n_rows), layout="constrained")
    panels = figure.subplots(n_rows, n_columns, squeeze=False, sharey=True).ravel()
    for axes, name in zip(panels, found.factors, strict=False):
        _draw(axes, found, name)
    for axes in panels[len(found.factors) :]:
        axes.set_visible(False)
    panels[0].set_ylim(0, 1.02)
    if len(found.labels) > 1:
        figure.legend(
            *panels[0].get_legend_handles_labels(),
            loc="outside lower center",
            ncols=4,
            frameon=False,
            fontsize=9,
        )
    return figure


def write_figure(path: Path, found: Robustness) -> None:
    """The figure as a PNG file, whole or not at all.

    Raises:
        LeansegError: If the file cannot be written.
    """
    with written_whole(path) as scratch:
        robustness_figure(found).savefig(scratch, format="png", dpi=130)


def _draw(axes: Axes, found: Robustness, name: str) -> None:
    style_axes(axes)
    factor = found.factors[name]
    levels = [UNCHANGED, *factor.levels]
    if factor.unchanged is not None:
        # What is no change stands between what lies on either side of it.
        values = {UNCHANGED: factor.unchanged, **factor.levels}
        levels.sort(key=lambda level: values[level])
    for position, (label, of_label) in enumerate(found.summary[name].items()):
        each = [of_label["levels"][level] for level in levels]
        mean, sd = (
            np.array([one[key] for one in each], dtype=np.float64) for key in ("mean", "sd")
        )
        colour, x = series_colour(position), np.arange(len(levels))
        axes.errorbar(
            x, mean, sd, fmt="o", color=colour, ms=4, elinewidth=0.8, capsize=2, label=label
        )
        if factor.has_slope:
            # Each scan has a thickness of its own, so that "unchanged" has no place in that order.
            ordered = slice(0 if factor.unchanged is not None else 1, None)
            axes.plot(x[ordered], mean[ordered], "-", color=colour)
    axes.set_xticks(range(len(levels)), levels, fontsize=8)
    if max(map(len, levels)) * len(levels) > 45:
        axes.tick_params(axis="x", labelrotation=25)
    axes.set_title(name, fontsize=10, loc="left", color=INK)
    axes.set_ylabel("Dice", fontsize=9, color=MUTED)
