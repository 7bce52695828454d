"""A slice of a scan with contours of label maps, shown the way radiologists look at it.

Scan and label maps are brought to the orientation (left, posterior, superior) first, whatever
order they are stored in, so the patient's right is at the left of axial and coronal pictures,
anterior is up in axial ones, superior in the others.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from leanseg.volumes import Volume, on_grid_of, reorient

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Plane = Literal["axial", "coronal", "sagittal"]

REFERENCE_COLOUR = "#00d5ff"
PREDICTION_COLOUR = "#ffab00"
# With several labels, one hue a label for both contours: Okabe and Ito's with a light violet for
# black, which would not be seen.
LABEL_COLOURS = (
    "#56b4e9",
    "#e69f00",
    "#009e73",
    "#f0e442",
    "#cc79a7",
    "#d55e00",
    "#0072b2",
    "#b4a7ff",
)

_NORMAL_AXIS: dict[Plane, int] = {"sagittal": 0, "coronal": 1, "axial": 2}
_LETTERS: dict[Plane, tuple[str, str, str]] = {  # at the left, the right and the top
    "axial": ("R", "L", "A"),
    "coronal": ("R", "L", "S"),
    "sagittal": ("A", "P", "S"),
}
_DPI = 100


@dataclass(frozen=True)
class SliceView:
    """One slice worth looking at.

    Attributes:
        plane: "axial", "coronal" or "sagittal".
        index: Number of the slice in the scan brought to the orientation "LPS".
        reason: Why it was chosen, for the caption.
    """

    plane: Plane
    index: int
    reason: str = ""


@dataclass(frozen=True)
class Scene:
    """A scan and its label maps on one grid in the orientation "LPS".

    Attributes:
        image: The scan, one channel.
        reference: Label map of the image's shape, drawn solid; or None.
        prediction: Label map of the image's shape, drawn dashed; or None.
    """

    image: Volume
    reference: NDArray[Any] | None = None
    prediction: NDArray[Any] | None = None

    @classmethod
    def from_volumes(
        cls,
        image: Volume,
        reference: Volume | None = None,
        prediction: Volume | None = None,
        *,
        ignored: int | None = None,
    ) -> Scene:
        """Bring a scan and its label maps, stored in any orientation, to the same grid.

        Args:
            image: The scan, (i, j, k).
            reference: Label map, on the scan's grid or another one.
            prediction: Label map, on the scan's grid or another one.
            ignored: Value in the reference of voxels that do not count; both maps become
                background there.
        """
        upright = reorient(image, "LPS")
        maps = [
            None if labels is None else on_grid_of(upright, labels).array
            for labels in (reference, prediction)
        ]
        if ignored is not None and maps[0] is not None:
            counted = maps[0] != ignored
            maps = [None if each is None else each * counted for each in maps]
        return cls(upright, *maps)

    def pixels(self, array: NDArray[Any], view: SliceView) -> NDArray[Any]:
        """The slice of an array (i, j, k), rows from the top, columns from the left."""
        section: NDArray[Any] = array.take(view.index, axis=_NORMAL_AXIS[view.plane]).T
        # The third axis leads up, but rows lead down.
        return section if view.plane == "axial" else section[::-1]

    def pixel_size_mm(self, view: SliceView) -> tuple[float, float]:
        """Height and width of a pixel of the slice, in mm."""
        width, height = np.delete(self.image.spacing_mm, _NORMAL_AXIS[view.plane])
        return float(height), float(width)

    def caption(self, view: SliceView) -> str:
        """Plane, world position (RAS+) and reason: "axial, z = 31.5 mm: largest area"."""
        axis = _NORMAL_AXIS[view.plane]
        voxel = np.append((np.array(self.image.shape) - 1) / 2, 1.0)
        voxel[axis] = view.index
        position = f"{(self.image.affine @ voxel)[axis]:.1f}".replace("-", "\N{MINUS SIGN}")
        reason = f": {view.reason}" if view.reason else ""
        return f"{view.plane}, {'xyz'[axis]} = {position} mm{reason}"


def choose_slices(scene: Scene) -> tuple[SliceView, ...]:
    """The slices that tell most about a prediction.

    The axial slice with the largest reference area (the largest predicted area where there is
    no reference), the axial slice with most voxels on which the two disagree, and the coronal
    slice with the largest area. Where the first two are one slice, it comes once; where there is
    no label at all, the middle of the scan is shown.
    """
    maps = {"reference": scene.reference, "predicted": scene.prediction}
    labelled = [(name, m != 0) for name, m in maps.items() if m is not None and m.any()]
    if not labelled:
        _, j, k = (length // 2 for length in scene.image.shape)
        middle = "middle of the scan"
        return SliceView("axial", k, middle), SliceView("coronal", j, middle)
    name, shown = labelled[0]
    what, largest = f"largest {name} area", int(shown.sum(axis=(0, 1)).argmax())
    axial = [SliceView("axial", largest, what)]
    if scene.reference is not None and scene.prediction is not None:
        wrong = (scene.reference != scene.prediction).sum(axis=(0, 1))
        worst = int(wrong.argmax())
        if wrong[worst] and worst == largest:
            axial = [SliceView("axial", largest, f"{what} and largest disagreement")]
        elif wrong[worst]:
            axial.append(SliceView("axial", worst, "largest disagreement"))
    return *axial, SliceView("coronal", int(shown.sum(axis=(0, 2)).argmax()), what)


def preview_png(
    image: Volume,
    labels: Volume,
    names: Mapping[str, Sequence[int]],
    *,
    window: tuple[float, float] | None = None,
    longest_side_px: int = 1500,
) -> bytes:
    """A scan with the contours of its labels in three planes, side by side in one scale, as a PNG.

    Each plane is the slice with the largest labelled area, or the middle where nothing is found.

    Args:
        image: The scan, (i, j, k).
        labels: The label map, on its grid.
        names: Label name to its own value, which comes first, and those inside it.
        window: Grey values shown as black and white.
        longest_side_px: Pixels of the picture's longer side.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    # As a reference, whose contours are solid.
    scene = Scene.from_volumes(image, labels)
    assert scene.reference is not None
    found = scene.reference != 0
    values = {name: own[0] for name, own in names.items()}
    views = []
    for plane in _LETTERS:
        areas = found.sum(axis=tuple({0, 1, 2} - {_NORMAL_AXIS[plane]}))
        middle = len(areas) // 2
        reason = "largest area" if areas.any() else "nothing found"
        views.append(SliceView(plane, int(areas.argmax()) if areas.any() else middle, reason))
    sizes = []
    for view in views:
        rows, columns = scene.pixels(found, view).shape
        height, width = scene.pixel_size_mm(view)
        sizes.append((rows * height, columns * width))
    # A strip for captions above, one for names below, in inches.
    above, n_columns = 0.3, 6
    below = 0.25 + 0.2 * -(-len(values) // n_columns)
    wide, high = sum(width for _, width in sizes), max(height for height, _ in sizes)
    scale = longest_side_px / _DPI / max(wide, high)
    size = np.maximum((wide * scale, high * scale), (6.0, 0.5))
    figure = Figure(figsize=(size[0], size[1] + above + below), dpi=_DPI, facecolor="black")
    left, total = (size[0] - wide * scale) / 2, size[1] + above + below
    for view, (height, width) in zip(views, sizes, strict=True):
        bottom = below + (size[1] - height * scale) / 2
        box = (left / size[0], bottom / total, width * scale / size[0], height * scale / total)
        axes = figure.add_axes(box)
        draw_slice(axes, scene, view, labels=values, window=window)
        axes.set_title(scene.caption(view), color="white", fontsize=8, pad=4)
        left += width * scale
    lines = [
        Line2D([], [], color=colour, label=name)
        for name, (_, colour, _) in zip(values, label_colours(values), strict=True)
    ]
    style: dict[str, Any] = {"labelcolor": "white", "fontsize": 9, "frameon": False}
    figure.legend(handles=lines, loc="lower center", ncols=n_columns, **style)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def grey_window(image: Volume) -> tuple[float, float]:
    """Grey values to show as black and white: percentiles 1 and 99.5 of the non-zero voxels."""
    sample = image.array[::2, ::2, ::2].astype(np.float32, copy=False)
    sample = sample[np.isfinite(sample) & (sample != 0)]
    if not sample.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(sample, (1.0, 99.5)))
    return (low, high) if low < high else (low, low + 1.0)


