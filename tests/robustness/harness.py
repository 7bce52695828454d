"""Runs damaged inputs in forked children, each under a time limit, and says what came of them.

An input is a target and a number; both together decide everything about it. A child gets a batch
of numbers and tells of each before and after it is read, so that the one that ended or hung it is
known; that one is run again alone, and the rest goes on in another child.
"""

from __future__ import annotations

import faulthandler
import json
import os
import random
import resource
import secrets
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import uuid
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from leanseg.errors import LeansegError

SEED = 20240229
OUTCOMES = ("answered", "unchecked", "refused", "wrong", "unclear", "traceback", "crash", "hang")
GOOD = ("answered", "unchecked", "refused")
_BATCH = 250
_LONGEST_MESSAGE = 1500
# What a refusal may begin with besides a file: a path that a listing names, or what a recipe names.
_SUBJECTS = ("/", "--set", "recipe ", "network ", "loss ", "augmentation ")


class UncheckedError(Exception):
    """Raised by an oracle that has nothing to compare an answer with, or cannot read the input."""


class WrongError(Exception):
    """Raised by an oracle that reads something else."""


@dataclass(frozen=True)
class Target:
    """A reader, sound input for it, and how its answers are checked.

    Attributes:
        name: Row in the table.
        build: Writes sound input into an empty folder, once.
        damage: Changes a copy of that folder in place, by the generator.
        read: Reads the copy.
        check: Raises `WrongError` or `UncheckedError` about an answer; returns where it agrees.
        share: Inputs of a full run.
        small: Inputs of the small run, within `make test`.
        limit_s: Longest time for one input, of the processor, or without any use of it.
        quiet: Whether nothing may be printed.
        writes: Whether reading writes into the folder, so that hard links will not do.
        most_bytes: Ceiling on what reading a file of a few kilobytes may ask for.
    """

    name: str
    build: Callable[[Path], None]
    damage: Callable[[Path, np.random.Generator], None]
    read: Callable[[Path], Any]
    check: Callable[[Path, Any], None]
    share: int
    small: int
    limit_s: float = 20.0
    quiet: bool = False
    writes: bool = False
    most_bytes: int = 512 << 20


@dataclass(frozen=True)
class Result:
    """What came of one input: one of `OUTCOMES`, and why."""

    target: str
    number: int
    outcome: str
    detail: str = ""
    seconds: float = 0.0


def seed_of(target: Target, number: int) -> list[int]:
    """The seed of an input: adding a target changes no other's inputs."""
    return [SEED, zlib.crc32(target.name.encode()), number]


def run_target(target: Target, numbers: Sequence[int], place: Path) -> Iterator[Result]:
    """The results of some inputs of a target.

    Args:
        target: What is read.
        numbers: Which of its inputs.
        place: An empty folder for sound and damaged files.
    """
    sound = place / "sound"
    if not sound.exists():
        _in_child(lambda: _build(target, sound), place)
    waiting = list(numbers)
    while waiting:
        batch, waiting = waiting[:_BATCH], waiting[_BATCH:]
        while batch:
            results, ended_by = _run_batch(target, batch, place)
            yield from results
            batch = batch[len(results) :]
            if ended_by:
                yield _alone(target, batch[0], place, ended_by)
                batch = batch[1:]


def _build(target: Target, folder: Path) -> None:
    """Sound input, the same at any time: DICOM's identifiers are drawn, too."""
    rng = random.Random(SEED)
    secrets.randbelow = lambda most: rng.randrange(most)  # type: ignore[assignment]
    uuid.uuid4 = lambda: uuid.UUID(int=rng.getrandbits(128), version=4)
    folder.mkdir(parents=True)
    target.build(folder)


def _in_child(work: Callable[[], Any], place: Path) -> None:
    """Do something in a child, so that no thread or state of it stays in the parent."""
    child = os.fork()
    if not child:
        _end_child(work)
    if os.waitpid(child, 0)[1]:
        msg = f"{place}: sound input could not be made"
        raise RuntimeError(msg)


def _end_child(work: Callable[[], Any]) -> None:
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _alone(target: Target, number: int, place: Path, ended_by: str) -> Result:
    """An input that ended its child, run again: a machine that is busy is no hang."""
    results, again = _run_batch(target, [number], place, patience=2)
    if results and ended_by == "hang":
        return results[0]
    outcome = "hang" if "hang" in (ended_by, again) else "crash"
    detail = again or f"{ended_by}, after others: alone it does not"
    return Result(target.name, number, outcome, f"{detail}{_stack(place)}")


def _stack(place: Path) -> str:
    """Where the child was, by faulthandler."""
    text = (place / "printed").read_text(errors="replace")
    frames = [line.strip() for line in text.splitlines() if line.startswith("  File")]
    return "; ".join(["", *frames[:3]])


