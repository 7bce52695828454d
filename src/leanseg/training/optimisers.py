"""Optimisers: torch's own, by their class names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from leanseg.errors import RecipeError
from leanseg.registry import check_names, did_you_mean, option_types

# One needs a closure, the other sparse gradients.
_NOT_FOR_NETWORKS = {"Optimizer", "LBFGS", "SparseAdam"}
# Muon is for matrices; the other weights are AdamW's, with the same rate.
_MUON, _BESIDE_MUON = "Muon", "AdamW"


def build_optimisers(
    name: str, parameters: Sequence[nn.Parameter], options: Mapping[str, Any]
) -> list[torch.optim.Optimizer]:
    """Optimisers that together move all parameters.

    Args:
        name: Of a class in `torch.optim`. "Muon" moves the matrices alone (torch's takes no
            others); AdamW moves the rest, with the same rate and weight decay.
        parameters: What is trained.
        options: The class's own, such as `lr`.

    Raises:
        RecipeError: A name, option or value that torch does not know, or nothing for Muon.
    """
    known = {
        key
        for key, each in vars(torch.optim).items()
        if isinstance(each, type) and issubclass(each, torch.optim.Optimizer)
    } - _NOT_FOR_NETWORKS
    if name not in known:
        hint = did_you_mean([name], known)
        names = ", ".join(sorted(known))
        raise RecipeError(f"optimiser {name!r} is not one of torch's{hint}; choose one of {names}")
    if name != _MUON:
        return [_made(name, parameters, options)]
    matrices = [each for each in parameters if each.ndim == 2]
    if not matrices:
        raise RecipeError(
            "optimiser 'Muon' moves matrices, and this network has none (the weights of "
            "convolutions have more axes); choose AdamW"
        )
    others = [each for each in parameters if each.ndim != 2]
    shared = {key: options[key] for key in ("lr", "weight_decay") if key in options}
    found = [_made(_MUON, matrices, options)]
    return [*found, _made(_BESIDE_MUON, others, shared)] if others else found


def _made(
    name: str, parameters: Sequence[nn.Parameter], options: Mapping[str, Any]
) -> torch.optim.Optimizer:
    factory: Any = getattr(torch.optim, name)
    check_names("optimiser", name, set(option_types(factory)) - {"params"}, options)
    given = {key: tuple(v) if isinstance(v, list) else v for key, v in options.items()}
    try:
        optimiser: torch.optim.Optimizer = factory(parameters, **given)
    except Exception as error:  # whatever torch says of values
        reason = str(error).partition("\n")[0]
        msg = f"optimiser {name!r} does not take its options ({reason}); correct them"
        raise RecipeError(msg) from error
    return optimiser
