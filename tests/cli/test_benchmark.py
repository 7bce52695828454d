"""`leanseg benchmark`: engines on a tiny scan, errors."""

from __future__ import annotations

import json

import numpy as np
import pytest

from leanseg.inference.engines.base import ENGINES
from leanseg.networks.measure import network_cost

SHAPE = (40, 36, 5)


def test_every_engine_on_a_phantom(leanseg, exported, tmp_path):
    file = tmp_path / "b.json"
    options = ("--shape", *SHAPE, "--threads", 1, "--repeats", 1, "--precision", "f32")
    outcome = leanseg("benchmark", exported, *options, "--json", file)
    assert outcome.status == 0, outcome.err
    record = json.loads(file.read_text())
    assert record["format"] == "leanseg-benchmark"
    assert record["scan"] == "phantom" and record["shape"] == [40, 36, 5]
    (facts,) = record["models"]
    cost = network_cost("monet", (32, 32), options={"base_filters": 4})
    assert facts["multiply_adds"] == cost.multiply_adds
    assert facts["parameters"] == cost.parameters.trainable
    assert facts["file_bytes"] == exported.stat().st_size
    assert [each["engine"] for each in record["measurements"]] == list(ENGINES)
    for each in record["measurements"]:
        (run,) = each["runs"]
        assert 0 < run["load_s"] < run["process_s"]
        assert 0 < run["latency_s"] < run["process_s"]
        # A process with numpy, and no more than a small network needs.
        assert 50 < run["peak_memory_mb"] < 2000
        assert each["reference"] == "torch f32" and each["equal_voxels"] >= 0.9999
    assert "phantom, 40 x 36 x 5 voxels" in outcome.out
    for name in ENGINES:
        assert any(line.startswith(f"{name} ") for line in outcome.out.splitlines())
    # Nothing of a terminal in a log, and every step a line.
    assert "\x1b" not in outcome.out + outcome.err
    assert sum(line.startswith("run 1: tiny") for line in outcome.err.splitlines()) == len(ENGINES)


def test_what_cannot_run_is_told_and_stops_nothing(leanseg, exported, make_scan, tmp_path):
    scan = make_scan(tmp_path / "s.nii.gz")
    record = tmp_path / "b.json"
    chosen = ("--engine", "onnxruntime", "--precision", "bf16", "--precision", "f32")
    fast = ("--threads", 1, "--repeats", 2)
    outcome = leanseg("benchmark", exported, "--scan", scan, *chosen, *fast, "--json", record)
    assert outcome.status == 0, outcome.err
    half, single = json.loads(record.read_text())["measurements"]
    assert not half["runs"] and "choose f32" in half["message"]
    assert len(single["runs"]) == 2 and single["equal_voxels"] == 1
    assert "onnxruntime bf16: not measured" in outcome.out
    assert outcome.out.startswith("s.nii.gz, 20 x 18 x 7 voxels")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--engine", "abacus"), "'abacus'"),
        (("--shape", 0, 5, 5), "shape (0, 5, 5)"),
        (("--scan", "no.nii.gz"), "no.nii.gz"),
        (("--json", "no/folder/b.json"), "no/folder/b.json"),
    ],
)
def test_errors_are_one_sentence(leanseg, model, options, named):
    outcome = leanseg("benchmark", model, "--threads", 1, *options)
    assert outcome.status == 2
    assert named in outcome.err and "Traceback" not in outcome.err
    assert outcome.err.splitlines()[-1].startswith("leanseg: ")


def test_a_scan_that_is_damaged(leanseg, model, tmp_path):
    scan = tmp_path / "s.nii.gz"
    scan.write_bytes(b"\x1f\x8bnothing")
    outcome = leanseg("benchmark", model, "--scan", scan, "--threads", 1)
    assert outcome.status == 2 and "s.nii.gz" in outcome.err and "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("name", "shape", "named"),
    [("model", (8, 8, 3), "leanseg export"), ("exported", (8, 8, 3, 2), "channel")],
)
def test_if_nothing_can_run_the_reason_is_the_error(
    leanseg, request, make_scan, tmp_path, name, shape, named
):
    scan = make_scan(tmp_path / "s.nii.gz", np.zeros(shape, np.int16))
    options = ("--engine", "openvino", "--precision", "f32", "--repeats", 1, "--threads", 1)
    outcome = leanseg("benchmark", request.getfixturevalue(name), "--scan", scan, *options)
    assert outcome.status == 2 and named in outcome.err
