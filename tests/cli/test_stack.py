"""Stacked models on the command line: info, predict, benchmark, without PyTorch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import plans
from leanseg.inference import load_model
from leanseg.modelfile import Member, ModelFile, NetworkSpec, join_stack, read_model, write_model


@pytest.fixture(scope="module")
def stacked(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported MoNet and the same on other slices, with a combiner, untrained."""
    import torch

    from leanseg.networks import build
    from leanseg.training.export import export_model

    spec = NetworkSpec(name="combiner", in_channels=2, out_channels=3)
    generator = torch.Generator().manual_seed(2)
    network = build("combiner", in_channels=2, out_channels=3, generator=generator)
    weights = {name: each.numpy() for name, each in network.state_dict().items()}
    alone = plans.slices((24, 24), ("organ", "spot"), channels=("map 1", "map 2"))
    combiner = export_model(ModelFile.of(alone, Member(spec, weights)))
    member = read_model(exported)
    names = ["monet-1", "monet-2"]
    path = tmp_path_factory.mktemp("stack") / "stack.leanseg"
    write_model(path, join_stack([member] * 2, names, alone.final, combiner.members))
    return path


def test_info(leanseg, stacked: Path) -> None:
    out = leanseg("info", stacked).out
    assert "inputs" in out
    assert "monet-2" in out
    assert "combiner" in out


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
import numpy as np
from leanseg.inference import load_model
model, image, output = sys.argv[1:]
np.save(output, load_model(model, threads=1, engine="openvino").predict(image).array)
assert sys.modules["torch"] is None
"""


def test_predict_under_a_ceiling_and_without_pytorch(
    leanseg, stacked: Path, make_scan, tmp_path: Path
) -> None:
    image = make_scan(tmp_path / "scan.nii.gz")
    done = leanseg(
        "predict", stacked, image, "-o", tmp_path / "out", "--max-memory", "4GB", "--threads", 1
    )
    assert done.status == 0, done
    assert "combiner of 2 networks" in done.out
    found = nib.load(tmp_path / "out" / "scan.nii.gz")
    np.testing.assert_array_equal(found.affine, nib.load(image).affine)
    output = tmp_path / "labels.npy"
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH, stacked, image, output], check=True)
    np.testing.assert_array_equal(np.load(output), np.asarray(found.dataobj))
    expected = load_model(stacked, engine="torch", threads=1).predict(image).array
    assert (np.load(output) == expected).mean() > 0.99
    assert len(np.unique(expected)) > 1
    leanseg(
        "predict", stacked, image, "-o", tmp_path / "no", "--max-memory", "300MB"
    ).assert_refused("--max-memory allows 300 MB")


def test_benchmark(leanseg, stacked: Path, make_scan, tmp_path: Path) -> None:
    done = leanseg(
        "benchmark", stacked, "--scan", make_scan(tmp_path / "scan.nii.gz"), "--repeats", 1,
        "--engine", "openvino", "--precision", "f32", "--threads", 1,
    )  # fmt: skip
    assert done.status == 0, done
    assert "combiner of 2 networks" in done.out


def test_runs_that_are_none(leanseg, tmp_path: Path) -> None:
    leanseg("stack", tmp_path, "-o", tmp_path / "out").assert_refused("is not a run")
