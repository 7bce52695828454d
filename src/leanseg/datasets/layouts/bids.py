"""BIDS-like trees: `sub-*/[ses-*/]<datatype>/sub-*_<suffix>.nii.gz`, labels in derivatives.

Gorgolewski et al., "The brain imaging data structure", Scientific Data 3, 2016. Every subject,
session and run is a case; its patient is the subject. What else its files are named by (suffix
and entities such as ce-gad) is a channel, and every case has to have the same ones. Functional,
diffusion and other files that are not single volumes are passed over.

Labels lie anywhere under `derivatives/`, or beside the scans: `*_dseg.nii.gz`, a label map whose
values a table of columns index and name beside it, or above it, names (the BIDS way); and
`*_label-<name>_mask.nii.gz`, one mask for one label, on top of the label map, in the order of the
alphabet: one may lie within another label; voxels that two share otherwise are refused. Other
masks (such as desc-brain) are taken only where there is neither. What was moved to a template's
space (space-MNI...) is passed over. A mask that other cases have and one has not is not annotated
in that case.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from leanseg.datasets.case import Dataset
from leanseg.datasets.layouts.assemble import CaseFiles, assembled
from leanseg.datasets.layouts.listing import foreground_labels, read_table
from leanseg.datasets.layouts.patterns import by_name, find
from leanseg.datasets.sources import VolumeSource
from leanseg.errors import DatasetError
from leanseg.files import read_json
from leanseg.volumes import volume_stem

DESCRIPTION = "dataset_description.json"
_SUBJECT = "sub-*/"
_SCANS = tuple(
    f"{place}<datatype:(?!ses-).*>/sub-*{{volume}}" for place in (_SUBJECT, f"{_SUBJECT}ses-*/")
)
_DERIVED = ("derivatives/**/sub-*{volume}", f"{_SUBJECT}**/sub-*{{volume}}")
_NO_VOLUMES = (
    *("func", "dwi", "fmap", "perf", "eeg", "meg", "ieeg", "beh", "motion", "nirs", "micr", "mrs"),
)
_LABELS = ("dseg", "mask", "probseg", "seg")
_OWN_SPACES = ("orig", "individual", "native", "scanner")
# Subject, session and run.
_Key = tuple[str, str, str]


@dataclass(frozen=True)
class _File:
    """A file with its name taken apart."""

    path: Path
    entities: Mapping[str, str]
    suffix: str

    @classmethod
    def of(cls, path: Path) -> _File:
        *pairs, suffix = volume_stem(path).split("_")
        return cls(path, dict(pair.split("-", 1) for pair in pairs if "-" in pair), suffix)

    @property
    def key(self) -> _Key:
        subject, session, run = (self.entities.get(name, "") for name in ("sub", "ses", "run"))
        return subject, session, run

    @property
    def contrast(self) -> str:
        kept = [f"{k}-{v}" for k, v in self.entities.items() if k not in ("sub", "ses", "run")]
        return "_".join((*kept, self.suffix))

    def fits(self, key: _Key) -> bool:
        """Whether a derivative belongs to a case: whatever both name is the same."""
        both = zip(self.key, key, strict=True)
        return self.key[0] == key[0] and all(mine in ("", theirs) for mine, theirs in both)


def recognises(folder: Path) -> bool:
    """Whether there is a scan of a subject, named as BIDS names it."""
    return next(_scans(folder), None) is not None


def read(folder: Path) -> Dataset:
    """The dataset in a BIDS-like tree.

    Raises:
        DatasetError: If there are no scans, cases differ in their channels, or a case has two
            label maps.
    """
    groups: dict[_Key, dict[str, Path]] = {}
    for file in _scans(folder):
        groups.setdefault(file.key, {})[file.contrast] = file.path
    channels = {contrast for images in groups.values() for contrast in images}
    derived = _derived(folder, channels)
    whole = [f for f in derived if f.suffix == "dseg" and "label" not in f.entities]
    fitting = ((_name(key), f.path) for key in groups for f in whole if f.fits(key))
    maps = by_name(fitting, "label maps")
    masks = _masks(groups, derived, bool(maps))
    cases = []
    for key, images in groups.items():
        case = CaseFiles(_name(key), dict(sorted(images.items())))
        case.metadata = {"patient": f"sub-{key[0]}"}
        case.masks = [(name, VolumeSource(path)) for name, path in sorted(masks[key].items())]
        if (label := maps.get(case.name)) is not None:
            case.label, case.names = VolumeSource(label), _names(folder, label)
        cases.append(case)
    return assembled(folder, "bids", cases, name=_title(folder))


def _title(folder: Path) -> object:
    described = folder / DESCRIPTION
    content = read_json(described) if described.is_file() else None
    return content.get("Name") if isinstance(content, Mapping) else None


def _name(key: _Key) -> str:
    return "_".join(f"{k}-{v}" for k, v in zip(("sub", "ses", "run"), key, strict=True) if v)


def _files(folder: Path, patterns: Iterable[str]) -> Iterator[_File]:
    for found in find(folder, *patterns):
        file = _File.of(found.path)
        single = found.fields.get("datatype") not in _NO_VOLUMES
        if single and file.entities.get("sub") and file.suffix:
            yield file


def _scans(folder: Path) -> Iterator[_File]:
    """The raw scans: in a datatype's folder of a subject or of one of its sessions."""
    return (file for file in _files(folder, _SCANS) if file.suffix not in _LABELS)


def _derived(folder: Path, channels: Iterable[str]) -> list[_File]:
    """Label maps and masks on the scans' own grids."""
    spaces = {*_OWN_SPACES, *channels}
    return [
        file
        for file in _files(folder, _DERIVED)
        if file.suffix in ("dseg", "mask") and file.entities.get("space", "orig") in spaces
    ]


def _masks(keys: Iterable[_Key], derived: list[_File], mapped: bool) -> dict[_Key, dict[str, Path]]:
    """The masks of each case by label."""
    singles, entity = [file for file in derived if "label" in file.entities], "label"
    if not singles and not mapped:
        singles, entity = [file for file in derived if file.suffix == "mask"], "desc"
    named = [(file.entities.get(entity, file.suffix), file) for file in singles]
    return {
        key: by_name(((name, file.path) for name, file in named if file.fits(key)), "masks")
        for key in keys
    }


def _names(folder: Path, label: Path) -> dict[str, int] | None:
    """Name to value from the nearest table, from the label map's folder upwards, that fits it.

    A table fits whose name says nothing that the label map's does not.
    """
    parts = set(volume_stem(label).split("_"))
    for place in label.parents:
        tables = [found.path for found in find(place, "*dseg.tsv")]
        fitting = [path for path in tables if set(path.stem.split("_")) <= parts]
        if fitting:
            return _names_in(max(fitting, key=lambda path: len(path.stem)))
        if place == folder:
            break
    return None


def _names_in(table: Path) -> dict[str, int]:
    rows = read_table(table).values()
    if not rows or not all(row.get("index") and row.get("name") for row in rows):
        msg = f"{table}: needs the columns index and name with a line for each label; correct it"
        raise DatasetError(msg)
    try:
        return foreground_labels({row["index"]: row["name"] for row in rows})
    except ValueError as error:
        raise DatasetError(f"{table}: {error}; correct the file") from error
