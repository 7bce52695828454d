"""`leanseg import-weights`: published checkpoints as model files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leanseg.cli import options
from leanseg.errors import RecipeError

SOURCES = ("obelisk", "nnunet")


def command(
    source: Annotated[str, typer.Argument(help="Whose checkpoints: obelisk or nnunet.")],
    checkpoints: Annotated[
        list[Path],
        typer.Argument(
            help="OBELISK's .pth files, several of which become one ensemble; or a model folder "
            "of nnU-Net v2, with plans.json in it."
        ),
    ],
    output: options.ModelOutput,
    fold: Annotated[
        list[str] | None, typer.Option(help="nnU-Net's fold; may repeat. All folds if not given.")
    ] = None,
    checkpoint: Annotated[str, typer.Option(help="nnU-Net's checkpoint: final or best.")] = "final",
    orientation: Annotated[
        str | None,
        typer.Option(
            help="Orientation of the scans that nnU-Net trained on, such as RAS; other scans are "
            "turned to it. If not given, scans are taken as stored, as nnU-Net does."
        ),
    ] = None,
    trainer: Annotated[
        str, typer.Option(help="Your own nnU-Net trainer, if it changes only training.")
    ] = "nnUNetTrainer",
) -> None:
    """Turn checkpoints that others trained into a model file.

    Only tensors and numbers are unpickled. Several checkpoints of one network become an ensemble
    that averages probabilities (for nnU-Net: logits).
    """
    if source not in SOURCES:
        msg = f"no checkpoints of {source!r} are known; choose one of {', '.join(SOURCES)}"
        raise RecipeError(msg)
    from leanseg.cli.export import agreement

    if source == "obelisk":
        from leanseg.training.obelisk import import_obelisk

        model = import_obelisk(checkpoints, output)
    else:
        from leanseg.training.nnunet import import_nnunet

        if len(checkpoints) > 1:
            raise RecipeError(
                f"{checkpoints[1]}: nnunet takes one folder; import others separately"
            )
        model = import_nnunet(
            checkpoints[0],
            output,
            folds=fold or (),
            checkpoint=checkpoint,
            trainer=trainer,
            orientation=orientation,
        )
    n, network = len(model.members), model.members[0].network.name
    kind = network if n == 1 else f"ensemble of {n} {network}"
    typer.echo(f"{output}: {kind}, {', '.join(model.plan.labels)}")
    if model.plan.for_scan("RAS") is not model.plan:
        typer.echo(
            "scans are taken as stored, as nnU-Net does: a scan in another orientation than the "
            "training scans gives a wrong result; if you know theirs, pass --orientation"
        )
    if model.is_exported:
        typer.echo(f"exported: {agreement(model)}")
    else:
        typer.echo("it needs PyTorch to run: the packages that export networks are not installed")
