"""One process for each device of this machine, started and watched."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from torch import distributed

from leanseg.errors import LeansegError
from leanseg.machine import usable_cores
from leanseg.progress import LAUNCHER
from leanseg.training.ranks import GRACE_S, told_error

_POLL_S = 0.1
# One that ends takes others along; which was the first is seen when all have been asked.
_SETTLE_S = 1.0


def train_in_processes(
    folder: Path, n: int, threads: int | None, cache: Path, *, finish: bool = False
) -> None:
    """Train a run in several processes, and wait until they end.

    Args:
        folder: The run's folder.
        n: Processes.
        threads: Of each; None shares the cores out.
        cache: Folder for prepared arrays.
        finish: Train no further.

    Raises:
        LeansegError: What one of them raised, or that one ended before its work was done; the
            others are ended then.
    """
    # It outlives each of them, so that the others read there what one had to say at its end.
    store = distributed.TCPStore(  # type: ignore[attr-defined]
        "127.0.0.1",
        0,
        is_master=True,
        wait_for_workers=False,
        timeout=datetime.timedelta(seconds=GRACE_S),
    )
    command = [sys.executable, "-m", "leanseg", "train", "--resume", str(folder)]
    command += ["--cache", str(cache), *(["--finish"] if finish else [])]
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "WORLD_SIZE": str(n),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "OMP_NUM_THREADS": str(threads or max(len(usable_cores()) // n, 1)),
        LAUNCHER: str(os.getpid()),
    }
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(n):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            processes.append(subprocess.Popen(command, env={**os.environ, **shared, **own}))
        _watch(processes, folder, store)
    finally:
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + GRACE_S
        for process in processes:
            try:
                process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _watch(processes: list[subprocess.Popen[bytes]], folder: Path, store: Any) -> None:
    while any(process.poll() is None for process in processes):
        time.sleep(_POLL_S)
        if not any(process.poll() for process in processes):
            continue
        time.sleep(_SETTLE_S)
        if (error := told_error(store)) is not None:
            raise error
        # Those that lost another one ended by themselves; that one a signal ended.
        codes = [process.poll() or 0 for process in processes]
        rank = min(range(len(codes)), key=lambda n: (codes[n] >= 0, codes[n] == 0, n))
        code = codes[rank]
        how = f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"
        raise LeansegError(
            f"{folder}: process {rank + 1} of {len(processes)} {how}, and the others were "
            f"stopped; continue with: leanseg train --resume {folder}"
        )
