"""The trunk: outline, fat, muscle wall, diaphragm, lungs, heart, spine, ribs, pelvis."""

from __future__ import annotations

import numpy as np

from leanseg.datasets.phantom.canvas import Canvas
from leanseg.datasets.phantom.fields import Array, ellipse, ellipsoid, smooth_intersection
from leanseg.datasets.phantom.patient import Patient

_VERTEBRA_MM = 34.0
_RIB_PERIOD_MM = 28.0
_EVERYWHERE = (slice(None), slice(None), slice(None))


def paint_trunk(canvas: Canvas, patient: Patient) -> None:
    """Body, fat, wall, lungs and heart; sets the canvas's `wall` and `dome`."""
    x, y, z = canvas.x, canvas.y, canvas.z
    height = z[:1, :1, :]
    scale = 1 - 0.055 * ((height - 45) / 130) ** 2
    u, v = np.abs(x) / (133 * scale), np.abs(y + 14) / (88 * scale)
    # Nearly an ellipse in front, squarer behind.
    squarer = (u * u * np.sqrt(u) + v * v * np.sqrt(v)) ** np.float32(0.4)
    rounder = 0.6 * np.sqrt(u * u + v * v) + 0.4 * squarer
    radius = np.where(y < -14, rounder, squarer) + np.float32(1e-3)
    reach = np.sqrt(x * x + (y + 14) ** 2) + np.float32(1e-3)
    canvas.wall = reach * (1 - 1 / radius)
    backward = (y + 14) / reach
    lumps = canvas.sample(patient.lumps, _EVERYWHERE)
    muscle_mm, fat_mm = _layers(canvas, patient, backward, lumps)
    skin = canvas.wall - muscle_mm - fat_mm
    # Skin and fat: streaks of connective tissue, the skin itself 2 mm thick.
    streaks = _streaks(canvas, patient)
    fat = patient.hu["fat"] + 2.5 * canvas.texture + 34 * streaks
    canvas.paint(_EVERYWHERE, skin, 20.0)
    canvas.paint(_EVERYWHERE, skin + 2.2, fat)
    _paint_muscle(canvas, patient, muscle_mm, backward, streaks)
    visceral = patient.hu["fat"] + 4 + 4 * canvas.texture + 3 * lumps
    canvas.paint(_EVERYWHERE, canvas.wall, visceral)
    _paint_deep_muscles(canvas, patient, streaks)
    _paint_chest(canvas, patient)


def _layers(canvas: Canvas, patient: Patient, backward: Array, lumps: Array) -> tuple[Array, Array]:
    x, z = canvas.x, canvas.z
    back = np.clip(backward, 0, 1) ** 4
    front = np.clip(-backward, 0, 1) ** 4
    side = 1 - back - front
    low = np.clip((20 - z) / 100, 0, 1)
    muscle_mm = (13.0 + 19 * back - 2 * front + 4 * side * low + 0.6 * lumps) * patient.muscle
    groove = np.exp(-((x / 14) ** 2)) * back
    muscle_mm -= 4 * groove
    linea = np.exp(-((x / 7) ** 2)) * front
    muscle_mm -= 3.5 * linea
    share = 0.72 + 0.5 * side * low + 0.4 * back * low + 0.25 * front
    fat_mm = patient.fat_mm * share * (1 - 0.2 * groove) + 0.7 * lumps + 5 + 3.5 * linea
    return muscle_mm, np.maximum(fat_mm, 4)


def _streaks(canvas: Canvas, patient: Patient) -> Array:
    """0 to 1 on thin winding strands, as septa and small vessels make in fat."""
    first, second = (canvas.sample(field, _EVERYWHERE) for field in patient.twigs)
    strands = np.exp(-((first / 0.09) ** 2)) * np.clip(second, 0, 1)
    return np.asarray(strands, np.float32)


