"""Threads: some that take tasks one after another, and one that does a piece of work meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from threading import Event, Lock, Thread
from typing import Generic, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


def run_in_threads(
    n_threads: int,
    tasks: Iterable[Task],
    take: Callable[[Task], int],
    total: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Do all tasks, each in one of some threads, while this one reports progress.

    When a task or a report fails, or Ctrl-C is pressed, no further task begins; this returns, with
    the first such error, once those under way have ended.

    Args:
        n_threads: How many threads; the tasks are begun in their order.
        tasks: What to do. They are taken one at a time, as threads become free.
        take: Does one task and returns how much work it was.
        total: How much work there is.
        on_progress: Called in the calling thread with (work done, total) after every task.
    """
    finished: SimpleQueue[int | BaseException | None] = SimpleQueue()
    stop = Event()
    pending = _locked(iter(tasks))

    def work() -> None:
        try:
            for task in pending:
                if stop.is_set():
                    break
                finished.put(take(task))
        except BaseException as error:  # handed to the caller, whatever it is
            stop.set()
            finished.put(error)
        finished.put(None)

    threads = [Thread(target=work, name=f"leanseg-{n}") for n in range(n_threads)]
    try:
        for thread in threads:
            thread.start()
        done, running = 0, n_threads
        while running:
            item = finished.get()
            if item is None:
                running -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                done += item
                if on_progress is not None:
                    on_progress(done, total)
    finally:
        stop.set()
        for thread in threads:
            if thread.ident is not None:
                thread.join()


def _locked(tasks: Iterator[Task]) -> Iterator[Task]:
    """An iterator that several threads may share."""
    lock = Lock()

    class Shared(Iterator[Task]):
        def __next__(self) -> Task:
            with lock:
                return next(tasks)

    return Shared()


class Later(Generic[Result]):
    """The result of a function that has just been started.

    Args:
        function: What to do.
        may_be_dropped: Whether the interpreter may end in the middle of it, after Ctrl-C, say;
            it must leave nothing half-done behind then. Libraries whose own threads must end
            before the process does, as OpenVINO's, may not be left at work.
    """

    def __init__(self, function: Callable[[], Result], *, may_be_dropped: bool = False) -> None:
        self._outcome: list[Result] = []
        self._error: BaseException | None = None
        self._thread = Thread(target=self._work, args=(function,), daemon=may_be_dropped)
        self._thread.start()

    def _work(self, function: Callable[[], Result]) -> None:
        try:
            self._outcome.append(function())
        except BaseException as error:  # raised where the result is asked for
            self._error = error

    @property
    def is_done(self) -> bool:
        """Whether `result` would return at once."""
        return not self._thread.is_alive()

    def result(self) -> Result:
        """Wait for the function to end; what it returned, or raises what it raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._outcome[0]
