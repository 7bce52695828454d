"""Painting a patient on the scan's grid, tissue over tissue.

Painting in order leaves no gaps and no overlaps: a voxel has the tissue and the label of what was
painted last over its centre.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leanseg.datasets.phantom.anatomy import Organ, Part, Patient
from leanseg.datasets.phantom.shapes import (
    Array,
    ellipsoid,
    round_cone,
    smooth_curve,
    smooth_union,
)

Region = tuple[slice, slice, slice]
_WARP_MM = 4.0
_MARGIN_MM = 10.0
_EVERYWHERE: Region = (slice(None), slice(None), slice(None))


class Canvas:
    """Tissues and labels on a grid, and the coordinates in which anatomy is drawn.

    Attributes:
        axes: Patient coordinates in mm (left, posterior, superior), three 1-D float32 arrays.
        at: Coordinates (i, j, k) in the average anatomy, displaced smoothly, three arrays.
        tissue: Place of each voxel's tissue among the patient's (i, j, k); the first is air.
        label: Label map (i, j, k).
        wall: Distance (i, j, k) to the inner surface of the trunk's wall.
        dome: Distance (i, j, k) above the diaphragm.
    """

    def __init__(self, axes: tuple[Array, Array, Array], patient: Patient) -> None:
        self.axes, self.patient = axes, patient
        self._sampled: dict[str, Array] = {}
        grid = np.meshgrid(*(axis / np.float32(patient.size) for axis in axes), indexing="ij")
        self.at = [
            coordinate + np.float32(_WARP_MM) * self.field(f"warp_{name}")
            for coordinate, name in zip(grid, "xyz", strict=True)
        ]
        self.tissue: NDArray[np.uint8] = np.zeros(grid[0].shape, np.uint8)
        self.label: NDArray[np.uint8] = np.zeros(grid[0].shape, np.uint8)
        self._indices = {name: index for index, name in enumerate(patient.tissues)}
        x, y, z = self.at
        self.wall = _wall(x, y)
        self.dome = (z - _diaphragm_height(x, y)) * np.float32(0.72)

    def field(self, name: str, region: Region = _EVERYWHERE) -> Array:
        """One of the patient's random fields on a region."""
        if name not in self._sampled:
            self._sampled[name] = self.patient.fields[name](self.axes)
        return self._sampled[name][region]

    def region(self, points: Array, reach: float) -> Region:
        """Indices of the box that can hold what lies within `reach` of points (n, 3)."""
        reach += 3 * _WARP_MM
        low, high = (points.min(axis=0) - reach), (points.max(axis=0) + reach)
        i, j, k = (
            slice(*np.searchsorted(axis, np.multiply(ends, self.patient.size)).tolist())
            for axis, *ends in zip(self.axes, low, high, strict=True)
        )
        return i, j, k

    def paint(self, region: Region, distance: Array, tissue: str, label: int | None = 0) -> None:
        """Paint a tissue on a region where the distance is negative; no label leaves the labels."""
        inside = distance < 0
        self.tissue[region][inside] = self._indices[tissue]
        if label is not None:
            self.label[region][inside] = label

    def grey_values(self) -> Array:
        """Grey values (i, j, k) in HU, float32, with the texture of each tissue."""
        hu, grain, lumps = np.array(list(self.patient.tissues.values()), np.float32).T
        texture = grain[self.tissue] * self.field("grain") + lumps[self.tissue] * self.field(
            "lumps"
        )
        return np.asarray(hu[self.tissue] + texture)


def paint_patient(canvas: Canvas) -> None:
    """The whole patient on the scanner's table; what comes later covers what came before."""
    _paint_table(canvas)
    _paint_trunk(canvas)
    _paint_bowel(canvas)
    for organ in canvas.patient.organs:
        paint_organ(canvas, organ)


