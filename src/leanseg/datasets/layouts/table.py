"""A CSV or TSV file that lists the paths of scans and labels; nothing has to be moved or renamed.

The dataset is the file itself, or a folder with dataset.csv, listing.csv or one other table of
this kind. Its columns:

    case          name of the case; without it the scan's own name
    image         the scan; several channels are image_<channel>, such as image_FLAIR
    label         a label map, or a DICOM SEG or RTSTRUCT file (optional)
    label:<name>  one mask for one label (optional, any number); where masks overlap the later
                  column wins, and all of them lie on top of `label`
    patient       who the scan is of: cases of one patient stay on one side of a split
    annotated     the labels that the case annotates, separated by ";"

Any other column is kept as metadata. Relative paths start at the table. A path may be whatever
leanseg reads: a volume file, a folder or zip file with a DICOM series, a place in a zip file. A
case with an empty `label:<name>` cell does not annotate that label, unless `annotated` says
otherwise. A labels.json beside the table, as in the plain layout, gives the values in `label`
their names; without it they are called label_1, label_2, ... Of a DICOM file under `label` those
segments are read that it names; under `label:<name>` all segments of the file are that label.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from leanseg.datasets.case import Case, Dataset, LabelPart, Source
from leanseg.datasets.layouts.listing import (
    entries,
    foreground_labels,
    is_there,
    read_object,
    shortened,
    sorted_unique,
)
from leanseg.datasets.layouts.naming import FoundLabels, label_source, mask_parts
from leanseg.errors import DatasetError

SUFFIXES = (".csv", ".tsv")
_USUAL = ("dataset.csv", "listing.csv", "dataset.tsv", "listing.tsv")
_NAMES = "labels.json"
_IMAGE, _MASK = "image_", "label:"
_LARGEST_BYTES = 2**26


def recognises(folder: Path) -> bool:
    """Whether the folder holds exactly one such table, or one under a usual name."""
    return _table_in(folder) is not None


def read(folder: Path) -> Dataset:
    """The dataset that a table lists.

    Args:
        folder: The table, or the folder that it lies in.

    Raises:
        DatasetError: If there is no table, a column is missing, or a line is wrong; names the
            file and the line.
    """
    table = _table_in(folder) if folder.is_dir() else folder
    if table is None:
        msg = f"{folder}: no table here with a column image; write one, such as dataset.csv"
        raise DatasetError(msg)
    rows = _rows(table)
    columns = _Columns.of(table, list(rows[0].cells))
    labels = _labels(table, rows, columns)
    cases = [_case(table, row, columns, labels) for row in rows]
    return Dataset(
        name=folder.resolve().name if folder.is_dir() else table.stem,
        root=folder,
        layout="table",
        cases=sorted_unique(table, cases),
        labels=labels,
        channels=columns.channels,
    )


@dataclass(frozen=True)
class _Row:
    """One line: its number in the file, and its cells by column."""

    line: int
    cells: Mapping[str, str]


@dataclass(frozen=True)
class _Columns:
    """What the header names."""

    images: tuple[str, ...]
    masks: tuple[str, ...]
    besides: tuple[str, ...]

    @classmethod
    def of(cls, table: Path, header: list[str]) -> _Columns:
        several = tuple(name for name in header if name.startswith(_IMAGE))
        if "image" in header and several:
            msg = f"{table}: line 1 has both the columns image and {several[0]}; keep one kind"
            raise DatasetError(msg)
        images = ("image",) if "image" in header else several
        if not images:
            msg = f"{table}: line 1 has no column image (nor image_<channel>); add it"
            raise DatasetError(msg)
        masks = tuple(name for name in header if name.startswith(_MASK))
        used = {*images, *masks, "case", "label", "annotated"}
        return cls(images, masks, tuple(name for name in header if name not in used))

    @property
    def channels(self) -> tuple[str, ...]:
        return tuple(name.removeprefix(_IMAGE) for name in self.images)

    @property
    def organs(self) -> tuple[str, ...]:
        return tuple(name.removeprefix(_MASK) for name in self.masks)


def _table_in(folder: Path) -> Path | None:
    tables = [path for path in entries(folder) if path.suffix.lower() in SUFFIXES]
    fitting = [path for path in tables if path.is_file() and _is_listing(path)]
    usual = [path for name in _USUAL for path in fitting if path.name == name]
    if usual:
        return usual[0]
    return fitting[0] if len(fitting) == 1 else None


def _is_listing(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader([file.readline(65536)], delimiter=_delimiter(path)), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return False
    names = {name.strip() for name in header}
    return "image" in names or any(name.startswith(_IMAGE) for name in names)


def _delimiter(path: Path) -> str:
    return "\t" if path.suffix.lower() == ".tsv" else ","


def _rows(table: Path) -> list[_Row]:
    try:
        if table.stat().st_size > _LARGEST_BYTES:
            msg = f"{table}: is {table.stat().st_size >> 20} MiB long; give a table of paths"
            raise DatasetError(msg)
        text = table.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        msg = f"{table}: not a text file in UTF-8; save the table as CSV in UTF-8"
        raise DatasetError(msg) from error
    except OSError as error:
        msg = f"{table}: cannot be read ({error.strerror}); check the file"
        raise DatasetError(msg) from error
    reader = csv.reader(text.splitlines(keepends=True), delimiter=_delimiter(table), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        lines = [(reader.line_num, cells) for cells in reader]
    except csv.Error as error:
        msg = f"{table}: line {reader.line_num} cannot be read ({error}); correct it"
        raise DatasetError(msg) from error
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        msg = f"{table}: line 1 has the column {shortened(twice)} twice; keep one"
        raise DatasetError(msg)
    return _filled(table, header, lines)


def _filled(table: Path, header: list[str], lines: list[tuple[int, list[str]]]) -> list[_Row]:
    rows = []
    for number, cells in lines:
        stripped = [cell.strip() for cell in cells]
        if not any(stripped):
            continue
        if len(cells) != len(header):
            msg = (
                f"{table}: line {number} has {len(cells)} cells, but the header has {len(header)}; "
                "correct it (a cell with the separator in it needs quotes)"
            )
            raise DatasetError(msg)
        rows.append(_Row(number, dict(zip(header, stripped, strict=True))))
    if not rows:
        msg = f"{table}: lists no case; add a line for each scan"
        raise DatasetError(msg)
    return rows


def _labels(table: Path, rows: list[_Row], columns: _Columns) -> Mapping[str, int]:
    described = table.parent / _NAMES
    known: dict[str, int] = {}
    if described.is_file():
        listing = read_object(described, '{"labels": {"1": "liver"}}')
        known = foreground_labels(described, listing.get("labels"))
    maps = [_path(table, row.cells["label"]) for row in rows if row.cells.get("label")]
    if maps and not known and not columns.masks:
        return FoundLabels(maps)
    if maps and not known:
        msg = (
            f"{table}: has the column label beside {columns.masks[0]}; name the values of the "
            f"label maps in {described.name} beside it"
        )
        raise DatasetError(msg)
    for organ in columns.organs:
        if not organ:
            msg = f"{table}: line 1 has a column 'label:' without a name; add the label's name"
            raise DatasetError(msg)
        known.setdefault(organ, max(known.values(), default=0) + 1)
    return dict(sorted(known.items(), key=lambda item: item[1]))


def _case(table: Path, row: _Row, columns: _Columns, labels: Mapping[str, int]) -> Case:
    from leanseg.volumes import volume_stem

    images = tuple(Source(_existing(table, row, column)) for column in columns.images)
    parts: tuple[LabelPart, ...] = ()
    if row.cells.get("label"):
        own = None if isinstance(labels, FoundLabels) else labels
        parts = (LabelPart(label_source(_existing(table, row, "label"), own)),)
    masks = {
        organ: label_source(_existing(table, row, column))
        for organ, column in zip(columns.organs, columns.masks, strict=True)
        if row.cells[column]
    }
    name = row.cells.get("case") or volume_stem(images[0].path)
    return Case(
        name,
        images,
        (*parts, *mask_parts(masks, labels)),
        annotated=_annotated(table, row, columns, masks, labels),
        metadata={column: row.cells[column] for column in columns.besides if row.cells[column]},
    )


def _annotated(
    table: Path,
    row: _Row,
    columns: _Columns,
    masks: Mapping[str, Source],
    labels: Mapping[str, int],
) -> frozenset[str] | None:
    listed = [name.strip() for name in row.cells.get("annotated", "").split(";") if name.strip()]
    for name in listed:
        if name not in labels:
            msg = (
                f"{table}: line {row.line} annotates {shortened(name)}, which is no label here; "
                f"the labels are {', '.join(labels)}"
            )
            raise DatasetError(msg)
    if listed:
        return frozenset(listed)
    missing = set(columns.organs) - set(masks)
    if not missing:
        in_masks_only = set(labels) == set(columns.organs)
        return None if row.cells.get("label") or in_masks_only else frozenset(masks)
    if row.cells.get("label"):
        return frozenset(set(labels) - missing)
    return frozenset(masks)


def _path(table: Path, cell: str) -> Path:
    return table.parent / cell


def _existing(table: Path, row: _Row, column: str) -> Path:
    if not row.cells[column]:
        msg = f"{table}: line {row.line} has nothing under {column}; add the path"
        raise DatasetError(msg)
    path = _path(table, row.cells[column])
    try:
        found = is_there(path) or path.is_dir()
    except OSError:
        found = False
    if not found:
        msg = f"{table}: line {row.line} names {shortened(path, 1000)}, which does not exist"
        raise DatasetError(f"{msg}; correct the path under {column}")
    return path
