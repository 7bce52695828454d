"""Checkpoints of nnU-Net v2 as weights of the networks here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.dtypes import Float32DType, Float64DType, Int64DType

from leanseg.errors import FileFormatError
from leanseg.networks.checkpoint import are_named_tensors, read_checkpoint
from leanseg.networks.registry import build

_SCALAR = type(np.float64(0)).__reduce__(np.float64(0))[0]
# nnU-Net logs its losses and scores as numbers of numpy: these, and no other part of it. The
# module of the first was called otherwise before numpy 2.
_NUMBERS: Final[list[Any]] = [
    (_SCALAR, "numpy._core.multiarray.scalar"),
    (_SCALAR, "numpy.core.multiarray.scalar"),
    np.dtype,
    Float32DType,
    Float64DType,
    Int64DType,
]
# Layers are there under a second name, and a compiled network's under a longer one.
_AGAIN = re.compile(r"\.all_modules\.|^decoder\.encoder\.")
_PREFIX = re.compile(r"^(module\.)?(_orig_mod\.)?")
_HEAD = re.compile(r"decoder\.seg_layers\.(\d+)\.")


class Checkpoint(NamedTuple):
    """What `read_nnunet_checkpoint` finds.

    Attributes:
        weights: Named tensors as they are there.
        trainer: Class that trained them.
        configuration: Name of the plans' configuration.
        mirrored: Axes along which nnU-Net may mirror at prediction, in its order.
    """

    weights: dict[str, torch.Tensor]
    trainer: str
    configuration: str
    mirrored: tuple[int, ...]


def read_nnunet_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; of its pickle nothing runs but what makes tensors and numbers.

    Args:
        path: `fold_X/checkpoint_final.pth`.

    Raises:
        FileFormatError: Not such a file, or one that holds more.
    """
    found = read_checkpoint(path, "a checkpoint of nnU-Net v2", _NUMBERS)
    try:
        axes = found.get("inference_allowed_mirroring_axes")
        result = Checkpoint(
            found["network_weights"],
            found["trainer_name"],
            found["init_args"]["configuration"],
            tuple(int(axis) for axis in axes or ()),
        )
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise _other(path) from error
    named = isinstance(result.trainer, str) and isinstance(result.configuration, str)
    if not (named and are_named_tensors(result.weights)):
        raise _other(path)
    return result


def _other(path: Path) -> FileFormatError:
    return FileFormatError(
        f"{path} is no checkpoint of nnU-Net v2, which has network_weights, trainer_name and "
        "init_args; give the folder that nnU-Net v2 wrote"
    )


def import_weights(
    path: Path,
    weights: Mapping[str, torch.Tensor],
    network: str,
    options: Mapping[str, Any],
    outputs: Sequence[int],
    *,
    is_difference: bool = False,
) -> dict[str, torch.Tensor]:
    """Weights for a network that sees the axes in reverse order.

    nnU-Net's arrays are (z, y, x), frames are (i, j, k).

    Args:
        path: Of the checkpoint, for messages.
        weights: As they are there.
        network: Name in `NETWORKS`.
        options: For `build`, with channels; of a network with nnU-Net's own outputs.
        outputs: Which of its outputs come first, second, ...
        is_difference: Whether of two outputs, which exclude each other, the difference becomes one.

    Returns:
        The state of the network, float32.

    Raises:
        FileFormatError: An entry is missing, there are others, or one has another shape.
    """
    plain = {_PREFIX.sub("", key): value for key, value in weights.items()}
    plain = {key: value for key, value in plain.items() if not _AGAIN.search(key)}
    last = len(options["features"]) - 2
    named = {
        _HEAD.sub("head.", key): value
        for key, value in plain.items()
        # Heads of coarser stages are for training alone.
        if not (head := _HEAD.match(key)) or int(head[1]) == last
    }
    with torch.device("meta"):
        wanted = build(network, **options).state_dict()
    kinds = {name: list(value.shape) for name, value in wanted.items()}
    found = {name: [*value.shape[:2], *value.shape[:1:-1]] for name, value in named.items()}
    for name in sorted(kinds.keys() | found.keys()):
        if kinds.get(name) != found.get(name):
            raise FileFormatError(
                f"{path}: its weights are not those of the {network} in plans.json ({name!r} is "
                f"{found.get(name, 'not there')}, but {kinds.get(name, 'not known')} in the "
                "plans), so its trainer builds another network; such a model cannot be imported"
            )
    result = {
        name: value.float().permute(0, 1, *range(value.ndim - 1, 1, -1)).contiguous()
        if value.ndim > 2
        else value.float()
        for name, value in named.items()
    }
    for name in ("head.weight", "head.bias"):
        ordered = result[name][list(outputs)]
        result[name] = ordered[1:] - ordered[:1] if is_difference else ordered
    return result
