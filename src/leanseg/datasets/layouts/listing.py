"""What the JSON files that describe datasets (dataset.json, labels.json) hold, validated."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, BeforeValidator, Field

from leanseg.datasets.case import Case, Dataset
from leanseg.datasets.layouts.assemble import dataset_of
from leanseg.datasets.load import LARGEST_LABEL
from leanseg.errors import DatasetError
from leanseg.files import read_listing, require_file, shortened
from leanseg.volumes.archive import archive_of

DATASET_JSON, LABELS_JSON = "dataset.json", "labels.json"
LONGEST_HEADER = 65536


def separator(header: str) -> str:
    """What separates the cells of a table: what its first line has most of."""
    return max(",;\t", key=header.count)


def read_table(path: Path) -> dict[int, dict[str, str]]:
    """The cells of each line of a table, separated by commas, semicolons (Excel) or tabs.

    Returns:
        Number of a line to its cells by column, stripped; lines without any are left out.

    Raises:
        DatasetError: If the file cannot be read, a column occurs twice, or a line has not as
            many cells as the first.
    """
    rows: dict[int, dict[str, str]] = {}
    try:
        with require_file(path).open(encoding="utf-8-sig", newline="") as file:
            delimiter = separator(file.readline(LONGEST_HEADER))
            file.seek(0)
            reader = csv.DictReader(file, delimiter=delimiter, strict=True)
            header = [name.strip() for name in reader.fieldnames or ()]
            for row in reader:
                # Cells past the header are under None, and None is under columns past the cells.
                if None in row or None in row.values():
                    raise DatasetError(
                        f"{path}: line {reader.line_num} has not the {len(header)} cells of the "
                        "header; correct it (a cell with the separator in it needs quotes)"
                    )
                cells = [cell.strip() for cell in row.values()]
                if any(cells):
                    rows[reader.line_num] = dict(zip(header, cells, strict=False))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        msg = f"{path}: cannot be read as a table ({error}); save it as CSV or TSV in UTF-8"
        raise DatasetError(msg) from error
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise DatasetError(f"{path}: line 1 has the column {shortened(twice)} twice; keep one")
    return rows


def foreground_labels(listed: Any) -> dict[str, int]:
    """Foreground names to values, in ascending value, from either way of writing them.

    Args:
        listed: `{"0": "background", "1": "liver"}` (Decathlon) or `{"background": 0,
            "liver": 1}` (nnU-Net 2). Value 0 is the background and is left out.

    Raises:
        ValueError: If there is no foreground label, a value is not an integer from 0 on, or
            a name or value occurs twice.
    """
    if not isinstance(listed, Mapping):
        raise ValueError('must map values to names, such as {"1": "liver"}')
    by_value = all(isinstance(name, str) for name in listed.values())
    labels: dict[str, int] = {}
    for key, content in listed.items():
        name, written = (content, key) if by_value else (key, content)
        value = _label_value(name, written)
        if value == 0:
            continue
        if not name.strip():
            raise ValueError(f"the label of value {value} has no name; give it one")
        if name in labels or value in labels.values():
            shown = shortened(name)
            raise ValueError(f"label {shown} with value {value} is listed twice")
        labels[name] = value
    if not labels:
        raise ValueError('names no foreground label; add one, such as {"1": "liver"}')
    return dict(sorted(labels.items(), key=lambda item: item[1]))


def _label_value(name: str, written: Any) -> int:
    try:
        value = int(written) if not isinstance(written, bool | float) else -1
    except (TypeError, ValueError):
        value = -1
    if not 0 <= value <= LARGEST_LABEL:
        raise ValueError(
            f"label {shortened(name)} has the value {shortened(written)}; "
            f"every label needs one whole number from 0 to {LARGEST_LABEL}"
        )
    return value


def _numbered_names(listed: Any) -> list[str]:
    """The names of `{"0": "CT", "1": "PET"}` in the order of their numbers."""
    if not isinstance(listed, Mapping) or not listed:
        raise ValueError('must number the channels, such as {"0": "CT"}')
    # As numbers: in text order channel "10" would come before "2".
    return [str(listed[number]) for number in sorted(listed, key=int)]


Labels = Annotated[dict[str, int], BeforeValidator(foreground_labels)]
Channels = Annotated[list[str], BeforeValidator(_numbered_names)]


class DatasetJson(BaseModel):
    """The dataset.json of the Decathlon and of nnU-Net.

    Attributes:
        name: The dataset's name, if it is a text.
        labels: Name to value.
        channels: Their names; under "modality", or as nnU-Net 2 has it "channel_names".
        metadata: Facts on cases, such as their patients; other programs pass over it.
    """

    name: Any = None
    labels: Labels
    channels: Channels = Field(["CT"], validation_alias=AliasChoices("channel_names", "modality"))
    metadata: dict[str, dict[str, str]] = Field(default_factory=dict)

    def as_dataset(self, folder: Path, layout: str, cases: Sequence[Case]) -> Dataset:
        """The dataset of some cases, with the listing's metadata added to their own.

        Raises:
            DatasetError: If a file is missing, or the listing names cases that do not exist.
        """
        source = folder / DATASET_JSON
        require_files(source, cases)
        require_cases(source, "metadata", self.metadata, {case.name for case in cases})
        cases = [
            replace(case, metadata={**case.metadata, **self.metadata.get(case.name, {})})
            for case in cases
        ]
        return dataset_of(folder, layout, cases, self.labels, self.channels, self.name)


class LabelsJson(BaseModel):
    """A labels.json, which names the values in label maps.

    Attributes:
        labels: Name to value; empty where only other things are told.
        channels: Names of the channels.
        annotated: The labels that a case annotates, for cases that do not annotate all.
        metadata: As in `DatasetJson`.
    """

    labels: Labels = Field(default_factory=dict)
    channels: list[Any] | None = None
    annotated: dict[str, list[str]] = Field(default_factory=dict)
    metadata: dict[str, dict[str, str]] = Field(default_factory=dict)


def read_labels_json(folder: Path) -> LabelsJson:
    """The labels.json in a folder; an empty one where there is none.

    Raises:
        DatasetError: If it is not valid.
    """
    path = folder / LABELS_JSON
    return read_listing(path, LabelsJson) if path.is_file() else LabelsJson()


def require_cases(path: Path, key: str, named: Iterable[str], known: Collection[str]) -> None:
    """Check that a listing names only cases that there are.

    Raises:
        DatasetError: Naming the first that is not there.
    """
    for name in named:
        if name not in known:
            msg = f'{path}: "{key}" names the case {shortened(name)}, which has no scan'
            raise DatasetError(f"{msg}; remove the line, or correct the name")


def kept_metadata(cases: Iterable[Case], besides: str = "") -> dict[str, dict[str, str]]:
    """What a listing's "metadata" has to hold.

    Args:
        cases: Of the dataset that is written.
        besides: A key that the listing tells in another way.
    """
    facts = {
        case.name: {key: fact for key, fact in case.metadata.items() if key != besides}
        for case in cases
    }
    return {name: known for name, known in facts.items() if known}


def is_there(path: Path, *, or_folder: bool = False) -> bool:
    """Whether a file, or the zip file that a path leads into, exists."""
    try:
        return path.is_file() or (or_folder and path.is_dir()) or archive_of(path) is not None
    except OSError:
        # A name that is too long, or a folder that may not be looked into.
        return False


def require_files(source: Path, cases: Sequence[Case]) -> None:
    """Check that every listed file is there.

    Raises:
        DatasetError: Naming the first three that are not, and how many there are.
    """
    files = [part.path for case in cases for part in case.sources]
    missing = [file for file in files if not is_there(file)]
    if missing:
        shown = ", ".join(shortened(file, 1000) for file in missing[:3])
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        noun = "1 file that does" if len(missing) == 1 else f"{len(missing)} files that do"
        raise DatasetError(f"{source}: names {noun} not exist: {shown}{more}; complete the dataset")
