"""Best, median and worst case of runs as one small picture for the documentation.

python benchmarks/results_pictures.py OUTPUT.png TITLE=RUN [TITLE=RUN ...]
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
from leanseg.reports.pictures import shown_cases
from leanseg.reports.references import read_image, read_reference
from leanseg.reports.run import read_run
from matplotlib.figure import Figure
from PIL import Image

from leanseg.reports.overlay import overlay_figure
from leanseg.volumes import read_volume


def pixels(figure: Figure, dpi: int) -> Image.Image:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return Image.open(buffer).convert("RGB")


def row_pictures(title: str, folder: Path, dpi: int) -> list[Image.Image]:
    run = read_run(folder)
    window = getattr(run.plan, "window", None)
    limits = (window.low, window.high) if getattr(window, "kind", "") == "hu" else None
    made = []
    for shown in shown_cases(run):
        figure = overlay_figure(
            read_image(run, shown.case),
            read_reference(run, shown.case),
            read_volume(shown.fold.prediction_path(shown.case)),
            window=limits,
            title=f"{title}: {shown.title.lower()}, {shown.case}, Dice {shown.dice:.3f}",
            panel_height_inch=3.6,
        )
        made.append(pixels(figure, dpi))
    return made


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