def paint_organ(canvas: Canvas, organ: Organ) -> None:
    """A row of the table: its fat, itself, and what it holds."""
    spots = np.concatenate([part.points for part in organ.parts])
    largest = max(float(part.radii.max()) for part in organ.parts) * max(organ.flatten, 1.0)
    region = canvas.region(spots, largest + _MARGIN_MM)
    if 0 in canvas.label[region].shape:
        return
    lumps, lobules = canvas.field("lumps", region), canvas.field("lobules", region)
    outer = _shape(canvas, region, organ)
    outer += organ.lumps_mm * lumps + organ.lobules_mm * lobules
    side = {"abdomen": 1, "chest": -1}.get(organ.inside)
    if side is not None:
        outer = -smooth_union(-outer, -canvas.wall[region] - 4.5, 6.0)
        outer = -smooth_union(-outer, -side * canvas.dome[region] - 4.5, 6.0)
    if organ.gap_mm:
        # Nothing where neighbours touch, more elsewhere.
        gap = np.clip(organ.gap_mm * (0.6 + lumps), -0.4, _MARGIN_MM - 3)
        canvas.paint(region, outer - gap, "fat")
    canvas.paint(region, outer, organ.tissue, organ.label)
    if organ.core:
        patches = -8 * canvas.field("loops", region) - 1
        canvas.paint(region, np.maximum(outer + 7, patches), organ.core, None)
    if organ.vessels_mm:
        web = np.maximum(_winding_vessels(canvas, region, organ.vessels_mm), outer + 6)
        canvas.paint(region, web, "portal", None)
    if organ.wall_mm:
        lumen = outer + organ.wall_mm + 0.3 * organ.wall_mm * lobules
        canvas.paint(region, lumen, organ.content, None)
        if organ.gas is not None:
            # The patient lies on the back: gas is in front of a level.
            front = canvas.at[1][region] - organ.gas
            canvas.paint(region, np.maximum(lumen + 0.4, front), "gas", None)


def _shape(canvas: Canvas, region: Region, organ: Organ) -> Array:
    everywhere = np.full(canvas.label.shape, _MARGIN_MM, np.float32)
    distance = everywhere[region]
    for part in organ.parts:
        if len(part.points) > 1:
            _add_tube(canvas, part, organ.flatten, everywhere)
            continue
        at = [coordinate[region] for coordinate in canvas.at]
        other = ellipsoid(at, part.points[0].tolist(), part.radii.tolist())
        if part.carved:
            distance = -smooth_union(-distance, other, 10.0)
        else:
            distance = smooth_union(distance, other, organ.blend_mm)
    return distance


def _add_tube(canvas: Canvas, part: Part, flatten: float, distance: Array) -> None:
    """Add a chain of round cones to the distances on the canvas, each only where it is near."""
    points, radii = smooth_curve(part.points, part.radii)
    for n in range(len(points) - 1):
        ends, both = points[n : n + 2], radii[n : n + 2]
        near = canvas.region(ends, float(both.max()) * max(flatten, 1.0) + _MARGIN_MM)
        at = [coordinate[near] for coordinate in canvas.at]
        view = distance[near]
        np.minimum(view, round_cone(at, ends, both.tolist(), flatten), out=view)


def _winding_vessels(canvas: Canvas, region: Region, radius_mm: float) -> Array:
    """Distance to the winding curves on which two random fields are zero."""
    first, second = canvas.field("vessels", region), canvas.field("vessels_too", region)
    return np.asarray(np.sqrt(first**2 + second**2) * 11.0 - radius_mm, np.float32)


def _wall(x: Array, y: Array) -> Array:
    """Distance to the inner surface of the wall: between an ellipse and a box."""
    reach = np.sqrt(x * x + (y + 14) ** 2) + np.float32(1e-3)
    radius = ((np.abs(x) / 133) ** 2.4 + (np.abs(y + 14) / 88) ** 2.4) ** (1 / 2.4)
    return np.asarray(reach * (1 - 1 / (radius + 1e-3)), np.float32)