def label_colours(labels: Mapping[str, int]) -> list[tuple[int, str, str]]:
    """For each label: value in the label map, colour of reference and of prediction."""
    if len(labels) == 1:
        return [(value, REFERENCE_COLOUR, PREDICTION_COLOUR) for value in labels.values()]
    hues = [LABEL_COLOURS[n % len(LABEL_COLOURS)] for n in range(len(labels))]
    return [(value, hue, hue) for value, hue in zip(labels.values(), hues, strict=True)]


def draw_slice(
    axes: Axes,
    scene: Scene,
    view: SliceView,
    *,
    labels: Mapping[str, int],
    window: tuple[float, float] | None = None,
    line_width: float = 1.4,
) -> None:
    """Draw one slice: grey values, reference contours solid, predicted contours dashed.

    The axes are in mm from the upper left corner of the slice.

    Args:
        axes: Where to draw.
        scene: Scan and label maps.
        view: Which slice.
        labels: Label name to value in the maps.
        window: Grey values shown as black and white, such as (-150, 200) HU; None takes
            `grey_window`.
        line_width: Of the contours, in points; the letters at the sides are 6 times as large.
    """
    height, width = scene.pixel_size_mm(view)
    grey = scene.pixels(scene.image.array, view)
    low, high = grey_window(scene.image) if window is None else window
    axes.imshow(
        np.nan_to_num(grey.astype(np.float32), nan=low, posinf=high, neginf=low),
        cmap="gray",
        vmin=low,
        vmax=high,
        interpolation="bilinear",
        extent=(0, grey.shape[1] * width, grey.shape[0] * height, 0),
    )
    # The contours' rim of background would widen the axes by half a pixel on every side.
    axes.autoscale(False)
    for value, *colours in label_colours(labels):
        maps = (scene.reference, scene.prediction)
        for array, colour, dashes in zip(maps, colours, ("-", (0, (3.0, 2.0))), strict=True):
            if array is None:
                continue
            # A rim of background closes contours of labels that touch the border of the slice.
            mask = np.pad(scene.pixels(array, view) == value, 1)
            if mask.any():
                y, x = ((np.arange(n) - 0.5) for n in mask.shape)
                style: Any = {"colors": [colour], "linestyles": [dashes], "linewidths": line_width}
                axes.contour(x * width, y * height, mask, levels=[0.5], **style)
    axes.set_axis_off()
    _write_directions(axes, view.plane, 6 * line_width)


