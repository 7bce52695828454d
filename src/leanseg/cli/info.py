"""`leanseg info`: what a model file, a scan or a dataset is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from leanseg.modelfile import ModelFile
    from leanseg.preprocessing import Plan

_LOG_WIDTH = 500
_LISTINGS = (".json", ".csv", ".tsv")


def command(
    path: Annotated[
        Path, typer.Argument(help="A model file, a scan, a DICOM folder or zip, or a dataset.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    series: Annotated[
        str | None, typer.Option(help="Which DICOM series: its number, description or UID.")
    ] = None,
    show_identifiers: Annotated[
        bool,
        typer.Option("--show-identifiers", help="Also show a DICOM scan's patient and UIDs."),
    ] = False,
) -> None:
    """Say what a model file, scan, DICOM series or dataset is."""
    from leanseg.volumes import is_archive, is_volume_path

    if is_volume_path(path):
        facts = _scan_facts(path, as_json)
    elif path.is_dir() or is_archive(path) or path.suffix.lower() in _LISTINGS:
        facts = _folder_facts(path, as_json, series, show_identifiers)
    elif _is_dicom_file(path):
        facts = _dicom_facts(path, as_json, series, show_identifiers)
    else:
        facts = _model_facts(path, as_json)
    if as_json:
        import json

        typer.echo(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        _print(facts)


def _is_dicom_file(path: Path) -> bool:
    from leanseg.volumes.dicom import is_dicom

    return path.suffix != ".leanseg" and is_dicom(path)


def _folder_facts(
    path: Path, as_json: bool, series: str | None, show_identifiers: bool
) -> dict[str, Any]:
    """A dataset where one is recognised, else the DICOM series in a folder or zip file."""
    from leanseg.errors import DatasetError
    from leanseg.volumes.dicom import is_dicom

    if series is None and not show_identifiers:
        try:
            return _dataset_facts(path, as_json)
        except DatasetError:
            if not is_dicom(path):
                raise
    return _dicom_facts(path, as_json, series, show_identifiers)


def _dicom_facts(
    path: Path, as_json: bool, series: str | None, show_identifiers: bool
) -> dict[str, Any]:
    from leanseg.cli.dicom_facts import dicom_facts, dicom_json

    make = dicom_json if as_json else dicom_facts
    return make(path, series, show_identifiers)


def _print(facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for key, value in facts.items():
        lines = value if isinstance(value, list) else [value]
        table.add_row(key, Text("\n".join(str(line) for line in lines)))
    console = Console()
    # A log has no width: nothing is folded.
    (console if console.is_terminal else Console(width=_LOG_WIDTH)).print(table)


def _cases(number: int) -> str:
    return "1 case" if number == 1 else f"{number} cases"


def _model_facts(path: Path, as_json: bool) -> dict[str, Any]:
    from leanseg.modelfile import read_model

    file = read_model(path)
    if as_json:
        return file.manifest.model_dump(mode="json")
    plan, provenance, network = file.plan, file.provenance, file.members[0].network
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    parameters = sum(
        array.size
        for member in file.networks
        for name, array in member.weights.items()
        if not name.endswith(statistics)
    )
    scores = ", ".join(
        f"{label} {'undefined' if value is None else f'{value:.3f}'}"
        for label, value in provenance.scores.items()
    )
    window = plan.window.model_dump()
    limits = f" {window['low']:g} to {window['high']:g}" if "low" in window else ""
    options = f" {network.options}" if network.options else ""
    return {
        "model file": path,
        "bytes": f"{path.stat().st_size:,}",
        "network": f"{network.name}{options}"
        + (f", an ensemble of {len(file.members)}" if len(file.members) > 1 else ""),
        "parameters": f"{parameters:,}",
        "labels": ", ".join(f"{n} {name}" for n, name in enumerate(plan.labels, start=1)),
        "channels": ", ".join(plan.channels),
        "window": f"{window['kind']}{limits}, scaled by {plan.scaling}",
        **_shape_facts(plan),
        "post-processing": "largest component of each label"
        if plan.postprocessing.largest_component
        else "none",
        "trained on": f"{provenance.data_name}, {_cases(len(provenance.training_cases))}"
        if provenance.data_name
        else "not recorded",
        "validation Dice": f"{scores} ({_cases(len(provenance.validation_cases))})"
        if scores
        else "not scored",
        "training": ", ".join(f"{key} {value}" for key, value in provenance.training.items())
        or "not recorded",
        "versions": ", ".join(f"{key} {value}" for key, value in provenance.versions.items())
        or "not recorded",
        "data fingerprint": provenance.data_fingerprint or "not recorded",
        **_export_facts(file),
        "weights SHA-256": file.weights_sha256,
    }


def _export_facts(file: ModelFile) -> dict[str, str]:
    if not file.is_exported:
        return {"exported network": "none: PyTorch alone runs this file"}
    from leanseg.cli.export import agreement

    record = file.members[0].record.export
    assert record is not None
    return {"exported network": f"ONNX opset {record.opset}; {agreement(file)}"}


def _shape_facts(plan: Plan) -> dict[str, str]:
    if plan.tile_shape is not None:
        tile = " x ".join(str(n) for n in plan.tile_shape)
        spacing = "its own spacing"
        if plan.spacing_mm is not None:
            spacing = " x ".join(f"{mm:g}" for mm in plan.spacing_mm) + " mm"
        seen = f"{tile} voxels of {spacing}, overlapping by {plan.tile_overlap:g}"
        return {"tiles": f"{seen}, seen as {plan.orientation}"}
    if plan.volume_shape is None:
        rows, columns = plan.slice_shape
        return {"slices": f"{rows} x {columns}, seen as {plan.orientation}"}
    shape = " x ".join(str(n) for n in plan.volume_shape)
    what = "the abdomen, found in the scan" if plan.region == "abdomen" else "the whole scan"
    return {"volume": f"{what}, resized to {shape}, seen as {plan.orientation}"}


def _scan_facts(path: Path, as_json: bool) -> dict[str, Any]:
    from leanseg.volumes import read_volume

    volume = read_volume(path)
    low, high = volume.array.min().item(), volume.array.max().item()
    if as_json:
        return {
            "scan": str(path),
            "shape": list(volume.shape),
            "channels": volume.n_channels,
            "spacing_mm": list(volume.spacing_mm),
            "orientation": volume.orientation,
            "dtype": str(volume.array.dtype),
            # JSON has no NaN.
            "range": [low, high] if low == low else None,
            "affine": volume.affine.tolist(),
        }
    rows = ("  ".join(f"{value:10.4f}" for value in row) for row in volume.affine[:3])
    return {
        "scan": path,
        "shape": " x ".join(str(n) for n in volume.shape),
        "channels": volume.n_channels,
        "spacing (mm)": " x ".join(f"{value:.4g}" for value in volume.spacing_mm),
        "orientation": volume.orientation,
        "values": f"{low:g} to {high:g} ({volume.array.dtype})",
        "affine (to RAS+ mm)": "\n".join(rows),
    }


def _dataset_facts(path: Path, as_json: bool) -> dict[str, Any]:
    from leanseg.datasets import open_dataset

    dataset = open_dataset(path)
    if as_json:
        return {
            "dataset": dataset.name,
            "root": str(dataset.root),
            "layout": dataset.layout,
            "channels": list(dataset.channels),
            "labels": dict(dataset.labels),
            "cases": [
                {
                    "name": case.name,
                    "images": [str(source.path) for source in case.images],
                    "label": None if case.label is None else str(case.label),
                    "label_files": [str(part.source.path) for part in case.label_parts],
                    "annotated": [name for name in dataset.labels if case.annotates(name)],
                }
                for case in dataset.cases
            ],
        }
    labelled = sum(case.label is not None for case in dataset.cases)
    partial = sum(case.annotated is not None for case in dataset.cases)
    some = f"; {partial} annotate some of the labels only" if partial else ""
    return {
        "dataset": dataset.name,
        "folder": dataset.root,
        "layout": dataset.layout,
        "cases": f"{len(dataset.cases)}, {labelled} with a label{some}",
        "channels": ", ".join(dataset.channels),
        "labels": ", ".join(f"{value} {name}" for name, value in dataset.labels.items()) or "none",
    }
