"""Painting a patient on the scan's grid, tissue over tissue.

Painting in order leaves no gaps and no overlaps. A voxel takes of a tissue the part that the
tissue covers (partial volume), and its label if the voxel's centre lies inside.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from leanseg.datasets.phantom.anatomy import Organ, Part, Patient
from leanseg.datasets.phantom.shapes import (
    Array,
    ellipse,
    ellipsoid,
    round_cone,
    smooth_curve,
    smooth_union,
)

Region = tuple[slice, slice, slice]
AIR_HU = -1000.0
_WARP_MM = 4.0
_MARGIN_MM = 10.0
_EVERYWHERE: Region = (slice(None), slice(None), slice(None))
_VERTEBRA_MM, _RIB_PERIOD_MM = 34.0, 28.0


class Canvas:
    """Grey values and labels on a grid, and the coordinates in which anatomy is drawn.

    Attributes:
        axes: Patient coordinates in mm (left, posterior, superior), three 1-D arrays.
        at: Coordinates (i, j, k) in the average anatomy, displaced smoothly, three arrays.
        hu: Grey values (i, j, k).
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
        self.hu: Array = np.full(grid[0].shape, AIR_HU, np.float32)
        self.label: NDArray[np.uint8] = np.zeros(grid[0].shape, np.uint8)
        self._sharp_mm = float(axes[0][1] - axes[0][0]) / patient.size
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
            slice(int(a), int(b))
            for a, b in (
                np.searchsorted(axis, (start * self.patient.size, stop * self.patient.size))
                for axis, start, stop in zip(self.axes, low, high, strict=True)
            )
        )
        return i, j, k

    def paint(
        self,
        region: Region,
        distance: Array,
        hu: Array | float,
        label: int | None = 0,
        soft_mm: float = 0.0,
    ) -> None:
        """Paint a tissue where the distance is negative.

        Args:
            region: Where.
            distance: Shape of the region, in mm of the average anatomy.
            hu: Grey value, one or for every voxel of the region.
            label: Label of the tissue; None leaves the labels as they are.
            soft_mm: Width of a surface that is not sharp in the body.
        """
        part = np.clip(0.5 - distance / max(self._sharp_mm, soft_mm), 0, 1)
        values = self.hu[region]
        values += part * (hu - values)
        if label is not None:
            self.label[region][distance < 0] = label


def paint_patient(canvas: Canvas) -> None:
    """The whole patient; who comes later takes the place of who came before."""
    _paint_trunk(canvas)
    _paint_chest(canvas)
    _paint_bowel(canvas)
    for organ in canvas.patient.organs:
        paint_organ(canvas, organ)
    _paint_spine(canvas)
    _paint_ribs(canvas)


def paint_organ(canvas: Canvas, organ: Organ) -> None:
    """A row of the table: its fat, itself, and what it holds."""
    hu = canvas.patient.hu
    spots = np.concatenate([part.points for part in organ.parts])
    largest = max(float(part.radii.max()) for part in organ.parts) * max(organ.flatten, 1.0)
    region = canvas.region(spots, largest + _MARGIN_MM)
    if 0 in canvas.hu[region].shape:
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
        canvas.paint(region, outer - gap, hu["fat"] + 10)
    grey = hu[organ.tissue] + 4 * canvas.field("grain", region) + 2 * lumps
    if organ.core:
        patches = np.clip(1.2 * canvas.field("loops", region) + 0.6, 0, 1)
        grey += hu[organ.core] * np.clip((-outer - 6) / 3, 0, 1) * patches
    canvas.paint(region, outer, grey, organ.label, organ.soft_mm)
    if organ.vessels_mm:
        web = np.maximum(_winding_vessels(canvas, region, organ.vessels_mm), outer + 6)
        canvas.paint(region, web, hu["portal"] + 15, None, soft_mm=2.5)
    if organ.wall_mm:
        _paint_lumen(canvas, organ, region, outer + organ.wall_mm + 1.2 * lobules)


def _paint_lumen(canvas: Canvas, organ: Organ, region: Region, lumen: Array) -> None:
    lumps, lobules = canvas.field("lumps", region), canvas.field("lobules", region)
    content = canvas.patient.hu[organ.content] + 12 * np.clip(lumps, 0, 2) + 8 * lobules
    canvas.paint(region, lumen, content, None, soft_mm=2.0)
    if organ.gas is not None:
        # The patient lies on the back: gas is in front of a level.
        surface = canvas.at[1][region] - organ.gas
        canvas.paint(region, np.maximum(lumen + 0.4, surface), AIR_HU + 30, None)


