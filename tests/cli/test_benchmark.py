"""`leanseg benchmark`: engines on a tiny scan, other tools beside them, errors."""

from __future__ import annotations

import csv
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from leanseg.inference.engines.base import ENGINES
from leanseg.modelfile import read_model, write_model
from leanseg.networks.measure import network_cost
from leanseg.training.export import export_model

SHAPE = "40,36,5"
SPREADS = ("latency_s", "latency_cpu_s", "whole_process_s", "load_s", "first_slices_s")


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory) -> Path:
    """The tiny model with its network exported."""
    path = tmp_path_factory.mktemp("exported") / "tiny.leanseg"
    content = read_model(model)
    done = export_model(content)
    write_model(path, done)
    return path


def test_every_engine_on_a_phantom(leanseg, exported, tmp_path):
    files = tmp_path / "b.json", tmp_path / "b.csv"
    options = ("--shape", SHAPE, "--threads", 1, "--repeats", 1, "--precision", "f32")
    outcome = leanseg("benchmark", exported, *options, "--json", files[0], "--csv", files[1])
    assert outcome.status == 0, outcome.err
    record = json.loads(files[0].read_text())
    assert record["format"] == "leanseg-benchmark" and record["version"] == 1
    assert record["scan"]["source"] == "phantom" and record["scan"]["shape"] == [40, 36, 5]
    (facts,) = record["models"]
    cost = network_cost("monet", (32, 32), options={"base_filters": 4})
    assert facts["multiply_adds"] == cost.multiply_adds
    assert facts["parameters"] == cost.parameters.trainable
    assert facts["file_bytes"] == exported.stat().st_size
    assert [each["engine"] for each in record["results"]] == list(ENGINES)
    for each in record["results"]:
        assert each["status"] == "measured", each["message"]
        assert len(each["runs"]) == 1
        for name in SPREADS:
            assert 0 < each[name]["min"] <= each[name]["median"] <= each[name]["max"]
        assert each["load_s"]["median"] < each["first_slices_s"]["median"]
        assert each["first_slices_s"]["median"] < each["whole_process_s"]["median"]
        assert each["ms_per_slice"] == pytest.approx(1000 * each["latency_s"]["median"] / 5)
        # A process with numpy, and no more than a small network needs.
        assert 50 < each["peak_memory_mb"]["median"] < 2000
        assert each["reference"] == "torch f32" and each["equal_voxels"] >= 0.9999
    assert "a phantom, 40 x 36 x 5 voxels" in outcome.out
    for name in ENGINES:
        assert any(line.startswith(f"{name} ") for line in outcome.out.splitlines())
    assert len(list(csv.DictReader(files[1].open()))) == len(ENGINES)
    # Nothing of a terminal in a log, and every step a line.
    assert "\x1b" not in outcome.out + outcome.err
    assert sum(line.startswith("run 1: tiny") for line in outcome.err.splitlines()) == len(ENGINES)


def test_what_cannot_run_is_told_and_stops_nothing(leanseg, model, make_scan, tmp_path):
    scan = make_scan(tmp_path / "s.nii.gz")
    record = tmp_path / "b.json"
    chosen = ("--engine", "openvino", "--engine", "torch", "--precision", "f32")
    fast = ("--threads", 1, "--repeats", 1)
    outcome = leanseg("benchmark", model, "--scan", scan, *chosen, *fast, "--json", record)
    assert outcome.status == 0, outcome.err
    openvino, torch = json.loads(record.read_text())["results"]
    assert openvino["status"] == "not available" and "leanseg export" in openvino["message"]
    assert torch["status"] == "measured" and torch["equal_voxels"] == 1
    assert "openvino f32: not available" in outcome.out
    assert outcome.out.startswith("s.nii.gz, 20 x 18 x 7 voxels")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--engine", "abacus"), "'abacus'"),
        (("--precision", "f8"), "'f8'"),
        (("--repeats", 0), "repeats is 0"),
        (("--threads", 0), "threads is 0"),
        (("--threads", 4096), "this process may use"),
        (("--shape", "5"), "shape '5'"),
        (("--scan", "no.nii.gz"), "no.nii.gz"),
        (("--json", "no/folder/b.json"), "no/folder/b.json"),
        (("--csv", "no/folder/b.csv"), "no/folder/b.csv"),
        (("--against", "magic"), "'magic'"),
        (("--against", "monai", "--tiles", 0), "tiles is 0"),
        (("--against", "nnunet", "--nnunet-plans", "no.json"), "no.json"),
        (("--against", "monai", "--against-repeats", 0), "against-repeats is 0"),
    ],
)
def test_errors_are_one_sentence(leanseg, model, options, named):
    outcome = leanseg("benchmark", model, "--threads", 1, *options)
    assert outcome.status == 2
    assert named in outcome.err and "Traceback" not in outcome.err
    assert outcome.err.splitlines()[-1].startswith("leanseg: ")


