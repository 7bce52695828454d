"""Several processes that train together: one process's weights, and their end with one sentence."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch

import forked
import joint_training
from joint_training import CROPS, LOSS_CASES, NORMS, VARIANTS
from leanseg.errors import LeansegError, RecipeError
from leanseg.training import Recipe, load_recipe, start_run
from leanseg.training.launch import train_in_processes
from leanseg.training.runtime import require_devices

RECIPE = """
name: balls
data: {labels: {ball: [1, 2]}}
network: {name: monet, options: {base_filters: 4, dropout: 0.0}}
plan: {frame: {axes: [24, 24, null]}}
packaging: {export: false}
phases:
- sampler: {name: slices, options: {margin: 2}}
  augmentation: [{name: affine}]
  loss: [{name: dice}]
  optimiser: {name: SGD, options: {lr: 0.1, momentum: 0.9}}
  epochs: 3
  steps_per_epoch: 4
  batch_size: 4
training: {threads: 1, precision: "32", checkpoint_interval_s: 0}
"""
Results = dict[str, dict[str, torch.Tensor]]


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "balls.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def recipe(recipe_file: Path) -> Recipe:
    return load_recipe(str(recipe_file))


@pytest.fixture(scope="module")
def results(
    tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path, recipe: Recipe
) -> tuple[Results, list[Results]]:
    """Of one process, and of each of two that share every batch."""
    folder = tmp_path_factory.mktemp("joint")
    start_run(recipe, tiny_dataset, folder / "run", check=False)
    threads = torch.get_num_threads()
    alone = joint_training.everything(folder / "run")
    torch.set_num_threads(threads)
    # Free a moment ago, which is enough for a test.
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kept = [folder / f"results{n}" for n in range(2)]
    processes = [
        forked.start(
            partial(joint_training.share, n, 2, port, folder / "run", kept[n]), folder / f"said{n}"
        )
        for n in range(2)
    ]
    assert [forked.ended(process) for process in processes] == [0, 0]
    return alone, [torch.load(path) for path in kept]


def compare(results: tuple[Results, list[Results]], what: str, tolerance: float) -> None:
    alone, both = results
    assert alone[what].keys() == both[0][what].keys() == both[1][what].keys()
    for name, expected in alone[what].items():
        first, second = (each[what][name] for each in both)
        if name.startswith("part"):
            found = torch.empty_like(expected)
            found[0::2], found[1::2] = first, second
        else:
            torch.testing.assert_close(first, second, rtol=0, atol=0)
            found = first
        torch.testing.assert_close(
            found,
            expected,
            rtol=tolerance,
            atol=tolerance,
            # Written only where it is needed: a network has hundreds of weights.
            msg=lambda said, name=name: f"{name}: {said}",
        )


@pytest.mark.parametrize(("name", "classes"), LOSS_CASES)
def test_a_loss_and_its_gradients_are_those_of_the_joint_batch(results, name, classes) -> None:
    compare(results, f"{name} {classes}", 1e-10)
    assert results[0][f"{name} {classes}"]["weight"].abs().max() > 1e-4


@pytest.mark.parametrize("number", range(len(NORMS)))
def test_batch_normalisation_is_that_of_the_joint_batch(results, number) -> None:
    """Against torch's own, which one process uses."""
    compare(results, f"norm {number}", 1e-10)


@pytest.mark.parametrize("variant", VARIANTS)
def test_weights_are_those_of_one_process(results, variant) -> None:
    compare(results, variant, 1e-6)


@pytest.mark.parametrize("crop", CROPS)
def test_a_cascades_weights_are_those_of_one_process(results, crop) -> None:
    """Its crops have one size in all processes, whatever each one's slices need."""
    compare(results, f"cascade {crop}", 1e-5)
    assert (results[0][f"cascade {crop}"]["missed"] > 0) == (crop == "found")


