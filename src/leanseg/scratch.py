"""Temporary folders and locks that outlive no process, however it ends.

Every temporary folder holds a lock file, which the system lets go of when its process dies. Who
makes the next such folder in the same place removes those whose lock nobody holds. Where there
are no locks (Windows, some file systems) nothing is removed.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from leanseg.errors import LeansegError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
_WAIT_S = 0.02
# A process's own locks do not stop it, and closing a file a second time would let go of one.
_held: set[str] = set()
_mutex = threading.Lock()


@contextmanager
def scratch_folder(parent: Path | None = None, prefix: str = "leanseg-") -> Iterator[Path]:
    """A new folder for this user alone, which is removed at the end of the block.

    After a kill it is removed by the next call for the same place.

    Args:
        parent: Where; None is the system's place for temporary files.
        prefix: How its name begins.

    Yields:
        The folder. It holds a file `.lock`, which has to stay.

    Raises:
        OSError: If it cannot be made.
    """
    place = Path(tempfile.gettempdir()) if parent is None else parent
    _sweep(place, prefix)
    lock: int | None = None
    folder = Path()
    try:
        while lock is None:
            folder = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
            # Another process may have taken the empty folder for one left behind.
            with suppress(FileNotFoundError, BlockingIOError):
                lock = _take(folder / LOCK, os.O_CREAT)
        yield folder
    finally:
        if folder.name:
            _remove(folder)
            _let_go(folder / LOCK, lock)
            # NFS keeps a file that is open.
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def held(lock: Path, busy: str | None = None) -> Iterator[None]:
    """Hold a lock file, which is there for as long as the block runs.

    Args:
        lock: The file; after a kill it may stay, and means nothing.
        busy: What to say if another process holds it; None waits.

    Raises:
        LeansegError: If another process holds it.
    """
    descriptor = None
    while descriptor is None:
        try:
            descriptor = _take(lock, os.O_CREAT)
        except BlockingIOError as error:
            if busy is not None:
                raise LeansegError(busy) from error
            time.sleep(_WAIT_S)
    try:
        yield
    finally:
        with suppress(OSError):
            lock.unlink()
        _let_go(lock, descriptor)


def is_scratch(path: Path) -> bool:
    """Whether a path lies in a `scratch_folder` of this process."""
    parents = Path(os.path.realpath(path)).parents
    return any(str(parent / LOCK) in _held for parent in parents)


def _take(path: Path, flags: int = 0) -> int:
    """Lock a file; -1 where there are no locks.

    Raises:
        BlockingIOError: If somebody holds it, or it was replaced meanwhile.
        OSError: If it cannot be opened.
    """
    key = os.path.realpath(path)
    with _mutex:
        if key in _held:
            raise BlockingIOError
        descriptor = os.open(path, os.O_RDWR | flags, 0o666)
        try:
            if fcntl is not None:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not os.path.samestat(os.fstat(descriptor), path.stat()):
                    raise BlockingIOError
        except (BlockingIOError, PermissionError, FileNotFoundError) as error:
            os.close(descriptor)
            raise BlockingIOError from error
        except OSError:
            os.close(descriptor)
            return -1
        _held.add(key)
        return descriptor


def _let_go(path: Path, descriptor: int | None) -> None:
    if descriptor is not None and descriptor >= 0:
        with _mutex:
            os.close(descriptor)
            _held.discard(os.path.realpath(path))


def _sweep(place: Path, prefix: str) -> None:
    """Remove what processes that are dead left in a place."""
    made = re.compile(re.escape(prefix) + "[a-z0-9_]{8}")
    with suppress(OSError):
        left = [each for each in os.scandir(place) if made.fullmatch(each.name)]
        for each in left if fcntl is not None else ():
            # Neither what a link leads to nor what is another user's.
            status = each.stat(follow_symlinks=False)
            if each.is_dir(follow_symlinks=False) and status.st_uid == os.geteuid():
                _remove_if_dead(Path(each.path))


def _remove_if_dead(folder: Path) -> None:
    lock = folder / LOCK
    with suppress(OSError):
        if not lock.exists():
            # Killed before there was a lock; only an empty folder is removed.
            folder.rmdir()
            return
        descriptor = _take(lock)
        if descriptor >= 0:
            _remove(folder)
            _let_go(lock, descriptor)


def _remove(folder: Path) -> None:
    """Remove a folder, its lock last: what is left by a kill meanwhile is found again."""
    with suppress(OSError):
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != LOCK:
                path.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
