"""Every write, rename, fsync and mkdir of a command fails once, and is a kill once.

As SQLite tests itself: a run that fails says so in one sentence and leaves nothing half-written;
the next one ends at the same bytes as one that nothing disturbed.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import leanseg
import plans
from leanseg.modelfile import Member, ModelFile, NetworkSpec, write_model
from leanseg.plan import HounsfieldWindow

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None, reason="preloads a library in C"
)
TRAIN = (
    *("plan.frame.axes=[64, 64, null]", "training.precision='32'", "phases.0.epochs=2"),
    *("phases.0.steps_per_epoch=1", "training.checkpoint_interval_s=0", "packaging.export=false"),
    *("phases.0.sampler.options={margin: 0, count: 2}", "network.options.base_filters=1"),
)
# What differs between two runs that nothing disturbed.
TIMES = ("seconds", "elapsed_s", "cpu_s", "samples_per_s", "stages", "peak_memory_mb")

COMMANDS = ("predict", "evaluate", "convert", "train")


@pytest.fixture(scope="module")
def shim(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("shim") / "faults.so"
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-O1", "-o", path, HERE / "faults.c", "-ldl"], check=True
    )
    return path


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """A dataset of three cases, and a model."""
    import torch

    from leanseg.networks import build

    folder = tmp_path_factory.mktemp("inputs")
    leanseg.phantom(folder / "data", 3, size=64, slices=20)
    spec = NetworkSpec(name="monet", in_channels=1, out_channels=1, options={"base_filters": 1})
    network = build("monet", base_filters=1, generator=torch.Generator().manual_seed(0))
    weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    plan = plans.slices(window=HounsfieldWindow())
    write_model(folder / "m.leanseg", ModelFile.of(plan, Member(spec, weights)))
    return folder


def command(name: str, inputs: Path, folder: Path) -> list[str]:
    data, out = inputs / "data", folder / "out"
    settings = [part for setting in TRAIN for part in ("--set", setting)]
    images = [data / "imagesTr" / f"phantom_000{n}.nii.gz" for n in (0, 1)]
    return list(
        map(
            str,
            {
                "predict": ["predict", inputs / "m.leanseg", *images, "-o", out, "--threads", 1],
                "evaluate": ["evaluate", data / "labelsTr", data / "labelsTr", "-o", out],
                "convert": ["convert", data, "--to", "nnunet", "-o", out],
                "train": [
                    *("train", "monet-ct", "--data", data, "-o", out, "--threads", 1, *settings),
                ],
            }[name],
        )
    )


def drive(shim: Path, jobs: list[dict[str, Any]]) -> list[Any]:
    done = subprocess.run(
        [sys.executable, HERE / "fault_driver.py", shim],
        input=json.dumps(jobs),
        env={**os.environ, "LD_PRELOAD": str(shim), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def job(name: str, inputs: Path, folder: Path, fault: list, again: bool = True) -> dict:
    """`fault`: the call that fails, or its share of all calls; the error or 0; whether it lasts."""
    folder.mkdir(parents=True)
    return {
        "first": command(name, inputs, folder),
        "resume": ["train", "--resume", str(folder / "out")],
        "folder": str(folder),
        "fault": fault,
        "again": again,
    }


def content(folder: Path) -> dict[str, Any]:
    """Every file that should be the same, hidden ones too, without what a clock says."""
    files = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir() or name.startswith("out/fold_0/tensorboard/"):
            files |= {name: None} if path.name.startswith(".") else {}
        elif path.suffix in (".json", ".jsonl"):
            lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
            files[name] = [timeless(json.loads(line)) for line in lines]
        elif path.name in ("state.pt", "sha256sums.txt"):
            # They hold, or depend on, the seconds that training took.
            files[name] = "there"
        else:
            files[name] = path.read_bytes()
    return files


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if not any(k.endswith(end) for end in TIMES)}
        return {key: timeless(part) for key, part in kept.items()}
    return [timeless(part) for part in value] if isinstance(value, list) else value


def check(results: list[Any], jobs: list[dict], expected: list[dict], inputs: Path) -> None:
    before = content(inputs)
    for given, (faulty, after), made in zip(jobs, results, expected, strict=True):
        where = (given["fault"], faulty, after)
        status, errors, _ = faulty
        if given["fault"][1]:
            # A failure that harms nothing (the folder's own sync) may pass without a word.
            assert status in (0, 1, 2), where
            lines = [line for line in errors.splitlines() if line.startswith("leanseg: ")]
            assert len(lines) == (status == 2), where
        else:
            assert status in (0, -signal.SIGKILL), where
        assert "Traceback" not in errors, where
        assert "Exception" not in errors, where
        again, errors, _ = after
        if "already holds something" not in errors:  # it was whole before the kill
            assert again == 0, where
        found = content(Path(given["folder"]))
        assert found.keys() == made.keys(), (where, found.keys() ^ made.keys())
        assert not [name for name in found if found[name] != made[name]], where
    assert content(inputs) == before


def undisturbed(inputs: Path, place: Path) -> list[dict]:
    return [job(name, inputs, place / name, [-1, 0, 0], again=False) for name in COMMANDS]


def made_by(results: list[Any], place: Path) -> dict[str, tuple[int, dict[str, Any]]]:
    """What each command makes if nothing disturbs it, in how many calls."""
    found = {}
    for name, ((status, errors, n_calls), _) in zip(COMMANDS, results, strict=True):
        assert status == 0, errors
        assert n_calls > 10
        found[name] = n_calls, content(place / name)
    return found


@pytest.fixture(scope="module")
def references(shim, inputs, tmp_path_factory) -> dict[str, tuple[int, dict[str, Any]]]:
    place = tmp_path_factory.mktemp("references")
    return made_by(drive(shim, undisturbed(inputs, place)), place)


def test_some_faults(shim, inputs, tmp_path: Path) -> None:
    whole = undisturbed(inputs, tmp_path / "whole")
    # Training takes the longest: it is killed alone.
    faults = [(name, 1 / 3, errno.ENOSPC, 1) for name in COMMANDS if name != "train"]
    faults += [(name, 1 / 2, 0, 0) for name in COMMANDS]
    jobs = [
        job(name, inputs, tmp_path / f"{name}{error}", [share, error, lasts])
        for name, share, error, lasts in faults
    ]
    # One process for all: it takes longer to start than a command to run.
    results = drive(shim, whole + jobs)
    made = made_by(results[: len(whole)], tmp_path / "whole")
    expected = [made[name][1] for name, *_ in faults]
    check(results[len(whole) :], jobs, expected, inputs)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", [(errno.EIO, 0), (errno.ENOSPC, 1), (0, 0)])
@pytest.mark.parametrize("name", COMMANDS)
def test_every_fault(name, kind, references, shim, inputs, tmp_path: Path) -> None:
    """`kind`: error or 0 for a kill, whether it lasts."""
    n_calls, made = references[name]
    jobs = [job(name, inputs, tmp_path / str(call), [call, *kind]) for call in range(n_calls)]
    check(drive(shim, jobs), jobs, [made] * n_calls, inputs)