def _paint_muscle(
    canvas: Canvas, patient: Patient, muscle_mm: Array, backward: Array, streaks: Array
) -> None:
    depth = canvas.wall / muscle_mm
    lateral = np.clip(1 - np.abs(backward) ** 3 * 1.2, 0, 1)
    layers = np.exp(-(((depth - 0.4) / 0.07) ** 2)) + np.exp(-(((depth - 0.72) / 0.06) ** 2))
    low = np.clip((30 - canvas.z) / 60, 0.25, 1)
    fatty = 75 * layers * lateral * low + 55 * streaks
    muscle = patient.hu["muscle"] + 3 * canvas.texture - fatty
    canvas.paint(_EVERYWHERE, canvas.wall - muscle_mm, muscle)


def _paint_deep_muscles(canvas: Canvas, patient: Patient, streaks: Array) -> None:
    """Erector spinae and quadratus lumborum behind, psoas beside the spine."""
    region = canvas.region((-95, 15, -190), (95, 125, 190))
    x, y, z = canvas.at(region)
    across = np.abs(x)
    thin = patient.muscle
    erector = ellipse(across, y, (38.0, 76.0), (33 * thin, 21.0))
    hu = patient.hu["muscle"] + 3 * canvas.texture[region] - 80 * streaks[region]
    canvas.paint(region, np.maximum(erector, canvas.wall[region] - 24), hu)
    below = np.clip((12 - z) / 110, 0, 1)
    width = (9 + 15 * below) * thin
    away = np.sqrt((across - 32 - 15 * below) ** 2 + ((y - 38 - 4 * below) / 1.1) ** 2)
    psoas = np.maximum(away - width, (z - 14) * 0.6)
    canvas.paint(region, psoas, hu)
    lumbar = ellipse(across, y, (66.0, 62.0), (17 * thin, 8.0))
    canvas.paint(region, np.maximum(lumbar, (z - 5) * 0.6), hu)


def diaphragm_height(x: Array, y: Array) -> Array:
    """Height in mm of the relaxed diaphragm above the first lumbar vertebra."""
    right = np.exp(-(((x + 62) / 64) ** 2) - ((y + 6) / 70) ** 2)
    left = np.exp(-(((x - 72) / 58) ** 2) - ((y - 2) / 66) ** 2)
    centre = np.exp(-(((x - 6) / 46) ** 2) - ((y + 34) / 58) ** 2)
    return np.asarray(14 + 84 * right + 86 * left + 40 * centre, np.float32)


def _paint_chest(canvas: Canvas, patient: Patient) -> None:
    """Everything above the diaphragm, and the diaphragm with its crura."""
    height = diaphragm_height(canvas.x, canvas.y)
    canvas.dome = (canvas.z - height) * np.float32(0.72)
    region = canvas.region((-140, -115, 8), (140, 90, 190))
    x, y, z = canvas.at(region)
    dome, wall = canvas.dome[region], canvas.wall[region]
    muscle = patient.hu["muscle"] + 3 * canvas.texture[region]
    thorax = np.maximum(-dome - 3, wall)
    canvas.paint(region, np.maximum(thorax, -wall - 3.5), muscle)
    chest = np.maximum(-dome, wall + 3)
    centre = patient.place("heart", (24.0, -40.0, 112.0))
    heart = ellipsoid(x, y, z, centre, (58.0, 44.0, 40.0))
    middle = np.minimum(ellipse(x, y, (6.0, 24.0), (26.0, 30.0)), heart - 6)
    # The line between the heart's tip and the front wall is fat too.
    middle = np.minimum(middle, ellipse(x, y, (14.0, -88.0), (30.0, 16.0)))
    middle = np.minimum(middle, ellipse(x, y, (0.0, 66.0), (42.0, 27.0)))
    lungs = smooth_intersection(chest, -middle, 6.0)
    first, second = (canvas.sample(field, region) for field in patient.twigs)
    bronchi = np.clip(1 - (first**2 + second**2) / 0.04, 0, 1)
    air = patient.hu["lung"] + 18 * canvas.texture[region] + 15 * first + 950 * bronchi
    canvas.paint(region, lungs, air)
    blood = patient.hu["cava"] + 12 * canvas.sample(patient.lumps, region)
    inside = np.maximum(heart, chest + 4)
    canvas.paint(region, inside, patient.hu["muscle"] + 45)
    septum = np.abs(0.8 * (x - centre[0]) - 0.6 * (y - centre[1]) + 6) - 5
    chambers = smooth_intersection(inside + 8, -septum, 6.0)
    canvas.paint(region, chambers, blood, soft_mm=5)
    gullet = ellipse(x, y, (6.0, 2.0), (9.0, 7.0))
    canvas.paint(region, np.maximum(gullet, -dome), patient.hu["muscle"])


