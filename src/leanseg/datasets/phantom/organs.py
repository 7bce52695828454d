"""The solid organs and the stomach: liver, gallbladder, spleen, kidneys, stomach, duodenum."""

from __future__ import annotations

import numpy as np

from leanseg.datasets.phantom.canvas import AIR_HU, Canvas, Region
from leanseg.datasets.phantom.fields import (
    Array,
    Point,
    along,
    curve,
    ellipse,
    ellipsoid,
    smooth_intersection,
    smooth_union,
)
from leanseg.datasets.phantom.patient import Patient

LABELS: dict[str, int] = {
    "liver": 1,
    "spleen": 2,
    "right_kidney": 3,
    "left_kidney": 4,
    "stomach": 5,
    "aorta": 6,
    "pancreas": 7,
    "pancreatic_tumour": 8,
}


def vessel_tree(canvas: Canvas, patient: Patient, region: Region, radius_mm: float) -> Array:
    """Distance to a web of winding small vessels through the region."""
    first, second = (canvas.sample(field, region) for field in patient.vessels)
    return np.asarray(np.sqrt(first**2 + second**2) * 11.0 - radius_mm, np.float32)


def fat_gap(canvas: Canvas, patient: Patient, region: Region, mean_mm: float) -> Array:
    """Thickness of the fat between neighbours: nothing where they touch, more elsewhere."""
    lumps = canvas.sample(patient.lumps, region)
    return np.clip(mean_mm * (0.5 + 1.2 * lumps), -0.4, 3 * mean_mm)


def _scaled(patient: Patient, organ: str, radii: Point) -> Point:
    size = patient.sizes[organ]
    return radii[0] * size, radii[1] * size, radii[2] * size


def _inside_abdomen(canvas: Canvas, region: Region, gap_mm: float, shape: Array) -> Array:
    """The part of a shape that lies in the abdominal cavity, off its wall and the diaphragm."""
    bounds = smooth_intersection(canvas.wall[region] + gap_mm, canvas.dome[region] + 4.5, 4.0)
    return smooth_intersection(shape, bounds, 6.0)


def paint_liver(canvas: Canvas, patient: Patient) -> None:
    """Liver with its vessels, and the gallbladder in its bed."""
    region = canvas.region((-135, -110, -125), (95, 90, 125))
    x, y, z = canvas.at(region)
    right = ellipsoid(
        x, y, z, patient.place("liver", (-74, -6, 20)), _scaled(patient, "liver", (70, 90, 92))
    )
    left = ellipsoid(x + 0.0, y, z + 0.12 * x, patient.place("liver", (-2, -54, 62)), (68, 42, 40))
    liver = smooth_union(right, left, 22.0)
    liver = smooth_intersection(liver, -ellipse(x, y, (2.0, 34.0), (31.0, 38.0)), 10.0)
    hollow = ellipsoid(x, y, z, (-14.0, -20.0, -16.0), (44.0, 46.0, 52.0))
    liver = smooth_intersection(liver, -hollow, 14.0)
    # The kidney and its fat lie behind the liver, never within it.
    flank = ellipsoid(x, y, z, (-54.0, 57.0, -12.0), (45.0, 45.0, 82.0))
    liver = smooth_intersection(liver, -flank, 10.0)
    liver = liver + 1.5 * canvas.sample(patient.lumps, region)
    liver = _inside_abdomen(canvas, region, 4.0, liver)
    hu = patient.hu["liver"] + 4 * canvas.texture[region]
    hu += 2.5 * canvas.sample(patient.lumps, region)
    canvas.paint(region, liver - fat_gap(canvas, patient, region, 1.3), patient.hu["fat"] + 10)
    canvas.paint(region, liver, hu, LABELS["liver"])
    veins = np.maximum(vessel_tree(canvas, patient, region, 2.6), liver + 6)
    canvas.paint(region, veins, patient.hu["portal"] + 18, None, soft_mm=2.5)
    _paint_gallbladder(canvas, patient)


