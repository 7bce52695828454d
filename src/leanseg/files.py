"""Small files read with a sentence for what is wrong; files and folders whole or absent."""

from __future__ import annotations

import csv
import errno
import glob
import io
import json
import os
import shutil
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from leanseg.errors import DatasetError, LeansegError, told
from leanseg.scratch import LOCK, is_scratch, scratch_folder

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound="BaseModel")
Content = TypeVar("Content")

_PREFIX = ".writing-"
# Headers whose voxels lie in a file beside them.
_WITH_COMPANION = (".mhd", ".nhdr", ".hdr", ".img")


def require_file(path: Path) -> Path:
    """A path that is opened to be read: a pipe or device in its place may have no end.

    Raises:
        OSError: If it is one, as if it could not be read.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", str(path))
    return path


def read_parsed(
    path: Path,
    parse: Callable[[str], Content],
    remedy: str = "correct the file",
    error: type[LeansegError] = DatasetError,
) -> Content:
    """What `parse` makes of the text of a file.

    Args:
        path: The file, UTF-8 with or without a byte order mark.
        parse: Raises ValueError (pydantic, JSON and YAML do), LookupError, TypeError,
            AttributeError or RecursionError where the text is not what it should be.
        remedy: What the user can do, the end of the sentence.
        error: What is raised.

    Raises:
        LeansegError: Of the type `error`, if the file cannot be read or parsed.
    """
    try:
        return parse(require_file(path).read_text(encoding="utf-8-sig"))
    except OSError as failure:
        raise error(f"{path}: cannot be read ({failure.strerror}); {remedy}") from failure
    except LeansegError:
        raise
    except UnicodeDecodeError as failure:
        raise error(f"{path}: not text in UTF-8 ({failure.reason}); {remedy}") from failure
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as failure:
        raise error(f"{path}: {_mistake(failure)}; {remedy}") from failure


def _mistake(failure: Exception) -> str:
    from pydantic import ValidationError

    if isinstance(failure, ValidationError):
        return first_mistake(failure)
    reason = " ".join(str(failure).split()) or type(failure).__name__
    return f"is damaged or not what it should be ({shortened(reason, 300)[1:-1]})"


def first_mistake(failure: ValidationError) -> str:
    """The first thing that pydantic found, as "key: reason, but found value"."""
    first = failure.errors(include_url=False)[0]
    where = shortened(".".join(str(part) for part in first["loc"]) or "the file")
    reason = shortened(first["msg"].removeprefix("Value error, "), 300)[1:-1]
    return f"{where}: {reason}, but found {shortened(first['input'])}"


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        DatasetError: If it cannot be read, or is not valid JSON (names line and column).
    """

    def parse(text: str) -> Any:
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            msg = f"{path}: not valid JSON in UTF-8 ({error}); correct the file"
            raise DatasetError(msg) from error

    return read_parsed(path, parse)


def read_listing(path: Path, kind: type[Model]) -> Model:
    """The content of a JSON file that describes a dataset, validated.

    Raises:
        DatasetError: As `read_json` does, and if an entry is missing or is not what `kind` says.
    """
    content = read_json(path)
    return read_parsed(path, lambda _: kind.model_validate(content))


def packaged_rows(package: str, name: str) -> list[dict[str, str]]:
    """The lines of a CSV table that comes with leanseg, by column."""
    text = resources.files(package).joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def shortened(value: Any, limit: int = 80) -> str:
    """A value as it is written in Python (a path as it is), cut where it would fill a screen."""
    text = str(value) if isinstance(value, Path) else repr(value)
    return told(text[:limit]) + ("..." if len(text) > limit else "")


def write_text(path: Path, text: str, *, in_new_folder: bool = True) -> None:
    """Write a text file; a reader sees the old one or the new one. As `written_whole`."""
    with written_whole(path, in_new_folder=in_new_folder) as scratch:
        # What UTF-8 does not have becomes an escape, as JSON writes it.
        # The same bytes on every system: checksums are taken of them.
        scratch.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")


def write_json(path: Path, content: Any) -> None:
    """Write data as indented JSON, in one rename."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_csv(path: str | Path, columns: list[str], rows: Iterable[dict[str, Any]]) -> None:
    """Write a table with a heading; None becomes an empty cell.

    Raises:
        LeansegError: If the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(Path(path), text.getvalue(), in_new_folder=False)


@contextmanager
def written_whole(path: Path, *, in_new_folder: bool = False) -> Iterator[Path]:
    """A name to write to; what was written moves to `path` when the block ends well.

    The name lies in a hidden folder beside `path`, so that the move is a rename, and it ends
    like `path`, so that libraries which choose a format by suffix write the right one. What is
    written beside it (the .raw of an .mhd) moves too, before it. All is on the disk before it
    moves. When anything goes wrong, an interrupt included, nothing stays behind and an older
    `path` is left as it was; what a killed process left goes with the next write to the folder.

    Args:
        path: The file, or the folder, which may exist if it is empty.
        in_new_folder: Make the folders above.

    Yields:
        The temporary name.

    Raises:
        LeansegError: If the folder cannot be written to or the disk is full.
    """
    if is_scratch(path):
        # It moves with the folder that it lies in.
        yield path
        return
    try:
        if in_new_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(path.parent, _PREFIX) as folder:
            yield folder / path.name
            _move(folder, path)
    except OSError as error:
        raise _explained(path, error) from error