def paint_crura(canvas: Canvas, patient: Patient) -> None:
    """The diaphragm's legs: thin muscle on both sides of the aorta, in front of the spine."""
    region = canvas.region((-40, -15, -30), (50, 50, 190))
    x, y, z = canvas.at(region)
    arch = ellipse(x, y, (3.0, 26.0), (25.0, 26.0))
    blade = np.maximum(np.abs(arch) - 2.6, np.maximum(y - 26, (-20 - z) * 0.5))
    opening = np.maximum(np.abs(x - 6) - 7 - np.clip(-z, 0, 40) * 0.4, y - 12)
    blade = np.maximum(np.maximum(blade, canvas.dome[region] - 8), -opening)
    canvas.paint(region, blade, patient.hu["muscle"] + 5)


def paint_bones(canvas: Canvas, patient: Patient) -> None:
    """Spine, ribs and the wings of the pelvis."""
    _paint_spine(canvas, patient)
    _paint_ribs(canvas, patient)
    _paint_pelvis(canvas, patient)


def _paint_spine(canvas: Canvas, patient: Patient) -> None:
    region = canvas.region((-48, 12, -190), (48, 112, 190))
    x, y, z = canvas.at(region)
    y = y + 0.0006 * (z - 30) ** 2 - 2
    across, grain = np.abs(x), canvas.sample(patient.grain, region)
    phase = z / _VERTEBRA_MM + 0.35
    level = phase - np.floor(phase)
    from_disc = np.minimum(level, 1 - level) * _VERTEBRA_MM
    waist = 2.2 * np.clip((from_disc - 4) / 13, 0, 1)
    body = ellipse(x, y, (0.0, 38.0), (23.5, 17.0)) + waist
    body = smooth_intersection(body, -ellipse(x, y, (0.0, 66.0), (15.0, 13.5)), 5.0)
    body += 0.5 * grain
    canvas.paint(region, body, 92 + 4 * canvas.texture[region])
    bone = np.maximum(body, 3.9 - from_disc)
    arch = _vertebral_arch(across, y, level) + 0.6 * grain
    hard, soft = patient.hu["cortical_bone"], patient.hu["marrow"]
    trabeculae = soft + 24 * grain + 12 * canvas.texture[region]
    canvas.paint(region, arch, hard * 0.85)
    canvas.paint(region, arch + 2.4, trabeculae + 70, soft_mm=2.5)
    canvas.paint(region, bone, hard * 0.8)
    canvas.paint(region, bone + 1.9, trabeculae, soft_mm=2.5)
    canal = ellipse(x, y, (0.0, 61.5), (11.5, 8.5))
    canvas.paint(region, canal, -40.0)
    canvas.paint(region, canal + 1.8, 32.0)


