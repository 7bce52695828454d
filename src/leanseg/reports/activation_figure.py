"""Pictures of the activation study: paper 000's figure 5, every layer beside it, feature maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from leanseg.files import written_whole
from leanseg.reports.plots import INK, MUTED, series_colour, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from leanseg.reports.activation_layers import LayerActivity
    from leanseg.reports.activations import ActivationStudy

_STAGES = ("early", "middle", "late")
_LEAST_PERCENT = 1e-3
_MOST_MAPS = 36


def activation_figure(studies: Sequence[ActivationStudy]) -> Figure:
    """One row a model: histograms of an early, a middle and a late layer, then all layers.

    Args:
        studies: At least one.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 3.7 * len(studies)), layout="constrained")
    rows = figure.subfigures(len(studies), 1, squeeze=False, hspace=0.04)[:, 0]
    for position, (row, study) in enumerate(zip(rows, studies, strict=True)):
        colour = series_colour(position)
        row.suptitle(f"{study.model}: {study.summary}", fontsize=11, x=0.008, ha="left", color=INK)
        *panels, by_depth = row.subplots(1, 4, width_ratios=(1, 1, 1, 1.35))
        for stage, axes in zip(_STAGES, panels, strict=True):
            if stage in study.shown:
                _draw_histogram(axes, stage, study.shown[stage], colour)
            else:
                axes.set_visible(False)
        panels[0].set_ylabel("values (%)", fontsize=9, color=MUTED)
        _draw_by_depth(by_depth, study, colour)
    return figure


def maps_figure(studies: Sequence[ActivationStudy]) -> Figure:
    """One row a model: what it sees, then the feature maps of an early, a middle and a late layer.

    Of volumes the middle slice is shown. Each map has its own scale, from its least value (black)
    to its largest; one that is the same everywhere is black. Of many channels an even choice is
    shown.

    Args:
        studies: At least one.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 4.2 * len(studies)), layout="constrained")
    rows = figure.subfigures(len(studies), 1, squeeze=False, hspace=0.04)[:, 0]
    for row, study in zip(rows, studies, strict=True):
        row.suptitle(
            f"{study.model}: {study.network}, {study.scan}", fontsize=11, x=0.008, ha="left",
            color=INK,
        )  # fmt: skip
        panels = row.subplots(1, 4)
        for axes, stage in zip(panels, ("input", *_STAGES), strict=True):
            axes.set_axis_off()
            maps = study.image if stage == "input" else study.maps.get(stage)
            if maps is None or maps.ndim < 3:  # tokens are no pictures
                continue
            is_input = stage == "input"
            # Of slices with their neighbours the middle one.
            chosen = np.array([len(maps) // 2]) if is_input else _evenly(len(maps), _MOST_MAPS)
            shown = _mosaic(maps[chosen], study.orientation)
            axes.imshow(shown, cmap="gray" if is_input else "magma", vmin=0, vmax=1)
            title = stage
            if stage in study.shown:
                layer = study.shown[stage]
                size = " x ".join(map(str, layer.size))
                title = f"{stage}: {layer.name}\n{len(chosen)} of {len(maps)} channels of {size}"
            axes.set_title(title, fontsize=9, loc="left", color=INK)
    return figure


def _evenly(n: int, most: int) -> NDArray[np.intp]:
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.intp))


def _mosaic(maps: NDArray[np.float32], orientation: str) -> NDArray[np.float32]:
    """Maps (channel, i, j) or (channel, i, j, k) in a square of tiles, upright, NaN between."""
    if maps.ndim == 4:
        maps = maps[..., maps.shape[-1] // 2]
    # As pictures are looked at: the patient's right at the left, the front or the head above.
    flips = tuple(n for n, codes in ((1, "RA"), (2, "AS")) if orientation[n - 1] in codes)
    tiles = np.flip(maps, flips).transpose(0, 2, 1).astype(np.float32)
    low = tiles.min(axis=(1, 2), keepdims=True)
    width = tiles.max(axis=(1, 2), keepdims=True) - low
    shown = (tiles - low) / np.where(width > 0, width, 1)
    n, height, across = shown.shape
    columns = math.ceil(math.sqrt(n * height / across))
    lines = math.ceil(n / columns)
    sheet = np.full((lines * (height + 1) - 1, columns * (across + 1) - 1), np.nan, np.float32)
    for number, tile in enumerate(shown):
        y, x = divmod(number, columns)
        sheet[y * (height + 1) :, x * (across + 1) :][:height, :across] = tile
    return sheet


def write_maps(path: Path, studies: Sequence[ActivationStudy]) -> None:
    """The feature maps as a PNG file, whole or not at all.

    Raises:
        LeansegError: If the file cannot be written.
    """
    with written_whole(path) as scratch:
        maps_figure(studies).savefig(scratch, format="png", dpi=130)


def write_figure(path: Path, studies: Sequence[ActivationStudy]) -> None:
    """The figure as a PNG file, whole or not at all.

    Raises:
        LeansegError: If the file cannot be written.
    """
    with written_whole(path) as scratch:
        activation_figure(studies).savefig(scratch, format="png", dpi=130)


def _draw_histogram(axes: Axes, stage: str, layer: LayerActivity, colour: str) -> None:
    style_axes(axes)
    percent = np.maximum(100 * np.array(layer.counts) / layer.n_values, _LEAST_PERCENT)
    axes.stairs(percent, layer.edges, fill=True, color=colour, alpha=0.85)
    axes.set_yscale("log")
    axes.set_ylim(_LEAST_PERCENT, 200)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.axvline(0, color=INK, linewidth=0.7)
    size = " x ".join(str(n) for n in layer.size)
    title = f"{stage}: {layer.name}\n{layer.function}, {layer.n_channels} channels of {size}"
    axes.set_title(title, fontsize=9, loc="left", color=INK)
    facts = f"{len(layer.dead)} dead\n{100 * layer.near_zero:.0f} % near zero"
    if layer.at_floor is not None:
        facts += f"\n{100 * layer.at_floor:.0f} % at the floor"
    axes.annotate(
        facts, (0.98, 0.97), xycoords="axes fraction", ha="right", va="top", fontsize=8, color=INK
    )
    axes.set_xlabel("value", fontsize=9, color=MUTED)


def _draw_by_depth(axes: Axes, study: ActivationStudy, colour: str) -> None:
    from matplotlib.ticker import MaxNLocator

    style_axes(axes)
    shares = {
        "dead channels": [len(layer.dead) / layer.n_channels for layer in study.layers],
        "values near zero": [layer.near_zero for layer in study.layers],
        "values at the floor": [layer.at_floor for layer in study.layers],
    }
    styles = (("o-", colour), ("s--", MUTED), ("x:", INK))
    depth = np.arange(1, len(study.layers) + 1)
    for (name, values), (style, shade) in zip(shares.items(), styles, strict=True):
        # Layers without a floor become NaN, which is not drawn.
        percent = 100 * np.array(values, dtype=np.float64)
        if not np.isnan(percent).all():
            axes.plot(depth, percent, style, color=shade, label=name, ms=4, linewidth=1.3)
    axes.set_ylim(-2, 100)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title("every layer: shares in %\n", fontsize=9, loc="left", color=INK)
    axes.set_xlabel("layer, from input to output", fontsize=9, color=MUTED)
    axes.legend(fontsize=8, frameon=False, loc="upper right")
