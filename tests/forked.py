"""Work in a forked process: a new one would take longer to import everything than to do it."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


def start(work: Callable[[], object], said: Path = Path(os.devnull)) -> int:
    """Do some work in a process of its own.

    Args:
        work: What to do; it may raise SystemExit with a status, as commands do.
        said: A file for what it writes to the standard output and error.

    Returns:
        The process's number.
    """
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        stream = said.open("w", buffering=1)
        for number in (1, 2):
            os.dup2(stream.fileno(), number)
        sys.stdout = sys.stderr = stream
        work()
        status = 0
    except SystemExit as ended:
        status = int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def ended(child: int) -> int:
    """Wait for a process: its exit status, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def wait_for(path: Path, child: int, limit_s: float = 120) -> None:
    """Wait until a process has written something to a file."""
    deadline = time.monotonic() + limit_s
    while not (path.exists() and path.stat().st_size):
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "it ended before"
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


def killed_before_step(number: int, work: Callable[[], object]) -> int:
    """How a process ended that does some work, and kills itself before a training's step.

    Args:
        number: Steps that it takes before.
        work: What trains.
    """
    from leanseg.training.trainer import Trainer

    def dying() -> None:
        left, step = iter(range(number)), Trainer._step

        def killing_step(*given: Any) -> Any:
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return step(*given)

        Trainer._step = killing_step  # type: ignore[method-assign]
        work()

    return ended(start(dying))
