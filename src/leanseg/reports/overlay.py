"""Slices of a scan with contours of label maps, shown the way radiologists look at them.

All pictures are made in world space: scan and label maps are brought to the orientation
(left, posterior, superior) first, whatever order they are stored in, so the patient's right is
at the left of axial and coronal pictures, anterior is up in axial ones, superior in the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import RecipeError
from leanseg.volumes import Volume, reorient, resample

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Plane = Literal["axial", "coronal", "sagittal"]

REFERENCE_COLOUR = "#00d5ff"
PREDICTION_COLOUR = "#ffab00"
# With several labels, one hue a label (Okabe and Ito's, without black) for both contours.
LABEL_COLOURS = ("#56b4e9", "#e69f00", "#009e73", "#f0e442", "#cc79a7", "#d55e00", "#0072b2")

_NORMAL_AXIS: dict[Plane, int] = {"sagittal": 0, "coronal": 1, "axial": 2}
_LETTERS: dict[Plane, tuple[str, str, str]] = {  # at the left, the right and the top
    "axial": ("R", "L", "A"),
    "coronal": ("R", "L", "S"),
    "sagittal": ("A", "P", "S"),
}
# Width of a panel over its height.
_WIDEST_PANEL = 2.0
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
class OverlayInput:
    """A scan and its label maps on one grid in the orientation "LPS".

    Attributes:
        image: The scan, one channel.
        reference: Label map of the image's shape, or None.
        prediction: Label map of the image's shape, or None.
    """

    image: Volume
    reference: NDArray[Any] | None
    prediction: NDArray[Any] | None

    @classmethod
    def from_volumes(
        cls,
        image: Volume,
        reference: Volume | None,
        prediction: Volume | None,
        channel: int = 0,
    ) -> OverlayInput:
        """Bring scan and label maps, stored in any orientation, to the same grid.

        Args:
            image: The scan; of a 4-D one, `channel` is shown.
            reference: Label map, on the scan's grid or another one.
            prediction: Label map, on the scan's grid or another one.
            channel: Index of the channel to show.
        """
        array = image.array if image.array.ndim == 3 else image.array[..., channel]
        upright = reorient(Volume(array, image.affine, image.path), "LPS")
        return cls(upright, _on_grid(reference, upright), _on_grid(prediction, upright))

    def position_mm(self, view: SliceView) -> float:
        """World coordinate (RAS+) of the slice's centre along the normal of its plane, in mm."""
        axis = _NORMAL_AXIS[view.plane]
        voxel = (np.array(self.image.shape, dtype=np.float64) - 1) / 2
        voxel[axis] = view.index
        return float((self.image.affine[:3, :3] @ voxel + self.image.affine[:3, 3])[axis])


def _on_grid(labels: Volume | None, grid: Volume) -> NDArray[Any] | None:
    if labels is None:
        return None
    upright = reorient(Volume(labels.array, labels.affine, labels.path), "LPS")
    same = upright.shape == grid.shape and np.allclose(upright.affine, grid.affine, atol=1e-2)
    if not same:
        upright = resample(upright, grid, interpolation="nearest")
    return upright.array


def choose_slices(
    reference: NDArray[Any] | None, prediction: NDArray[Any] | None
) -> tuple[SliceView, ...]:
    """The slices that tell most about a prediction.

    The axial slice with the largest reference area (the largest predicted area where there is
    no reference), the axial slice with most voxels on which the two disagree, and the coronal
    slice with the largest reference area. Where the first two are one slice, it comes once.

    Args:
        reference: Label map (i, j, k) in the orientation "LPS", 0 is background; or None.
        prediction: Likewise, of the same shape.
    """
    given = [array != 0 for array in (reference, prediction) if array is not None]
    if not given:
        msg = "there is no label map to choose slices by; name the slices to show"
        raise RecipeError(msg)
    if not any(mask.any() for mask in given):
        _, j, k = (length // 2 for length in given[0].shape)
        middle = "middle of the scan"
        return SliceView("axial", k, middle), SliceView("coronal", j, middle)
    by_reference = reference is not None and bool(given[0].any())
    shown = given[0] if by_reference else given[-1]
    what = "largest reference area" if by_reference else "largest predicted area"
    largest = int(shown.sum(axis=(0, 1)).argmax())
    coronal = SliceView("coronal", int(shown.sum(axis=(0, 2)).argmax()), what)
    if reference is None or prediction is None or not (reference != prediction).any():
        return SliceView("axial", largest, what), coronal
    worst = int((reference != prediction).sum(axis=(0, 1)).argmax())
    if worst == largest:
        return SliceView("axial", largest, f"{what} and largest disagreement"), coronal
    return (
        SliceView("axial", largest, what),
        SliceView("axial", worst, "largest disagreement"),
        coronal,
    )


def grey_window(image: Volume) -> tuple[float, float]:
    """Grey values to show as black and white: percentiles 1 and 99.5 of the non-zero voxels."""
    sample = image.array[::2, ::2, ::2].astype(np.float32, copy=False).ravel()
    sample = sample[np.isfinite(sample)]
    if (sample != 0).any():
        sample = sample[sample != 0]
    if not sample.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(sample, (1.0, 99.5)))
    return (low, high) if low < high else (low, low + 1.0)


