"""Small bowel, colon, and the mesentery between them."""

from __future__ import annotations

import numpy as np

from leanseg.datasets.phantom.canvas import AIR_HU, Canvas
from leanseg.datasets.phantom.fields import Point, along, curve
from leanseg.datasets.phantom.organs import vessel_tree
from leanseg.datasets.phantom.patient import Patient


def paint_mesentery(canvas: Canvas, patient: Patient) -> None:
    """Small vessels in the fat around the bowel."""
    region = canvas.region((-115, -95, -190), (115, 40, 40))
    y, z = canvas.y[region], canvas.z[region]
    web = np.minimum(
        vessel_tree(canvas, patient, region, 1.9),
        np.abs(canvas.sample(patient.twigs[0], region)) * 6
        + np.abs(canvas.sample(patient.twigs[1], region)) * 6
        - 1.3,
    )
    web = np.maximum(np.maximum(web, canvas.wall[region] + 8), np.maximum((z - 25) * 0.5, y - 22))
    canvas.paint(region, web, patient.hu["portal"] - 15)


def paint_small_bowel(canvas: Canvas, patient: Patient) -> None:
    """Packed loops: enhancing wall with feathery folds, grey content, a little gas."""
    loops, cut = patient.bowel, np.isnan(patient.bowel[:, 0])
    parts = np.split(loops, np.flatnonzero(cut))
    parts = [part[~np.isnan(part[:, 0])] for part in parts]
    gap = np.full((1, 3), np.nan)
    points = np.vstack([row for part in parts if len(part) > 1 for row in (curve(part), gap)])
    region, distance = canvas.tube(points, 11.8)
    lobules, lumps = canvas.sample(patient.lobules, region), canvas.sample(patient.lumps, region)
    outer = np.maximum(distance + 0.9 * lobules + 1.3 * lumps, canvas.wall[region] + 5)
    folds = np.clip(canvas.sample(patient.twigs[1], region), -1.5, 1.5)
    wall = patient.hu["bowel_wall"] + 6 * canvas.texture[region]
    canvas.paint(region, outer, wall)
    content = patient.hu["bowel_content"] + 16 * lumps + 14 * folds
    lumen = outer + 2.4 + 2.2 * np.clip(folds, 0, 2) + 1.5 * np.clip(lumps, 0, 2)
    canvas.paint(region, lumen, content, soft_mm=2.5)
    gas = np.maximum(lumen + 0.5, (2.6 - patient.gas - lumps - 0.5 * lobules) * 6)
    canvas.paint(region, gas, AIR_HU + 60)


_COLON: list[Point] = [
    (-88.0, 2.0, -185.0),
    (-101.0, 16.0, -120.0),
    (-100.0, 4.0, -80.0),
    (-84.0, -50.0, -66.0),
    (-45.0, -84.0, -58.0),
    (5.0, -88.0, -52.0),
    (55.0, -82.0, -30.0),
    (90.0, -56.0, 2.0),
    (104.0, -10.0, 18.0),
    (108.0, 24.0, -24.0),
    (106.0, 32.0, -80.0),
    (98.0, 20.0, -185.0),
]
_COLON_RADII = [24.0, 23.0, 21.0, 19.0, 19.0, 20.0, 19.0, 18.0, 17.0, 15.0, 14.0, 14.0]


def paint_colon(canvas: Canvas, patient: Patient) -> None:
    """Colon: haustra, stool mottled with gas, and gas in front of it."""
    points = [patient.place("colon", point) for point in _COLON]
    size = patient.sizes["colon"]
    axis = curve(points, 6.0)
    radii = along(points, [radius * size for radius in _COLON_RADII], 6.0)
    radii = radii * (1 + 0.1 * np.sin(np.arange(len(radii)) * 6.0 / 5.2))
    region, distance = canvas.tube(axis, radii, margin_mm=10)
    lobules, lumps = canvas.sample(patient.lobules, region), canvas.sample(patient.lumps, region)
    outer = np.maximum(distance + 1.6 * lobules + 2.0 * lumps, canvas.wall[region] + 4)
    canvas.paint(region, outer - 1.5, patient.hu["fat"] + 6)
    canvas.paint(region, outer, patient.hu["bowel_wall"] - 12 + 5 * canvas.texture[region])
    lumen = outer + 2.6
    grain = canvas.sample(patient.grain, region)
    stool = patient.hu["bowel_content"] + 10 + 12 * grain + 10 * lobules
    stool = stool - 700 * np.clip((grain + 0.45 * lobules - 1.05) * 2.2, 0, 1)
    canvas.paint(region, lumen, stool, soft_mm=2.0)
    # Gas gathers in front: the more of it, the farther back its level.
    y = canvas.y[region]
    level = (y + 84 - 26 * patient.gas + 7 * lumps + 3 * lobules) * 0.8
    canvas.paint(region, np.maximum(lumen + 0.3, level), AIR_HU + 40)
