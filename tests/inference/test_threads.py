"""Threads that take tasks: every task once, progress in the caller, errors and Ctrl-C stop all."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from leanseg.inference.threads import later, run_in_threads


def no_threads_left() -> bool:
    return not any(thread.name.startswith("leanseg-") for thread in threading.enumerate())


@pytest.mark.parametrize("n_threads", [1, 2, 7])
@pytest.mark.parametrize("n_tasks", [0, 1, 5, 200])
def test_every_task_is_done_once(n_threads: int, n_tasks: int) -> None:
    done: list[int] = []
    seen: list[tuple[int, int]] = []
    where: set[threading.Thread] = set()

    def progress(*counts: int) -> None:
        where.add(threading.current_thread())
        seen.append(counts)

    def take(task: int) -> int:
        assert threading.current_thread() is not threading.main_thread()
        done.append(task)
        return 2

    run_in_threads(n_threads, range(n_tasks), take, 2 * n_tasks, progress)
    assert sorted(done) == list(range(n_tasks))
    assert seen == [(2 * n, 2 * n_tasks) for n in range(1, n_tasks + 1)]
    assert where <= {threading.main_thread()}
    assert no_threads_left()


def test_threads_work_side_by_side() -> None:
    """Each task waits until three are under way."""
    together = threading.Barrier(3)
    run_in_threads(3, range(6), lambda task: together.wait(10) * 0, 0)


@pytest.mark.parametrize("error", [ValueError("no"), MemoryError(), KeyboardInterrupt()])
def test_an_error_in_a_task_stops_the_rest(error: BaseException) -> None:
    done: list[int] = []

    def take(task: int) -> int:
        if task == 3:
            raise error
        done.append(task)
        time.sleep(0.001)
        return 1

    with pytest.raises(type(error)):
        run_in_threads(2, range(1000), take, 1000)
    assert len(done) < 20
    assert no_threads_left()


def test_an_interrupt_of_the_caller_stops_the_rest() -> None:
    done: list[int] = []

    def take(task: int) -> int:
        done.append(task)
        time.sleep(0.001)
        return 1

    def progress(count: int, total: int) -> None:
        if count == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_in_threads(2, range(1000), take, 1000, progress)
    assert 5 <= len(done) < 30
    assert no_threads_left()


def test_an_error_of_the_tasks_themselves() -> None:
    def tasks():
        yield 1
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        run_in_threads(2, tasks(), lambda task: task, 1)


def test_the_result_or_the_error_as_often_as_asked() -> None:
    good, bad = later(lambda: 7), later(lambda: 1 // 0)
    for _ in range(2):
        assert good.result() == 7
        with pytest.raises(ZeroDivisionError):
            bad.result()
    assert good.done()
    assert bad.done()


def test_it_goes_on_meanwhile() -> None:
    gate = threading.Event()
    waiting = later(lambda: gate.wait(10))
    assert not waiting.done()
    gate.set()
    assert waiting.result() is True


@pytest.mark.parametrize("may_be_dropped", [True, False])
def test_the_end_of_the_interpreter(may_be_dropped: bool) -> None:
    code = (
        "import time\nfrom leanseg.inference.threads import later\n"
        f"later(lambda: (time.sleep(1.5), print('ended')), may_be_dropped={may_be_dropped})\n"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ("" if may_be_dropped else "ended\n")
    assert may_be_dropped or time.monotonic() - started > 1.5
