"""The large vessels: aorta, vena cava, portal system, renal and mesenteric vessels."""

from __future__ import annotations

from leanseg.datasets.phantom.canvas import Canvas
from leanseg.datasets.phantom.fields import Point, along, curve
from leanseg.datasets.phantom.organs import LABELS
from leanseg.datasets.phantom.pancreas import path
from leanseg.datasets.phantom.patient import Patient

_AORTA: list[Point] = [(13.0, 16.0, 200.0), (12.0, 11.0, 60.0), (9.0, 7.0, 0.0), (5.0, 8.0, -98.0)]
_CAVA: list[Point] = [
    (-29.0, -8.0, 120.0),
    (-28.0, 2.0, 70.0),
    (-23.0, 10.0, 0.0),
    (-19.0, 13.0, -104.0),
]


def paint_veins(canvas: Canvas, patient: Patient) -> None:
    """Veins, then the smaller arteries over them."""
    cava, portal, artery = patient.hu["cava"], patient.hu["portal"], patient.hu["aorta"]
    _vessel(canvas, patient, _CAVA, [11.5, 11.0, 10.5, 9.5], cava, 0.3)
    for side in (-1, 1):
        iliac = [(-19.0, 13.0, -102.0), (-14.0 + side * 20, 20.0, -135.0), (side * 42.0, 30, -185)]
        _vessel(canvas, patient, iliac, [8.0, 7.0, 7.0], cava, 1.0)
    left = [(50.0, 20.0, -6.0), (30.0, -2.0, -9.0), (6.0, -6.0, -12.0), (-16.0, 6.0, -14.0)]
    _vessel(canvas, patient, left, [3.4, 3.6, 2.8, 3.8], cava, 0.6)
    right = [(-50.0, 24.0, -22.0), (-36.0, 16.0, -20.0), (-26.0, 10.0, -18.0)]
    _vessel(canvas, patient, right, [3.2, 3.5, 4.0], cava, 0.6)
    neck = patient.place("pancreas", (-9.0, -20.0, 0.0))
    mesenteric = [neck, (-9.0, -25.0, -26.0), (-10.0, -36.0, -75.0), (-22.0, -44.0, -125.0)]
    _vessel(canvas, patient, mesenteric, [5.6, 5.2, 4.2, 2.6], portal, 0.9)
    trunk = [neck, (-24.0, -16.0, 24.0), (-42.0, -20.0, 40.0), (-64.0, -20.0, 46.0)]
    _vessel(canvas, patient, trunk, [6.4, 6.4, 5.6, 3.8], portal, 0.3)
    _vessel(canvas, patient, [trunk[2], (-18.0, -46.0, 56.0)], [4.4, 3.0], portal, 0.2)
    behind = [(x, y + 11.5, z + 2) for x, y, z in path(patient)[3:]]
    splenic = [neck, *behind, patient.place("spleen", (84.0, 24.0, 46.0))]
    _vessel(canvas, patient, splenic, [4.2] + [3.5] * len(behind) + [3.0], portal, 0.4)
    renal_left = [(14.0, 9.0, 2.0), (32.0, 16.0, 0.0), (50.0, 26.0, -2.0)]
    renal_right = [(6.0, 9.0, -10.0), (-20.0, 22.0, -13.0), (-48.0, 27.0, -18.0)]
    for renal in (renal_left, renal_right):
        _vessel(canvas, patient, renal, [2.5, 2.1, 1.9], artery - 8, 0.5)


def paint_arteries(canvas: Canvas, patient: Patient) -> None:
    """Superior mesenteric artery in its collar of fat, coeliac trunk, aorta."""
    artery = patient.hu["aorta"]
    superior = [(9.0, -2.0, 4.0), (7.0, -14.0, -8.0), (4.0, -24.0, -42.0), (-2.0, -40.0, -120.0)]
    _vessel(canvas, patient, superior, [3.6, 3.4, 3.0, 2.2], artery - 4, 3.2)
    coeliac = [(10.0, 0.0, 22.0), (8.0, -15.0, 25.0), (-20.0, -24.0, 33.0)]
    _vessel(canvas, patient, coeliac, [3.2, 2.8, 2.2], artery - 6, 0.8)
    for side in (-1, 1):
        iliac = [(5.0, 8.0, -96.0), (5.0 + side * 17, 10.0, -130.0), (side * 46.0, 22.0, -185.0)]
        _vessel(canvas, patient, iliac, [6.6, 5.6, 5.2], artery, 0.8)
    region, distance = canvas.tube(curve(_AORTA), along(_AORTA, [12.5, 11.5, 10.5, 8.5]))
    canvas.paint(region, distance - 1.6, patient.hu["fat"] + 12)
    canvas.paint(region, distance, artery + 2.5 * canvas.texture[region], LABELS["aorta"])


def _vessel(
    canvas: Canvas,
    patient: Patient,
    points: list[Point],
    radii: list[float],
    hu: float,
    collar_mm: float,
) -> None:
    region, distance = canvas.tube(curve(points), along(points, radii))
    canvas.paint(region, distance - collar_mm, patient.hu["fat"] + 14)
    canvas.paint(region, distance, hu + 2.5 * canvas.texture[region])
