"""Best, median and worst case of runs as one small picture for the documentation.

python benchmarks/results_pictures.py OUTPUT.png TITLE=RUN [TITLE=RUN ...]
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from leanseg.reports.overlay import Scene, choose_slices, draw_slice
from leanseg.reports.run_folder import RunFolder, read_run_folder
from leanseg.reports.run_report import ShownCase, shown_cases
from leanseg.volumes import read_volume

PANEL_INCH = 3.6


def case_figure(run: RunFolder, shown: ShownCase, title: str) -> Figure:
    """The telling slices of a case side by side, with captions and a legend."""
    prediction = read_volume(shown.fold.prediction_path(shown.name))
    scene = Scene.from_volumes(*run.volumes(shown.name), prediction, ignored=run.ignored)
    views = choose_slices(scene)
    shapes = [
        np.multiply(scene.pixels(scene.image.array, view).shape, scene.pixel_size_mm(view))
        for view in views
    ]
    # A scan of few slices is low and wide; its panel is drawn lower instead of wider.
    widths = [min(columns / rows, 2.0) for rows, columns in shapes]
    figure = Figure(
        figsize=(PANEL_INCH * sum(widths) + 0.2, PANEL_INCH + 0.9), layout="constrained"
    )
    panels = figure.subplots(1, len(views), squeeze=False, width_ratios=widths)[0]
    for axes, view in zip(panels, views, strict=True):
        draw_slice(axes, scene, view, labels=run.labels, window=run.window_hu)
        axes.set_title(scene.caption(view), fontsize=8)
    figure.suptitle(f"{title}: {shown.title.lower()}, {shown.name}, Dice {shown.dice:.3f}")
    lines = [Line2D([], [], color="0.4", ls=style) for style in ("-", "--")]
    names = ("reference", "prediction")
    figure.legend(lines, names, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure


def pixels(figure: Figure, dpi: int) -> Image.Image:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return Image.open(buffer).convert("RGB")


def row_pictures(title: str, folder: Path, dpi: int) -> list[Image.Image]:
    run = read_run_folder(folder)
    return [pixels(case_figure(run, shown, title), dpi) for shown in shown_cases(run)]


def main() -> None:
    output, *runs = sys.argv[1:]
    rows: list[Image.Image] = []
    for entry in runs:
        title, _, folder = entry.partition("=")
        rows.extend(row_pictures(title, Path(folder), dpi=62))
    width = max(row.width for row in rows)
    canvas = Image.new("RGB", (width, sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        canvas.paste(row, ((width - row.width) // 2, top))
        top += row.height
    # A palette keeps the file small; grey scans with two line colours need no more.
    canvas.quantize(96, dither=Image.Dither.NONE).save(output, optimize=True)
    print(output, np.asarray(canvas).shape, Path(output).stat().st_size, "bytes")


if __name__ == "__main__":
    main()