def _shape(canvas: Canvas, region: Region, organ: Organ) -> Array:
    distance = np.full(canvas.hu[region].shape, _MARGIN_MM, np.float32)
    for part in organ.parts:
        if len(part.points) == 1:
            at = [coordinate[region] for coordinate in canvas.at]
            other = ellipsoid(at, part.points[0].tolist(), part.radii.tolist())
        else:
            other = _tube(canvas, region, part, organ.flatten)
        if part.carved:
            distance = -smooth_union(-distance, other, 10.0)
        elif organ.blend_mm:
            distance = smooth_union(distance, other, organ.blend_mm)
        else:
            np.minimum(distance, other, out=distance)
    return distance


def _tube(canvas: Canvas, region: Region, part: Part, flatten: float) -> Array:
    """Distance to a chain of round cones, each looked at only where it is near."""
    distance = np.full(canvas.hu[region].shape, _MARGIN_MM, np.float32)
    points, radii = smooth_curve(part.points, part.radii)
    for n in range(len(points) - 1):
        ends, both = points[n : n + 2], radii[n : n + 2]
        near = canvas.region(ends, float(both.max()) * max(flatten, 1.0) + _MARGIN_MM)
        at = [coordinate[near] for coordinate in canvas.at]
        within = tuple(
            slice(max(a.start - b.start, 0), max(a.stop - b.start, 0))
            for a, b in zip(near, region, strict=True)
        )
        view = distance[within]
        np.minimum(view, round_cone(at, ends, both.tolist(), flatten), out=view)
    return distance


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


def _paint_trunk(canvas: Canvas) -> None:
    """Skin, fat under it, the wall's muscle, and the fat inside."""
    x, y, _ = canvas.at
    patient, hu, wall = canvas.patient, canvas.patient.hu, canvas.wall
    lumps, grain, loops = (canvas.field(name) for name in ("lumps", "grain", "loops"))
    back = np.clip((y + 14) / (np.sqrt(x * x + (y + 14) ** 2) + 1), 0, 1) ** 4
    muscle_mm = (13 + 19 * back + 0.6 * lumps) * patient.muscle
    fat_mm = np.maximum(patient.fat_mm * (0.8 + 0.3 * back) + 5 + lumps, 4)
    skin = wall - muscle_mm - fat_mm
    # Septa and small vessels in the fat, fat between the muscles.
    streaks = np.exp(-((loops / 0.09) ** 2))
    canvas.paint(_EVERYWHERE, skin, 20.0)
    canvas.paint(_EVERYWHERE, skin + 2.2, hu["fat"] + 3 * grain + 25 * streaks)
    canvas.paint(_EVERYWHERE, wall - muscle_mm, hu["muscle"] + 4 * grain - 50 * streaks)
    canvas.paint(_EVERYWHERE, wall, hu["fat"] + 4 + 4 * grain + 3 * lumps)


def _paint_chest(canvas: Canvas) -> None:
    """The diaphragm, and the lungs with their bronchi."""
    hu, grain = canvas.patient.hu, canvas.field("grain")
    muscle = hu["muscle"] + 4 * grain
    canvas.paint(_EVERYWHERE, np.maximum(-canvas.dome - 3, canvas.wall), muscle)
    bronchi = np.clip(-_winding_vessels(canvas, _EVERYWHERE, 2.5), 0, 1)
    air = hu["lung"] + 18 * grain + 900 * bronchi
    canvas.paint(_EVERYWHERE, np.maximum(-canvas.dome, canvas.wall + 3), air)


def _paint_bowel(canvas: Canvas) -> None:
    """Small bowel: loops where a random field is high, in the fat of the mesentery."""
    region = canvas.region(np.array([[-130.0, -95.0, -190.0], [130.0, 25.0, 30.0]]), 0)
    if 0 in canvas.hu[region].shape:
        return
    x, y, z = (coordinate[region] for coordinate in canvas.at)
    hu = canvas.patient.hu
    lobules, lumps = canvas.field("lobules", region), canvas.field("lumps", region)
    web = _winding_vessels(canvas, region, 1.9)
    room = np.maximum(canvas.wall[region] + 5, np.maximum(z - 20, y - 12 - 8 * lumps))
    canvas.paint(region, np.maximum(web, room), hu["portal"] - 15, soft_mm=1.5)
    # None in front of the liver and around the pancreas.
    room = np.maximum(room, np.maximum(-40 - x - 0.6 * (z + 60), 0) + (z + 20) * 0.5 - 12)
    loops = canvas.field("loops", region)
    outer = np.maximum((0.15 - loops) * 11 + 0.8 * lobules, room)
    canvas.paint(region, outer, hu["bowel_wall"] + 5 * canvas.field("grain", region))
    content = hu["bowel_content"] + 12 * lobules + 10 * lumps
    canvas.paint(region, outer + 3, content, soft_mm=2.5)
    gas = np.maximum(outer + 4, (1.5 - lumps) * 10 + 0.2 * (y + 50))
    canvas.paint(region, gas, AIR_HU + 60)


