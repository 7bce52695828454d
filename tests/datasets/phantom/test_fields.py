"""Shapes against distances that are known in closed form; the field against scipy's B-spline."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import BSpline

from leanseg.datasets.phantom.canvas import Canvas
from leanseg.datasets.phantom.fields import (
    LOW,
    SmoothField,
    along,
    curve,
    ellipse,
    ellipsoid,
    smooth_intersection,
    smooth_union,
)

AXES = tuple(np.linspace(-30, 30, 41, dtype=np.float32) for _ in range(3))


def still(x, y, z):
    zero = np.zeros((len(x), len(y), len(z)), np.float32)
    return zero, zero, zero


@pytest.fixture
def canvas(rng) -> Canvas:
    return Canvas(AXES, 1.0, still, SmoothField(rng, 40.0))


def test_sphere_and_cylinder_are_exact(canvas):
    x, y, z = canvas.at((slice(None),) * 3)
    radius = np.sqrt((x - 3) ** 2 + y**2 + z**2)
    np.testing.assert_allclose(ellipsoid(x, y, z, (3, 0, 0), (12, 12, 12)), radius - 12, atol=0.05)
    np.testing.assert_allclose(ellipse(x, y, (0, 0), (9, 9)), np.sqrt(x**2 + y**2) - 9, atol=0.05)


def test_ellipsoid_vanishes_on_its_surface(rng):
    directions = rng.normal(size=(3, 200)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=0)
    x, y, z = directions * np.array([[30], [10], [50]], np.float32)
    np.testing.assert_allclose(ellipsoid(x, y, z, (0, 0, 0), (30, 10, 50)), 0, atol=0.02)


def test_tube_is_the_distance_to_its_axis(canvas):
    points = np.array([[-10.0, 0, 0], [10.0, 0, 0]])
    region, distance = canvas.tube(points, 5.0, margin_mm=8)
    x, y, z = canvas.at(region)
    exact = np.sqrt((x - np.clip(x, -10, 10)) ** 2 + y**2 + z**2) - 5
    np.testing.assert_allclose(np.minimum(distance, 8), np.minimum(exact, 8), atol=1e-3)


def test_tube_breaks_at_nan(canvas):
    points = np.array([[-20.0, 0, 0], [-10, 0, 0], [np.nan] * 3, [10, 0, 0], [20, 0, 0]])
    region, distance = canvas.tube(points, 3.0)
    x, y, z = canvas.at(region)
    assert (distance[(np.abs(x) < 5) & (np.abs(y) < 1) & (np.abs(z) < 1)] > 0).all()


def test_painted_volume_is_the_sphere_s(canvas):
    region = (slice(None),) * 3
    x, y, z = canvas.at(region)
    canvas.hu[:] = 0
    canvas.paint(region, ellipsoid(x, y, z, (0.3, 0.2, 0.1), (15, 15, 15)), 1.0, 4)
    sphere = 4 / 3 * np.pi * 15**3
    voxel = 1.5**3
    assert canvas.hu.sum() * voxel == pytest.approx(sphere, rel=0.01)
    assert (canvas.label == 4).sum() * voxel == pytest.approx(sphere, rel=0.03)
    np.testing.assert_array_equal(canvas.label == 4, canvas.hu > 0.5)


def test_paint_can_keep_labels(canvas):
    region = (slice(None),) * 3
    x, y, z = canvas.at(region)
    canvas.paint(region, ellipsoid(x, y, z, (0, 0, 0), (15, 15, 15)), 1.0, 4)
    before = canvas.label.copy()
    canvas.paint(region, ellipsoid(x, y, z, (0, 0, 0), (5, 5, 5)), 2.0, None)
    np.testing.assert_array_equal(canvas.label, before)
    canvas.paint(region, ellipsoid(x, y, z, (0, 0, 0), (5, 5, 5)), 2.0)
    assert (canvas.label != before).any()


def test_region_outside_the_canvas_is_empty(canvas):
    region = canvas.region((100, 100, 100), (120, 120, 120))
    assert canvas.hu[region].size == 0
    x, y, z = canvas.at(region)
    canvas.paint(region, ellipsoid(x, y, z, (110, 110, 110), (5, 5, 5)), 1.0, 4)
    assert not canvas.label.any()


def test_smooth_union_and_intersection_bound_the_sharp_ones(rng):
    a, b = rng.normal(0, 10, (2, 1000)).astype(np.float32)
    union, intersection = smooth_union(a, b, 6.0), smooth_intersection(a, b, 6.0)
    assert (union <= np.minimum(a, b) + 1e-5).all()
    assert (intersection >= np.maximum(a, b) - 1e-5).all()
    apart = np.abs(a - b) > 6
    np.testing.assert_allclose(union[apart], np.minimum(a, b)[apart])


def test_field_is_a_cubic_b_spline(rng):
    field = SmoothField(rng, 20.0)
    x, y, z = (np.array([value], np.float32) for value in (3.7, -11.2, 42.9))
    lattice = field._lattice.astype(float)
    for low, value in zip(LOW, (3.7, -11.2, 42.9), strict=True):
        knots = np.arange(-3, len(lattice) + 1)
        lattice = BSpline(knots, lattice, 3)((value - low) / 20.0)
    assert field(x, y, z)[0, 0, 0] == pytest.approx(lattice, abs=1e-4)


def test_field_does_not_depend_on_the_grid(rng):
    field = SmoothField(rng, 9.0)
    full = field(*AXES)
    part = field(AXES[0][5:9], AXES[1][7:20], AXES[2][30:])
    np.testing.assert_allclose(part, full[5:9, 7:20, 30:], atol=1e-5)
    assert full.std() == pytest.approx(1, abs=0.3)


def test_curve_passes_through_its_points():
    points = [(0.0, 0.0, 0.0), (10.0, 5.0, 0.0), (30.0, 0.0, 10.0)]
    samples = curve(points, 2.0)
    for point in points:
        assert np.linalg.norm(samples - point, axis=1).min() < 1e-9
    assert np.linalg.norm(np.diff(samples, axis=0), axis=1).max() < 4
    radii = along(points, [1.0, 3.0, 2.0], 2.0)
    assert len(radii) == len(samples)
    assert radii[0] == 1
    assert radii[-1] == 2
