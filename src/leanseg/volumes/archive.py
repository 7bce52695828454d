"""Zip files taken as folders: unpacked once a process, safely, into a temporary place."""

from __future__ import annotations

import atexit
import zipfile
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path

from leanseg.errors import UNPACKED, FileFormatError, LeansegError
from leanseg.scratch import scratch_folder

# Its folders are removed when the process ends; after a kill, when the next one unpacks.
_UNPACKED = ExitStack()
atexit.register(_UNPACKED.close)

# What unpacks to more than this many times its size was made to fill a disk ...
LARGEST_RATIO = 100
# ... unless all of it is less than this many bytes, which fills nothing.
_HARMLESS_BYTES = 2**20


def is_archive(path: Path) -> bool:
    """Whether a path is an existing zip file, by its name."""
    return path.suffix.lower() == ".zip" and path.is_file()


def archive_of(path: Path) -> Path | None:
    """The zip file that `path` is or lies in, or None where it is an ordinary path."""
    return next((part for part in (path, *path.parents) if is_archive(part)), None)


def unpacked(path: Path) -> Path:
    """The place on disk of a path that may be a zip file, or lie inside one.

    `scans.zip` gives the folder of its content, `scans.zip/a/b.nii.gz` that file; zip files in zip
    files are entered too. Everything unpacked is removed when the process ends. An ordinary path
    comes back as it is.

    Raises:
        FileFormatError: If the zip file is damaged or locked, or unpacks to more than a hundred
            times its size.
    """
    archive = archive_of(path)
    if archive is None:
        return path
    status = archive.stat()
    folder = _unpack(archive.resolve(), status.st_size, status.st_mtime_ns)
    # The place where it lies means nothing to the user.
    UNPACKED[str(folder)] = str(archive)
    # What was unpacked may be, or lie in, a zip file again.
    return unpacked(folder / path.relative_to(archive))


def packed(path: Path, archive: Path) -> Path:
    """The inverse of `unpacked`: where a file of an unpacked zip lies, told through the zip."""
    return archive / path.relative_to(unpacked(archive))


@lru_cache(maxsize=64)
def _unpack(archive: Path, size: int, changed_ns: int) -> Path:
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if not member.is_dir()]
            unpacked_bytes = sum(member.file_size for member in members)
            if unpacked_bytes > max(LARGEST_RATIO * size, _HARMLESS_BYTES):
                ratio = unpacked_bytes / max(size, 1)
                msg = f"{archive}: would unpack to {ratio:.0f} times its size; if you trust it, "
                raise FileFormatError(f"{msg}unpack it yourself and give the folder")
            place = _UNPACKED.enter_context(scratch_folder())
            # A dataset or case without a name of its own is called after its folder.
            folder = place / archive.stem
            folder.mkdir()
            for member in members:
                # zipfile itself keeps paths inside the folder, links as plain files, and never
                # writes more than the declared size, which was checked.
                member.filename = member.filename.replace("\\", "/")
                opened.extract(member, folder)
    except LeansegError:
        raise
    except Exception as error:  # zipfile and the decompressors fail in any way over damage
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        msg = f"{archive}: the zip file is damaged or cannot be unpacked ({why}); copy it again"
        raise FileFormatError(msg) from error
    return folder
