"""Files and folders that are either complete or absent."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from leanseg.errors import LeansegError


@contextmanager
def written_whole(path: Path, *, in_new_folder: bool = False) -> Iterator[Path]:
    """A name to write to; what was written moves to `path` when the block ends well.

    The name lies in a hidden folder beside `path`, so that the move is a rename, and it ends
    like `path`, so that libraries which choose a format by suffix write the right one. A format
    of two files (.mhd and .raw) may write the second beside the first. When anything goes
    wrong, an interrupt included, nothing stays behind and an older `path` is left as it was.

    Args:
        path: The file, or the folder, which may exist if it is empty.
        in_new_folder: Make the folders above.

    Yields:
        The temporary name.

    Raises:
        LeansegError: If the folder cannot be written to or the disk is full.
    """
    folder: Path | None = None
    try:
        if in_new_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".writing-", dir=path.parent))
        yield folder / path.name
        # The file that was asked for comes last: where it is, its companions are too.
        for finished in sorted(folder.iterdir(), key=lambda file: file.name == path.name):
            os.replace(finished, path.parent / finished.name)  # noqa: PTH105
    except OSError as error:
        raise _explained(path, error) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def folder_written_whole(folder: Path) -> Iterator[Path]:
    """A hidden folder beside `folder`, which it becomes when the block ends well.

    When anything goes wrong, an interrupt included, nothing stays behind.

    Args:
        folder: Absent or empty; folders above it are made.

    Yields:
        The temporary folder.

    Raises:
        LeansegError: If the folder holds something, cannot be made, or the disk is full.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        msg = f"{folder}: already holds something; choose a new folder, or empty this one"
        raise LeansegError(msg)
    with written_whole(folder.absolute(), in_new_folder=True) as temporary:
        temporary.mkdir()
        yield temporary


def _explained(path: Path, error: OSError) -> LeansegError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return LeansegError(
            f"{path}: the disk is full, nothing was written; free some space and run again"
        )
    reason = error.strerror or str(error)
    return LeansegError(
        f"{path}: cannot be written ({reason}); "
        "choose a folder that exists and that you may write to"
    )
