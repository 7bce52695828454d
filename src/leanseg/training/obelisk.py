"""The published OBELISK checkpoints as model files: their weights with the plan they expect.

The plans are in `obelisk_plans.yaml`, the networks in `leanseg.networks.obelisk_import`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from importlib import resources
from pathlib import Path

import yaml

from leanseg.errors import FileFormatError, MissingDependencyError
from leanseg.files import require_outputs
from leanseg.inference.engines.base import check_weights
from leanseg.modelfile import Member, ModelFile, NetworkSpec, Provenance, write_model
from leanseg.networks.obelisk_import import read_obelisk_checkpoint
from leanseg.plan import Plan
from leanseg.training.export import export_model


def import_obelisk(checkpoints: Sequence[Path], output: Path) -> ModelFile:
    """Write checkpoints of one network as a model file, several of them as an ensemble.

    The network is exported too, so that the file runs without PyTorch; where the packages for that
    are missing, it is not.

    Args:
        checkpoints: `.pth` files of the public OBELISK code.
        output: The model file.

    Returns:
        The model.

    Raises:
        FileFormatError: If a file is not such a checkpoint, or they are of different networks.
        ModelFileError: If weights are NaN or infinite.
        ExportError: If the exported network gives other labels than PyTorch.
        LeansegError: If the model file cannot be written, or is one of the checkpoints.
    """
    require_outputs([output], checkpoints, new_folders=True)
    read = [read_obelisk_checkpoint(path) for path in checkpoints]
    first = read[0]
    for path, other in zip(checkpoints, read, strict=True):
        if (other.network, other.options) != (first.network, first.options):
            raise FileFormatError(
                f"{path} holds {other.network}, but {checkpoints[0]} {first.network} (or other "
                "options); an ensemble is of one kind, import them separately"
            )
    options = dict(first.options)
    classes = options.pop("out_channels")
    plan = _published_plans().get(first.network)
    if plan is None or classes != plan.final.n_outputs:
        raise FileFormatError(
            f"{checkpoints[0]} holds {first.network} with {classes} classes, whose labels are not "
            "known; only the published TCIA and VISCERAL networks can be imported"
        )
    spec = NetworkSpec(
        name=first.network,
        in_channels=options.pop("in_channels"),
        out_channels=classes,
        options=options,
    )
    members = [
        Member(spec, {name: t.numpy() for name, t in each.weights.items()}, path=output)
        for each in read
    ]
    for member, path in zip(members, checkpoints, strict=True):
        check_weights(replace(member, path=path))
    provenance = Provenance(
        data_name="published weights of OBELISK-Net",
        training={"checkpoints": ", ".join(path.name for path in checkpoints)},
    )
    model = ModelFile.of(plan, *members, provenance=provenance, path=output)
    # `leanseg export` adds what is missing.
    with suppress(MissingDependencyError):
        model = export_model(model)
    return write_model(output, model)


def _published_plans() -> dict[str, Plan]:
    """Network to the plan that its published weights expect."""
    text = (resources.files("leanseg.training") / "obelisk_plans.yaml").read_text(encoding="utf-8")
    return {name: Plan.model_validate(plan) for name, plan in yaml.safe_load(text).items()}
