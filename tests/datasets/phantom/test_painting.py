"""Painted tissues: their volume and labels, and what organs are made of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from leanseg.datasets.phantom.anatomy import LABELS, Organ, Part, draw_patient
from leanseg.datasets.phantom.painting import Canvas, paint_organ

AXES = tuple(np.linspace(-30, 30, 41, dtype=np.float32) for _ in range(3))
VOXEL_MM3 = 1.5**3


@pytest.fixture(scope="module")
def patient():
    """Of average size, and not displaced."""
    drawn = draw_patient(np.random.default_rng(0))
    still = {f"warp_{name}": lambda axes: np.zeros([len(a) for a in axes]) for name in "xyz"}
    return replace(drawn, size=1.0, fields={**drawn.fields, **still})


@pytest.fixture
def canvas(patient):
    return Canvas(AXES, patient)


def ball(centre, radius, **how):
    return Organ("ball", "liver", (Part(np.array([centre], float), np.full(3, radius)),), **how)


def tissue_at(canvas, *index):
    return list(canvas.patient.tissues)[canvas.tissue[index]]


def test_painted_volume_is_the_sphere_s(canvas):
    paint_organ(canvas, ball((0.3, 0.2, 0.1), 15.0, label=4))
    sphere = 4 / 3 * np.pi * 15**3
    assert (canvas.label == 4).sum() * VOXEL_MM3 == pytest.approx(sphere, rel=0.03)
    mean_hu = canvas.patient.tissues["liver"][0]
    assert canvas.grey_values()[canvas.label == 4].mean() == pytest.approx(mean_hu, abs=3)
    assert tissue_at(canvas, 0, 0, 0) == "air"


def test_an_organ_covers_what_lay_there(canvas):
    paint_organ(canvas, ball((0, 0, 0), 15.0, label=4))
    before = canvas.label.copy()
    paint_organ(canvas, ball((0, 0, 0), 6.0))
    assert (canvas.label == 4).sum() < (before == 4).sum()


def test_a_hollow_organ_has_wall_content_and_gas_in_front(canvas):
    organ = ball((0, 0, 0), 20.0, label=5, wall_mm=4, content="stomach_fluid", gas=0.0)
    paint_organ(canvas, organ)
    assert tissue_at(canvas, 20, 12, 20) == "gas"
    assert tissue_at(canvas, 20, 26, 20) == "stomach_fluid"
    assert tissue_at(canvas, 20, 32, 20) == "liver"
    assert canvas.label[20, 12, 20] == canvas.label[20, 26, 20] == 5


def test_a_carved_part_is_cut_out(canvas):
    whole = ball((0, 0, 0), 20.0, label=1)
    hole = Part(np.array([[10.0, 0, 0]]), np.full(3, 8.0), carved=True)
    paint_organ(canvas, replace(whole, parts=(*whole.parts, hole)))
    assert canvas.label[13, 20, 20] == 1
    assert canvas.label[27, 20, 20] == 0


def test_an_organ_outside_the_canvas_leaves_it_empty(canvas):
    paint_organ(canvas, ball((110, 110, 110), 5.0, label=4))
    assert not canvas.tissue.any()


def test_every_label_is_of_one_organ(patient):
    names = {organ.name: organ.label for organ in patient.organs if organ.label}
    assert {**names, "pancreatic_tumour": 8} == LABELS
