"""A CSV or TSV file that lists the paths of scans and labels; nothing has to be moved or renamed.

Cells are separated by commas, semicolons (as Excel does in many countries) or tabs.

The dataset is the file itself, or a folder with dataset.csv, listing.csv or one other table of
this kind. Its columns:

    case          name of the case; without it the scan's own name
    image         the scan; several channels are image_<channel>, such as image_FLAIR
    label         a label map, or a DICOM SEG or RTSTRUCT file (optional)
    label:<name>  one mask for one label (optional, any number), in columns from the bottom up,
                  all of them on top of `label`: one may lie within another label (a lesion in
                  an organ); voxels that two labels share otherwise are refused
    patient       who the scan is of: cases of one patient are never in two parts of a split
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
from collections.abc import Mapping, Sequence
from pathlib import Path

from leanseg.datasets.case import Dataset
from leanseg.datasets.layouts.assemble import CaseFiles, assembled
from leanseg.datasets.layouts.listing import (
    LONGEST_HEADER,
    is_there,
    read_labels_json,
    read_table,
    separator,
)
from leanseg.datasets.layouts.patterns import find
from leanseg.datasets.sources import VolumeSource
from leanseg.errors import DatasetError
from leanseg.files import require_file, shortened
from leanseg.volumes import is_volume_path, volume_stem

SUFFIXES = (".csv", ".tsv")
_USUAL = ("dataset.csv", "listing.csv", "dataset.tsv", "listing.tsv")
_IMAGE, _MASK = "image_", "label:"
_KNOWN = ("case", "image", "label", "annotated")
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
    if table.stat().st_size > _LARGEST_BYTES:
        msg = f"{table}: is {table.stat().st_size >> 20} MiB long; give a table of paths"
        raise DatasetError(msg)
    rows = read_table(table)
    if not rows:
        raise DatasetError(f"{table}: lists no case; add a line for each scan")
    named = read_labels_json(table.parent).labels
    header = list(next(iter(rows.values())))
    columns = _image_columns(table, header)
    cases = [_case(table, line, cells, columns, named) for line, cells in rows.items()]
    masks = [name.removeprefix(_MASK) for name in header if name.startswith(_MASK)]
    name = None if folder.is_dir() else table.stem
    return assembled(folder, "table", cases, masks=masks, name=name)


def _table_in(folder: Path) -> Path | None:
    tables = [found.path for found in find(folder, *(f"*{suffix}" for suffix in SUFFIXES))]
    fitting = [path for path in tables if _is_listing(path)]
    usual = [path for name in _USUAL for path in fitting if path.name == name]
    if usual:
        return usual[0]
    return fitting[0] if len(fitting) == 1 else None


def _is_listing(path: Path) -> bool:
    try:
        # Reading it says what is wrong with its encoding.
        with require_file(path).open(encoding="utf-8-sig", newline="", errors="replace") as file:
            line = file.readline(LONGEST_HEADER)
        header = next(csv.reader([line], delimiter=separator(line)), [])
    except (OSError, csv.Error):
        return False
    names = {name.strip() for name in header}
    return "image" in names or any(name.startswith(_IMAGE) for name in names)


def _image_columns(table: Path, header: Sequence[str]) -> dict[str, str]:
    """The columns of the scans by name of the channel."""
    several = {name.removeprefix(_IMAGE): name for name in header if name.startswith(_IMAGE)}
    if "image" in header and several:
        msg = f"{table}: line 1 has both the columns image and {next(iter(several.values()))}"
        raise DatasetError(f"{msg}; keep one kind")
    if "image" not in header and not several:
        raise DatasetError(f"{table}: line 1 has no column image (nor image_<channel>); add it")
    if _MASK in header:
        msg = f"{table}: line 1 has a column 'label:' without a name; add the label's name"
        raise DatasetError(msg)
    return several or {"image": "image"}


def _case(
    table: Path,
    line: int,
    cells: Mapping[str, str],
    columns: Mapping[str, str],
    named: Mapping[str, int],
) -> CaseFiles:
    """The case in a line; `columns` and `named` tell the channels and the values of label maps."""
    images = {channel: _path(table, line, cells, column) for channel, column in columns.items()}
    case = CaseFiles(cells.get("case") or volume_stem(next(iter(images.values()))), images)
    masks = {name.removeprefix(_MASK): name for name in cells if name.startswith(_MASK)}
    case.masks = [
        # All segments of a DICOM file are the one label, so that they may overlap.
        (label, _label_source(_path(table, line, cells, column), 1))
        for label, column in masks.items()
        if cells[column]
    ]
    if cells.get("label"):
        case.label = _label_source(_path(table, line, cells, "label"), dict(named))
        # A label with an empty cell is not annotated, even if the label map knows its value.
        kept = {label: v for label, v in named.items() if cells.get(masks.get(label, "label"))}
        case.names = kept or None
    annotated = {name.strip() for name in cells.get("annotated", "").split(";")} - {""}
    case.annotated = sorted(annotated) or None
    used = {*_KNOWN, *columns.values(), *masks.values()}
    case.metadata = {column: cell for column, cell in cells.items() if cell and column not in used}
    return case


def _label_source(path: Path, segments: dict[str, int] | int) -> VolumeSource:
    is_dicom = segments and not is_volume_path(path)
    return VolumeSource(path, options={"segments": segments} if is_dicom else {})


def _path(table: Path, line: int, cells: Mapping[str, str], column: str) -> Path:
    if not cells[column]:
        raise DatasetError(f"{table}: line {line} has nothing under {column}; add the path")
    path = table.parent / cells[column]
    if not is_there(path, or_folder=True):
        msg = f"{table}: line {line} names {shortened(path, 1000)}, which does not exist"
        raise DatasetError(f"{msg}; correct the path under {column}")
    return path