def _paint_gallbladder(canvas: Canvas, patient: Patient) -> None:
    points = [(-40.0, -34.0, 14.0), (-47.0, -50.0, -2.0), (-54.0, -62.0, -20.0)]
    region, distance = canvas.tube(curve(points), along(points, [4.0, 11.0, 13.5]))
    distance = np.maximum(distance, canvas.wall[region] + 6)
    canvas.paint(region, distance - 2.2, patient.hu["muscle"] + 20)
    canvas.paint(region, distance, patient.hu["gall"])


def paint_spleen(canvas: Canvas, patient: Patient) -> None:
    """Spleen, a shell against the left wall, hollowed by stomach and kidney."""
    region = canvas.region((35, -60, -30), (140, 95, 130))
    x, y, z = canvas.at(region)
    centre = patient.place("spleen", (98.0, 30.0, 62.0))
    spleen = ellipsoid(x, y, z - 0.25 * (y - 30), centre, _scaled(patient, "spleen", (43, 56, 55)))
    hollow = ellipsoid(x, y, z, (48.0, 4.0, 52.0), (38.0, 42.0, 62.0))
    spleen = smooth_intersection(spleen, -hollow, 8.0)
    spleen = spleen + 1.2 * canvas.sample(patient.lumps, region)
    spleen = _inside_abdomen(canvas, region, 4.5, spleen)
    hu = patient.hu["spleen"] + 4 * canvas.texture[region]
    canvas.paint(region, spleen - fat_gap(canvas, patient, region, 1.5), patient.hu["fat"] + 10)
    canvas.paint(region, spleen, hu, LABELS["spleen"])


def paint_kidneys(canvas: Canvas, patient: Patient) -> None:
    """Both kidneys in their fat: bright cortex, darker pyramids, fat and vessels in the sinus."""
    _paint_kidney(canvas, patient, "right_kidney", (-71.0, 32.0, -22.0), -1)
    _paint_kidney(canvas, patient, "left_kidney", (72.0, 31.0, -4.0), 1)


def _paint_kidney(canvas: Canvas, patient: Patient, organ: str, average: Point, side: int) -> None:
    cx, cy, cz = patient.place(organ, average)
    region = canvas.region((cx - 48, cy - 48, cz - 78), (cx + 48, cy + 48, cz + 78))
    x, y, z = canvas.at(region)
    w = z - cz
    # The upper pole lies nearer to the spine and farther back than the lower one.
    u = (x - cx) * side + 0.22 * w
    v = (y - cy) - 0.2 * w
    # The hilum faces forward and inward.
    lateral, forward = 0.84 * u + 0.54 * v, -0.54 * u + 0.84 * v
    outer = ellipsoid(
        lateral, forward, w, (0.0, 0.0, 0.0), _scaled(patient, organ, (26.5, 23.5, 53.0))
    )
    lumps = canvas.sample(patient.lumps, region)
    outer = outer + 0.9 * lumps
    sinus = ellipsoid(lateral, forward, w, (-16.0, 0.0, 0.0), (18.0, 9.0, 25.0))
    sinus = sinus + 2.6 * canvas.sample(patient.lobules, region)
    kidney = smooth_intersection(outer, -sinus, 3.0)
    halo = np.maximum(outer - 7 - 3 * lumps, canvas.wall[region] + 1)
    canvas.paint(region, halo, patient.hu["fat"] + 3 * canvas.texture[region])
    cortex = patient.hu["renal_cortex"]
    around = np.arctan2(forward, lateral)
    fan = np.sin(4.5 * around + 0.8 * lumps) * np.cos(w * 0.26 + 0.8 * lumps)
    pyramid = np.clip((-outer - 6) / 2.5, 0, 1) * np.clip(fan * 1.6 + 0.5, 0, 1)
    hu = cortex + 5 * canvas.texture[region] - patient.hu["renal_contrast"] * pyramid
    canvas.paint(region, kidney, hu, LABELS[organ])
    pelvis = ellipsoid(lateral, forward, w, (-17.0, 0.0, -2.0), (13.0, 4.5, 12.0))
    pelvis = np.maximum(pelvis + 1.5 * canvas.sample(patient.lobules, region), sinus + 1.5)
    canvas.paint(region, pelvis, 40.0)
    twigs = np.maximum(vessel_tree(canvas, patient, region, 1.8), sinus + 0.5)
    canvas.paint(region, twigs, patient.hu["cava"])


