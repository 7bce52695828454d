"""The pancreas, from the head in the duodenal sweep to the tail at the spleen, and its tumour."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leanseg.datasets.phantom.canvas import Canvas
from leanseg.datasets.phantom.fields import Array, Point, SmoothField, along, curve
from leanseg.datasets.phantom.organs import LABELS, fat_gap
from leanseg.datasets.phantom.patient import Patient

_PATH: list[Point] = [
    (-33.0, -13.0, -32.0),
    (-31.0, -17.0, -16.0),
    (-22.0, -26.0, -4.0),
    (-5.0, -35.0, 5.0),
    (18.0, -34.0, 12.0),
    (42.0, -19.0, 20.0),
    (62.0, 2.0, 23.0),
    (79.0, 17.0, 27.0),
]
_RADII = [12.0, 14.5, 11.5, 9.0, 9.5, 10.5, 10.5, 7.5]
_UNCINATE: list[Point] = [(-29.0, -12.0, -26.0), (-15.0, -6.0, -32.0)]


def path(patient: Patient) -> list[Point]:
    """The gland's own axis, from head to tail, in average anatomy."""
    return [patient.place("pancreas", point) for point in _PATH]


def paint_pancreas(canvas: Canvas, patient: Patient, tumour: Tumour | None) -> None:
    """Lobulated gland with fat in its clefts and the duct, wider upstream of a tumour."""
    points = path(patient)
    size = patient.sizes["pancreas"]
    axis, radii = curve(points, 4.0), along(points, [r * size for r in _RADII], 4.0)
    uncinate = [patient.place("pancreas", point) for point in _UNCINATE]
    gap = np.full((1, 3), np.nan)
    axis = np.concatenate([axis, gap, np.asarray(uncinate)])
    radii = np.concatenate([radii, [0.0], [10.0 * size, 8.0 * size]])
    region, distance = canvas.tube(axis, radii, flatten=1.2)
    lobules = canvas.sample(patient.lobules, region)
    lumps = canvas.sample(patient.lumps, region)
    gland = distance + 1.5 * lobules + 0.9 * lumps
    canvas.paint(region, gland - fat_gap(canvas, patient, region, 1.0), patient.hu["fat"] + 14)
    clefts = 20 * np.clip(lobules - 0.4, 0, 1.5) * np.clip((gland + 7) / 6, 0, 1)
    hu = patient.hu["pancreas"] + 4 * canvas.texture[region] - clefts
    canvas.paint(region, gland, hu, LABELS["pancreas"], soft_mm=1.2)
    duct = 0.9
    start = len(axis)
    if tumour is not None:
        start, duct = tumour.path_index, 1.9
    wide = curve(points, 4.0)[2:-2]
    for part, radius in ((wide[: start + 1], 0.9), (wide[start:], duct)):
        if len(part) > 1:
            where, tube = canvas.tube(part, radius, margin_mm=3)
            canvas.paint(where, tube, 25.0, None, soft_mm=1.5)


class Tumour:
    """A round, lobulated, poorly enhancing mass of a given diameter, partly outside the gland.

    Attributes:
        diameter_mm: Of the sphere with the tumour's volume.
        centre_mm: Patient coordinates.
        path_index: Where the duct behind it begins to be wide.
    """

    def __init__(
        self, generator: np.random.Generator, patient: Patient, diameter_mm: float
    ) -> None:
        self.diameter_mm = diameter_mm
        axis = curve(path(patient), 4.0)
        along_gland = float(generator.choice([0.16, 0.55, 0.82], p=[0.6, 0.25, 0.15]))
        along_gland += float(generator.uniform(-0.05, 0.05))
        self.path_index = max(int(along_gland * len(axis)), 1)
        # Off the axis, forward: behind the gland lie the large vessels.
        radius = diameter_mm / 2
        off = generator.normal(0, 0.12, 3) * radius + np.array([0.0, -0.3 * radius, 0.0])
        centre = axis[self.path_index] + off
        self.centre_mm = patient.locate((float(centre[0]), float(centre[1]), float(centre[2])))
        self._surface = SmoothField(generator, float(np.clip(radius, 7, 14)))

    def distance(self, canvas: Canvas, region: tuple[slice, slice, slice]) -> Array:
        """Distance in mm of the patient, undistorted by the warp."""
        px, py, pz = (
            (axis[part] - np.float32(c))
            for axis, part, c in zip(canvas.axes, region, self.centre_mm, strict=True)
        )
        r = np.sqrt(px[:, None, None] ** 2 + py[None, :, None] ** 2 + pz[None, None, :] ** 2)
        uneven = 0.055 * self.diameter_mm * canvas.sample(self._surface, region)
        return np.asarray(r - self.diameter_mm / 2 + np.clip(uneven, -3, 3), np.float32)


def paint_tumour(canvas: Canvas, patient: Patient, tumour: Tumour) -> None:
    """Darker than the gland with a blurred rim; large ones have a necrotic core."""
    centre: NDArray[np.float64] = np.asarray(tumour.centre_mm) / patient.size
    reach = tumour.diameter_mm / 2 / patient.size + 8
    low, high = centre - reach, centre + reach
    region = canvas.region(
        (float(low[0]), float(low[1]), float(low[2])),
        (float(high[0]), float(high[1]), float(high[2])),
    )
    distance = tumour.distance(canvas, region) / np.float32(canvas.size)
    grain = canvas.sample(patient.grain, region)
    hu = patient.hu["pancreas"] - patient.hu["tumour_contrast"] + 4 * grain
    core = np.clip((-distance - 6) / 5, 0, 1)
    hu = hu - 16 * core
    canvas.paint(region, distance, hu, LABELS["pancreatic_tumour"], soft_mm=2.0)
