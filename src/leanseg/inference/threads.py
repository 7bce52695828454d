"""Threads: some that take tasks one after another, and one that does a piece of work meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from threading import Thread
from typing import TypeVar

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
    done, running = 0, set[Future[int]]()

    def reduce_to(most: int) -> None:
        nonlocal done, running
        while len(running) > most:
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            for each in ended:
                done += each.result()
                if on_progress is not None:
                    on_progress(done, total)

    pool = ThreadPoolExecutor(n_threads, "leanseg-tasks")
    try:
        for task in tasks:
            running.add(pool.submit(take, task))
            # One more than there are threads, so that none waits for the next task.
            reduce_to(n_threads)
        reduce_to(0)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def later(function: Callable[[], Result], *, may_be_dropped: bool = False) -> Future[Result]:
    """Start a function in a thread of its own; what it returns, or raises, comes with the result.

    Args:
        function: What to do.
        may_be_dropped: Whether the interpreter may end in the middle of it, after Ctrl-C, say;
            it must leave nothing half-done behind then. Libraries whose own threads must end
            before the process does, as OpenVINO's, may not be left at work.
    """
    future: Future[Result] = Future()

    def work() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # raised where the result is asked for
            future.set_exception(error)

    Thread(target=work, daemon=may_be_dropped).start()
    return future
