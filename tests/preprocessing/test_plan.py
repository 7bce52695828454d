"""The plan as data: JSON there and back, and nothing accepted that means nothing."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import axcodes2ornt, ornt2axcodes
from pydantic import ValidationError

from leanseg.preprocessing import (
    HounsfieldWindow,
    LabelCentredSlices,
    NoWindow,
    Plan,
    Postprocessing,
    QuantileWindow,
)

ORIENTATIONS = sorted(
    {
        "".join(ornt2axcodes([(axes[n], flips[n]) for n in range(3)]))
        for axes in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
        for flips in ((a, b, c) for a in (1, -1) for b in (1, -1) for c in (1, -1))
    }
)
NAMES = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=5).map(tuple)
ORDERED = st.lists(
    st.floats(-2000, 3000, allow_nan=False), min_size=2, max_size=2, unique=True
).map(sorted)
SHARES = st.lists(st.floats(0, 1), min_size=2, max_size=2, unique=True).map(sorted)
WINDOWS = st.one_of(
    ORDERED.map(lambda x: HounsfieldWindow(low=x[0], high=x[1])),
    st.builds(
        lambda x, nonzero: QuantileWindow(low=x[0], high=x[1], nonzero_only=nonzero),
        SHARES,
        st.booleans(),
    ),
    st.just(NoWindow()),
)
SLICES = st.none() | st.builds(
    LabelCentredSlices,
    margin=st.integers(0, 64),
    count=st.none() | st.integers(1, 128),
)
PLANS = st.builds(
    Plan,
    labels=NAMES,
    channels=NAMES,
    orientation=st.sampled_from(ORIENTATIONS),
    window=WINDOWS,
    scaling=st.sampled_from(["minmax", "zscore"]),
    slice_shape=st.tuples(st.integers(8, 1024), st.integers(8, 1024)),
    training_slices=SLICES,
    postprocessing=st.builds(Postprocessing, largest_component=st.booleans()),
)


@settings(max_examples=100, deadline=None)
@given(PLANS)
def test_json_round_trip(plan: Plan) -> None:
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
    assert Plan.model_validate(json.loads(json.dumps(plan.model_dump(mode="json")))) == plan


def test_the_defaults_are_paper_000() -> None:
    plan = Plan(labels=("pancreas",))
    assert plan.window == HounsfieldWindow(low=-150, high=200)
    assert plan.scaling == "minmax"
    assert plan.slice_shape == (256, 256)
    assert plan.training_slices == LabelCentredSlices(margin=16, count=48)


def test_all_48_orientations_are_known_and_no_other() -> None:
    assert len(ORIENTATIONS) == 48
    for codes in ORIENTATIONS:
        assert axcodes2ornt(codes).shape == (3, 2)
        assert Plan(labels=("a",), orientation=codes).orientation == codes
    for codes in ("LLS", "lps", "LP", "LPSA", "XYZ", ""):
        with pytest.raises(ValidationError, match="orientation"):
            Plan(labels=("a",), orientation=codes)


@pytest.mark.parametrize(("n_labels", "outputs"), [(1, 1), (2, 3), (5, 6)])
def test_outputs(n_labels: int, outputs: int) -> None:
    assert Plan(labels=tuple(f"organ {n}" for n in range(n_labels))).n_outputs == outputs


@pytest.mark.parametrize(
    ("given_keys", "where"),
    [
        ({"windw": {"kind": "hu"}}, "windw"),
        ({"window": {"kind": "hu", "lo": -10}}, "window.hu.lo"),
        ({"window": {"kind": "fixed"}}, "window"),
        ({"window": {"kind": "hu", "low": 200, "high": -150}}, "window.hu"),
        ({"window": {"kind": "hu", "low": 5, "high": 5}}, "window.hu"),
        ({"window": {"kind": "quantile", "low": 0.9, "high": 0.1}}, "window.quantile"),
        ({"window": {"kind": "quantile", "high": 99}}, "window.quantile.high"),
        ({"scaling": "max"}, "scaling"),
        ({"labels": []}, "labels"),
        ({"channels": []}, "channels"),
        ({"slice_shape": [256]}, "slice_shape.1"),
        ({"slice_shape": [256, 7]}, "slice_shape"),
        ({"training_slices": {"margin": -1}}, "training_slices.margin"),
        ({"training_slices": {"count": 0}}, "training_slices.count"),
        ({"postprocessing": {"largest": True}}, "postprocessing.largest"),
        ({"version": 2}, "version"),
    ],
)
def test_a_wrong_key_or_value_is_named(given_keys: dict, where: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Plan.model_validate({"labels": ["organ"], **given_keys})
    assert ".".join(str(part) for part in caught.value.errors()[0]["loc"]) == where


def test_a_plan_cannot_be_changed() -> None:
    plan = Plan(labels=("a",))
    with pytest.raises(ValidationError, match="frozen"):
        plan.orientation = "RAS"


def test_what_a_network_sees() -> None:
    assert Plan(labels=("a",)).network_shape == (256, 256)
    assert not Plan(labels=("a",)).is_3d
    assert Plan(labels=("a",), volume_shape=(3, 4, 5)).network_shape == (3, 4, 5)
    tiles = Plan(labels=("a",), tile_shape=(8, 8, 4), spacing_mm=(1, 1, 2.5), tile_overlap=0.25)
    assert tiles.network_shape == (8, 8, 4)
    assert tiles.is_3d
    assert Plan.model_validate_json(tiles.model_dump_json()) == tiles


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile_shape": (8, 8, 8), "volume_shape": (8, 8, 8)}, "not both"),
        ({"tile_shape": (8, 8, 8), "region": "abdomen"}, "region 'abdomen' needs volume_shape"),
        ({"spacing_mm": (1, 1, 1)}, "give tile_shape too"),
        ({"tile_shape": (8, 8, 8), "spacing_mm": (1, 0, 1)}, "three lengths above 0"),
        ({"tile_shape": (8, 8, 8), "spacing_mm": (1, float("nan"), 1)}, "three lengths above 0"),
        ({"tile_shape": (8, 0, 8)}, "tile_shape .* is too small"),
        ({"tile_shape": (8, 8, 8), "tile_overlap": 1.0}, "less than 1"),
        ({"tile_shape": (8, 8, 8), "tile_overlap": -0.1}, "greater than or equal to 0"),
    ],
)
def test_tiles_that_mean_nothing(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Plan(labels=("a",), **options)


def test_only_slices_of_ct_can_lie_outside_the_body() -> None:
    assert Plan(labels=("organ",), skip_outside_body=True).skip_outside_body
    for options in ({"window": QuantileWindow()}, {"volume_shape": (8, 8, 8)}):
        with pytest.raises(ValidationError, match="skip_outside_body is for networks that see"):
            Plan(labels=("organ",), skip_outside_body=True, **options)
