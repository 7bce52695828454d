"""A cascade whose answer is plain: stage 1 finds grey values from 10 on, stage 2 from 20 on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from leanseg.modelfile import Member, ModelFile, NetworkSpec, write_model
from leanseg.plan import Axis, Crop, Frame, Intensity, LinearScaling, NoWindow, Patch, Plan, Stage

# On which stage 1's and stage 2's thresholds lie: grey values are whole numbers.
COARSE, FINE = 9.5, 19.5


def cascade_plan(
    labels: Sequence[str] = ("organ", "lesion"),
    shape: tuple[int, int] = (24, 24),
    *,
    margin: int = 2,
    multiple: int = 1,
    rounds: int = 1,
    neighbours: int = 0,
    along_k: Axis | None = None,
) -> Plan:
    frame = Frame(axes=(Axis(size=shape[0]), Axis(size=shape[1]), along_k or Axis()))
    grey = Intensity(window=NoWindow(), scaling=LinearScaling(divide_by=1.0, add=0.0))
    patch = Patch("whole", "whole", 1, neighbours=neighbours)
    first = Stage(name="coarse", labels=tuple(labels[:1]), frame=frame, patch=patch, intensity=grey)
    crop = Crop(stage="coarse", margin=margin, multiple=multiple, rounds=rounds)
    fine: dict[str, Any] = {"name": "fine", "patch": patch.model_copy(update={"crop": crop})}
    if len(labels) > 1:
        fine |= {"labels": tuple(labels), "inside": {labels[1]: labels[0]}}
    return Plan(stages=(first, first.model_copy(update=fine)))


def write_cascade(path: Path, plan: Plan) -> Path:
    """As a model file: networks of one layer that does nothing, and the image's weight."""
    import torch

    from leanseg.networks import build

    inner = {"name": "msd-2d", "options": {"depth": 1}}
    specs = {
        "coarse": NetworkSpec(in_channels=1, out_channels=1, **inner),
        "fine": NetworkSpec(
            name="salient",
            in_channels=2,
            out_channels=1,
            options={"network": inner},
            activation=plan.final.activation,
        ),
    }
    stages = {}
    for (name, spec), threshold in zip(specs.items(), (COARSE, FINE), strict=True):
        network = build(spec.name, in_channels=spec.in_channels, **spec.options)
        plain: Any = network if name == "coarse" else network.network
        with torch.no_grad():
            for each in plain.parameters():
                each.zero_()
            plain.head.weight[0, 0] = 8
            plain.head.bias[0] = -8 * threshold
        weights = {key: tensor.numpy() for key, tensor in network.state_dict().items()}
        stages[name] = (Member(spec, weights),)
    write_model(path, ModelFile(plan, stages))
    return path


def cube(shape: tuple[int, ...], *boxes: tuple[tuple[int, int], ...]) -> np.ndarray:
    """True in boxes, each given by start and stop along the axes."""
    mask = np.zeros(shape, dtype=bool)
    for box in boxes:
        mask[tuple(slice(*ends) for ends in box)] = True
    return mask
