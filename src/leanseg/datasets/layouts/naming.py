"""Labels by name: found in label maps, unified over cases that number them differently."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np

from leanseg.datasets.case import LabelPart, Source
from leanseg.datasets.layouts.listing import entries
from leanseg.errors import DatasetError, MissingDependencyError


class FoundLabels(Mapping[str, int]):
    """Names for the values in label maps, which are read when somebody first asks.

    Whoever only wants the scans, to predict them, neither waits for the label maps nor stumbles
    over a damaged one. The values are called label_1, label_2, ...
    """

    def __init__(self, maps: Iterable[Path]) -> None:
        self._maps = tuple(maps)

    @cached_property
    def _found(self) -> dict[str, int]:
        return _labels_in(self._maps)

    def __getitem__(self, name: str) -> int:
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


def _labels_in(maps: tuple[Path, ...]) -> dict[str, int]:
    from leanseg.datasets.load import as_label_map
    from leanseg.volumes import read_volume

    values: set[int] = set()
    for file in maps:
        values.update(int(value) for value in np.unique(as_label_map(read_volume(file)).array))
    values.discard(0)
    if maps and not values:
        msg = f"{maps[0].parent}: the label maps hold nothing but background; check them"
        raise DatasetError(msg)
    return {f"label_{value}": value for value in sorted(values)}


def unified(listings: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """One value for every name that several listings of labels use.

    A name keeps the first value that a listing gives it, unless another name has that value
    already: then it gets the next one that no listing uses.

    Returns:
        Name to value, in ascending value.
    """
    listings = list(listings)
    free = max((value for listing in listings for value in listing.values()), default=0) + 1
    labels: dict[str, int] = {}
    for listing in listings:
        for name, value in listing.items():
            if name in labels:
                continue
            if value in labels.values():
                value, free = free, free + 1
            labels[name] = value
    return dict(sorted(labels.items(), key=lambda item: item[1]))


def mapped_part(source: Source, own: Mapping[str, int], labels: Mapping[str, int]) -> LabelPart:
    """A label map whose values are a case's own, for a dataset that has others.

    Args:
        source: The label map.
        own: Name to value in that label map.
        labels: Name to value in the dataset; has all of the names.
    """
    if all(labels[name] == value for name, value in own.items()):
        return LabelPart(source)
    return LabelPart(source, values={value: labels[name] for name, value in own.items()})


# What DICOM calls a file of labels, and the reader for it.
_LABEL_READERS = {"SEG": "dicom-seg", "RTSTRUCT": "rtstruct"}


def label_source(path: Path, labels: Mapping[str, int] | None = None) -> Source:
    """A file of labels with the reader that it needs: a volume, DICOM SEG or RTSTRUCT.

    Args:
        path: A volume file, or a DICOM file, perhaps in a folder or zip file of its own.
        labels: Which segments of a DICOM file are read, and as which value, by name; None reads
            all of them.

    Raises:
        DatasetError: If it is a DICOM file of labels for which there is no reader.
    """
    from leanseg.datasets.readers import READERS
    from leanseg.volumes import is_volume_path

    if is_volume_path(path):
        return Source(path)
    reader = _LABEL_READERS.get(_modality(path))
    if reader is None:
        return Source(path)
    if reader not in READERS:
        msg = f"{path}: labels in DICOM need the reader {reader!r}, which is not there"
        raise DatasetError(f"{msg}; convert them to NIfTI")
    return Source(path, reader, {} if labels is None else {"segments": dict(labels)})


def _modality(path: Path) -> str:
    """What a DICOM file, or the only file in a folder, is; empty for anything else."""
    from leanseg.volumes.archive import unpacked
    from leanseg.volumes.dicom import is_dicom

    place = unpacked(path)
    inside = entries(place) if place.is_dir() else [place]
    if len(inside) != 1 or not inside[0].is_file() or not is_dicom(inside[0]):
        return ""
    try:
        from pydicom import dcmread
        from pydicom.errors import InvalidDicomError
    except ModuleNotFoundError as error:
        msg = f'{path}: reading DICOM needs pydicom; run pip install "leanseg[dicom]"'
        raise MissingDependencyError(msg) from error
    try:
        with warnings.catch_warnings():
            # pydicom's warnings quote values, which may name the patient.
            warnings.simplefilter("ignore")
            tags = ["Modality"]
            header = dcmread(inside[0], stop_before_pixels=True, specific_tags=tags, force=True)
            return str(header.get("Modality", ""))
    except (InvalidDicomError, OSError, ValueError, KeyError, NotImplementedError, EOFError):
        # Whoever reads the file says what is wrong with it.
        return ""


def mask_parts(masks: Mapping[str, Source], labels: Mapping[str, int]) -> tuple[LabelPart, ...]:
    """Label parts from one mask per label, later ones on top.

    Args:
        masks: Name to mask, in the order in which they are laid over each other.
        labels: Name to value in the dataset; has all of the names.
    """
    return tuple(LabelPart(source, value=labels[name]) for name, source in masks.items())
