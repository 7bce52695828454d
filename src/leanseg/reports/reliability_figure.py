"""The picture of `leanseg calibrate`: do probabilities mean what they say?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from leanseg.evaluation.calibration import Reliability
from leanseg.files import written_whole
from leanseg.modelfile import LabelReliability, ReliabilityBins
from leanseg.reports.plots import INK, MUTED, series_colour, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 3


def reliability_of(bins: ReliabilityBins) -> Reliability:
    """What a model file keeps of it, to compute with."""
    return Reliability(np.array(bins.n), np.array(bins.probability), np.array(bins.positive))


def reliability_figure(found: Mapping[str, LabelReliability]) -> Figure:
    """A panel for each label: share of voxels with it against the probability, before and after."""
    from matplotlib.figure import Figure

    n_columns = min(_COLUMNS, len(found))
    n_rows = -(-len(found) // n_columns)
    figure = Figure(figsize=(4.2 * n_columns, 4 * n_rows), layout="constrained")
    panels = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for axes, (name, label) in zip(panels, found.items(), strict=False):
        _draw(axes, name, label)
    for axes in panels[len(found) :]:
        axes.set_visible(False)
    return figure


def write_figure(path: Path, found: Mapping[str, LabelReliability]) -> None:
    """The figure as a PNG or SVG file, by its name, whole or not at all.

    Raises:
        LeansegError: If the file cannot be written.
    """
    with written_whole(path, in_new_folder=True) as scratch:
        kind = path.suffix[1:].lower()
        reliability_figure(found).savefig(scratch, format=kind, dpi=130)


def _draw(axes: Axes, name: str, label: LabelReliability) -> None:
    style_axes(axes)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--")
    both = {"as predicted": label.before, "with the temperature": label.after}
    for number, (words, bins) in enumerate(both.items()):
        reliability = reliability_of(bins)
        if (error := reliability.error) is None:
            continue
        probabilities, shares, _ = zip(*reliability.points(), strict=True)
        axes.plot(
            probabilities,
            shares,
            color=series_colour(number),
            marker="o",
            markersize=4,
            linewidth=1.4,
            label=f"{words}: error {error:.3f}",
        )
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set_title(name, loc="left", color=INK, fontsize=10)
    axes.set_xlabel("mean probability of the label", fontsize=9)
    axes.set_ylabel("share of voxels that have it", fontsize=9)
    axes.legend(loc="upper left", frameon=False, fontsize=8)
