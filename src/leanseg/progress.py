"""What a person sees of long work: a live line on a terminal, plain lines in a log."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING

from leanseg.errors import told

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

_LOG_EVERY_S = 30.0
# The environment variable in which `leanseg.training.launch` leaves its process's number.
LAUNCHER = "LEANSEG_LAUNCHER"


def tells_the_end() -> bool:
    """Whether this process says how a command ended: of several that train together one does."""
    return LAUNCHER not in os.environ and os.environ.get("RANK", "0") == "0"


def duration(seconds: float) -> str:
    """Seconds as a person says them: "45 s", "12 min", "3 h 05 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def quiet_console() -> Console:
    """A console on which nothing appears."""
    from rich.console import Console

    return Console(quiet=True)


class Display:
    """Tells how far some work is; used as a context.

    Args:
        console: Where to write; None is standard output. A live line appears only if it is a
            terminal.
    """

    def __init__(self, console: Console | None = None) -> None:
        from rich import progress as rich
        from rich.console import Console

        self.console = console or Console()
        self._last_line = time.monotonic()
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        if self.console.is_terminal:
            self._progress = rich.Progress(
                rich.TextColumn("{task.description}", markup=False),
                rich.BarColumn(bar_width=24),
                rich.TaskProgressColumn(),
                rich.TextColumn("{task.fields[detail]}", markup=False),
                rich.TimeElapsedColumn(),
                console=self.console,
                transient=True,
            )

    def __enter__(self) -> Display:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    @property
    def is_live(self) -> bool:
        """Whether there is a live line."""
        return self._progress is not None

    def say(self, text: str) -> None:
        """A line that stays."""
        self.console.print(told(text), highlight=False, markup=False, soft_wrap=True)

    def count(self, what: str, total: int) -> Callable[[str], None]:
        """Begin work on `total` things; to be called with the name of each one that is done."""
        self.begin(what, total)
        done = count(1)
        return lambda name: self.advance(what, next(done), total, name)

    def begin(self, what: str, total: float | None) -> None:
        """A new piece of work of `total` steps; None where that is not known."""
        self._last_line = time.monotonic()
        if self._progress is None:
            return
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(what, total=total, detail="")

    def advance(self, what: str, done: float, total: float, detail: str = "") -> None:
        """`done` of `total` steps are behind; in a log, one line every half minute."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, description=what, detail=detail)
        elif time.monotonic() - self._last_line > _LOG_EVERY_S:
            self._last_line = time.monotonic()
            self.say(f"{what}: {done:.4g}/{total:.4g}{', ' if detail else ''}{detail}")
