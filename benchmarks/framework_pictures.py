"""Pictures of paper 002's windows, augmentations and stack, for docs/framework.md.

python benchmarks/framework_pictures.py DATA FOLDER
python benchmarks/framework_pictures.py DATA FOLDER RUN RUN STACK

The second draws the cases where a stack gains most, the median, and where it loses most.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from study_framework import dice_of

import leanseg
from leanseg.frames.intensity import fit_intensity
from leanseg.reports.overlay import Scene, choose_slices, draw_slice
from leanseg.reports.samples import draw_samples, samples_figure
from leanseg.training import load_recipe

WINDOWS = ("organ", "bone", "lung", "organ-hu", "bone-hu", "lung-hu")
WIDTH = 800


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


def stack(data: leanseg.Dataset, runs: list[Path]) -> Figure:
    """The same slices by two members' runs and by their stack, the last of `runs`."""
    dice = [dice_of(run) for run in runs]
    best = {case: max(each[case][1] for each in dice[:-1]) for case in dice[-1]}
    order = sorted(best, key=lambda case: dice[-1][case][1] - best[case], reverse=True)
    shown = [order[0], order[len(order) // 2], order[-1]]
    figure = Figure(figsize=(9, 9.6), layout="constrained")
    for row, name in zip(figure.subplots(3, len(runs)), shown, strict=True):
        case = next(case for case in data if case.name == name)
        for axes, run, each in zip(row, runs, dice, strict=True):
            (path,) = run.glob(f"fold_*/test/predictions/{name}.nii.gz")
            scene = Scene.from_volumes(case.image, case.label, leanseg.read(path))
            view = choose_slices(scene)[0]
            draw_slice(axes, scene, view, labels=data.labels, window=(-160, 240))
            axes.set_title(f"{run.name}, {name}: Dice {each[name][1]:.3f}", fontsize=9)
    return figure


def main() -> None:
    """Draw and shrink."""
    data, folder, runs = leanseg.open_dataset(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    if runs:
        write({"stack": stack(data, [Path(run) for run in runs])}, folder)
        return
    figures = {"windows": windows(next(iter(data)))}
    for name in ("ctia", "mia"):
        recipe = load_recipe(f"{name}-nnunet-3d-liver")
        figures[name] = samples_figure(draw_samples(recipe, data, 2, 0))
    write(figures, folder)


def write(figures: dict[str, Figure], folder: Path) -> None:
    """As small PNG files."""
    for name, figure in figures.items():
        path = folder / f"{name}.png"
        figure.savefig(path, dpi=120)
        with Image.open(path) as image:
            height = round(image.height * WIDTH / image.width)
            small = image.convert("RGB").resize((WIDTH, height), Image.Resampling.LANCZOS)
        small.quantize(48, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()
