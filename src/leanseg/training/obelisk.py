"""The published OBELISK checkpoints as model files: their weights with the plan they expect.

Labels, grids and grey values are those of the public code of paper 004 (its label lists and
`inference.py`); the networks are in `leanseg.networks.obelisk_import`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from leanseg.errors import FileFormatError, MissingDependencyError
from leanseg.modelfile import (
    Member,
    ModelFile,
    NetworkSpec,
    Provenance,
    write_model,
)
from leanseg.networks.obelisk_import import read_obelisk_checkpoint
from leanseg.plan import (
    Around,
    Axis,
    Frame,
    Intensity,
    LinearScaling,
    NoWindow,
    Patch,
    Plan,
    Scout,
    Stage,
)
from leanseg.training.export import export_model

_TCIA_LABELS = (
    "spleen",
    "pancreas",
    "left kidney",
    "gallbladder",
    "oesophagus",
    "liver",
    "stomach",
    "duodenum",
)
_VISCERAL_LABELS = (
    "liver",
    "spleen",
    "bladder",
    "left kidney",
    "right kidney",
    "left psoas",
    "right psoas",
)


def _plan(labels: tuple[str, ...], frame: Frame, patch: Patch, scaling: LinearScaling) -> Plan:
    stage = Stage(
        labels=labels,
        frame=frame,
        patch=patch,
        intensity=Intensity(window=NoWindow(), scaling=scaling),
    )
    if frame.region == "scan":
        return Plan(stages=(stage,))
    return Plan(stages=(Scout(name="abdomen", finds="abdomen"), stage))


# The abdomen, resized to 144 voxels a side and seen at once.
_ABDOMEN = Frame(
    orientation="LAI",
    axes=(Axis(size=144), Axis(size=144), Axis(size=144)),
    antialias=False,
    region=Around(stage="abdomen"),
)
# The trunk in voxels of 3 mm (paper 004, section 4.1), cropped to what the networks take.
_TRUNK = Frame(
    orientation="LAI",
    axes=(Axis(spacing_mm=3), Axis(spacing_mm=3), Axis(spacing_mm=3)),
    antialias=False,
)
_WHOLE, _CROP = Patch(shape=("whole", "whole", "whole")), Patch(shape=(156, 115, 160))

PLANS = {
    "obelisk-hybrid-tcia": _plan(_TCIA_LABELS, _ABDOMEN, _WHOLE, LinearScaling()),
    # The public code gives this network raw Hounsfield units.
    "allconv-unet-tcia": _plan(_TCIA_LABELS, _ABDOMEN, _WHOLE, LinearScaling(divide_by=1, add=0)),
    "obelisk-hybrid-visceral": _plan(
        _VISCERAL_LABELS, _TRUNK, _CROP, LinearScaling(divide_by=1000, add=0)
    ),
    "obelisk": _plan(_VISCERAL_LABELS, _TRUNK, _CROP, LinearScaling(divide_by=500, add=0)),
}


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
        ExportError: If the exported network gives other labels than PyTorch.
    """
    read = [read_obelisk_checkpoint(path) for path in checkpoints]
    first = read[0]
    for path, other in zip(checkpoints, read, strict=True):
        if (other.network, other.options) != (first.network, first.options):
            msg = (
                f"{path} holds {other.network}, but {checkpoints[0]} {first.network} (or other "
                "options); an ensemble is of one kind, import them separately"
            )
            raise FileFormatError(msg)
    options = dict(first.options)
    plan = PLANS.get(first.network)
    classes = options.pop("out_channels")
    if plan is None or classes != len(plan.labels) + 1:
        msg = (
            f"{checkpoints[0]} holds {first.network} with {classes} classes, whose labels are not "
            "known; only the published TCIA and VISCERAL networks can be imported"
        )
        raise FileFormatError(msg)
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
    provenance = Provenance(
        data_name="published weights of OBELISK-Net",
        training={"checkpoints": ", ".join(path.name for path in checkpoints)},
    )
    model = ModelFile.of(plan, *members, provenance=provenance, path=output)
    # `leanseg export` adds what is missing.
    with suppress(MissingDependencyError):
        model = export_model(model)
    return write_model(output, model)
