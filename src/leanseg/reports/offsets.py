"""The offsets of an OBELISK layer before and after training, drawn (paper 004, figure 2)."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from leanseg.files import written_whole
from leanseg.reports.plots import GRID, INK, MUTED, series_colour, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI: Final = 130
_AXES: Final = ("column", "row", "depth")
# More hide one another.
_MOST_SHOWN: Final = 200
_BINS: Final = 40


def offsets_figure(
    before: NDArray[Any], after: NDArray[Any], *, size_px: tuple[int, int] = (1900, 1400)
) -> Figure:
    """Offsets seen along the three axes: at the start, trained, and how they moved; their lengths.

    Pairs are joined by lines, the subtracted reading in a second colour. Of many offsets an even
    choice is shown; the histograms count all.

    Args:
        before: (K, 1 or 2, 3) at the start, (column, row, depth) in normalised coordinates: 1 is
            half the image.
        after: The same offsets, trained.
        size_px: Width and height.

    Raises:
        ValueError: The two do not have the same shape.
    """
    from matplotlib.figure import Figure

    if before.shape != after.shape:
        raise ValueError(f"offsets of {before.shape} at the start, but {after.shape} trained")
    before, after = before.astype(np.float64), after.astype(np.float64)
    n_offsets, per_place, _ = before.shape
    chosen = np.unique(np.linspace(0, n_offsets - 1, _MOST_SHOWN).astype(int))
    kind = "pairs of offsets" if per_place == 2 else "offsets"
    shown = f"; {len(chosen)} of them are shown" if len(chosen) < n_offsets else ""
    figure = Figure(figsize=(size_px[0] / _DPI, size_px[1] / _DPI), dpi=_DPI, layout="constrained")
    figure.suptitle(
        f"{n_offsets} {kind}, in halves of the image{shown}", x=0.008, ha="left", color=INK
    )
    panels = figure.subplots(3, 4, width_ratios=(1, 1, 1, 1.1))
    limit = 1.05 * max(np.abs(before).max(), np.abs(after).max(), 1e-6)
    for column, (across, upwards) in enumerate(combinations(range(3), 2)):
        for axes in panels[:, column]:
            _style_plane(axes, limit, across, upwards)
        view = [across, upwards]
        starts, ends = (each[chosen][..., view] for each in (before, after))
        for axes, offsets in zip(panels[:, column], (starts, ends, ends), strict=True):
            _draw_dots(axes, offsets)
        for axes, offsets in zip(panels[:2, column], (starts, ends), strict=True):
            if per_place == 2:
                _draw_lines(axes, offsets[:, 0], offsets[:, 1], INK)
        for position in range(per_place):
            colour = series_colour(position)
            _draw_lines(panels[2, column], starts[:, position], ends[:, position], colour)
    for axes, title in zip(
        panels[:, 0], ("at the start", "trained", "from start to end"), strict=True
    ):
        axes.set_title(title, fontsize=10, loc="left", color=INK)
    if per_place == 2:
        _name_colours(panels[0, 1])
    _draw_lengths(panels[:, 3], before, after)
    return figure


def write_offsets(
    path: Path,
    before: NDArray[Any],
    after: NDArray[Any],
    *,
    size_px: tuple[int, int] = (1900, 1400),
) -> None:
    """`offsets_figure` as a PNG file, whole or not at all.

    Raises:
        LeansegError: If the file cannot be written.
    """
    with written_whole(path) as scratch:
        offsets_figure(before, after, size_px=size_px).savefig(
            scratch, format="png", metadata={"Software": None}
        )


def _style_plane(axes: Axes, limit: float, across: int, upwards: int) -> None:
    style_axes(axes)
    axes.grid(axis="both", color=GRID, linewidth=0.8)
    axes.axhline(0, color=MUTED, linewidth=0.7)
    axes.axvline(0, color=MUTED, linewidth=0.7)
    axes.set_xlim(-limit, limit)
    # Rows run downwards, as in a picture of the slice.
    axes.set_ylim((limit, -limit) if _AXES[upwards] == "row" else (-limit, limit))
    axes.set_aspect("equal")
    axes.set_xlabel(_AXES[across], fontsize=9, color=MUTED)
    axes.set_ylabel(_AXES[upwards], fontsize=9, color=MUTED)


def _draw_dots(axes: Axes, offsets: NDArray[np.float64]) -> None:
    """Of (K, 1 or 2, 2)."""
    for position in range(offsets.shape[1]):
        x, y = offsets[:, position].T
        axes.plot(x, y, "o", color=series_colour(position), ms=3.6, alpha=0.8, mew=0, zorder=3)


def _draw_lines(
    axes: Axes, start: NDArray[np.float64], end: NDArray[np.float64], colour: str
) -> None:
    from matplotlib.collections import LineCollection

    segments = list(np.stack((start, end), axis=1))
    axes.add_collection(LineCollection(segments, colors=colour, linewidths=0.8, alpha=0.45))


def _name_colours(axes: Axes) -> None:
    for position, name in enumerate(("first of a pair", "second, subtracted")):
        axes.plot([], [], "o", color=series_colour(position), ms=5, label=name)
    axes.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)


def _draw_lengths(
    panels: NDArray[Any], before: NDArray[np.float64], after: NDArray[np.float64]
) -> None:
    """Distances to the voxel, within pairs, and moved."""
    both = {"start": before, "trained": after}
    _draw_histograms(panels[0], "distance from the voxel that is classified", "offsets", both)
    if before.shape[1] == 2:
        within = {name: np.diff(offsets, axis=1) for name, offsets in both.items()}
        _draw_histograms(panels[1], "distance within a pair", "pairs", within)
    else:
        panels[1].set_visible(False)
    _draw_histograms(panels[2], "distance moved", "offsets", {"moved": after - before})


def _draw_histograms(
    axes: Axes, title: str, counted: str, vectors: dict[str, NDArray[np.float64]]
) -> None:
    """Of the lengths of vectors (..., 3)."""
    style_axes(axes)
    series = {name: np.linalg.norm(each, axis=-1).ravel() for name, each in vectors.items()}
    longest = max(max(values.max() for values in series.values()), 1e-6)
    edges = np.linspace(0, longest, _BINS + 1)
    colours = (MUTED, series_colour(2))[-len(series) :]
    for (name, values), colour in zip(series.items(), colours, strict=True):
        counts, _ = np.histogram(values, edges)
        label = f"{name}: median {np.median(values):.3f}"
        axes.stairs(counts, edges, fill=True, color=colour, alpha=0.25)
        axes.stairs(counts, edges, color=colour, linewidth=1.4, label=label)
    axes.set_title(title, fontsize=10, loc="left", color=INK)
    axes.set_xlabel("halves of the image", fontsize=9, color=MUTED)
    axes.set_ylabel(counted, fontsize=9, color=MUTED)
    axes.legend(fontsize=8, frameon=False, loc="upper right")
