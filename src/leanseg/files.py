"""Small files read with a sentence for what is wrong; files and folders whole or absent."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from leanseg.errors import DatasetError, LeansegError, told

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound="BaseModel")
Content = TypeVar("Content")


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
        return parse(path.read_text(encoding="utf-8-sig"))
    except OSError as failure:
        msg = f"{path}: cannot be read ({failure.strerror}); {remedy}"
        raise error(msg) from failure
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


def shortened(value: Any, limit: int = 80) -> str:
    """A value as it is written in Python (a path as it is), cut where it would fill a screen."""
    text = str(value) if isinstance(value, Path) else repr(value)
    return told(text[:limit]) + ("..." if len(text) > limit else "")


def write_text(path: Path, text: str) -> None:
    """Write a text file and the folders above it; a reader sees the old one or the new one."""
    with written_whole(path, in_new_folder=True) as scratch:
        scratch.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write data as indented JSON, in one rename."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


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