def _run_batch(
    target: Target, numbers: Sequence[int], place: Path, patience: float = 1
) -> tuple[list[Result], str]:
    """Results in order, and how the child ended at the next one ("" where it got through)."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _end_child(lambda: _child(target, numbers, place, writing))
    os.close(writing)
    results, hung, received, started, seen = [], False, b"", 0.0, 0.0
    while True:
        if not select.select([reading], [], [], target.limit_s * patience)[0]:
            used, before, seen = _cpu_s(child), seen, _cpu_s(child)
            # Others may have had the processors: what works on goes on, up to its own limit.
            if used - before > 0.01 * target.limit_s and used - started < target.limit_s * patience:
                continue
            hung = True
            os.kill(child, signal.SIGUSR1)  # says where it is
            time.sleep(0.2)
            os.kill(child, signal.SIGKILL)
        part = os.read(reading, 1 << 16)
        if not part:
            break
        received += part
        started = seen = _cpu_s(child)
        *lines, received = received.split(b"\n")
        results += [Result(**json.loads(line)) for line in lines if line != b"."]
    os.close(reading)
    status = os.waitpid(child, 0)[1]
    if len(results) == len(numbers):
        return results, ""
    if hung:
        return results, "hang"
    ended = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit {status}"
    return results, f"ended by {ended}"


def _cpu_s(process: int) -> float:
    """Seconds of processor time that a process used so far; 0 after its end."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _child(target: Target, numbers: Sequence[int], place: Path, writing: int) -> None:
    printed = (place / "printed").open("wb")
    os.dup2(printed.fileno(), 1)
    os.dup2(printed.fileno(), 2)
    faulthandler.enable(printed)
    faulthandler.register(signal.SIGUSR1, printed)
    warnings.simplefilter("ignore")
    _limit_memory(target.most_bytes)
    for number in numbers:
        result = run_one(target, number, place)
        told = {**vars(result), "detail": result.detail[:2000].encode("ascii", "replace").decode()}
        os.write(writing, json.dumps(told).encode() + b"\n")


def _limit_memory(most_bytes: int) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + most_bytes, -1))


def run_one(target: Target, number: int, place: Path) -> Result:
    """One input, in this process."""
    folder = place / "mutant"
    shutil.rmtree(folder, ignore_errors=True)
    copy: Any = shutil.copy2 if target.writes else os.link
    shutil.copytree(place / "sound", folder, symlinks=True, copy_function=copy)
    target.damage(folder, np.random.default_rng(seed_of(target, number)))
    start = time.perf_counter()
    try:
        outcome, detail = _outcome(target, folder)
    except BaseException as error:  # KeyboardInterrupt and SystemExit are no answers either
        outcome, detail = "traceback", _told(error)
    return Result(target.name, number, outcome, detail, round(time.perf_counter() - start, 3))


def _outcome(target: Target, folder: Path) -> tuple[str, str]:
    before = os.fstat(1).st_size
    try:
        answer = target.read(folder)
    except LeansegError as error:
        message = str(error)
        fault = sentence_fault(message, folder)
        return ("unclear", f"{fault}: {message}") if fault else ("refused", message)
    except UncheckedError as why:
        return "unchecked", str(why)
    sys.stdout.flush()
    sys.stderr.flush()
    if target.quiet and os.fstat(1).st_size != before:
        return "unclear", "something was printed"
    try:
        target.check(folder, answer)
    except UncheckedError as why:
        return "unchecked", str(why)
    except WrongError as why:
        return "wrong", str(why)
    return "answered", ""


def sentence_fault(message: str, folder: Path) -> str:
    """What is wrong with a refusal: it is one printable line that names what it is about."""
    if not message.isprintable():
        return "not one printable line"
    if len(message) > _LONGEST_MESSAGE:
        return f"{len(message)} characters"
    if "/leanseg-" in message:
        return "names a temporary file"
    if not (message.startswith(_SUBJECTS) or folder.name in message):
        return "names no file"
    return ""


def _told(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "/leanseg/" in f.filename] or frames
    where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno} {ours[-1].name}"
    last = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}"
    return f"{type(error).__name__} in {where} ({last}): {str(error)[:300]}"


def run(
    targets: Sequence[Target],
    numbers: Callable[[Target], Sequence[int]],
    processes: int = 1,
    keep: Path | None = None,
) -> list[Result]:
    """The results of some inputs of some targets.

    Args:
        targets: What is read.
        numbers: Which inputs of each.
        processes: How many work at the same time.
        keep: Where the last input's files are copied to, sound and damaged.
    """
    with tempfile.TemporaryDirectory(prefix="robustness-") as folder:
        jobs = [(target, numbers(target)) for target in targets if numbers(target)]
        files, children = [], []
        for process in range(processes):
            files.append(Path(folder) / f"{process}.jsonl")
            child = os.fork()
            if not child:
                _end_child(lambda n=process: _work(jobs, n, processes, Path(folder), files[n]))
            children.append(child)
        failed = [os.waitpid(child, 0)[1] for child in children]
        if any(failed):
            msg = "a process that runs inputs failed; its traceback is above"
            raise RuntimeError(msg)
        if keep is not None:
            shutil.copytree(folder, keep, dirs_exist_ok=True)
        lines = [line for file in files for line in file.read_text().splitlines()]
        return [Result(**json.loads(line)) for line in lines]


def _work(
    jobs: Sequence[tuple[Target, Sequence[int]]],
    process: int,
    processes: int,
    folder: Path,
    file: Path,
) -> None:
    """Every so-many-th input of each target."""
    with file.open("w") as stream:
        for target, numbers in jobs:
            place = folder / f"{process}-{target.name.replace(' ', '-').replace('/', '-')}"
            place.mkdir()
            for result in run_target(target, numbers[process::processes], place):
                stream.write(json.dumps(vars(result)) + "\n")
                stream.flush()
            if len(jobs) > 1:
                shutil.rmtree(place, ignore_errors=True)