def _write_directions(axes: Axes, plane: Plane, letter_size: float) -> None:
    from matplotlib.patheffects import withStroke

    left, right, top = _LETTERS[plane]
    # The dark rim keeps the letters readable on bone and on air alike.
    style: dict[str, Any] = {
        "transform": axes.transAxes,
        "color": "white",
        "fontsize": letter_size,
        "path_effects": [withStroke(linewidth=2.5, foreground="black")],
    }
    axes.text(0.015, 0.5, left, ha="left", va="center", **style)
    axes.text(0.985, 0.5, right, ha="right", va="center", **style)
    axes.text(0.5, 0.985, top, ha="center", va="top", **style)


def slice_png(
    scene: Scene,
    view: SliceView,
    *,
    labels: Mapping[str, int],
    window: tuple[float, float] | None = None,
    longest_side_px: int = 640,
) -> bytes:
    """One slice as a PNG file without margins, in the true proportions of the body.

    Args:
        scene: Scan and label maps.
        view: Which slice.
        labels: Label name to value in the maps.
        window: Grey values shown as black and white.
        longest_side_px: Pixels of the longer side.
    """
    from matplotlib.figure import Figure

    rows, columns = scene.pixels(scene.image.array, view).shape
    pixel_height, pixel_width = scene.pixel_size_mm(view)
    size_mm = np.array([columns * pixel_width, rows * pixel_height])
    # A very long thin slice keeps at least one row of dots.
    figsize = np.maximum(size_mm / size_mm.max() * longest_side_px / _DPI, 0.1)
    figure = Figure(figsize=tuple(figsize), dpi=_DPI, facecolor="black")
    draw_slice(
        figure.add_axes((0, 0, 1, 1)), scene, view, labels=labels, window=window, line_width=2.2
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
