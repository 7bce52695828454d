"""The parent's side of a measurement: start a child, time what it reports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from leanseg.benchmarking.child import MARK
from leanseg.benchmarking.machine import usable_cores
from leanseg.errors import LeansegError, RecipeError

_SHOWN_CHARACTERS = 300


@dataclass
class ChildRun:
    """What a child process did.

    Attributes:
        events: Name -> what the child said; the last of a name counts.
        at: Name -> seconds from before the process began to the event.
        seconds: From before the process began to after its end.
        refusal: Kind and sentence of the user's error that it met, or None.
    """

    events: dict[str, dict[str, Any]] = field(default_factory=dict)
    at: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    refusal: tuple[str, str] | None = None


class ChildError(LeansegError):
    """A child process that ended before its work was done."""


def pinned_cores(threads: int) -> list[int]:
    """The cores that children with so many threads run on.

    Raises:
        RecipeError: If this process may not use as many.
    """
    cores = usable_cores()
    if not 1 <= threads <= len(cores):
        msg = f"threads is {threads}, but this process may use {len(cores)}; choose 1 to that"
        raise RecipeError(msg)
    return cores[:threads]


def run_child(
    module: str,
    job: Mapping[str, Any],
    *,
    threads: int,
    environment: Mapping[str, str] | None = None,
    on_event: Callable[[str, dict[str, Any]], None] = lambda name, facts: None,
) -> ChildRun:
    """Run a module of this package as a process of its own, pinned to its cores.

    Args:
        module: Its name; it calls `leanseg.benchmarking.child.serve`.
        job: What it is to do, as JSON.
        threads: Number of cores.
        environment: Variables that it gets besides ours.
        on_event: Called with each event as it comes.

    Raises:
        ChildError: If it ended early, with the last line that it wrote.
    """
    run = ChildRun()
    text = json.dumps({**job, "threads": threads, "cores": pinned_cores(threads)})
    command = [sys.executable, "-m", module]
    with tempfile.TemporaryFile() as errors:
        started = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        try:
            assert process.stdin is not None and process.stdout is not None
            with process.stdin as stdin:
                stdin.write(text)
            for line in process.stdout:
                if line.startswith(MARK):
                    _note(run, json.loads(line.removeprefix(MARK)), started, on_event)
            status = process.wait()
        finally:
            process.kill()
            process.wait()
        run.seconds = time.perf_counter() - started
        if status != 0:
            errors.seek(0)
            raise ChildError(_why(status, errors.read().decode(errors="replace")))
    return run


def _note(
    run: ChildRun,
    facts: dict[str, Any],
    started: float,
    on_event: Callable[[str, dict[str, Any]], None],
) -> None:
    name = str(facts.pop("event"))
    run.at[name] = time.perf_counter() - started
    run.events[name] = facts
    if name == "refused":
        run.refusal = str(facts["kind"]), str(facts["message"])
    on_event(name, facts)


def _why(status: int, errors: str) -> str:
    if status == -getattr(signal, "SIGKILL", 9):
        return "it was killed from outside, most likely because the machine's memory was used up"
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    last = lines[-1][:_SHOWN_CHARACTERS] if lines else "nothing was said"
    return f"its process ended with status {status} ({last})"
