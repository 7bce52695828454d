"""`leanseg info`: what a model file, a scan, a DICOM series or a dataset is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leanseg.cli import options
from leanseg.cli.output import print_facts
from leanseg.errors import DatasetError, FileFormatError

if TYPE_CHECKING:
    from leanseg.volumes.dicom import Series

_LISTINGS = (".json", ".csv", ".tsv")
# Entries of a list that a person reads; --json has all.
_SHOWN = 12
# Lists of which a person reads the names alone.
_BY_NAME = ("series", "cases")
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
# Of a DICOM series: none of these identifies a patient.
_SERIES_FIELDS = (
    "name", "number", "description", "modality", "kind", "shape", "spacing_mm", "thickness_mm",
    "orientation", "phases", "tilt_degrees", "missing", "transfer_syntax", "rescale",
    "padding", "notes",
)  # fmt: skip
_IDENTIFIERS = (
    "PatientName", "PatientID", "PatientBirthDate", "StudyDate", "AccessionNumber",
    "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID",
)  # fmt: skip


def command(
    path: Annotated[
        Path,
        typer.Argument(
            help="A model (file or name), a scan, a DICOM folder or zip, or a dataset.",
            parser=options.model_path,
            metavar="PATH",
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    series: options.Series = None,
    geometry: options.Geometry = "auto",
    show_identifiers: options.ShowIdentifiers = False,
) -> None:
    """Describe a model file, scan, DICOM series or dataset."""
    facts = _facts(path, series, geometry, show_identifiers)
    if as_json:
        typer.echo(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        print_facts(_readable(facts))


def _facts(path: Path, series: str | None, geometry: str, show_identifiers: bool) -> dict[str, Any]:
    """What there is to say of a path, as values that JSON has."""
    from leanseg.volumes import is_archive, is_volume_path
    from leanseg.volumes.dicom import is_dicom

    if is_volume_path(path):
        return _scan_facts(path, geometry)
    is_listing = path.suffix.lower() in _LISTINGS
    if not path.is_dir() and not is_archive(path) and not is_listing:
        if not is_dicom(path):
            return _model_facts(path)
    elif series is None and not show_identifiers:
        try:
            return _dataset_facts(path)
        except DatasetError:
            if not is_dicom(path):
                raise
    return _dicom_facts(path, series, show_identifiers)


def _scan_facts(path: Path, geometry: str) -> dict[str, Any]:
    from leanseg.volumes import read_volume

    volume = read_volume(path, geometry=geometry)
    low, high = volume.array.min().item(), volume.array.max().item()
    return {
        "scan": str(path),
        "shape": volume.shape,
        "channels": volume.n_channels,
        "spacing_mm": volume.spacing_mm,
        "orientation": volume.orientation,
        "voxel_type": str(volume.array.dtype),
        # JSON has no NaN.
        "lowest": low if low == low else None,
        "highest": high if high == high else None,
        "affine_to_ras_mm": volume.affine.tolist(),
        "notes": volume.notes,
    }


def _model_facts(path: Path) -> dict[str, Any]:
    from leanseg.modelfile import SUFFIX, is_model_file, read_model
    from leanseg.volumes import VOLUME_SUFFIXES

    kinds = f"a scan that leanseg reads ({', '.join(VOLUME_SUFFIXES)}, DICOM)"
    try:
        if path.suffix.lower() != SUFFIX and not is_model_file(path):
            msg = f"{path}: is neither a model file ({SUFFIX}) nor {kinds}; convert it"
            raise FileFormatError(msg)
    except OSError as error:
        msg = f"{path}: cannot be read ({error.strerror}); give a model file ({SUFFIX}) or {kinds}"
        raise FileFormatError(msg) from error
    file = read_model(path)
    weights = [
        array.size
        for member in file.networks
        for name, array in member.weights.items()
        if not name.endswith(_STATISTICS)
    ]
    return {
        "model": str(path),
        "bytes": path.stat().st_size,
        "parameters": sum(weights),
        # Where labels lie inside one another: their values in label maps.
        "label_values": file.plan.final.label_values if file.plan.final.is_regions else None,
        **file.manifest.model_dump(mode="json"),
    }


def _dataset_facts(path: Path) -> dict[str, Any]:
    from leanseg.datasets import open_dataset

    dataset = open_dataset(path)
    return {
        "dataset": dataset.name,
        "root": str(dataset.root),
        "layout": dataset.layout,
        "channels": dataset.channels,
        "labels": dict(dataset.labels),
        "n_cases": len(dataset.cases),
        "n_labelled": sum(bool(case.label_parts) for case in dataset.cases),
        "n_partly_annotated": sum(case.annotated is not None for case in dataset.cases),
        "cases": [
            {
                "name": case.name,
                "images": [str(source.path) for source in case.images],
                "label_files": [str(part.source.path) for part in case.label_parts],
                "annotated": [name for name in dataset.labels if case.annotates(name)],
            }
            for case in dataset.cases
        ],
    }


def _dicom_facts(path: Path, wanted: str | None, show_identifiers: bool) -> dict[str, Any]:
    """Every series of a folder, zip file or file, and the chosen one.

    Raises:
        LeansegError: If there is no DICOM, or no such series.
    """
    from leanseg.volumes.dicom import choose_series, find_series

    inventory = find_series(path)
    facts: dict[str, Any] = {
        "dicom": str(path),
        "series": [_series_facts(series, show_identifiers) for series in inventory.series],
        "not_read": inventory.skipped,
    }
    try:
        chosen = choose_series(inventory, wanted)
    except FileFormatError as error:
        if wanted is not None or not inventory.series:
            raise
        return {**facts, "chosen": None, "which": str(error)}
    return {**facts, "chosen": facts["series"][inventory.series.index(chosen)]}


def _series_facts(series: Series, show_identifiers: bool) -> dict[str, Any]:
    facts = {name: getattr(series, name) for name in _SERIES_FIELDS}
    facts["n_files"] = len(series.files)
    facts["problem"] = str(series.problem) if series.problem else None
    if show_identifiers:
        from pydicom import dcmread

        from leanseg.volumes import unpacked

        header = dcmread(unpacked(series.files[0]), stop_before_pixels=True, force=True)
        facts["identifiers"] = {key: str(header.get(key, "") or "") for key in _IDENTIFIERS}
    return facts


def _readable(value: Any) -> Any:
    """The facts as a person reads them: nothing that is empty, six digits, cases by name."""
    if isinstance(value, Mapping):
        there = {key: part for key, part in value.items() if part not in (None, "", [], (), {})}
        # These are longer than all the rest.
        for name in ("recipe", "reliability"):
            there.pop(name, None)
        names = {key: _names(part) for key, part in there.items() if key in _BY_NAME}
        return {key: _readable(part) for key, part in {**there, **names}.items()}
    if isinstance(value, (list, tuple)):
        return [_readable(part) for part in value]
    return float(f"{value:.6g}") + 0.0 if isinstance(value, float) else value


def _names(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    names = [
        f"{entry['name']}: cannot be read" if entry.get("problem") else entry["name"]
        for entry in entries
    ]
    n_more = len(names) - _SHOWN
    return [*names[:_SHOWN], f"and {n_more} more"] if n_more > 0 else names
