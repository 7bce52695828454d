"""Work in a forked process: a new one would take longer to import everything than to do it."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable
from typing import Any


def start(work: Callable[[], object]) -> int:
    """Do some work in a process of its own, and give its number."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
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