def _vertebral_arch(across: Array, y: Array, level: Array) -> Array:
    def between(low: float, high: float) -> Array:
        return np.asarray(
            (np.abs(level - (low + high) / 2) - (high - low) / 2) * _VERTEBRA_MM, np.float32
        )

    pedicle = np.maximum(ellipse(across, y, (14.5, 57.0), (4.6, 9.0)), between(0.45, 0.86))
    ring = np.abs(ellipse(across, y, (0.0, 61.5), (14.5, 11.5))) - 2.7
    lamina = np.maximum(np.maximum(ring, 60 - y), between(0.05, 0.62))
    sink = (y - 72) * 0.006
    tip = np.maximum(np.abs(level + sink - 0.3) - 0.24, -0.2) * _VERTEBRA_MM
    spinous = np.maximum(np.maximum(across - 3.0, np.maximum(70 - y, y - 99)), tip)
    slant = np.abs(y - 59 - 0.22 * (across - 16)) - 3.4
    transverse = np.maximum(
        np.maximum(slant, np.maximum(12 - across, across - 40)), between(0.56, 0.82)
    )
    facet = np.maximum(ellipse(across, y, (17.0, 69.0), (7.0, 7.5)), between(0.0, 0.4))
    shapes = (lamina, spinous, transverse, facet)
    joined = pedicle
    for shape in shapes:
        joined = np.minimum(joined, shape)
    return joined


def _paint_ribs(canvas: Canvas, patient: Patient) -> None:
    """Ribs run down around the wall: an axial slice cuts each as a long oblique ellipse."""
    near = (canvas.wall > -1) & (canvas.wall < 15) & (canvas.z > -75)
    x, y, z, wall = (a[near] for a in (canvas.x, canvas.y, canvas.z, canvas.wall))
    angle = np.arctan2(np.abs(x), y + 14)
    drop = 78 * np.sin(np.clip(angle, 0, 2.2) * 0.7) ** 1.3 - 30 * np.clip(angle - 2.2, 0, 1)
    position = (z + drop - 8) / _RIB_PERIOD_MM
    number = np.round(position)
    end = np.select([number < 0, number < 1, number < 2, number < 3], [-9, 1.05, 1.6, 2.15], 2.9)
    off = (position - number) * _RIB_PERIOD_MM * 0.9
    across = np.sqrt((off / 6.3) ** 2 + ((wall - 6.2) / 3.7) ** 2)
    rib = np.maximum((across - 1) * 3.9, (angle - end) * 90)
    rib = np.maximum(rib, (0.22 - angle) * 90)
    cartilage = angle > 2.35
    hard = np.where(cartilage, 125.0, patient.hu["cortical_bone"])
    inner = np.where(cartilage, 105.0, patient.hu["marrow"])
    values = canvas.hu[near]
    for distance, hu in ((rib, hard), (rib + 1.8, inner)):
        values += np.clip(0.5 - distance * canvas.size / canvas.pixel_mm, 0, 1) * (hu - values)
    canvas.hu[near] = values


def _paint_pelvis(canvas: Canvas, patient: Patient) -> None:
    region = canvas.region((-150, -40, -190), (150, 120, -100))
    x, y, z = canvas.at(region)
    across = np.abs(x)
    depth = np.clip(-112 - z, 0, 80)
    # The wing: a curved plate, lower and farther forward with depth.
    centre = 100 - 0.32 * (y - 40) - 0.1 * depth + 0.004 * (y - 40) ** 2
    plate = (np.abs(across - centre) - 4.2 - 0.05 * depth) * 0.9
    span = np.maximum((y - 72) - 0.2 * depth, (20 - y) - 0.75 * depth)
    wing = np.maximum(np.maximum(plate, span), (z + 112) * 0.8)
    canvas.paint(region, wing, patient.hu["cortical_bone"] * 0.85)
    canvas.paint(region, wing + 2.2, patient.hu["marrow"] + 30)


def paint_table(canvas: Canvas, back_mm: float) -> None:
    """The table's thin curved shell under the patient, in patient coordinates."""
    x = canvas.axes[0][:, None, None]
    y = canvas.axes[1][None, :, None]
    surface = back_mm - 0.0004 * x**2
    shell = np.minimum(np.abs(y - surface - 3), np.abs(y - surface - 40)) - 1.7
    shell = np.maximum(shell, np.abs(x) - 215)
    part = np.clip(0.5 - shell / canvas.pixel_mm, 0, 1) * np.float32(0.9)
    outside = canvas.hu < -900
    painted = canvas.hu + part * (90 - canvas.hu)
    canvas.hu = np.where(outside, painted, canvas.hu).astype(np.float32)