def test_each_half_alone_would_give_other_gradients() -> None:
    """What the comparison of losses rests on: Dice is no mean over samples."""
    generator = torch.Generator().manual_seed(5)
    image = torch.randn(4, 2, 6, 6, generator=generator).requires_grad_()
    target = torch.randint(2, (4, 6, 6), generator=generator)
    target[1::2] = 0
    loss = joint_training.build_loss("dice")
    (joint,) = torch.autograd.grad(loss(image, target), image)
    halves = (loss(image[n::2], target[n::2]) for n in range(2))
    (averaged,) = torch.autograd.grad(sum(halves) / 2, image)
    assert (joint - averaged).abs().max() > 1e-3


def test_a_batch_that_cannot_be_divided(recipe: Recipe, tiny_dataset: Path, tmp_path: Path) -> None:
    uneven = recipe.with_overrides(["training.devices=3"])
    with pytest.raises(RecipeError, match=r"batch_size of 4 .* among 3 devices; .* multiple of 3"):
        start_run(uneven, tiny_dataset, tmp_path / "run", check=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_more_devices_than_there_are(recipe: Recipe, monkeypatch, kind: str) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    require_devices(recipe, torch.device(kind))
    two = recipe.with_overrides(["training.devices=2"])
    require_devices(two, torch.device("cpu"))
    with pytest.raises(RecipeError, match=f"'training.devices' is 2, but 1 of the kind {kind}"):
        require_devices(two, torch.device(kind))


def sha256(run: Path) -> str:
    return hashlib.sha256((run / "fold_0" / "checkpoint.safetensors").read_bytes()).hexdigest()


class Ended:
    """How a command ended that was started in a session of its own."""

    def __init__(self, process: subprocess.Popen[str], run: Path) -> None:
        self.out, self.err = process.communicate(timeout=200)
        self.status = process.returncode
        deadline = time.monotonic() + 10
        while (left := of_run(run)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not left
        assert not list(run.rglob(".writing-*"))

    def said(self) -> list[str]:
        """What leanseg says of the end."""
        return [line for line in self.err.splitlines() if line.startswith("leanseg: ")]


def of_run(run: Path) -> list[int]:
    """Living processes that train a run."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        with suppress(psutil.Error):
            given = process.info["cmdline"] or ()
            if str(run) in given and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


@pytest.fixture
def begin(recipe_file: Path, tiny_dataset: Path, tmp_path: Path) -> Callable[..., object]:
    """Start a training, by a launcher of torch's or by `--devices`."""
    started: list[subprocess.Popen[str]] = []

    def begin(*given: object, torchrun: tuple[object, ...] = (), data: Path = tiny_dataset):
        launcher = ("-m", "torch.distributed.run", *torchrun) if torchrun else ()
        new = () if "--resume" in given else (recipe_file, "--data", data)
        words = [sys.executable, *launcher, "-m", "leanseg", "train", *new, *given]
        process = subprocess.Popen(
            [str(word) for word in words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not (path.exists() and path.stat().st_size) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


ONE_MACHINE = ("--nnodes", 1, "--nproc-per-node", 2)


@pytest.fixture(scope="module")
def uninterrupted(
    tmp_path_factory: pytest.TempPathFactory, recipe: Recipe, tiny_dataset: Path
) -> str:
    folder = tmp_path_factory.mktemp("whole") / "run"
    run = start_run(recipe, tiny_dataset, folder, check=False)
    train_in_processes(run.folder, 2, 1, run.cache.root)
    return sha256(folder)


@pytest.mark.slow
@pytest.mark.parametrize("torchrun", [(), ONE_MACHINE])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_all_and_the_run_resumes_to_the_same_bits(
    begin, uninterrupted, tmp_path: Path, rank: int, torchrun
) -> None:
    run = tmp_path / "run"
    devices = () if torchrun else ("--devices", 2)
    process = begin("--output", run, *devices, torchrun=torchrun)
    wait_for(run / "fold_0" / "metrics.jsonl", process)
    (killed,) = (
        child.pid
        for child in psutil.Process(process.pid).children()
        if child.environ().get("RANK") == str(rank)
    )
    os.kill(killed, signal.SIGKILL)
    ended = Ended(process, run)
    assert ended.status
    if torchrun:
        # It stops the other one at once, and reports by itself.
        (said,) = ended.said() or ["terminated"]
        assert "another of the processes" in said or "terminated" in said
        assert "SIGKILL" in ended.err
    else:
        (said,) = ended.said()
        assert f"process {rank + 1} of 2 was ended by signal 9" in said
        assert f"leanseg train --resume {run}" in said
        assert len(ended.err.splitlines()) == 1
    ended = Ended(begin("--resume", run, torchrun=torchrun), run)
    assert not ended.status, ended.err
    assert len(re.findall("model: ", ended.out)) == 1
    assert len(re.findall("resuming at epoch", ended.out)) == 1
    assert sha256(run) == uninterrupted


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["static", "c10d"])
def test_two_machines(begin, uninterrupted, tmp_path: Path, backend: str) -> None:
    run = tmp_path / "run"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if backend == "static":
        meet: tuple[object, ...] = ("--master-addr", "127.0.0.1", "--master-port", port)
    else:
        meet = ("--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{port}", "--rdzv-id", 1)
    agents = []
    for n in range(2):
        number = ("--node-rank", n) if backend == "static" else ()
        torchrun = ("--nnodes", 2, "--nproc-per-node", 1, *number, *meet)
        agents.append(begin("--output", run, torchrun=torchrun))
    first, second = (Ended(agent, run) for agent in agents)
    assert (first.status, second.status) == (0, 0), first.err + second.err
    # Either may turn out to have the first process, which talks.
    assert sorted("model: " in each.out for each in (first, second)) == [False, True]
    assert sorted(bool(each.out) for each in (first, second)) == [False, True]
    assert sha256(run) == uninterrupted


@pytest.mark.slow
@pytest.mark.parametrize("group", [True, False])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all(begin, tmp_path: Path, number: int, group: bool) -> None:
    run = tmp_path / "run"
    process = begin("--output", run, "--devices", 2)
    wait_for(run / "fold_0" / "metrics.jsonl", process)
    (os.killpg if group else os.kill)(process.pid, number)
    ended = Ended(process, run)
    assert ended.status == 128 + number
    what = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}[number]
    assert ended.err.splitlines() == [f"leanseg: {what}; nothing half-written was left behind"]
    assert ended.out.count("continue with") == 1
    assert not (run / ".run.lock").exists()


@pytest.mark.slow
@pytest.mark.parametrize("torchrun", [(), ONE_MACHINE])
def test_processes_end_with_their_launcher(begin, tmp_path: Path, torchrun) -> None:
    run = tmp_path / "run"
    process = begin("--output", run, *(() if torchrun else ("--devices", 2)), torchrun=torchrun)
    wait_for(run / "fold_0" / "metrics.jsonl", process)
    process.kill()
    ended = Ended(process, run)
    told = ["leanseg: terminated; nothing half-written was left behind"] if torchrun else []
    assert ended.err.splitlines() == told
    assert not (run / ".run.lock").exists()


@pytest.mark.slow
def test_an_error_of_the_start_is_told_once(begin, tmp_path: Path) -> None:
    run, absent = tmp_path / "run", tmp_path / "absent"
    ended = Ended(begin("--output", run, torchrun=ONE_MACHINE, data=absent), run)
    assert ended.status
    (said,) = ended.said()
    assert f"{absent}: this folder does not exist" in said
    assert not run.exists()


@pytest.mark.slow
def test_an_error_of_a_process_is_raised_by_the_launcher(
    recipe: Recipe, tiny_dataset: Path, tmp_path: Path
) -> None:
    wild = recipe.with_overrides(["phases.0.optimiser.options.lr=1.0e+30"])
    run = start_run(wild, tiny_dataset, tmp_path / "run", check=False)
    with pytest.raises(RecipeError, match="training diverged in epoch 1"):
        train_in_processes(run.folder, 2, 1, run.cache.root)
    state = run.fold_folder(0) / "state.pt"
    state.write_bytes(state.read_bytes()[:-1])
    with pytest.raises(LeansegError, match=r"state\.pt: is not a readable training state"):
        train_in_processes(run.folder, 2, 1, run.cache.root)
