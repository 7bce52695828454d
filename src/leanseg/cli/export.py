"""`leanseg export`: the network of a model file made ready for machines without PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from leanseg.modelfile import ModelFile
    from leanseg.training.export import Reference


def command(
    model: Annotated[Path, typer.Argument(help="A model file (.leanseg).")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where to write; the file itself if not given."),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(help="A scan of which one slice goes into the file, to compare precisions."),
    ] = None,
    no_reference: Annotated[
        bool, typer.Option("--no-reference", help="Leave any slice of a scan out of the file.")
    ] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="Add an int8 copy, calibrated on the reference.")
    ] = False,
    onnx: Annotated[
        Path | None, typer.Option(help="Also write the network as a plain ONNX file here.")
    ] = None,
    allow_imports: Annotated[
        bool,
        typer.Option("--allow-imports", help="Run network code that the model file names."),
    ] = False,
) -> None:
    """Export the network of a model file, check it against PyTorch, and put it into the file.

    The file is written only if at least 99.99 % of the labels are PyTorch's.
    """
    from leanseg.cli.requirements import require_torch
    from leanseg.errors import RecipeError

    require_torch("leanseg export")
    if reference is not None and no_reference:
        msg = "--reference and --no-reference exclude each other; give one of them"
        raise RecipeError(msg)
    from leanseg.modelfile import read_model, with_weights, write_model
    from leanseg.training.export import export_model
    from leanseg.volumes.atomic import written_whole

    given = read_model(model)
    chosen = None if no_reference else _reference(given, reference, allow_imports)
    exported = export_model(given, chosen, allow_imports=allow_imports)
    if int8:
        from leanseg.training.quantise import with_int8

        exported = with_int8(exported)
    assert exported.exported is not None
    target = output or model
    write_model(target, exported.manifest, exported.weights, exported.exported)
    _tell(target, exported)
    if onnx is not None:
        member = exported.members()[0]
        with written_whole(onnx) as scratch:
            scratch.write_bytes(with_weights(exported.exported.graph, member.weights))
        which = ", the first of the ensemble" if exported.manifest.members > 1 else ""
        typer.echo(f"{onnx}: the network with its weights{which}, logits")


def _reference(model: ModelFile, scan: Path | None, allow_imports: bool) -> Reference | None:
    """The slice of a scan in which the network finds most, or what the file holds already."""
    from leanseg.training.export import Reference

    if scan is None:
        old, record = model.exported, model.manifest.export
        if old is None or old.reference is None or record is None:
            return None
        return Reference(old.reference, record.reference)
    import numpy as np

    from leanseg.errors import RecipeError
    from leanseg.inference import make_engine
    from leanseg.inference.labels import network_labels
    from leanseg.preprocessing import ScanSlices
    from leanseg.volumes import read_volume, require_finite

    plan = model.manifest.plan
    if plan.volume_shape is not None or plan.tile_shape is not None:
        msg = f"{scan}: a reference can be given for networks of slices alone; leave it out"
        raise RecipeError(msg)
    volume = read_volume(scan)
    require_finite(volume)
    source = ScanSlices(volume, plan)
    engine = make_engine(model, "torch", "f32", allow_imports=allow_imports)
    areas = []
    for k in range(source.n_slices):
        labels = network_labels(engine.run(source.read(k, k + 1)))
        areas.append(np.count_nonzero(labels))
    best = int(np.argmax(areas))
    if areas[best] == 0:
        msg = (
            f"{scan}: the network finds nothing in this scan, so that no precision could be told "
            "from another on it; give a scan with what the network segments"
        )
        raise RecipeError(msg)
    return Reference(source.read(best, best + 1), f"{scan.name}, slice {best}")


def _tell(path: Path, model: ModelFile) -> None:
    record = model.manifest.export
    assert record is not None
    typer.echo(
        f"{path}: {100 * record.equal_labels:.3f} % of the labels as from PyTorch "
        f"({record.checked_with}); reference input: {record.reference or 'none'}"
    )
    if record.int8_equal_labels is not None:
        typer.echo(f"int8: {100 * record.int8_equal_labels:.3f} % of the labels as from PyTorch")
