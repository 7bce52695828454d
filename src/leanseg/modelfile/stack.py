"""Several models and a network that combines what they say, as one model (paper 002)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from leanseg.modelfile.manifest import Provenance
from leanseg.modelfile.model import Member, ModelFile
from leanseg.plan import Around, Plan, Scout, Stage

COMBINER = "combiner"


def stage_names(names: Sequence[str]) -> list[str]:
    """Unique names of stages for members that are called so: "unet", "unet" are unet-1, unet-2."""
    plain = [re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-") or "member" for name in names]
    return [f"{name}-{plain[: n + 1].count(name)}" for n, name in enumerate(plain)]


def join_stack(
    models: Sequence[ModelFile], names: Sequence[str], combiner: Stage, networks: Sequence[Member]
) -> ModelFile:
    """Models as the stages of one, and after them a stage that combines their probabilities.

    Its provenance names all cases that any member was trained on, and keeps that of each member.

    Args:
        models: The members, for scans with the same channels; they may have several stages.
        names: What each is called: the name of the stage that answers, and the beginning of the
            names of those before it.
        combiner: The stage that combines them, without its inputs.
        networks: Of that stage; several are averaged.
    """
    stages: list[Scout | Stage] = []
    members: dict[str, tuple[Member, ...]] = {}
    for model, name in zip(models, names, strict=True):
        new = {
            each.name: name if each is model.plan.final else f"{name}-{each.name}"
            for each in model.plan.stages
        }
        stages += [_renamed(stage, new) for stage in model.plan.stages]
        members |= {new[own]: found for own, found in model.stages.items()}
    last = combiner.model_copy(update={"name": COMBINER, "inputs": tuple(names)})
    plan = Plan(channels=models[0].plan.channels, stages=(*stages, last))
    members[COMBINER] = tuple(networks)
    return ModelFile(plan, members, _provenance(models, names))


def _renamed(stage: Scout | Stage, new: dict[str, str]) -> Scout | Stage:
    update: dict[str, Any] = {"name": new[stage.name]}
    if isinstance(stage, Stage):
        region = stage.frame.region
        if isinstance(region, Around):
            region = region.model_copy(update={"stage": new[region.stage]})
            update["frame"] = stage.frame.model_copy(update={"region": region})
        update["inputs"] = tuple(new[name] for name in stage.inputs)
        # It is the combiner's probabilities that are saved.
        update["temperature"] = 1.0
    return stage.model_copy(update=update)


def _provenance(models: Sequence[ModelFile], names: Sequence[str]) -> Provenance:
    parts = [model.provenance for model in models]

    def all_of(name: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(case for part in parts for case in getattr(part, name)))

    trained = all_of("training_cases")
    told = zip(names, parts, strict=True)
    return Provenance(
        data_name=", ".join(dict.fromkeys(part.data_name for part in parts)),
        data_fingerprint=parts[0].data_fingerprint,
        training_cases=trained,
        monitor_cases=tuple(name for name in all_of("monitor_cases") if name not in trained),
        versions=parts[0].versions,
        training={"members": {name: part.model_dump(mode="json") for name, part in told}},
    )
