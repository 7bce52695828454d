"""Several processes that train together: each has a share of every batch, all have one result.

Without them (`leanseg train` in one process) everything here does nothing. What they compute
together is in `leanseg.training.joint`.

What the clock or the disk decides the first process decides, and tells the others (`agreed`): the
precision, the pace, which state is there. What each decides for itself (early stopping, the end
of a phase) follows from numbers that all have bit by bit.

Objects and small news go through gloo, also where tensors go through NCCL: it waits without work,
needs no GPU, and notices when another process is gone.
"""

from __future__ import annotations

import datetime
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import distributed
from torch.distributed.rendezvous import rendezvous

from leanseg import errors
from leanseg.errors import LeansegError, RecipeError, ToldError
from leanseg.progress import LAUNCHER

# A rank that prepares data, or monitors a slow case, keeps the others waiting.
_LONGEST_WAIT = datetime.timedelta(days=7)
_LONGEST_START = datetime.timedelta(minutes=30)
_PARENT_S = 1.0
# Time to clear away half-written files.
GRACE_S = 20.0
_ERROR = "leanseg/error"
_Item = TypeVar("_Item")
_store: Any = None
_parent = 0


def started_by_launcher() -> bool:
    """Whether a launcher such as torchrun started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "MASTER_ADDR" in os.environ


def join() -> None:
    """Meet the other processes that a launcher started; does nothing without one.

    Raises:
        LeansegError: If they do not come.
    """
    global _store, _parent
    if not started_by_launcher() or distributed.is_initialized():
        return
    _parent = int(os.environ.get(LAUNCHER) or os.getppid())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _store, number, n = next(rendezvous("env://", timeout=_LONGEST_START))
        backend = "gloo"
        if torch.cuda.is_available() and distributed.is_nccl_available():
            backend = "cpu:gloo,cuda:nccl"
            if local_rank() < torch.cuda.device_count():
                torch.cuda.set_device(local_rank())
        distributed.init_process_group(
            backend, store=_store, rank=number, world_size=n, timeout=_LONGEST_WAIT
        )
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise LeansegError(
            f"the processes that are to train together did not meet at {where} "
            f"({str(error).splitlines()[0]}); see that every machine can reach it, and start again"
        ) from error


def _end_with_parent() -> None:
    """Do not go on where the launcher was killed."""
    while not _is_orphan():
        time.sleep(_PARENT_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    # What waits for another process does not hear a signal.
    os._exit(128 + signal.SIGTERM)


def _is_orphan() -> bool:
    return os.getppid() != _parent


@contextmanager
def together(folder: Path | None) -> Iterator[None]:
    """Join the other processes, if there are any; an error of one ends all, and is told once.

    Args:
        folder: The run's, for what is told.

    Raises:
        ToldError: If another process, or the launcher, tells of it.
        LeansegError: Of this process; or if another one ended without a word.
    """
    if not started_by_launcher() or distributed.is_initialized():
        yield
        return
    try:
        join()
        yield
    except Exception as error:
        is_lost = _is_lost(error)
        found = _broken(folder) if is_lost else error
        if isinstance(found, LeansegError) and _is_told_elsewhere(found, is_lost=is_lost):
            raise ToldError(str(found)) from error
        if found is error:
            raise
        raise found from error
    distributed.destroy_process_group()


def _is_lost(error: Exception) -> bool:
    """Whether another process is gone, by what a library says of the connection to it."""
    if isinstance(error, LeansegError):
        return False
    return isinstance(error, distributed.DistError) or "gloo" in str(error)


def _broken(folder: Path | None) -> LeansegError:
    return LeansegError(
        f"{folder}: another of the processes that train together ended; continue with: leanseg "
        f"train --resume {folder}"
    )


def _is_told_elsewhere(error: LeansegError, *, is_lost: bool) -> bool:
    """Whether another process or the launcher tells of an error, which is left for them to see.

    Args:
        error: What there is to tell.
        is_lost: Whether it is merely that another process is gone.
    """
    is_launched = LAUNCHER in os.environ
    if is_lost and (is_launched or _is_orphan()):
        # The launcher knows how the other one ended; or was killed, and all are about to end.
        return True
    if _store is None:
        return False
    own = "\n".join((os.environ.get("RANK", "0"), type(error).__name__, str(error)))
    found = own
    # Where the first process, or its machine, keeps the store, it may be gone with it.
    with suppress(RuntimeError):
        found = _store.compare_set(_ERROR, "", own).decode()
    return is_launched or found != own


def told_error(store: Any) -> LeansegError | None:
    """The error that a process left with the launcher's store."""
    if not store.check([_ERROR]):
        return None
    _, kind, sentence = store.get(_ERROR).decode().split("\n", 2)
    found: type[LeansegError] = getattr(errors, kind, LeansegError)
    return found(sentence)


def on_gpu(device: str) -> bool:
    """Whether a device of a recipe is one of NVIDIA's here."""
    return device in ("auto", "gpu", "cuda") and torch.cuda.is_available()


def rank() -> int:
    """This process's number; 0 writes files and talks to the user."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def n_ranks() -> int:
    """Number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def local_rank() -> int:
    """This process's number on its machine, which is that of its device."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def wait_for_first() -> None:
    """Wait until the first process is here."""
    agreed(None)


@contextmanager
def first_alone() -> Iterator[None]:
    """Let the first process through, then the others."""
    if rank():
        wait_for_first()
    yield
    if not rank():
        wait_for_first()


def share(items: Sequence[_Item]) -> Sequence[_Item]:
    """This process's part of what all do together."""
    return items[rank() :: n_ranks()]


def require_even(batch_size: int, n: int) -> None:
    """Refuse a batch that cannot be divided evenly among so many processes.

    Raises:
        RecipeError: With the numbers.
    """
    if batch_size % n:
        raise RecipeError(
            f"a batch_size of {batch_size} cannot be divided evenly among {n} devices; choose a "
            f"multiple of {n}"
        )


def agreed(value: _Item) -> _Item:
    """What the first process says."""
    if n_ranks() == 1:
        return value
    held: list[Any] = [value]
    distributed.broadcast_object_list(held)
    return held[0]


def gathered_objects(value: _Item) -> list[_Item]:
    """What each process says, in their order."""
    if n_ranks() == 1:
        return [value]
    found: list[Any] = [None] * n_ranks()
    distributed.all_gather_object(found, value)
    return found