def _move(folder: Path, path: Path) -> None:
    """Move all that lies in a temporary folder to its place."""
    # The file that was asked for comes last: where it is, its companions are too.
    written = sorted(folder.iterdir(), key=lambda file: file.name == path.name)
    written = [file for file in written if file.name != LOCK]
    for file in written:
        _sync(file)
    new: list[Path] = []
    try:
        for file in written:
            target = path.parent / file.name
            is_new = not target.exists()
            if os.name == "nt" and file.is_dir() and not is_new:
                # Elsewhere an empty folder is replaced; one that is not empty is refused here too.
                target.rmdir()
            os.replace(file, target)  # noqa: PTH105
            new += [target] if is_new else []
    except BaseException:
        for target in new:
            shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
        raise
    with suppress(OSError):
        # As in SQLite: not every system can, and what was written is whole either way.
        _sync_one(path.parent)


def _sync(path: Path) -> None:
    """Have a file, or all that lies in a folder, written to the disk itself."""
    for each in (*(path.rglob("*") if path.is_dir() else ()), path):
        _sync_one(each)


def _sync_one(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
    require_new_folder(folder)
    with written_whole(folder.absolute(), in_new_folder=True) as temporary:
        temporary.mkdir()
        yield temporary


def require_new_folder(folder: Path) -> None:
    """Refuse, before any work, a folder that holds something or cannot be made.

    Raises:
        LeansegError: If it is so.
    """
    _require_places([folder], new_folders=True)
    if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        msg = f"{folder}: already holds something; choose a new folder, or empty this one"
        raise LeansegError(msg)


def require_outputs(
    outputs: Iterable[Path | None], inputs: Iterable[Path] = (), *, new_folders: bool = False
) -> None:
    """Refuse, before any work, files that cannot be written or that the same command reads.

    Every command that writes asks this first. A file is read if it is one of the inputs under
    any name: through links, in other letters where these are alike, as the zip file around an
    input. That it can be written is tried, with all of its name.

    Args:
        outputs: Files; None for those that are not wanted.
        inputs: Files, paths inside zip files, and folders, which stand for all that is in them.
        new_folders: Whether folders that are missing are going to be made.

    Raises:
        LeansegError: If one is read, is no file, cannot be written, or is another one as well.
    """
    wanted = [path for path in outputs if path is not None]
    for path in wanted:
        if os.path.isdir(path):  # noqa: PTH112  a name that is too long is none
            raise LeansegError(f"{path}: is a folder; give the name of a file")
        if os.path.lexists(path) and not os.path.isfile(path):  # noqa: PTH113  the same
            msg = f"{path}: is a pipe, a device or a link that leads nowhere; give another name"
            raise LeansegError(msg)
    _require_apart(wanted, inputs)
    _require_places(wanted, new_folders)


def _require_apart(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    there: dict[tuple[int, int], Path] = {}
    for output in filter(os.path.exists, outputs):
        there[_identity(output)] = output
    for given in inputs if there else ():
        for file in filter(os.path.exists, _files_of(given)):
            if (path := there.get(_identity(file))) is not None:
                also = "" if file == path else f" (as {file})"
                msg = f"{path}: is read by this command{also}; give another name to write to"
                raise LeansegError(msg)


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _files_of(path: Path) -> Iterator[Path]:
    """The files that reading a path may open."""
    if path.is_dir():
        yield from path.rglob("*")
    elif path.suffix.lower() in _WITH_COMPANION:
        yield from path.parent.glob(f"{glob.escape(path.stem)}.*")
    else:
        # Of a path inside a zip file, the zip file.
        yield from (part for part in (path, *path.parents) if part.is_file())


def _require_places(paths: Iterable[Path], new_folders: bool) -> None:
    """Refuse paths that cannot be written, or two that are one file."""
    by_place: dict[Path, list[Path]] = {}
    for path in paths:
        parents = path.absolute().parents[: None if new_folders else 1]
        place = next(filter(os.path.lexists, parents), parents[0])
        if place.is_file():
            msg = f"{place}: is a file, but results need a folder, so {path} cannot be written"
            raise LeansegError(f"{msg}; give another name")
        by_place.setdefault(place, []).append(path)
    known: dict[str, Path] = {}
    for place, inside in by_place.items():
        folds = _try_to_write(place, inside)
        for path in inside:
            name = os.path.realpath(path)
            name = unicodedata.normalize("NFC", name).casefold() if folds else name
            other = known.setdefault(name, path)
            if other is not path:
                msg = f"{path}: would be written over {other}, which is the same file; rename one"
                raise LeansegError(msg)


def _try_to_write(place: Path, paths: Sequence[Path]) -> bool:
    """Write empty files of these names; whether capital letters are like small ones there."""
    path = paths[0]
    try:
        with scratch_folder(place, _PREFIX) as trial:
            for path in paths:
                tried = trial / path.absolute().relative_to(place)
                tried.parent.mkdir(parents=True, exist_ok=True)
                tried.touch()
            return trial.with_name(trial.name.upper()).exists()
    except OSError as error:
        raise _explained(path, error) from error


def _explained(path: Path, error: OSError) -> LeansegError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return LeansegError(
            f"{path}: the disk is full, nothing was written; free some space and run again"
        )
    reason = error.strerror or str(error)
    name = error.filename if isinstance(error.filename, str) and error.filename2 is None else ""
    if name and _PREFIX not in name:
        named, whole = Path(name).absolute(), path.absolute()
        # What was read for it, and not the file itself or a folder above.
        if not named.is_relative_to(whole.parent) and not whole.is_relative_to(named):
            return LeansegError(f"{name}: cannot be read ({reason}); correct it and run again")
    return LeansegError(
        f"{path}: cannot be written ({reason}); "
        "choose a folder that exists and that you may write to"
    )
