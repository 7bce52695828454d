"""What the benchmark's tests share: a record of a benchmark that nobody ran."""

from __future__ import annotations

from pathlib import Path

import pytest

from leanseg.benchmarking.measure import Outcome
from leanseg.benchmarking.rivals import Rival


def run_of(process: float, peak: float, warm: float = 1.0) -> dict:
    return {
        "process": process,
        "load": 0.5,
        "first": 0.6,
        "warm": warm,
        "warm_cpu": 1.5 * warm,
        "peak_memory_mb": peak,
        "stages": {},
        "warm_stages": {},
    }


def measured(engine: str, precision: str, runs: list[dict], **more) -> Outcome:
    outcome = Outcome(Path("folder/m.leanseg"), engine, precision, runs=runs, **more)
    outcome.chosen = outcome.chosen if outcome.chosen[0] else (engine, precision)
    return outcome


@pytest.fixture
def outcomes() -> list[Outcome]:
    """One of each kind."""
    fast = [run_of(3.0, 300.0, 2.0), run_of(2.0, 310.0, 1.0), run_of(4.0, 290.0, 9.0)]
    return [
        measured("openvino", "f32", fast, equal_voxels=1.0, reference="torch f32"),
        measured(
            "auto",
            "auto",
            [run_of(1.5, 200.0)],
            chosen=("openvino", "bf16"),
            equal_voxels=0.99999999,
            reference="torch f32",
        ),
        Outcome(Path("folder/m.leanseg"), "torch", "f16", "not available", "no f16 in torch"),
        Outcome(Path("folder/m.leanseg"), "torch", "int8", "not available", "no int8 in torch"),
        Outcome(Path("folder/m.leanseg"), "tpu", "f32", "not installed", "pip install tpu"),
        Outcome(Path("folder/m.leanseg"), "tpu", "int8", "not installed", "pip install tpu"),
    ]


@pytest.fixture
def rivals() -> list[Rival]:
    network = {
        "patch_size": [40, 224, 224],
        "spacing_mm": [2.5, 0.8, 0.8],
        "axes": [0, 1, 2],
        "parameters": 30_000_000,
        "multiply_adds": 537_000_000_000,
        "passes": 8,
    }
    run = {
        "process": 600.0,
        "network": 500.0,
        "peak_memory_mb": 3000.0,
        "extrapolated": True,
        "measured": 60.0,
        "tiles": 112,
        "timed_tiles": 3,
    }
    plain = {"process": 30.0, "network": 20.0, "peak_memory_mb": 900.0, "extrapolated": False}
    return [
        Rival("nnunet", "3d_fullres, mirroring", {}, network, runs=[run]),
        Rival("monai", "monet, PyTorch f32", {}, runs=[plain], equal_voxels=0.99995),
        Rival("nnunet", "2d, mirroring", {}, network, "failed", "it was killed"),
    ]


@pytest.fixture
def record(outcomes, rivals) -> dict:
    model = {
        "name": "m",
        "file": "folder/m.leanseg",
        "network": "monet",
        "labels": 1,
        "channels": 1,
        "members": 1,
        "parameters": 401_666,
        "keras_total": 403_556,
        "file_bytes": 1_638_916,
        "input_shape": [256, 256],
        "input_kind": "slice",
        "multiply_adds": 4_758_437_888,
        "uncounted": [],
    }
    machine = {
        "processor": "Abacus 9",
        "cores": 2,
        "physical_cores": 2,
        "instruction_sets": ["avx512_bf16"],
        "memory_bytes": 24_000_000_000,
        "system": "Linux",
        "versions": {"python": "3.11.7", "torch": None},
        "load_average": 0.25,
    }
    scan = {
        "source": "phantom",
        "shape": [512, 512, 150],
        "channels": 1,
        "spacing_mm": [0.8, 0.8, 2.5],
        "file_mb": 36.0,
    }
    return {
        "format": "leanseg-benchmark",
        "version": 1,
        "machine": machine,
        "scan": scan,
        "settings": {"repeats": 3, "threads": 2, "against_repeats": 1},
        "models": [model],
        "results": [outcome.as_dict(150) for outcome in outcomes],
        "against": [rival.as_dict(outcomes) for rival in rivals],
    }