def slice_pixels(array: NDArray[Any], view: SliceView) -> NDArray[Any]:
    """The slice as rows from the top and columns from the left of the picture.

    Args:
        array: Voxels (i, j, k) in the orientation "LPS".
        view: Which slice.

    Returns:
        A view, (rows, columns).
    """
    if view.plane == "axial":
        return array[:, :, view.index].T
    if view.plane == "coronal":
        return array[:, view.index, ::-1].T
    return array[view.index, :, ::-1].T


def pixel_size_mm(image: Volume, view: SliceView) -> tuple[float, float]:
    """Height and width of a pixel of the slice, in mm."""
    i, j, k = image.spacing_mm
    return {"axial": (j, i), "coronal": (k, i), "sagittal": (k, j)}[view.plane]


def draw_slice(
    axes: Axes,
    scene: OverlayInput,
    view: SliceView,
    *,
    labels: Mapping[str, int] | None = None,
    window: tuple[float, float] | None = None,
    line_width: float = 1.4,
) -> None:
    """Draw one slice: grey values, reference contours solid, predicted contours dashed.

    The axes are in mm from the upper left corner of the slice. Contours run on the edges
    between pixels inside and outside a label.

    Args:
        axes: Where to draw.
        scene: Scan and label maps.
        view: Which slice.
        labels: Label name to value in the maps; None draws every value that is not 0 as one.
        window: Grey values shown as black and white; None takes `grey_window`.
        line_width: Of the contours, in points; the letters at the sides are 6 times as large.
    """
    height, width = pixel_size_mm(scene.image, view)
    grey = slice_pixels(scene.image.array, view)
    rows, columns = grey.shape
    low, high = grey_window(scene.image) if window is None else window
    axes.imshow(
        np.nan_to_num(grey.astype(np.float32), nan=low, posinf=high, neginf=low),
        cmap="gray",
        vmin=low,
        vmax=high,
        interpolation="bilinear",
        extent=(0, columns * width, rows * height, 0),
        aspect="equal",
    )
    # The contours' rim of background would widen the axes by half a pixel on every side.
    axes.autoscale(False)
    for values, reference_colour, prediction_colour in _colours(labels):
        for array, colour, dashes in (
            (scene.reference, reference_colour, "solid"),
            (scene.prediction, prediction_colour, (0, (3.0, 2.0))),
        ):
            if array is None:
                continue
            pixels = slice_pixels(array, view)
            mask = pixels != 0 if values is None else pixels == values
            if mask.any():
                _contour(axes, mask, (height, width), colour, dashes, line_width)
    axes.set_axis_off()
    _write_directions(axes, view.plane, 6 * line_width)


def _colours(labels: Mapping[str, int] | None) -> list[tuple[int | None, str, str]]:
    """Value in the label map (None: all but 0), colour of reference and of prediction."""
    if labels is None:
        return [(None, REFERENCE_COLOUR, PREDICTION_COLOUR)]
    if len(labels) == 1:
        return [(next(iter(labels.values())), REFERENCE_COLOUR, PREDICTION_COLOUR)]
    hues = [LABEL_COLOURS[n % len(LABEL_COLOURS)] for n in range(len(labels))]
    return [(value, hue, hue) for value, hue in zip(labels.values(), hues, strict=True)]


def _contour(
    axes: Axes,
    mask: NDArray[np.bool_],
    pixel_mm: tuple[float, float],
    colour: str,
    dashes: Any,
    line_width: float,
) -> None:
    # A rim of background closes contours of labels that touch the border of the slice.
    padded = np.pad(mask, 1).astype(np.float32)
    y = (np.arange(padded.shape[0]) - 0.5) * pixel_mm[0]
    x = (np.arange(padded.shape[1]) - 0.5) * pixel_mm[1]
    axes.contour(
        x, y, padded, levels=[0.5], colors=[colour], linestyles=[dashes], linewidths=line_width
    )


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


