"""Ctrl-C and SIGTERM at any moment: status, one sentence, no traceback, no child, nothing half."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import torch

import leanseg
from leanseg.networks.obelisk_import import LAYOUTS
from obelisk_checkpoint import checkpoint

pytestmark = pytest.mark.skipif(os.name != "posix", reason="POSIX signals")

TRAIN = (
    *("--set", "plan.frame.axes=[64, 64, null]", "--set", "training.precision='32'"),
    *("--set", "phases.0.epochs=4", "--set", "phases.0.steps_per_epoch=8"),
    *("--set", "training.checkpoint_interval_s=0", "--threads", "1"),
    *("--set", "network.options.base_filters=4"),
)
WORKERS = ("--set", "training.workers=2")
# Name to what a command is given; {data}, {model}, {trained} ... are made once, {out} is new.
COMMANDS = {
    "train": ("train", "monet-ct", "--data", "{data}", "-o", "{out}", *TRAIN),
    "train-workers": ("train", "monet-ct", "--data", "{data}", "-o", "{out}", *TRAIN, *WORKERS),
    "predict": ("predict", "{model}", "{data}/imagesTr", "-o", "{out}"),
    "predict-openvino": ("predict", "{exported}", "{zipped}", "{data}/imagesTr", "-o", "{out}"),
    "evaluate": ("evaluate", "{data}/labelsTr", "{data}/labelsTr", "-o", "{out}"),
    "evaluate-workers": ("evaluate", "{many}", "{many}", "-o", "{out}", "--workers", "2"),
    "check": ("check", "{data}", "--json", "{out}.json", "--fix", "{out}"),
    "check-workers": ("check", "{data}", "--html", "{out}.html", "--workers", "2"),
    "convert": ("convert", "{zipped}", "--to", "nnunet", "-o", "{out}"),
    "phantom": ("phantom", "{out}", "--cases", "30", "--size", "96"),
    "benchmark": (
        *("benchmark", "{exported}", "--shape", "64", "64", "30", "--json", "{out}.json"),
    ),
    "export": ("export", "{model}", "-o", "{out}.leanseg", "--onnx", "{out}.onnx"),
    "activations": ("activations", "{model}", "{data}/imagesTr/phantom_0000.nii.gz", "-o", "{out}"),
    "import-weights": ("import-weights", "obelisk", "{published}", "-o", "{out}.leanseg"),
    "report": ("report", "{trained}", "-o", "{out}.html"),
    "networks": ("networks", "--latency"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "data"
    leanseg.phantom(folder, 8, size=64, slices=20)
    return folder


@pytest.fixture(scope="module")
def many(tmp_path_factory, data: Path) -> Path:
    """So many masks that no machine has scored them before the signal comes."""
    folder = tmp_path_factory.mktemp("many") / "masks"
    folder.mkdir()
    for number in range(100):
        for mask in (data / "labelsTr").glob("*.nii.gz"):
            os.link(mask, folder / f"{number:03d}_{mask.name}")
    return folder


@pytest.fixture(scope="module")
def zipped(data: Path) -> Path:
    return Path(shutil.make_archive(str(data), "zip", data))


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("published") / "obelisk.pth"
    layout = next(each for each in LAYOUTS if each.network == "obelisk-hybrid-tcia")
    torch.save(checkpoint(layout, classes=9)[0], path)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data: Path) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    command = [part.format(data=data, out=folder) for part in COMMANDS["train"]]
    subprocess.run([sys.executable, "-m", "leanseg.cli.main", *command], check=True)
    return folder


@dataclass(frozen=True)
class Ended:
    status: int
    out: str
    err: str
    seconds: float


def living(group: int) -> list[str]:
    """Processes of a group, but for dead ones that nobody has asked after."""
    found = []
    for process in psutil.process_iter(["status", "cmdline"]):
        with suppress(ProcessLookupError):
            if os.getpgid(process.pid) == group and process.info["status"] != "zombie":
                found.append(str(process.info["cmdline"]))
    return found


@pytest.fixture
def stopped(request, tmp_path: Path) -> Callable[..., Ended]:
    """Start a command, send signals at a moment, and look at what it leaves."""

    def run(name: str, number: int, when: float | str, *, group: bool = True, again: float = 0.0):
        # A short name: sockets between processes lie there.
        place = Path(tempfile.mkdtemp(prefix="signals-"))
        (tmp_path / "temporary").unlink(missing_ok=True)
        (tmp_path / "temporary").symlink_to(place)
        request.addfinalizer(lambda: shutil.rmtree(place, ignore_errors=True))
        wanted = set(re.findall(r"{(\w+)}", " ".join(COMMANDS[name]))) - {"out"}
        there = {each: request.getfixturevalue(each) for each in wanted}
        given = [part.format(**there, out=tmp_path / "out") for part in COMMANDS[name]]
        process = subprocess.Popen(
            [sys.executable, "-m", "leanseg.cli.main", *given],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(place), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)},
        )
        if isinstance(when, str):
            deadline = time.monotonic() + 60
            while not list(tmp_path.glob(when)) and time.monotonic() < deadline:
                assert process.poll() is None, process.communicate()
                time.sleep(0.01)
        else:
            time.sleep(when)
        send = os.killpg if group else os.kill
        began = time.monotonic()
        for wait in (0.0, again) if again else (0.0,):
            time.sleep(wait)
            try:
                send(process.pid, number)
            except ProcessLookupError:
                break
        out, err = process.communicate(timeout=60)
        ended = Ended(process.returncode, out, err, time.monotonic() - began)
        if ended.status in (-number, 1) and "leanseg" not in err:
            # Before the first or after the last line of leanseg's.
            return Ended(0 if out else ended.status, out, err, ended.seconds)
        assert not [line for line in (out + err).splitlines() if line.startswith("Traceback")], err
        assert "Exception ignored" not in err, err
        assert not list(place.glob("leanseg-*"))
        assert not list(tmp_path.rglob(".writing-*"))
        assert not list(tmp_path.rglob("*.lock"))
        deadline = time.monotonic() + 5
        while (left := living(process.pid)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not left
        if ended.status:
            what = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}[number]
            assert ended.status == 128 + number, ended
            said = [line for line in err.splitlines() if line.startswith("leanseg: ")]
            assert said == [f"leanseg: {what}; nothing half-written was left behind"], ended
        return ended

    return run


@pytest.mark.parametrize(
    ("name", "number", "when"),
    [
        ("train-workers", signal.SIGINT, "out/fold_0/metrics.jsonl"),
        ("evaluate-workers", signal.SIGTERM, 1.0),
        ("convert", signal.SIGINT, "temporary/leanseg-*"),
    ],
)
def test_stopped(stopped, name: str, number: int, when: float | str) -> None:
    assert stopped(name, number, when).status


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", COMMANDS)
def test_stopped_at_any_moment(stopped, tmp_path: Path, name: str, number: int) -> None:
    for attempt, when in enumerate((0.3, 0.6, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0)):
        # As a terminal does it, and to the process alone; one in three times twice.
        ended = stopped(
            name, number, when, group=attempt % 2 == 0, again=0.05 if attempt % 3 == 0 else 0.0
        )
        assert ended.seconds < 20
        if not ended.status:
            break
        for path in tmp_path.glob("out*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("when", ["out/recipe.yaml", "out/fold_0/state.pt", "out/fold_0/*.leanseg"])
def test_a_stopped_training_goes_on(stopped, tmp_path: Path, when: str) -> None:
    assert stopped("train-workers", signal.SIGTERM, when).status
    command = [sys.executable, "-m", "leanseg.cli.main", "train", "--resume", tmp_path / "out"]
    subprocess.run(command, check=True)
    assert (tmp_path / "out" / "fold_0" / "summary.json").is_file()
