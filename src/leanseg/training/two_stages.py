"""A trained cascade as the two stages of a model file, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from numpy.typing import NDArray

from leanseg.modelfile import Member, ModelFile, NetworkSpec
from leanseg.networks.cascade import Cascade
from leanseg.plan import Crop, Plan

COARSE: Final = "coarse"
FINE: Final = "fine"
# What the weights of each stage begin with in the network of both.
_PREFIXES: Final = {COARSE: "first.", FINE: "second."}


def as_stages(model: ModelFile, network: Cascade) -> ModelFile:
    """A model with the two stages that predict as the network of both does.

    Args:
        model: Of one stage, as it was trained.
        network: Its network.
    """
    (member,) = model.members
    stage, spec = model.plan.final, member.network
    coarse = stage.model_copy(
        update={"name": COARSE, "labels": stage.labels[:1], "inside": {}, "threshold": 0.5}
        | {"largest_component": False}
    )
    crop = Crop(
        stage=COARSE, margin=network.margin, multiple=network.multiple, rounds=network.rounds
    )
    patch = stage.patch.model_copy(update={"crop": crop})
    fine = stage.model_copy(update={"name": FINE, "patch": patch})
    members = {
        COARSE: NetworkSpec(
            name=network.first_name,
            in_channels=spec.in_channels,
            out_channels=1,
            options=network.first_options,
        ),
        FINE: NetworkSpec(
            name="salient",
            in_channels=spec.in_channels + 1,
            out_channels=1,
            options=network.second_options,
            activation=stage.activation,
        ),
    }
    plan = Plan(channels=model.plan.channels, stages=(coarse, fine))
    stages = {
        name: (Member(spec, _part(member.weights, _PREFIXES[name])),)
        for name, spec in members.items()
    }
    return replace(model, plan=plan, stages=stages)


def _part(weights: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {
        name.removeprefix(prefix): values
        for name, values in weights.items()
        if name.startswith(prefix)
    }


def trained_weights(model: ModelFile) -> tuple[str, dict[str, NDArray[Any]]]:
    """The network that a model's weights were trained in, and these by name; of both stages."""
    if list(model.stages) != list(_PREFIXES):
        member = model.members[0]
        return member.network.name, dict(member.weights)
    return "cascade", {
        _PREFIXES[name] + own: values
        for name, (member, *_) in model.stages.items()
        for own, values in member.weights.items()
    }
