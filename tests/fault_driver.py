"""Runs commands in forked children with one system call failing; driven by test_faults.py.

Reads a list of jobs as JSON from standard input, writes for each a list of [status, errors,
number of calls], one for every run of the job. The call that fails may be given as a share of the
calls that the command made in an earlier job, in which nothing failed.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from pathlib import Path

import torch
import torch.utils.tensorboard

from leanseg.cli.main import run

_SHIM = ctypes.CDLL(sys.argv[1])
_LIMIT_S = 120


def _child(arguments: list[str], folder: str, fault: list[int], log: Path) -> None:
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(out, 2)
    signal.alarm(_LIMIT_S)
    status = 70
    try:
        _SHIM.faults_set(folder.encode(), *fault)
        try:
            run(arguments)
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
        n_calls = _SHIM.faults_count()
        _SHIM.faults_set(b"", -1, 0, 0)
        log.with_suffix(".calls").write_text(str(n_calls))
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _run(arguments: list[str], folder: str, fault: list[int], log: Path) -> list:
    pid = os.fork()
    if not pid:
        _child(arguments, folder, fault, log)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    calls = log.with_suffix(".calls")
    n_calls = int(calls.read_text()) if calls.exists() else -1
    calls.unlink(missing_ok=True)
    return [status, log.read_text(), n_calls]


def main() -> None:
    """Do every job: the command with its fault, then the same without, or what goes on with it."""
    torch.set_num_threads(1)
    results = []
    n_calls: dict[str, int] = {}
    for job in json.load(sys.stdin):
        folder, name = job["folder"], job["first"][0]
        log = Path(folder).with_name(f"log-{Path(folder).name}")
        call, *kind = job["fault"]
        if isinstance(call, float):
            call = int(call * n_calls[name])
        faulty = _run(job["first"], folder, [call, *kind], log)
        if call < 0:
            n_calls[name] = faulty[2]
        # The file that says that a run can be resumed.
        again = job["resume"] if (Path(folder) / "out" / "recipe.yaml").exists() else job["first"]
        after = _run(again, folder, [-1, 0, 0], log) if job["again"] else None
        results.append([faulty, after])
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