def _diaphragm_height(x: Array, y: Array) -> Array:
    """Height in mm of the relaxed diaphragm above the first lumbar vertebra."""
    right = np.exp(-(((x + 62) / 64) ** 2) - ((y + 6) / 70) ** 2)
    left = np.exp(-(((x - 72) / 58) ** 2) - ((y - 2) / 66) ** 2)
    centre = np.exp(-(((x - 6) / 46) ** 2) - ((y + 34) / 58) ** 2)
    return np.asarray(14 + 84 * right + 86 * left + 40 * centre, np.float32)


def _paint_table(canvas: Canvas) -> None:
    """The scanner's table under the patient: two thin curved shells."""
    patient, x, y = canvas.patient, canvas.axes[0][:, None, None], canvas.axes[1][None, :, None]
    back_mm = (76 + 29 * patient.muscle + 0.62 * patient.fat_mm + 14) * patient.size
    below = y - back_mm + 0.0004 * x**2
    shells = np.minimum(np.abs(below - 3), np.abs(below - 40)) - 1.7
    shells = np.maximum(shells, np.abs(x) - 215)
    canvas.paint(_EVERYWHERE, np.broadcast_to(shells, canvas.label.shape), "table")


def _paint_trunk(canvas: Canvas) -> None:
    """Skin, fat under it, the wall's muscle, the fat inside, diaphragm and lungs."""
    x, y, _ = canvas.at
    patient, wall, dome = canvas.patient, canvas.wall, canvas.dome
    lumps = canvas.field("lumps")
    back = np.clip((y + 14) / (np.sqrt(x * x + (y + 14) ** 2) + 1), 0, 1) ** 4
    muscle = wall - (13 + 19 * back + 0.6 * lumps) * patient.muscle
    skin = muscle - np.maximum(patient.fat_mm * (0.8 + 0.3 * back) + 5 + lumps, 4)
    # Small vessels in the fat, fat between the muscles.
    streaks = np.abs(canvas.field("loops")) * 10 - 0.6
    canvas.paint(_EVERYWHERE, skin, "skin")
    canvas.paint(_EVERYWHERE, skin + 2.2, "fat")
    canvas.paint(_EVERYWHERE, np.maximum(skin + 4, streaks), "streaks")
    canvas.paint(_EVERYWHERE, np.maximum(muscle, -streaks), "muscle")
    canvas.paint(_EVERYWHERE, wall, "fat")
    canvas.paint(_EVERYWHERE, np.maximum(-dome - 3, wall), "muscle")
    lung = np.maximum(-dome, wall + 3)
    canvas.paint(_EVERYWHERE, lung, "lung")
    bronchi = _winding_vessels(canvas, _EVERYWHERE, 2.0)
    canvas.paint(_EVERYWHERE, np.maximum(lung, bronchi), "muscle")


def _paint_bowel(canvas: Canvas) -> None:
    """Small bowel: loops where a random field is high, in the fat of the mesentery."""
    region = canvas.region(np.array([[-130.0, -95.0, -190.0], [130.0, 25.0, 30.0]]), 0)
    if 0 in canvas.label[region].shape:
        return
    x, y, z = (coordinate[region] for coordinate in canvas.at)
    lobules, lumps = canvas.field("lobules", region), canvas.field("lumps", region)
    room = np.maximum(canvas.wall[region] + 5, np.maximum(z - 20, y - 12 - 8 * lumps))
    canvas.paint(region, np.maximum(_winding_vessels(canvas, region, 1.9), room), "portal")
    # None in front of the liver and around the pancreas.
    room = np.maximum(room, np.maximum(-40 - x - 0.6 * (z + 60), 0) + (z + 20) * 0.5 - 12)
    outer = np.maximum((0.15 - canvas.field("loops", region)) * 11 + 0.8 * lobules, room)
    canvas.paint(region, outer, "bowel_wall")
    canvas.paint(region, outer + 3, "bowel_content")
    gas = np.maximum(outer + 4, (1.5 - lumps) * 10 + 0.2 * (y + 50))
    canvas.paint(region, gas, "gas")