def _paint_spine(canvas: Canvas) -> None:
    region = canvas.region(np.array([[-45.0, 12.0, -190.0], [45.0, 110.0, 190.0]]), 0)
    x, y, z = (coordinate[region] for coordinate in canvas.at)
    hu, grain, across = canvas.patient.hu, canvas.field("grain", region), np.abs(x)
    phase = z / _VERTEBRA_MM + 0.35
    level = phase - np.floor(phase)
    from_disc = np.minimum(level, 1 - level) * _VERTEBRA_MM
    body = ellipse(x, y, (0.0, 38.0), (23.5, 17.0)) + np.clip((from_disc - 4) / 6, 0, 2)
    pedicles = np.maximum(ellipse(across, y, (15.0, 58.0), (5.0, 10.0)), 7 - from_disc)
    spinous = np.maximum(ellipse(x, y, (0.0, 84.0), (4.0, 17.0)), 5 - from_disc)
    processes = np.maximum(ellipse(across, y, (26.0, 62.0), (15.0, 4.0)), 10 - from_disc)
    arch = np.minimum(np.minimum(pedicles, spinous), processes)
    arch = np.minimum(arch, np.abs(ellipse(x, y, (0.0, 61.5), (14.5, 11.5))) - 2.5)
    marrow = hu["marrow"] + 30 * grain
    canvas.paint(region, body, 92 + 4 * grain)
    for bone in (arch, np.maximum(body, 4 - from_disc)):
        canvas.paint(region, bone, hu["bone"] * 0.85)
        canvas.paint(region, bone + 2, marrow, soft_mm=2.5)
    canvas.paint(region, ellipse(x, y, (0.0, 61.5), (10.5, 8.0)), 30.0)


def _paint_ribs(canvas: Canvas) -> None:
    """Ribs run down around the wall: an axial slice cuts each as a long oblique ellipse."""
    x, y, z = canvas.at
    near = (canvas.wall > -1) & (canvas.wall < 15) & (z > -75)
    x, y, z, wall = (a[near] for a in (x, y, z, canvas.wall))
    angle = np.arctan2(np.abs(x), y + 14)
    drop = 78 * np.sin(np.clip(angle, 0, 2.2) * 0.7) ** 1.3 - 30 * np.clip(angle - 2.2, 0, 1)
    position = (z + drop - 8) / _RIB_PERIOD_MM
    number = np.round(position)
    # The lower a rib, the shorter; the foremost part is cartilage.
    end = np.select([number < 0, number < 1, number < 2, number < 3], [-9, 1.05, 1.6, 2.15], 2.9)
    off = (position - number) * _RIB_PERIOD_MM * 0.9
    rib = (np.sqrt((off / 6.3) ** 2 + ((wall - 6.2) / 3.7) ** 2) - 1) * 3.7
    rib = np.maximum(rib, np.maximum(angle - end, 0.22 - angle) * 90)
    hu = canvas.patient.hu
    values = canvas.hu[near]
    for distance, grey in ((rib, hu["bone"]), (rib + 1.8, hu["marrow"])):
        bone = np.where(angle > 2.35, 120.0, grey)
        values += np.clip(0.5 - distance / 1.5, 0, 1) * (bone - values)
    canvas.hu[near] = values


def paint_table(image: Array, axes: Sequence[Array], back_mm: float) -> None:
    """The scanner's table under the patient: two thin curved shells, where there is air."""
    x, y = axes[0][:, None], axes[1][None, :]
    surface = back_mm - 0.0004 * x**2
    shell = np.minimum(np.abs(y - surface - 3), np.abs(y - surface - 40)) - 1.7
    shell = np.maximum(shell, np.abs(x) - 215)
    part = np.clip(0.5 - shell, 0, 1)[:, :, None]
    image += np.where(image < -900, 0.9 * part * (90 - image), 0)
