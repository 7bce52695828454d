"""The arithmetic of nnU-Net's tiles, by hand and against nnU-Net where it is installed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leanseg.benchmarking.nnunet_plans import (
    Fingerprint,
    count_tiles,
    dataset_description,
    passes_per_tile,
    resampled_shape,
    whole_seconds,
)
from leanseg.benchmarking.processes import run_child


@pytest.mark.parametrize(
    ("shape", "patch", "tiles"),
    [
        # 150 slices: from 0 in steps of at most 20 to 110, seven; 512: from 0 to 288 in steps of
        # at most 112, four.
        ((150, 512, 512), (40, 224, 224), 7 * 4 * 4),
        ((150, 512, 512), (512, 512), 150),
        ((10, 100, 300), (40, 224, 224), 2),
        ((3, 513, 512), (512, 512), 3 * 2),
        ((40, 224, 224), (40, 224, 224), 1),
    ],
)
def test_tiles_by_hand(shape, patch, tiles):
    assert count_tiles(shape, patch) == tiles


def test_resampled_shape_by_hand():
    assert resampled_shape((20, 128, 64), (5.0, 3.2, 3.2), (2.5, 0.8, 0.8)) == (40, 512, 256)
    # In 2-D the slices stay as they are.
    assert resampled_shape((20, 128, 64), (5.0, 3.2, 3.2), (0.8, 0.8)) == (20, 512, 256)


def test_passes():
    assert [passes_per_tile(n, True) for n in (2, 3)] == [4, 8]
    assert passes_per_tile(3, False) == 1


def test_whole_seconds():
    assert whole_seconds(50.0, [2.0, 1.0, 1.0], 3) == (50.0, False)
    # 7 tiles were skipped; the first, which warmed up, does not stand for them.
    assert whole_seconds(50.0, [9.0, 1.0, 3.0], 10) == (50.0 + 7 * 2.0, True)
    assert whole_seconds(50.0, [9.0], 3) == (50.0 + 2 * 9.0, True)


lengths = st.integers(1, 700)


@given(st.lists(st.tuples(lengths, st.integers(8, 512)), min_size=3, max_size=3))
@settings(max_examples=200, deadline=None)
def test_tiles_are_nnunets(pairs):
    sliding = pytest.importorskip("nnunetv2.inference.sliding_window_prediction")
    shape, patch = zip(*pairs, strict=True)
    padded = [max(length, side) for length, side in pairs]
    steps = sliding.compute_steps_for_sliding_window(padded, patch, 0.5)
    assert count_tiles(shape, patch) == np.prod([len(each) for each in steps])


spacings = st.tuples(*[st.floats(0.3, 6.0)] * 3)


@given(st.tuples(*[lengths] * 3), spacings, spacings)
@settings(max_examples=100, deadline=None)
def test_resampled_shape_is_nnunets(shape, spacing, target):
    resampling = pytest.importorskip("nnunetv2.preprocessing.resampling.default_resampling")
    expected = resampling.compute_new_shape(shape, spacing, target)
    assert resampled_shape(shape, spacing, target) == tuple(expected)


def plan(folder: Path, **job) -> dict:
    pytest.importorskip("nnunetv2")
    environment = {}
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (folder / name).mkdir()
        environment[name] = str(folder / name)
    job = {"task": "plan", "folder": str(folder), "plans": None, **job}
    run = run_child("leanseg.benchmarking.nnunet_child", job, threads=1, environment=environment)
    assert run.refusal is None, run.refusal
    return run.events


@pytest.mark.slow
def test_plans_are_those_that_nnunet_publishes_for_the_pancreas(tmp_path):
    fingerprint = Fingerprint()
    events = plan(
        tmp_path,
        dataset=dataset_description(2, 1, fingerprint.cases, ".nii.gz"),
        fingerprint=fingerprint.as_dict(),
        configurations=["2d", "3d_fullres"],
    )
    # As in nnU-Net's own plans of Task07_Pancreas.
    assert events["planned 3d_fullres"]["patch_size"] == [40, 224, 224]
    assert events["planned 2d"]["patch_size"] == [512, 512]
    assert events["planned 3d_fullres"]["spacing_mm"] == pytest.approx([2.5, 0.8, 0.8], abs=0.01)
    assert events["planned 3d_fullres"]["axes"] == [0, 1, 2]
    content = json.loads((tmp_path / "2d" / "plans.json").read_text())
    assert content["configurations"]["2d"]["batch_size"] == 12
    assert content["configurations"]["3d_fullres"]["batch_size"] == 2
