"""`leanseg measure`: volumes, grey values and extents of what a label map labels."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leanseg.cli import options
from leanseg.cli.output import print_notes, print_table
from leanseg.errors import FileFormatError, LeansegError

if TYPE_CHECKING:
    from leanseg.volumes import Volume

_SUFFIXES = (".csv", ".json", ".dcm")


def command(
    mask: Annotated[Path, typer.Argument(help="A label map: a volume file or a DICOM SEG.")],
    scan: Annotated[Path, typer.Argument(help="Its scan: a file, a DICOM folder or zip.")],
    labels: Annotated[
        str | None,
        typer.Option(help="Names of values, if the files give none: liver=1,tumour=2+3."),
    ] = None,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "--output",
            "-o",
            help="A .csv or .json file, or for a SEG a DICOM report (.dcm); may repeat.",
        ),
    ] = None,
    channel: Annotated[int, typer.Option(min=0, help="Which channel of a 4-D scan.")] = 0,
    series: options.Series = None,
    geometry: options.Geometry = "auto",
) -> None:
    """Measure every label of a mask: volume, mean and SD of grey values, extent, components.

    Grey values are HU in CT. Names of labels come from the SEG, the record that `leanseg predict`
    leaves beside its masks, a dataset.json there, or a NIfTI file's header.
    """
    from leanseg.evaluation.measures import measure
    from leanseg.files import require_outputs, write_json, write_text
    from leanseg.volumes import is_volume_path, read_volume
    from leanseg.volumes.dicom import is_dicom

    outputs = output or []
    is_seg = not is_volume_path(mask) and is_dicom(mask)
    is_series = not is_volume_path(scan) and is_dicom(scan)
    for path in outputs:
        if path.suffix.lower() not in _SUFFIXES:
            msg = f"{path}: measurements are written as {', '.join(_SUFFIXES)}; choose one of these"
            raise FileFormatError(msg)
        if path.suffix.lower() == ".dcm" and not (is_seg and is_series):
            raise FileFormatError(
                f"{path}: a DICOM report refers to a DICOM SEG and its series, but {mask} and "
                f"{scan} are not both DICOM; predict with --format dicom-seg, or write .csv"
            )
    require_outputs(outputs, [mask, scan], new_folders=True)
    image = read_volume(scan, geometry=geometry, series=series)
    if image.n_channels > 1:
        if channel >= image.n_channels:
            msg = f"{scan}: has {image.n_channels} channels, counted from 0; there is no {channel}"
            raise LeansegError(msg)
        image = image.with_array(image.array[..., channel])
    modality = _modality(scan, series) if is_series else ""
    label_map, names = _labels(mask, image, is_seg, labels, geometry)
    measured = [_flat(asdict(each)) for each in measure(label_map, image, names)]
    print_notes([*image.notes, *label_map.notes])
    _print(measured, "HU" if modality == "CT" else "grey value")
    for path in outputs:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() == ".csv":
            write_text(path, _csv(measured))
        elif path.suffix.lower() == ".json":
            facts = {
                "mask": str(mask),
                "scan": str(scan),
                "unit": "HU" if modality == "CT" else None,
            }
            write_json(path, {**facts, "labels": measured})
        else:
            _write_report(path, mask, scan, series, modality, names, measured)
        typer.echo(f"wrote {path}")


def _modality(scan: Path, series: str | None) -> str:
    from leanseg.volumes.dicom import choose_series, find_series

    return choose_series(find_series(scan), series).modality


def _labels(
    mask: Path, scan: Volume, is_seg: bool, labels: str | None, geometry: str
) -> tuple[Volume, Mapping[str, int | Sequence[int]]]:
    """The label map, and the values of its labels."""
    from leanseg.datasets import VolumeSource, read_source
    from leanseg.datasets.load import as_label_map, require_few_values
    from leanseg.evaluation import parse_labels
    from leanseg.evaluation.matching import labels_of

    given: Mapping[str, int | Sequence[int]] = {} if labels is None else parse_labels(labels)
    if is_seg:
        from leanseg.volumes.dicom.seg_reader import read_dicom_seg

        label_map, names = read_dicom_seg(mask, scan)
        return label_map, given or names
    label_map = as_label_map(read_source(VolumeSource(mask).read_as(geometry)))
    named = given or labels_of(mask, whole_regions=True)
    if not named:
        import numpy as np

        require_few_values(label_map, 0)
        named = {f"label_{value}": int(value) for value in np.unique(label_map.array) if value > 0}
    if not named:
        raise LeansegError(f"{mask}: is all background; there is nothing to measure")
    return label_map, named


def _flat(measures: dict[str, Any]) -> dict[str, Any]:
    """Numbers alone: the extents by their names."""
    extent = measures.pop("extent_mm") or (None, None, None)
    sizes = dict(zip(("width_mm", "depth_mm", "height_mm"), extent, strict=True))
    n_components = measures.pop("n_components")
    return {**measures, **sizes, "n_components": n_components}


def _print(measured: Sequence[Mapping[str, Any]], unit: str) -> None:
    rows = [
        {
            "label": one["label"],
            "ml": _number(one["volume_ml"], 2),
            f"mean {unit}": _number(one["mean"]),
            "SD": _number(one["sd"]),
            "R-L mm": _number(one["width_mm"]),
            "A-P mm": _number(one["depth_mm"]),
            "S-I mm": _number(one["height_mm"]),
            "axial diameter mm": _number(one["axial_diameter_mm"]),
            "pieces": str(one["n_components"]),
        }
        for one in measured
    ]
    print_table(rows, left=("label",))


def _number(value: float | None, n_digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{n_digits}f}"


def _csv(measured: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(measured[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(measured)
    return text.getvalue()


def _write_report(
    path: Path,
    mask: Path,
    scan: Path,
    series: str | None,
    modality: str,
    names: Mapping[str, int | Sequence[int]],
    measured: Sequence[Mapping[str, Any]],
) -> None:
    from leanseg.volumes.dicom import choose_series, find_series
    from leanseg.volumes.dicom.measurements import write_measurements

    segments = {}
    for one, number in zip(measured, names.values(), strict=True):
        if not isinstance(number, int):
            number, *others = number
            if others:
                msg = f"{path}: {one['label']!r} is of several segments, to which no report refers"
                raise LeansegError(f"{msg}; leave --labels out, or write .csv")
        segments[number] = one["label"], one
    stack = choose_series(find_series(scan), series).stack()
    write_measurements(path, mask, stack, modality, segments)
