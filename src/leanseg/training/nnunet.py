"""Model folders of nnU-Net v2 as model files: predicted as nnU-Net does, without PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from leanseg.errors import FileFormatError, MissingDependencyError
from leanseg.files import require_outputs
from leanseg.inference.engines.base import check_weights
from leanseg.modelfile import Member, ModelFile, NetworkSpec, Provenance, write_model
from leanseg.networks.nnunet_import import Checkpoint, import_weights, read_nnunet_checkpoint
from leanseg.training.export import export_model
from leanseg.training.nnunet_plans import ONLY_TRAINING, read_plans


def import_nnunet(
    folder: Path,
    output: Path,
    *,
    folds: Sequence[str] = (),
    checkpoint: str = "final",
    trainer: str = "nnUNetTrainer",
    orientation: str | None = None,
) -> ModelFile:
    """Write a model folder of nnU-Net v2 as a model file, its folds as an ensemble.

    The network is exported too, so that the file runs without PyTorch; where the packages for that
    are missing, it is not.

    Args:
        folder: With plans.json, dataset.json and fold_X/checkpoint_final.pth.
        output: The model file.
        folds: Which folds; none for all that are there, and "all" only where it is the only one.
        checkpoint: "final" or "best".
        trainer: A class that is known to change training alone.
        orientation: Axis codes of the scans that the model was trained on, which others are then
            turned to; None takes them as they are stored, as nnU-Net does.

    Returns:
        The model.

    Raises:
        FileFormatError: If the folder holds something else, or what cannot be imported.
        DatasetError: If plans.json or dataset.json cannot be read.
        ModelFileError: If weights are NaN or infinite.
        ExportError: If the exported network gives other labels than PyTorch.
        LeansegError: If the model file cannot be written, or lies in the folder.
    """
    require_outputs([output], [folder], new_folders=True)
    paths = _checkpoints(folder, folds, f"checkpoint_{checkpoint}.pth")
    read = [read_nnunet_checkpoint(path) for path in paths]
    first = read[0]
    for path, each in zip(paths, read, strict=True):
        if not ONLY_TRAINING.fullmatch(each.trainer) and each.trainer != trainer:
            raise FileFormatError(
                f"{path}: was trained by {each.trainer!r}, which may prepare scans or build "
                "networks in another way than plans.json says; if it changes only training, pass "
                f"--trainer {each.trainer}"
            )
        if each.configuration != first.configuration:
            raise FileFormatError(
                f"{path} is of configuration {each.configuration!r}, but {paths[0]} of "
                f"{first.configuration!r}; import them separately"
            )
    given = read_plans(folder, first.configuration, first.mirrored, orientation)
    n_channels = len(given.plan.channels)
    own = {"in_channels": n_channels, "out_channels": given.labels.heads, **given.options}
    spec = NetworkSpec(
        name=given.network,
        in_channels=n_channels,
        out_channels=given.plan.final.n_outputs,
        options=given.options,
        activation=given.plan.final.activation,
    )
    members = []
    for path, each in zip(paths, read, strict=True):
        weights = import_weights(
            path,
            each.weights,
            given.network,
            own,
            given.labels.outputs,
            is_difference=given.labels.heads > spec.out_channels,
        )
        member = Member(spec, {name: t.numpy() for name, t in weights.items()}, path=output)
        check_weights(replace(member, path=path))
        members.append(member)
    provenance = Provenance(data_name=f"nnU-Net model {folder.name}", training=_about(paths, first))
    model = ModelFile.of(given.plan, *members, provenance=provenance, path=output)
    # `leanseg export` adds what is missing.
    with suppress(MissingDependencyError):
        model = export_model(model)
    return write_model(output, model)


def _about(paths: Sequence[Path], first: Checkpoint) -> dict[str, str]:
    return {
        "checkpoints": ", ".join(f"{path.parent.name}/{path.name}" for path in paths),
        "trainer": first.trainer,
        "configuration": first.configuration,
    }


def _checkpoints(folder: Path, folds: Sequence[str], name: str) -> list[Path]:
    if not folder.is_dir():
        raise FileFormatError(f"{folder} is not a folder; give the one with plans.json in it")
    there = {path.parent.name[5:]: path for path in sorted(folder.glob(f"fold_*/{name}"))}
    # As nnU-Net does: a model of all cases is no member beside those of folds.
    chosen = folds or [fold for fold in there if fold != "all"] or list(there)
    missing = [fold for fold in chosen if fold not in there]
    if missing or not chosen:
        found = f"only of {', '.join(there)}" if there else "none"
        raise FileFormatError(
            f"{folder}: has no fold_{missing[0] if missing else 'X'}/{name} ({found}); give a "
            "model folder of nnU-Net v2, such as nnUNetTrainer__nnUNetPlans__3d_fullres, and "
            "folds that it has"
        )
    return [there[fold] for fold in chosen]