def slice_figure(
    scene: OverlayInput,
    view: SliceView,
    *,
    labels: Mapping[str, int] | None = None,
    window: tuple[float, float] | None = None,
    longest_side_px: int = 640,
) -> Figure:
    """One slice as a figure without margins, in the true proportions of the body.

    Args:
        scene: Scan and label maps.
        view: Which slice.
        labels: Label name to value in the maps; None draws every value that is not 0 as one.
        window: Grey values shown as black and white.
        longest_side_px: Pixels of the longer side at 100 dots per inch.
    """
    from matplotlib.figure import Figure

    rows, columns = slice_pixels(scene.image.array, view).shape
    pixel_height, pixel_width = pixel_size_mm(scene.image, view)
    height_mm, width_mm = rows * pixel_height, columns * pixel_width
    scale = longest_side_px / _DPI / max(height_mm, width_mm)
    # A very long thin slice keeps at least one row of dots.
    figsize = (max(width_mm * scale, 0.1), max(height_mm * scale, 0.1))
    figure = Figure(figsize=figsize, dpi=_DPI, facecolor="black")
    axes = figure.add_axes((0, 0, 1, 1))
    draw_slice(axes, scene, view, labels=labels, window=window, line_width=2.2)
    return figure


def overlay_figure(
    image: Volume,
    reference: Volume | None,
    prediction: Volume | None,
    *,
    slices: Sequence[SliceView] | None = None,
    labels: Mapping[str, int] | None = None,
    window: tuple[float, float] | None = None,
    channel: int = 0,
    title: str | None = None,
    panel_height_inch: float = 3.4,
) -> Figure:
    """Slices of one case side by side, with captions and a legend, for pages and papers.

    Args:
        image: The scan, in any orientation.
        reference: Label map drawn in solid lines, in any orientation; or None.
        prediction: Label map drawn in dashed lines, in any orientation; or None.
        slices: What to show; None takes `choose_slices`.
        labels: Label name to value in the maps; None draws every value that is not 0 as one.
        window: Grey values shown as black and white, such as (-150, 200) HU; None takes
            percentiles of the scan.
        channel: Which channel of a 4-D scan to show.
        title: Written above.
        panel_height_inch: Height of the panels.

    Returns:
        A figure; `figure.savefig(path)` writes it.

    Raises:
        RecipeError: If there is neither a label map nor a choice of slices.
    """
    from matplotlib.figure import Figure

    scene = OverlayInput.from_volumes(image, reference, prediction, channel)
    if slices is None:
        slices = choose_slices(scene.reference, scene.prediction)
    widths = []
    for view in slices:
        rows, columns = slice_pixels(scene.image.array, view).shape
        height, width = pixel_size_mm(scene.image, view)
        # A scan of few slices is low and wide; its panel is drawn lower instead of wider.
        widths.append(min(columns * width / (rows * height), _WIDEST_PANEL))
    figure = Figure(
        figsize=(panel_height_inch * sum(widths) + 0.2, panel_height_inch + 0.9),
        dpi=150,
        layout="constrained",
    )
    panels = figure.subplots(1, len(slices), squeeze=False, width_ratios=widths)[0]
    for axes, view in zip(panels, slices, strict=True):
        draw_slice(axes, scene, view, labels=labels, window=window)
        axes.set_title(caption(scene, view), fontsize=8)
    if title is not None:
        figure.suptitle(title, fontsize=10)
    _add_legend(figure, labels, scene)
    return figure


def caption(scene: OverlayInput, view: SliceView) -> str:
    """Plane, position in mm and reason, such as "axial, z = 31.5 mm: largest disagreement"."""
    axis = "xyz"[_NORMAL_AXIS[view.plane]]
    position = f"{scene.position_mm(view):.1f}".replace("-", "\N{MINUS SIGN}")
    reason = f": {view.reason}" if view.reason else ""
    return f"{view.plane}, {axis} = {position} mm{reason}"


def _add_legend(figure: Figure, labels: Mapping[str, int] | None, scene: OverlayInput) -> None:
    from matplotlib.lines import Line2D

    names = list(labels) if labels is not None and len(labels) > 1 else [""]
    handles = []
    for name, (_, reference, prediction) in zip(names, _colours(labels), strict=True):
        for array, role, colour, style in (
            (scene.reference, "reference", reference, "solid"),
            (scene.prediction, "prediction", prediction, "dashed"),
        ):
            if array is not None:
                text = f"{name} {role}".strip()
                handles.append(Line2D([], [], color=colour, ls=style, label=text))
    figure.legend(handles=handles, loc="outside lower center", ncols=6, fontsize=8, frameon=False)
