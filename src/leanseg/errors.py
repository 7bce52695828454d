"""Errors that a user can cause: one sentence with the file, the value and what to do."""

from __future__ import annotations

import unicodedata
from importlib.util import find_spec

# Folders in which zip files lie unpacked, to what the user calls these; the inner ones last.
UNPACKED: dict[str, str] = {}
_LONGEST_SENTENCE = 1500


def told(text: str) -> str:
    r"""A text as it is told to the user, on one line.

    Names of files and cases, and what DICOM and JSON files say, may hold line breaks, commands
    for terminals and parts of characters: these are escaped. A place in a zip file is named
    through the zip file, not by the folder where it lies unpacked.

    Example:
        >>> told("liver\nand spleen")
        'liver\\nand spleen'
    """
    for place, name in reversed(UNPACKED.items()):
        text = text.replace(place, name)
    if text.isprintable():
        return text
    # A space is a space in every script.
    return "".join(
        c
        if c.isprintable() or unicodedata.category(c) == "Zs"
        else c.encode("unicode_escape").decode()
        for c in text
    )


class LeansegError(ValueError):
    """Something that the user can mend; the command line prints it and exits with status 2.

    Example:
        >>> try:
        ...     leanseg.read("absent.nii.gz")
        ... except leanseg.LeansegError as error:
        ...     print(error)
        absent.nii.gz: there is no such file; ...
    """

    def __init__(self, sentence: str = "") -> None:
        line = told(sentence)
        # Names and values from a file may be as long as they like; its own name comes first.
        if len(line) > _LONGEST_SENTENCE:
            line = f"{line[: _LONGEST_SENTENCE - 303]}...{line[-300:]}"
        super().__init__(line)


class ToldError(LeansegError):
    """An error of which another of the processes that train together tells the user."""


class FileFormatError(LeansegError):
    """A file that cannot be read as what its name promises."""


class GeometryError(LeansegError):
    """A grid that does not describe a volume, or two grids that should agree and do not."""


class SpacingError(GeometryError):
    """A header that gives 0 as the distance of voxels."""


class DatasetError(LeansegError):
    """A folder, listing or case that does not form a usable dataset."""


class RecipeError(LeansegError):
    """A recipe, plan or option with a key or value that is not allowed."""


class ModelFileError(LeansegError):
    """A model file that is damaged, altered, or not a model file."""


class MissingDependencyError(LeansegError):
    """A command that needs an optional package which is not installed."""


class MemoryCeilingError(LeansegError):
    """A ceiling on memory that the work at hand cannot be done under."""


def require_package(package: str, user: str, install: str) -> None:
    """Refuse work for which a package is missing; it is not imported for that.

    Args:
        package: The top-level package.
        user: What needs it.
        install: What to give pip.

    Raises:
        MissingDependencyError: If the package is not installed.
    """
    if find_spec(package) is None:
        raise MissingDependencyError(
            f"{user} needs the package {package}, which is not installed; "
            f"install it with: pip install '{install}'"
        )