def test_a_model_that_is_not_there(leanseg, tmp_path):
    outcome = leanseg("benchmark", tmp_path / "no.leanseg", "--threads", 1)
    assert outcome.status == 2 and "no.leanseg" in outcome.err


def test_a_scan_that_is_damaged(leanseg, model, tmp_path):
    scan = tmp_path / "s.nii.gz"
    scan.write_bytes(b"\x1f\x8bnothing")
    outcome = leanseg("benchmark", model, "--scan", scan, "--threads", 1)
    assert outcome.status == 2 and "s.nii.gz" in outcome.err and "Traceback" not in outcome.err


def test_if_nothing_can_run_the_reason_is_the_error(leanseg, model, make_scan, tmp_path):
    scan = make_scan(tmp_path / "s.nii.gz")
    options = ("--engine", "openvino", "--precision", "f32", "--repeats", 1, "--threads", 1)
    outcome = leanseg("benchmark", model, "--scan", scan, *options)
    assert outcome.status == 2 and "leanseg export" in outcome.err


def test_a_scan_with_other_channels_than_the_model(leanseg, model, make_scan, tmp_path):
    scan = make_scan(tmp_path / "s.nii.gz", np.zeros((8, 8, 3, 2), np.int16))
    options = ("--engine", "torch", "--precision", "f32", "--repeats", 1, "--threads", 1)
    outcome = leanseg("benchmark", model, "--scan", scan, *options)
    assert outcome.status == 2 and "channel" in outcome.err


def test_other_tools_take_one_model(leanseg, model):
    outcome = leanseg("benchmark", model, model, "--against", "monai", "--threads", 1)
    assert outcome.status == 2 and "give one" in outcome.err


def test_against_monai(leanseg, model, make_scan, tmp_path):
    # An axial scan, so that a library's orientation is ours.
    affine = np.diag([-1.0, -1.0, 2.5, 1.0])
    noise = np.random.default_rng(0).normal(50, 200, size=(36, 40, 4)).astype(np.int16)
    scan, record = make_scan(tmp_path / "s.nii.gz", noise, affine), tmp_path / "b.json"
    options = ("--engine", "torch", "--precision", "f32", "--repeats", 2, "--threads", 1)
    outcome = leanseg(
        "benchmark", model, "--scan", scan, "--against", "monai", *options, "--json", record
    )
    assert outcome.status == 0, outcome.err
    content = json.loads(record.read_text())
    (monai,), (ours,) = content["against"], content["results"]
    assert monai["status"] == "measured", monai["message"]
    assert len(monai["runs"]) == 1 and len(ours["runs"]) == 2
    (ratio,) = monai["ratios"]
    assert ratio["time"] == pytest.approx(
        monai["whole_process_s"]["median"] / ours["whole_process_s"]["median"]
    )
    # The same network and intensities; only the resizing's definition differs.
    assert monai["equal_voxels"] > 0.9
    assert monai["network_s"]["median"] < monai["whole_process_s"]["median"]
    assert "PyTorch f32" in outcome.out and content["machine"]["versions"]["monai"]


TINY_PLANS = {
    "dataset_name": "Dataset001_Tiny",
    "plans_name": "nnUNetPlans",
    "image_reader_writer": "SimpleITKIO",
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
    "label_manager": "LabelManager",
    "experiment_planner_used": "ExperimentPlanner",
    "foreground_intensity_properties_per_channel": {
        "0": {"mean": 50.0, "std": 200.0, "percentile_00_5": -500.0, "percentile_99_5": 600.0}
    },
}


