"""Many pieces of work at once: in processes of this machine, or on a Ray cluster."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from leanseg.errors import LeansegError, require_package

# To connect, and to be answered, before Ray is joined, each.
_ANSWER_S = 4.0
_SETTINGS = b"\x04"
_HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + _SETTINGS + b"\0" * 5
_ATTEMPTS = 3
_STORE_BYTES = 100 << 20


@dataclass(frozen=True)
class Job:
    """A piece of work that another process can do.

    Attributes:
        name: What it is called where it fails.
        function: A function of a module, so that another process finds it.
        arguments: Its arguments, which can be pickled.
        cores: How many it keeps busy.
        memory_bytes: The most that it needs.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    cores: int = 1
    memory_bytes: int = 0


@dataclass(frozen=True)
class Ended:
    """What became of a job.

    Attributes:
        job: The job.
        value: What its function returned; None where it failed.
        failure: Why it failed, a sentence; None where it did not.
    """

    job: Job
    value: Any = None
    failure: str | None = None


class Executor(Protocol):
    """Does jobs, several at a time."""

    def run(self, jobs: Sequence[Job]) -> Iterator[Ended]:
        """Do all jobs, and tell of each when it ends; one that fails does not stop the others.

        Raises:
            LeansegError: Before the first starts, if one needs more than there is at all.
        """
        ...


def attempt(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, str | None]:
    """What a function returns, or the sentence for why it does not."""
    try:
        return function(*arguments), None
    except MemoryError:
        return None, "it needs more memory than there is"
    except Exception as error:
        if not isinstance(error, LeansegError):
            traceback.print_exc()
        return None, str(error) if isinstance(error, LeansegError) else _named(error)


def _named(error: Exception) -> str:
    reason = " ".join(str(error).split())
    return f"{type(error).__name__}: {reason}" if reason else type(error).__name__


def require_fitting(jobs: Sequence[Job], memory_bytes: int, where: str) -> None:
    """Refuse a job that needs more memory than a place has.

    Raises:
        LeansegError: Naming the first.
    """
    for job in jobs:
        if job.memory_bytes > memory_bytes:
            raise LeansegError(
                f"{job.name}: needs about {job.memory_bytes / 1e9:.2f} GB of memory, but "
                f"{where} {memory_bytes / 1e9:.2f} GB; allow more, or make it smaller"
            )


@dataclass(frozen=True)
class Processes:
    """Each job in a process of its own on this machine, which ends with this one.

    Attributes:
        n: How many at a time.
        memory_bytes: What all of them together may need; None for no ceiling.
    """

    n: int
    memory_bytes: int | None = None

    def run(self, jobs: Sequence[Job]) -> Iterator[Ended]:
        """As `Executor.run`; what is small overtakes what has no room yet."""
        most = float("inf") if self.memory_bytes is None else self.memory_bytes
        require_fitting(jobs, int(min(most, 2**62)), "--memory allows")
        return self._run(list(jobs), most)

    def _run(self, waiting: list[Job], most: float) -> Iterator[Ended]:
        running: dict[Connection, tuple[Any, Job]] = {}
        try:
            while waiting or running:
                for job in tuple(waiting):
                    used = sum(each.memory_bytes for _, each in running.values())
                    if len(running) < self.n and used + job.memory_bytes <= most:
                        waiting.remove(job)
                        process, connection = _started(job)
                        running[connection] = (process, job)
                for ready in wait(list(running)):
                    assert isinstance(ready, Connection)
                    process, job = running.pop(ready)
                    yield _ended(process, ready, job)
        finally:
            for process, _ in running.values():
                process.terminate()
            for process, _ in running.values():
                process.join()


def _started(job: Job) -> tuple[Any, Connection]:
    # Threads of a parent are not safe to fork.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(theirs, job.function, job.arguments))
    with _threads_of_children(job.cores):
        process.start()
    theirs.close()
    return process, ours


@contextmanager
def _threads_of_children(n: int) -> Iterator[None]:
    """How many threads libraries start with, which they read when they are imported."""
    key, before = "OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS")
    os.environ[key] = str(n)
    try:
        yield
    finally:
        os.environ.pop(key) if before is None else os.environ.update({key: before})


