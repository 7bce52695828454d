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

from leanseg.datasets.case import Case, Dataset
from leanseg.datasets.jsonfiles import read_listing, shortened
from leanseg.datasets.labels import FoundLabels
from leanseg.datasets.layouts.listing import LabelsJson, is_there
from leanseg.datasets.layouts.patterns import dataset_of, find
from leanseg.datasets.sources import LabelPart, VolumeSource
from leanseg.errors import DatasetError
from leanseg.volumes import is_volume_path, volume_stem

SUFFIXES = (".csv", ".tsv")
_USUAL = ("dataset.csv", "listing.csv", "dataset.tsv", "listing.tsv")
_NAMES = "labels.json"
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
    path = _table_in(folder) if folder.is_dir() else folder
    if path is None:
        msg = f"{folder}: no table here with a column image; write one, such as dataset.csv"
        raise DatasetError(msg)
    header, rows = _rows(path)
    table = _Table(path, _images(path, header), [n for n in header if n.startswith(_MASK)])
    labels = table.labels(rows)
    cases = [table.case(line, cells, labels) for line, cells in rows.items()]
    channels = [column.removeprefix(_IMAGE) for column in table.images]
    name = folder.resolve().name if folder.is_dir() else path.stem
    return dataset_of(folder, "table", cases, labels, channels, name)


def _table_in(folder: Path) -> Path | None:
    tables = [found.path for found in find(folder, *(f"*{suffix}" for suffix in SUFFIXES))]
    fitting = [path for path in tables if _is_listing(path)]
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


def _rows(path: Path) -> tuple[list[str], dict[int, dict[str, str]]]:
    """The names of the columns, and the cells of each line that has any, by its number."""
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            msg = f"{path}: is {path.stat().st_size >> 20} MiB long; give a table of paths"
            raise DatasetError(msg)
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        msg = f"{path}: not a text file in UTF-8; save the table as CSV in UTF-8"
        raise DatasetError(msg) from error
    except OSError as error:
        msg = f"{path}: cannot be read ({error.strerror}); check the file"
        raise DatasetError(msg) from error
    reader = csv.reader(text.splitlines(keepends=True), delimiter=_delimiter(path), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        numbered = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except csv.Error as error:
        msg = f"{path}: line {reader.line_num} cannot be read ({error}); correct it"
        raise DatasetError(msg) from error
    lines = {number: cells for number, cells in numbered if any(cells)}
    if not lines:
        msg = f"{path}: lists no case; add a line for each scan"
        raise DatasetError(msg)
    for number, cells in lines.items():
        if len(cells) != len(header):
            msg = (
                f"{path}: line {number} has {len(cells)} cells, but the header has {len(header)}; "
                "correct it (a cell with the separator in it needs quotes)"
            )
            raise DatasetError(msg)
    rows = {number: dict(zip(header, cells, strict=True)) for number, cells in lines.items()}
    return header, rows


def _images(path: Path, header: list[str]) -> list[str]:
    """The columns of the scans' channels; checks what the header names."""
    several = [name for name in header if name.startswith(_IMAGE)]
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        msg = f"{path}: line 1 has the column {shortened(twice)} twice; keep one"
    elif "image" in header and several:
        msg = f"{path}: line 1 has both the columns image and {several[0]}; keep one kind"
    elif "image" not in header and not several:
        msg = f"{path}: line 1 has no column image (nor image_<channel>); add it"
    elif _MASK in header:
        msg = f"{path}: line 1 has a column 'label:' without a name; add the label's name"
    else:
        return several or ["image"]
    raise DatasetError(msg)


@dataclass(frozen=True)
class _Table:
    """A table of paths.

    Attributes:
        path: Where it lies; relative paths start there.
        images: Columns of the scans' channels.
        masks: Columns label:<name>.
    """

    path: Path
    images: list[str]
    masks: list[str]

    def labels(self, rows: Mapping[int, Mapping[str, str]]) -> Mapping[str, int]:
        """Name to value of all labels in the dataset."""
        described = self.path.parent / _NAMES
        known: dict[str, int] = {}
        if described.is_file():
            known = dict(read_listing(described, LabelsJson).labels)
        maps = [cells["label"] for cells in rows.values() if cells.get("label")]
        if maps and not known and not self.masks:
            return FoundLabels(VolumeSource(self.path.parent / cell) for cell in maps)
        if maps and not known:
            msg = (
                f"{self.path}: has the column label beside {self.masks[0]}; name the values of "
                f"the label maps in {_NAMES} beside it"
            )
            raise DatasetError(msg)
        for column in self.masks:
            known.setdefault(column.removeprefix(_MASK), max(known.values(), default=0) + 1)
        return dict(sorted(known.items(), key=lambda item: item[1]))

    def case(self, line: int, cells: Mapping[str, str], labels: Mapping[str, int]) -> Case:
        """The case in a line."""
        images = [self._existing(line, cells, column) for column in self.images]
        parts: list[LabelPart] = []
        if cells.get("label"):
            path = self._existing(line, cells, "label")
            by_name = not (isinstance(labels, FoundLabels) or is_volume_path(path))
            options = {"segments": dict(labels)} if by_name else {}
            parts = [LabelPart(VolumeSource(path, options=options))]
        for column in self.masks:
            if cells[column]:
                source = VolumeSource(self._existing(line, cells, column))
                parts.append(LabelPart(source, value=labels[column.removeprefix(_MASK)]))
        besides = set(cells) - {*_KNOWN, *self.images, *self.masks}
        return Case(
            images,
            parts,
            cells.get("case") or volume_stem(images[0]),
            annotated=self._annotated(line, cells, labels),
            metadata={column: cells[column] for column in sorted(besides) if cells[column]},
        )

    def _annotated(
        self, line: int, cells: Mapping[str, str], labels: Mapping[str, int]
    ) -> set[str] | None:
        listed = {name.strip() for name in cells.get("annotated", "").split(";")} - {""}
        unknown = sorted(name for name in listed if name not in labels)
        if unknown:
            msg = (
                f"{self.path}: line {line} annotates {shortened(unknown[0])}, which is no label "
                f"here; the labels are {', '.join(labels)}"
            )
            raise DatasetError(msg)
        if listed:
            return listed
        if isinstance(labels, FoundLabels):
            return None
        organs = {column.removeprefix(_MASK): bool(cells[column]) for column in self.masks}
        # A label map annotates every label but those for which the case has an empty cell.
        known = {name for name in labels if organs.get(name, bool(cells.get("label")))}
        return None if known == set(labels) else known

    def _existing(self, line: int, cells: Mapping[str, str], column: str) -> Path:
        if not cells[column]:
            msg = f"{self.path}: line {line} has nothing under {column}; add the path"
            raise DatasetError(msg)
        path = self.path.parent / cells[column]
        try:
            found = is_there(path) or path.is_dir()
        except OSError:
            found = False
        if not found:
            msg = f"{self.path}: line {line} names {shortened(path, 1000)}, which does not exist"
            raise DatasetError(f"{msg}; correct the path under {column}")
        return path
