"""Pictures of paper 002's windows and augmentations on a CT, for docs/framework.md.

python benchmarks/framework_pictures.py DATA FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

import leanseg
from leanseg.frames.intensity import fit_intensity
from leanseg.reports.samples import draw_samples, samples_figure
from leanseg.training import load_recipe

WINDOWS = ("organ", "bone", "lung", "organ-hu", "bone-hu", "lung-hu")
WIDTH = 1000


def windows(case: leanseg.Case) -> Figure:
    """The middle labelled slice under every window with a name."""
    volume = leanseg.reorient(case.image, "LPS")
    label = leanseg.reorient(case.label, "LPS").array
    k = int(np.argmax((label > 0).sum(axis=(0, 1))))
    figure = Figure(figsize=(9, 6.4), layout="constrained")
    for axes, name in zip(figure.subplots(2, 3).flat, WINDOWS, strict=True):
        intensity = leanseg.Intensity(window=name, scaling="minmax")
        transform = fit_intensity(volume.array, intensity)
        axes.imshow(transform.apply(volume.array[:, :, k]).T, cmap="gray", vmin=0, vmax=1)
        axes.set_title(f"{name}: {transform.low:.0f} to {transform.high:.0f} HU", fontsize=9)
        axes.set_axis_off()
    return figure


def main() -> None:
    """Draw and shrink."""
    data, folder = leanseg.open_dataset(sys.argv[1]), Path(sys.argv[2])
    figures = {"windows": windows(next(iter(data)))}
    for name in ("ctia", "mia"):
        recipe = load_recipe(f"{name}-nnunet-3d-liver")
        figures[name] = samples_figure(draw_samples(recipe, data, 2, 0))
    for name, figure in figures.items():
        path = folder / f"{name}.png"
        figure.savefig(path, dpi=120)
        with Image.open(path) as image:
            height = round(image.height * WIDTH / image.width)
            small = image.convert("RGB").resize((WIDTH, height), Image.Resampling.LANCZOS)
        small.quantize(128).save(path, optimize=True)


if __name__ == "__main__":
    main()