def configuration(patch: list[int]) -> dict:
    n = len(patch)
    resampling = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    architecture = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": 2,
            "features_per_stage": [4, 8],
            "conv_op": f"torch.nn.modules.conv.Conv{n}d",
            "kernel_sizes": [[3] * n] * 2,
            "strides": [[1] * n, [2] * n],
            "n_conv_per_stage": [1, 1],
            "n_conv_per_stage_decoder": [1],
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{n}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
    return {
        "data_identifier": "tiny",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": patch,
        "spacing": [2.5, 1.0, 1.0][3 - n :],
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg_kwargs": {**resampling, "is_seg": True},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": resampling,
        "architecture": architecture,
    }


@pytest.mark.slow
@pytest.mark.skipif(find_spec("nnunetv2") is None, reason="nnU-Net is not installed")
def test_against_nnunet_with_own_plans(leanseg, model, make_scan, tmp_path):
    plans, record = tmp_path / "plans.json", tmp_path / "b.json"
    content = {
        **TINY_PLANS,
        "configurations": {"2d": configuration([16, 16]), "3d_fullres": configuration([4, 16, 16])},
    }
    plans.write_text(json.dumps(content))
    noise = np.random.default_rng(0).normal(50, 200, size=(32, 24, 6)).astype(np.int16)
    scan = make_scan(tmp_path / "s.nii.gz", noise, np.diag([-1.0, -1.0, 2.5, 1.0]))
    options = ("--engine", "torch", "--precision", "f32", "--repeats", 1, "--threads", 1)
    nnunet = ("--against", "nnunet", "--nnunet-plans", plans, "--mirroring", "both", "--tiles", 5)
    outcome = leanseg("benchmark", model, "--scan", scan, *options, *nnunet, "--json", record)
    assert outcome.status == 0, outcome.err
    runs = {each["setting"]: each for each in json.loads(record.read_text())["against"]}
    # (k, j, i) is 6 x 24 x 32. In 2-D tiles of 16 start 8 apart: 2 x 3 on each of 6 slices; in
    # 3-D 4 of 6 slices start 2 apart: 2 x 2 x 3.
    expected = {
        "2d, mirroring": (36, 4),
        "2d, no mirroring": (36, 1),
        "3d_fullres, mirroring": (12, 8),
        "3d_fullres, no mirroring": (12, 1),
    }
    assert {name: (each["tiles"], each["network"]["passes"]) for name, each in runs.items()} == (
        expected
    )
    for each in runs.values():
        assert each["status"] == "measured" and each["extrapolated"] and each["timed_tiles"] == 5
        (run,) = each["runs"]
        assert run["process"] > run["measured"]
    # A pass: 3 x 3 convolutions 1 to 4 channels at full size and 4 to 8 at half, up by 2 x 2
    # from 8 to 4, 3 x 3 from 8 to 4, and 1 x 1 from 4 to 2.
    by_hand = 256 * 9 * 4 + 64 * 9 * 32 + 64 * 4 * 32 + 256 * 9 * 32 + 256 * 8
    assert runs["2d, mirroring"]["network"]["multiply_adds"] == by_hand
    assert "tiles of 4 x 16 x 16, 8 x each, of which 5 are run" in outcome.err
    assert "12 tiles of" in outcome.err and "36 tiles of" in outcome.err
    assert "extrapolated from 5 of 36 tiles" in outcome.out


@pytest.mark.slow
@pytest.mark.skipif(find_spec("nnunetv2") is None, reason="nnU-Net is not installed")
def test_plans_without_the_configuration(leanseg, model, make_scan, tmp_path):
    plans = tmp_path / "plans.json"
    plans.write_text(json.dumps({**TINY_PLANS, "configurations": {"2d": configuration([16, 16])}}))
    scan = make_scan(tmp_path / "s.nii.gz")
    nnunet = ("--against", "nnunet", "--nnunet-plans", plans, "--configurations", "3d_lowres")
    outcome = leanseg("benchmark", model, "--scan", scan, *nnunet, "--threads", 1)
    assert outcome.status == 2 and "3d_lowres" in outcome.err and "only 2d" in outcome.err
