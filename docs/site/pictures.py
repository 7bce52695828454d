"""The pictures of docs/concepts.md, drawn from a phantom through leanseg's own frames and places.

python docs/site/pictures.py docs/pictures
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

import leanseg
from leanseg.frames import Place, ScanSource, ScanView
from leanseg.frames.intensity import fit_intensity
from leanseg.plan import StageSettings

WINDOW = leanseg.Intensity(window="organ-hu")
COLOURS = ("tab:orange", "tab:cyan", "tab:green", "tab:pink")


def seen(scan: leanseg.Volume, frame: leanseg.Frame) -> ScanSource:
    """The scan as a network with this frame would read it."""
    view = ScanView(scan, frame.orientation)
    return ScanSource(
        view, StageSettings(frame=frame, intensity=WINDOW, patch=leanseg.Patch(8, 8, 8))
    )


def show(axes: Axes, image: np.ndarray, title: str) -> None:
    """One slice (i, j), first axis to the right."""
    axes.imshow(image.T, cmap="gray", interpolation="nearest")
    axes.set_title(title, fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])


def frames(scan: leanseg.Volume, k: int) -> Figure:
    """A slice as stored, and in three frames."""
    figure = Figure(figsize=(9, 2.7), layout="constrained")
    panels = figure.subplots(1, 4)
    i, j, _ = scan.shape
    show(
        panels[0], np.clip(scan.array[:, :, k], -160, 240), f"stored: {i} x {j}, {scan.orientation}"
    )
    for axes, (title, own) in zip(
        panels[1:],
        {
            "axes: [128, 128, null]": (128, 128, None),
            "axes: [48, 48, null]": (48, 48, None),
            "spacing_mm: 10, 10": ({"spacing_mm": 10}, {"spacing_mm": 10}, None),
        }.items(),
        strict=True,
    ):
        source = seen(scan, leanseg.Frame(orientation="LPS", axes=own))
        image = source.read(Place.slice(source.shape, k))[0, :, :, 0]
        show(axes, image, f"{title}\n{image.shape[0]} x {image.shape[1]}, LPS")
    return figure


def places(scan: leanseg.Volume, k: int) -> Figure:
    """Patches in a frame, and which slices two kinds of patches hold."""
    figure = Figure(figsize=(9, 3), layout="constrained")
    first, second = figure.subplots(1, 2, width_ratios=(1, 1.7))
    source = seen(scan, leanseg.Frame(axes=(96, 96, None)))
    show(
        first,
        source.read(Place.slice(source.shape, k))[0, :, :, 0],
        "three of nine patches of 48 x 48,\noverlap 0.5",
    )
    # Three of the nine, so that the overlap can be seen.
    for colour, start in zip(COLOURS, (0, 24, 48), strict=False):
        place = Place.box((start, start, k), (48, 48, 1))
        corner = (place.i[0] - 0.5, place.j[0] - 0.5)
        first.add_patch(Rectangle(corner, 48, 48, fc=colour, ec=colour, lw=2, alpha=0.35))
    n, depth = 16, 4
    for row, (name, groups) in enumerate(
        {
            "slices: interleaved": [range(g, n, n // depth) for g in range(n // depth)],
            "slices: adjacent, overlap 0": [range(g, g + depth) for g in range(0, n, depth)],
            "neighbours: 1 (2.5-D), slice 6": [range(5, 8)],
            "a random subset (training)": [
                sorted(np.random.default_rng(3).choice(n, depth, False))
            ],
        }.items()
    ):
        second.text(-0.8, row, name, ha="right", va="center", fontsize=9)
        for index in range(n):
            second.add_patch(Rectangle((index, row - 0.35), 0.8, 0.7, fc="0.9", ec="none"))
        for colour, group in zip(COLOURS, groups, strict=False):
            for index in group:
                second.add_patch(Rectangle((index, row - 0.35), 0.8, 0.7, fc=colour, ec="none"))
    second.set(xlim=(-8.5, n), ylim=(3.6, -1))
    second.set_title("16 slices of a frame; one colour is what a network sees at once", fontsize=9)
    second.set_axis_off()
    return figure


def intensities(scan: leanseg.Volume, k: int) -> Figure:
    """A slice under four windows."""
    figure = Figure(figsize=(9, 2.7), layout="constrained")
    for axes, (title, window) in zip(
        figure.subplots(1, 4),
        {
            "kind: none": {"kind": "none"},
            "organ-hu: -160 to 240": "organ-hu",
            "hu, 0 to 120": {"kind": "hu", "low": 0, "high": 120},
            "organ: quantiles 0.60 to 0.99": "organ",
        }.items(),
        strict=True,
    ):
        transform = fit_intensity(scan.array, leanseg.Intensity(window=window))
        show(axes, transform.apply(scan.array[:, :, k]), title)
    return figure


def stages(scan: leanseg.Volume, label: leanseg.Volume, k: int) -> Figure:
    """An organ that a first stage found, and what a second one sees around it."""
    figure = Figure(figsize=(9, 3), layout="constrained")
    whole, found, near = figure.subplots(1, 3)
    image = np.clip(scan.array[:, :, k], -160, 240)
    organ = label.array[:, :, k] > 6  # pancreas and its tumour
    (i, j), margin = np.nonzero(organ), 8
    left, right, top, bottom = (
        i.min() - margin,
        i.max() + margin,
        j.min() - margin,
        j.max() + margin,
    )
    show(whole, image, "the scan")
    show(found, image, "stage 1 finds the pancreas")
    found.contour(organ.T, levels=[0.5], colors=COLOURS[0], linewidths=1.5)
    found.add_patch(
        Rectangle((left, top), right - left, bottom - top, fill=False, ec=COLOURS[1], lw=1.5)
    )
    show(near, image[left:right, top:bottom], "stage 2 sees the region around it")
    return figure


def main(folder: Path) -> None:
    """Draws all of them."""
    with tempfile.TemporaryDirectory() as scratch:
        case = leanseg.phantom(Path(scratch) / "p", 1, size=192, slices=60, tumour_mm=20)[0]
        scan, label = (leanseg.reorient(each, "RPS") for each in (case.image, case.label))
    k = int(np.argmax((label.array > 6).sum(axis=(0, 1))))
    drawn = {
        "concept-frame": frames(scan, k),
        "concept-place": places(scan, k),
        "concept-intensity": intensities(scan, k),
        "concept-stage": stages(scan, label, k),
    }
    for name, figure in drawn.items():
        path = folder / f"{name}.png"
        figure.savefig(path, dpi=110)
        Image.open(path).convert("RGB").convert(
            "P", palette=Image.Palette.ADAPTIVE, colors=200
        ).save(path, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
