"""One process for each device of this machine, started and watched."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from leanseg.errors import LeansegError

_POLL_S = 0.1
# Time to clear away half-written files.
_GRACE_S = 20.0
# Linux: have the kernel send a signal when the parent dies.
_PR_SET_PDEATHSIG = 1


def train_in_processes(folder: Path, n: int, threads: int | None) -> None:
    """Train a run in several processes, and wait until they end.

    Args:
        folder: The run's folder.
        n: Processes.
        threads: Of each; None shares the cores out.

    Raises:
        LeansegError: If one of them ended before its work was done; the others are ended then.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "leanseg", "train", "--resume", str(folder)]
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(n),
        "LOCAL_WORLD_SIZE": str(n),
        # What torchrun sets, by which Fabric knows that the processes are there.
        "TORCHELASTIC_RUN_ID": "leanseg",
        "OMP_NUM_THREADS": str(threads or max((os.cpu_count() or 1) // n, 1)),
    }
    processes = []
    try:
        for rank in range(n):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0"}
            processes.append(
                subprocess.Popen(command, env={**os.environ, **shared, **own}, preexec_fn=_tie)
            )
        _watch(processes, folder)
    finally:
        for process in processes:
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + _GRACE_S
        for process in processes:
            try:
                process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                process.kill()


def _watch(processes: list[subprocess.Popen[bytes]], folder: Path) -> None:
    while any(process.poll() is None for process in processes):
        time.sleep(_POLL_S)
        codes = [process.poll() for process in processes]
        failed = [rank for rank, code in enumerate(codes) if code]
        if failed:
            # Those that fail with it say why.
            time.sleep(1)
            code = processes[failed[0]].returncode
            how = f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"
            raise LeansegError(
                f"{folder}: process {failed[0] + 1} of {len(processes)} {how}, and the others were "
                f"stopped; go on with: leanseg train --resume {folder}"
            )


def _tie() -> None:
    """In the new process: end when the parent does, even if that is killed."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