_STOMACH: list[Point] = [
    (50.0, 6.0, 92.0),
    (62.0, -16.0, 64.0),
    (60.0, -42.0, 36.0),
    (38.0, -62.0, 8.0),
    (8.0, -64.0, -6.0),
    (-20.0, -50.0, 0.0),
]
_STOMACH_RADII = [28.0, 29.5, 26.0, 20.5, 15.0, 11.0]


def paint_stomach(canvas: Canvas, patient: Patient) -> None:
    """Stomach: wall, fluid with some food, and air above the level (the patient lies supine)."""
    points = [patient.place("stomach", point) for point in _STOMACH]
    radii = along(points, [radius * patient.sizes["stomach"] for radius in _STOMACH_RADII])
    region, distance = canvas.tube(curve(points), radii, margin_mm=10)
    lobules = canvas.sample(patient.lobules, region)
    lumps = canvas.sample(patient.lumps, region)
    outer = _inside_abdomen(canvas, region, 4.0, distance + 1.8 * lumps)
    canvas.paint(region, outer - fat_gap(canvas, patient, region, 1.2), patient.hu["fat"] + 8)
    wall = patient.hu["stomach_wall"] + 4 * canvas.texture[region]
    canvas.paint(region, outer, wall, LABELS["stomach"])
    lumen = outer + 4.2 + 1.4 * lobules
    fluid = patient.hu["stomach_fluid"] + 14 * np.clip(lumps, 0, 2) + 5 * lobules
    canvas.paint(region, lumen, fluid, None)
    level = canvas.axes[1][region[1]][None, :, None] - patient.fluid_level_mm
    air = np.maximum(lumen + 0.4, level / canvas.size + 0 * lumen)
    canvas.paint(region, air, AIR_HU + 30, None)


_DUODENUM: list[Point] = [
    (-20.0, -50.0, 0.0),
    (-44.0, -38.0, 6.0),
    (-53.0, -14.0, -10.0),
    (-52.0, -4.0, -36.0),
    (-36.0, -6.0, -54.0),
    (-4.0, -14.0, -57.0),
    (24.0, -14.0, -44.0),
    (36.0, -30.0, -30.0),
]


def paint_duodenum(canvas: Canvas, patient: Patient) -> None:
    """Duodenum: the sweep around the head of the pancreas, grey as the pancreas is."""
    first = patient.place("stomach", _DUODENUM[0])
    points = [first, *(patient.place("pancreas", point) for point in _DUODENUM[1:])]
    radii = along(points, [11.0, 12.5, 11.5, 12.0, 11.0, 10.0, 10.0, 10.5])
    region, distance = canvas.tube(curve(points), radii)
    lobules = canvas.sample(patient.lobules, region)
    outer = distance + 1.1 * lobules
    canvas.paint(region, outer - fat_gap(canvas, patient, region, 0.8), patient.hu["fat"] + 12)
    wall = patient.hu["bowel_wall"] + 6 * canvas.texture[region]
    canvas.paint(region, outer, wall)
    lumen = outer + 3.2 + 1.6 * lobules
    content = patient.hu["bowel_content"] + 14 * canvas.sample(patient.lumps, region)
    canvas.paint(region, lumen, content, soft_mm=2.5)
