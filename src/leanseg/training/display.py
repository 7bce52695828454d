"""What a person sees of a training: a live line on a terminal, plain lines in a log."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
)

_LOG_EVERY_S = 30.0


def duration(seconds: float) -> str:
    """Seconds as a person says them: "45 s", "12 min", "3 h 05 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


class Display:
    """Tells what training is doing and when it will end.

    Args:
        console: Where to write; a live line appears only if it is a terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last_line = time.monotonic()
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        if console.is_terminal:
            self._progress = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[detail]}"),
                console=console,
                transient=True,
            )

    def __enter__(self) -> Display:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def begin(self, what: str, total: int) -> None:
        """A new piece of work of `total` steps."""
        self._last_line = time.monotonic()
        if self._progress is None:
            return
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(what, total=total, detail="")

    def advance(self, what: str, done: int, total: int, detail: str) -> None:
        """`done` of `total` steps are behind; in a log, one line every half minute."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, detail=detail)
        elif time.monotonic() - self._last_line > _LOG_EVERY_S:
            self._last_line = time.monotonic()
            self.say(f"{what}: {done}/{total}, {detail}")

    def remaining(self, seconds: float) -> str:
        """When training will end at the latest, in words."""
        end = time.strftime("%H:%M", time.localtime(time.time() + seconds))
        return f"at most {duration(seconds)} left, until {end}"

    def epoch(self, row: dict[str, Any]) -> None:
        """The result of an epoch."""
        labels = ", ".join(
            f"{name} {value:.3f}" if value is not None else f"{name} -"
            for name, value in row["val_dice_per_label"].items()
        )
        best = " (best so far)" if row["best"] else ""
        self.say(
            f"epoch {row['epoch']:3d}: train loss {row['train_loss']:.4f}, validation loss "
            f"{row['val_loss']:.4f}, whole-case Dice {labels}{best}; "
            f"{row['images_per_s']:.1f} images/s, rate {row['learning_rate']:.1e}, "
            f"{duration(row['elapsed_s'])} so far"
        )
