"""The picture of the activation study: paper 000's figure 5, and every layer beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from leanseg.reports.activation_study import ActivationStudy, display_histogram
from leanseg.reports.plots import GRID, INK, MUTED, SERIES_COLOURS
from leanseg.volumes.atomic import written_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from leanseg.reports.activation_layers import LayerActivity

_STAGES = ("early", "middle", "late")
_LEAST_PERCENT = 1e-3


def activation_figure(studies: Sequence[ActivationStudy]) -> Figure:
    """One row a model: histograms of an early, a middle and a late layer, then all layers.

    Args:
        studies: At least one.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 3.7 * len(studies)), layout="constrained")
    rows = figure.subfigures(len(studies), 1, squeeze=False, hspace=0.04)[:, 0]
    for position, (part, study) in enumerate(zip(rows, studies, strict=True)):
        colour = SERIES_COLOURS[position % len(SERIES_COLOURS)]
        part.suptitle(_title(study), fontsize=11, x=0.008, ha="left", color=INK)
        panels = part.subplots(1, 4, width_ratios=(1, 1, 1, 1.35))
        for axes in panels:
            _plain(axes)
        for stage, axes in zip(_STAGES, panels, strict=False):
            if stage in study.shown:
                _histogram(axes, stage, study.shown[stage], colour)
            else:
                axes.set_visible(False)
        panels[0].set_ylabel("values (%)", fontsize=9, color=MUTED)
        _by_depth(panels[3], study, colour)
    return figure


def write_figure(path: Path, studies: Sequence[ActivationStudy]) -> None:
    """The figure as a PNG file, atomically.

    Raises:
        LeansegError: If the file cannot be written.
    """
    with written_whole(path) as scratch:
        activation_figure(studies).savefig(scratch, format="png", dpi=130)


def _title(study: ActivationStudy) -> str:
    seen = len(study.inputs)
    plural = "" if seen == 1 else "s"
    of = "" if seen == study.n_inputs else f" of {study.n_inputs}"
    return (
        f"{study.network} ({study.model}) on {study.scan}, {seen}{of} {study.unit}{plural}: "
        f"{study.n_dead} of {study.n_channels} channels are dead"
    )


def _plain(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(MUTED)
    axes.tick_params(colors=MUTED, labelsize=8, labelcolor=INK)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def _histogram(axes: Any, stage: str, layer: LayerActivity, colour: str) -> None:
    histogram = display_histogram(layer)
    percent = 100 * histogram.counts / histogram.counts.sum()
    edges = histogram.low + histogram.width * np.arange(len(percent) + 1)
    axes.stairs(np.maximum(percent, _LEAST_PERCENT), edges, fill=True, color=colour, alpha=0.85)
    axes.set_yscale("log")
    axes.set_ylim(_LEAST_PERCENT, 200)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.axvline(0, color=INK, linewidth=0.7)
    size = " x ".join(str(n) for n in layer.size)
    axes.set_title(
        f"{stage}: {layer.name}\n{layer.kind}, {layer.channels} channels of {size}",
        fontsize=9,
        loc="left",
        color=INK,
    )
    facts = [f"{len(layer.dead)} dead", f"{100 * layer.near_zero:.0f} % near zero"]
    if layer.at_floor is not None:
        facts.append(f"{100 * layer.at_floor:.0f} % at the floor")
    axes.text(
        0.98,
        0.97,
        "\n".join(facts),
        transform=axes.transAxes,
        ha="right",
        va="top",
        fontsize=8,
        color=INK,
    )
    axes.set_xlabel("value", fontsize=9, color=MUTED)


def _by_depth(axes: Any, study: ActivationStudy, colour: str) -> None:
    from matplotlib.ticker import MaxNLocator

    depth = np.arange(1, len(study.layers) + 1)
    shares = {
        "dead channels": ([layer.dead_share for layer in study.layers], "o-", colour),
        "values near zero": ([layer.near_zero for layer in study.layers], "s--", MUTED),
        "values at the floor": (
            [np.nan if layer.at_floor is None else layer.at_floor for layer in study.layers],
            "x:",
            INK,
        ),
    }
    for name, (values, style, shade) in shares.items():
        if not np.isnan(values).all():
            axes.plot(
                depth, 100 * np.array(values), style, color=shade, label=name, ms=4, linewidth=1.3
            )
    axes.set_ylim(-2, 100)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title("every layer: shares in %\n", fontsize=9, loc="left", color=INK)
    axes.set_xlabel("layer, from input to output", fontsize=9, color=MUTED)
    axes.legend(fontsize=8, frameon=False, loc="upper right")
