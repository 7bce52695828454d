"""Shapes against distances that are known in closed form; the field against scipy's B-spline."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import BSpline

from leanseg.datasets.phantom.shapes import (
    SmoothField,
    ellipsoid,
    round_cone,
    smooth_curve,
    smooth_union,
)

AXES = tuple(np.linspace(-30, 30, 41, dtype=np.float32) for _ in range(3))
X, Y, Z = np.meshgrid(*AXES, indexing="ij")


def test_a_sphere_is_exact():
    radius = np.sqrt((X - 3) ** 2 + Y**2 + Z**2)
    np.testing.assert_allclose(
        ellipsoid((X, Y, Z), (3, 0, 0), (12, 12, 12)), radius - 12, atol=0.05
    )


def test_ellipsoid_vanishes_on_its_surface(rng):
    directions = rng.normal(size=(3, 200)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=0)
    at = directions * np.array([[30], [10], [50]], np.float32)
    np.testing.assert_allclose(ellipsoid(at, (0, 0, 0), (30, 10, 50)), 0, atol=0.02)


def test_cone_of_equal_balls_is_a_capsule():
    distance = round_cone((X, Y, Z), np.array([[-10.0, 0, 0], [10.0, 0, 0]]), (5, 5))
    exact = np.sqrt((X - np.clip(X, -10, 10)) ** 2 + Y**2 + Z**2) - 5
    np.testing.assert_allclose(distance, exact, atol=1e-3)


def test_smooth_union_bounds_the_sharp_one(rng):
    a, b = rng.normal(0, 10, (2, 1000)).astype(np.float32)
    union = smooth_union(a, b, 6.0)
    assert (union <= np.minimum(a, b) + 1e-5).all()
    apart = np.abs(a - b) > 6
    np.testing.assert_allclose(union[apart], np.minimum(a, b)[apart])


def test_curve_passes_through_its_ends_evenly():
    points, radii = smooth_curve(
        np.array([[0.0, 0, 0], [10, 5, 0], [30, 0, 10]]), np.array([1.0, 3, 2]), 2.0
    )
    np.testing.assert_allclose(points[[0, -1]], [[0, 0, 0], [30, 0, 10]], atol=1e-9)
    assert np.linalg.norm(points - (10, 5, 0), axis=1).min() < 1
    assert np.linalg.norm(np.diff(points, axis=0), axis=1).max() < 4
    assert len(radii) == len(points)
    assert 1 <= radii.min() <= radii.max() <= 3


def test_field_is_a_cubic_b_spline(rng):
    field, at = SmoothField(rng, 20.0), (3.7, -11.2, 42.9)
    value = field._lattice.astype(float)
    for knots, place in zip(field._knots, at, strict=True):
        value = BSpline(knots, value, 3)(place)
    found = field([np.array([place]) for place in at])
    assert found[0, 0, 0] == pytest.approx(value, abs=1e-4)


def test_field_does_not_depend_on_the_grid(rng):
    field = SmoothField(rng, 9.0)
    full = field(AXES)
    part = field((AXES[0][5:9], AXES[1][7:20], AXES[2][30:]))
    np.testing.assert_allclose(part, full[5:9, 7:20, 30:], atol=1e-5)
    assert full.std() == pytest.approx(1, abs=0.3)
