"""Starting a network from the weights of another, as far as shapes fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from numpy.typing import NDArray
from torch import nn

from leanseg.errors import RecipeError

_MOST_TOLD: Final = 4


@dataclass(frozen=True)
class Fitted:
    """What a network took of a model's weights.

    Attributes:
        path: The model file.
        taken: Names of the tensors that were copied, in the network's order.
        left: Names of the network's other tensors, and why each kept its own start.
        unused: Names in the file that the network does not have.
    """

    path: Path
    taken: tuple[str, ...]
    left: Mapping[str, str]
    unused: tuple[str, ...]

    def told(self) -> str:
        """In a sentence, for the display and the record of the run."""
        n_tensors = len(self.taken) + len(self.left)
        parts = [f"starts from {self.path}: {len(self.taken)} of {n_tensors} tensors"]
        if self.left:
            named = [f"{name} ({why})" for name, why in list(self.left.items())[:_MOST_TOLD]]
            parts.append("not " + ", ".join(named) + _more(len(self.left)))
        if self.unused:
            named = list(self.unused[:_MOST_TOLD])
            parts.append("no place for " + ", ".join(named) + _more(len(self.unused)))
        return "; ".join(parts)


def _more(number: int) -> str:
    return f" and {number - _MOST_TOLD} more" if number > _MOST_TOLD else ""


def take_fitting(
    network: nn.Module, weights: Mapping[str, NDArray[Any]], *, path: Path, held: str
) -> Fitted:
    """Copy into a network every tensor whose name, shape and kind of number fit.

    Running statistics, counters and frozen offsets are taken like parameters, and a frozen
    tensor is taken by a trained one of its name, and the other way round.

    Args:
        network: Changed in place; what does not fit keeps its start.
        weights: Arrays by name, such as those of a model file's member.
        path: The model file, for messages.
        held: Name of the network that they are of, for messages.

    Raises:
        RecipeError: No kernel or matrix fits. Biases, scales and counters alone would be a start
            from nothing that the other network learnt. The network is then as it was.
    """
    fitting, left = {}, {}
    state = network.state_dict()
    for name, tensor in state.items():
        if name not in weights:
            left[name] = "not there"
        elif (reason := _misfit(weights[name], tensor)) is not None:
            left[name] = reason
        else:
            fitting[name] = tensor
    if not any(tensor.ndim > 1 for tensor in fitting.values()):
        first, reason = next(((n, why) for n, why in left.items() if state[n].ndim > 1), ("", ""))
        raise RecipeError(
            f"{path}: its network {held!r} has no weights that fit the network to train ({first}: "
            f"{reason}); start from a model of the same kind of network, or from none"
        )
    with torch.no_grad():
        for name, tensor in fitting.items():
            # What a state holds shares its memory with the network.
            tensor.copy_(torch.tensor(weights[name]).reshape(tensor.shape))
    unused = tuple(name for name in weights if name not in state)
    return Fitted(path, tuple(fitting), left, unused)


def _misfit(array: NDArray[Any], tensor: torch.Tensor) -> str | None:
    """Why an array does not fit a tensor; None where it does."""
    # Model files hold a counter as one number in a row.
    if array.shape not in (tuple(tensor.shape), tuple(tensor.shape) or (1,)):
        there, here = (
            " x ".join(map(str, shape)) or "a number" for shape in (array.shape, tensor.shape)
        )
        return f"{there} there, {here} here"
    if (array.dtype.kind == "f") != tensor.is_floating_point():
        return f"{array.dtype} there, {str(tensor.dtype).removeprefix('torch.')} here"
    return None
