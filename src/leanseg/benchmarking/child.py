"""The child's side of a measurement: take the job, report what happened and when."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

# Marks what is for the parent among what libraries print.
MARK = "@leanseg-benchmark "


def report(event: str, **facts: Any) -> None:
    """Tell the parent, which notes the time at which it hears."""
    print(MARK + json.dumps({"event": event, **facts}), flush=True)


def serve(work: Callable[[dict[str, Any]], None]) -> None:
    """Do the job that stands on the standard input; a user's error is reported as such.

    Args:
        work: Takes the job. Runs on the cores that the job names, where the system allows it.
    """
    job = json.loads(sys.stdin.read())
    if hasattr(os, "sched_setaffinity"):
        # Before any library asks how many there are.
        os.sched_setaffinity(0, job["cores"])
    from leanseg.errors import LeansegError

    try:
        work(job)
    except LeansegError as error:
        report("refused", kind=type(error).__name__, message=str(error))
    except MemoryError:
        report("refused", kind="MemoryError", message="it needs more memory than there is")


def own_peak_memory_mb() -> float:
    """Peak resident memory of this process so far, in MB (10^6 bytes)."""
    # Imported here alone: other tools are to be measured without our libraries.
    from leanseg.inference.memory import peak_memory_mb

    return peak_memory_mb()
