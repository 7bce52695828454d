"""How commands that go through many cases show how far they are."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(verb: str, n_cases: int) -> Iterator[Callable[[str], None]]:
    """A bar on a terminal, a line per case in a log; both on stderr.

    Args:
        verb: What was done to a case, such as "checked".
        n_cases: How many there are.

    Yields:
        To be called with the name of each case that is done.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    done = 0
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("reading", total=n_cases)

        def advance(name: str) -> None:
            nonlocal done
            done += 1
            bar.update(task, completed=done, description=f"{verb} {escape(name)}")
            if not console.is_terminal:
                print(f"{verb} {name} ({done} of {n_cases})", file=sys.stderr, flush=True)

        yield advance