def _ended(process: Any, connection: Connection, job: Job) -> Ended:
    try:
        value, failure = connection.recv()
    except EOFError:
        process.join()
        value, failure = None, f"its process ended with status {process.exitcode}"
        if process.exitcode < 0:
            failure = f"its process was ended by signal {-process.exitcode}"
    process.join()
    connection.close()
    return Ended(job, value, failure)


def _work(connection: Connection, function: Callable[..., Any], arguments: Any) -> None:
    # Ctrl-C reaches every process of a terminal; the parent ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    result = attempt(function, arguments)
    with suppress(BrokenPipeError):
        connection.send(result)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@dataclass(frozen=True)
class RayTasks:
    """Each job as a task of the Ray cluster that this process has joined.

    A task whose node or process dies is done again elsewhere.

    Attributes:
        alone: Whether each job has a process of its own, as what trains should.
    """

    alone: bool

    def run(self, jobs: Sequence[Job]) -> Iterator[Ended]:
        """As `Executor.run`."""
        import ray

        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cores = max((node.get("CPU", 0) for node in nodes), default=0)
        for job in jobs:
            fitting = [node["memory"] for node in nodes if node.get("CPU", 0) >= job.cores]
            if not fitting:
                raise LeansegError(
                    f"{job.name}: needs {job.cores} core(s), but no node of the Ray cluster has "
                    f"more than {cores:g}; lower the threads, or join a larger cluster"
                )
            require_fitting([job], int(max(fitting)), "no node of the Ray cluster has more than")
        return self._run(jobs)

    def _run(self, jobs: Sequence[Job]) -> Iterator[Ended]:
        import ray
        from ray.exceptions import RayError

        doing: dict[Any, Job] = {}
        for job in jobs:
            task = ray.remote(
                num_cpus=job.cores,
                memory=job.memory_bytes,
                max_retries=_ATTEMPTS,
                max_calls=1 if self.alone else 0,
            )(attempt)
            doing[task.options(name=job.name).remote(job.function, job.arguments)] = job
        while doing:
            for done in ray.wait(list(doing))[0]:
                try:
                    value, failure = ray.get(done)
                except RayError as error:
                    value, failure = None, _named(error)
                yield Ended(doing.pop(done), value, failure)


@contextmanager
def ray_tasks(
    address: str | None,
    *,
    alone: bool,
    cores: int | None = None,
    memory_bytes: int | None = None,
) -> Iterator[RayTasks]:
    """A Ray cluster, joined for the length of the block.

    Args:
        address: "host:port" of one that is there, or "auto"; None starts one on this machine.
        alone: Whether each job has a process of its own.
        cores: Of one that is started; None for all.
        memory_bytes: Of one that is started; None leaves it to Ray.

    Raises:
        MissingDependencyError: If Ray is not installed.
        LeansegError: If nothing answers at the address, which takes less than ten seconds.
    """
    require_package("ray", "--on ray", "leanseg[ray]")
    if address is not None:
        _require_answer(address)
    # Before Ray is imported: it tells nobody of its use.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "4")  # seconds that it tries to join
    import ray

    options: dict[str, Any] = {"address": address}
    if address is None:
        # Nobody else on the network can join it, and what tasks hand over is small.
        options = {"address": "local", "_node_ip_address": "127.0.0.1", "include_dashboard": False}
        options |= {"num_cpus": cores, "_memory": memory_bytes, "object_store_memory": _STORE_BYTES}
    try:
        ray.init(log_to_driver=False, configure_logging=False, **options)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        reason = " ".join(str(error).split())[:200]
        raise LeansegError(
            f"--address {address}: no Ray cluster can be joined there ({reason}); correct it"
        ) from error
    try:
        yield RayTasks(alone)
    finally:
        ray.shutdown()


def _require_answer(address: str) -> None:
    """Refuse an address where nothing answers, for which Ray itself would wait a minute.

    Raises:
        LeansegError: Naming it.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), _ANSWER_S) as connection:
            # Ray speaks HTTP/2, in which both sides begin with their settings.
            connection.sendall(_HTTP2_HELLO)
            if "RAY_USE_TLS" not in os.environ and connection.recv(9)[3:4] != _SETTINGS:
                raise OSError("what is there is no Ray")
    except (OSError, ValueError, OverflowError) as error:
        reason = "it is not written host:port" if isinstance(error, ValueError) else str(error)
        raise LeansegError(
            f"--address {address}: no Ray cluster answers there ({reason}); start one with `ray "
            "start --head`, or correct the address"
        ) from error
