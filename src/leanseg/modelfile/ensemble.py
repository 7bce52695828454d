"""Several models of one plan as one model, whose members' probabilities are averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from leanseg.errors import ModelFileError
from leanseg.modelfile.manifest import Provenance
from leanseg.modelfile.model import ModelFile


def join_members(models: Sequence[ModelFile]) -> ModelFile:
    """The members of several models, stage by stage, as one model.

    The provenance names the cases that any member was trained on, and keeps what each member
    says of itself; no score is that of the ensemble, and it is not calibrated.

    Args:
        models: At least two, with weights that differ; ensembles among them bring all members.

    Raises:
        ModelFileError: If there are fewer, one is given twice, or they differ in their plans,
            labels or channels.
    """
    # Each member's own temperature is not that of their mean.
    first, *others = models = [
        replace(model, plan=model.plan.with_temperature(1)) for model in models
    ]
    if not others:
        raise ModelFileError(f"{first.path}: one model makes no ensemble; give at least two")
    seen = {first.weights_sha256: first.path}
    for other in others:
        if difference := _difference(first, other):
            raise ModelFileError(
                f"{other.path}: differs from {first.path} in {difference}; members of an "
                "ensemble need the same plan, labels and channels"
            )
        if other.weights_sha256 in seen:
            raise ModelFileError(
                f"{other.path}: holds the same weights as {seen[other.weights_sha256]}; give every "
                "member once"
            )
        seen[other.weights_sha256] = other.path
    stages = {
        name: tuple(member for model in models for member in model.stages[name])
        for name in first.stages
    }
    return ModelFile(first.plan, stages, _provenance(models))


def _difference(first: ModelFile, other: ModelFile) -> str:
    """In words, what keeps two models from being averaged; empty where nothing does."""
    if first.plan.labels != other.plan.labels:
        return f"its labels ({', '.join(other.plan.labels)}; {', '.join(first.plan.labels)})"
    if first.plan != other.plan:
        place = _first_difference(first.plan.model_dump(), other.plan.model_dump())
        return f"its plan ({'.'.join(place)})"
    # Stages and channels of the networks are those of the plan.
    return ""


def _first_difference(one: Any, other: Any) -> tuple[str, ...]:
    """The keys that lead to the first difference of two JSON-like values."""
    if isinstance(one, tuple) and isinstance(other, tuple) and len(one) == len(other):
        one, other = dict(enumerate(one)), dict(enumerate(other))
    if isinstance(one, dict) and isinstance(other, dict):
        # What is at its default may be left out.
        key = next(key for key in {**one, **other} if one.get(key) != other.get(key))
        return (str(key), *_first_difference(one.get(key), other.get(key)))
    return ()


def _provenance(models: Sequence[ModelFile]) -> Provenance:
    parts = [model.provenance for model in models]
    trained = {name: None for part in parts for name in part.training_cases}
    data = {part.data_name: None for part in parts}
    fingerprints = {part.data_fingerprint for part in parts}
    return Provenance(
        data_name=", ".join(data),
        data_fingerprint=fingerprints.pop() if len(fingerprints) == 1 else "",
        training_cases=tuple(trained),
        versions=parts[0].versions,
        recipe=parts[0].recipe,
        training={"members": [{"scores": part.scores, **part.training} for part in parts]},
    )
