"""What the command-line tests share: a small model, small scans, running a command."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import plans
from leanseg.cli.main import run as run_command
from leanseg.modelfile import Member, ModelFile, NetworkSpec, Provenance, write_model
from leanseg.plan import HounsfieldWindow, Plan

AFFINE = np.array(
    [[-0.7, 0.05, 0.1, 90.1], [-0.04, -0.71, 0.2, 80.7], [0.03, 0.1, 2.9, -300], [0, 0, 0, 1]]
)


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit status, what it printed."""

    status: int
    out: str
    err: str

    def assert_refused(self, *parts: str) -> None:
        """One sentence on stderr that has these parts, exit status 2."""
        assert self.status == 2, self
        assert self.err.startswith("leanseg: ")
        assert self.err.count("\n") == 1, self.err
        assert self.out == ""
        for part in parts:
            assert part in self.err


@pytest.fixture
def leanseg(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run a command in this process."""

    def run(*arguments: object) -> Outcome:
        capfd.readouterr()
        try:
            run_command([str(argument) for argument in arguments])
            status = 0
        except SystemExit as error:
            status = int(error.code or 0)
        out, err = capfd.readouterr()
        return Outcome(status, out, err)

    return run


@pytest.fixture
def leanseg_process() -> Callable[..., Outcome]:
    """Run a command in a process of its own, after some code if need be."""

    def run(*arguments: object, before: str = "", **options) -> Outcome:
        code = f"{before}\nfrom leanseg.cli.main import run\nrun({list(map(str, arguments))!r})"
        command: Sequence[str] = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run


def random_model(path: Path, plan: Plan | None = None, base_filters: int = 4) -> Path:
    """A model file of a MoNet that was not trained."""
    import torch

    from leanseg.networks import build

    plan = plan or plans.slices(window=HounsfieldWindow())
    spec = NetworkSpec(
        name="monet",
        in_channels=len(plan.channels),
        out_channels=plan.final.n_outputs,
        options={"base_filters": base_filters},
    )
    generator = torch.Generator().manual_seed(0)
    network = build(
        spec.name,
        in_channels=spec.in_channels,
        out_channels=spec.out_channels,
        generator=generator,
        **spec.options,
    )
    provenance = Provenance(
        data_name="Task99",
        training_cases=("a", "b", "c"),
        monitor_cases=("d",),
        test_cases=("e", "f"),
        scores=dict.fromkeys(plan.labels, 0.8123),
        versions={"leanseg": "0.1.0"},
    )
    weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    write_model(path, ModelFile.of(plan, Member(spec, weights), provenance=provenance))
    return path


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Path]:
    return random_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_model(tmp_path_factory.mktemp("model") / "tiny.leanseg")


@pytest.fixture(scope="session")
def exported(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with its network exported: OpenVINO and ONNX Runtime run it."""
    from leanseg.training import package

    return package(model, tmp_path_factory.mktemp("exported") / model.name)


@pytest.fixture
def make_scan(rng: np.random.Generator) -> Callable[..., Path]:
    """Write a small oblique CT, or an array that is given."""

    def make(path: Path, array: np.ndarray | None = None, affine: np.ndarray = AFFINE) -> Path:
        if array is None:
            array = rng.normal(50, 200, size=(20, 18, 7)).astype(np.int16)
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, affine), path)
        return path

    return make


@pytest.fixture
def listing() -> Callable[[Path], list[str]]:
    """Every file and folder below a folder, hidden ones too."""
    return lambda folder: sorted(
        os.path.relpath(path, folder) for path in folder.rglob("*") if folder.exists()
    )
