"""What a network costs, found without running it: parameters, weights, multiply-adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from math import prod
from typing import Any, NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from leanseg.errors import RecipeError
from leanseg.networks import obelisk_operators  # noqa: F401  (it defines the operators below)
from leanseg.networks.registry import ParameterCount, build, count_parameters

# Voxels around a point, each with its own weight in trilinear sampling.
_CORNERS = 8


class Cost(NamedTuple):
    """Size and work of a network.

    Attributes:
        parameters: In both conventions.
        weight_bytes: Of all that a model file stores.
        multiply_adds: Of one image, in convolutions, transposed convolutions, products of
            matrices and OBELISK's sampling (not in other libraries' own operators); None where
            no input size is given.
    """

    parameters: ParameterCount
    weight_bytes: int
    multiply_adds: int | None


def network_cost(
    name: str,
    input_shape: Sequence[int] = (),
    *,
    in_channels: int = 1,
    out_channels: int = 1,
    options: Mapping[str, Any] | None = None,
) -> Cost:
    """Cost of a network in evaluation.

    Its tensors have shapes but no memory, so that the largest takes milliseconds; a network with
    an operator that cannot say its result's shape is run instead.

    Args:
        name: Name in the registry.
        input_shape: Spatial size of an image; empty counts no multiply-adds.
        in_channels: As `build`.
        out_channels: As `build`.
        options: The network's own.

    Raises:
        RecipeError: A name, option or value that is not known.
        GeometryError: A size that the network cannot take.
    """
    chosen = {"in_channels": in_channels, "out_channels": out_channels, **(options or {})}
    image = (1, in_channels, *input_shape) if input_shape else None
    try:
        return _cost(name, chosen, image, FakeTensorMode())
    # Or with options that the network does not take: it says so again.
    except (RuntimeError, NotImplementedError, RecipeError):
        return _cost(name, chosen, image, nullcontext())


def _cost(
    name: str,
    chosen: Mapping[str, Any],
    image_shape: Sequence[int] | None,
    world: AbstractContextManager[Any],
) -> Cost:
    with world, torch.no_grad():
        # Its own generator: the caller's random numbers are not used up.
        network = build(name, **chosen, generator=torch.Generator().manual_seed(0)).eval()
        weight_bytes = sum(each.nbytes for each in network.state_dict().values())
        parameters = count_parameters(network)
        if image_shape is None:
            return Cost(parameters, weight_bytes, None)
        formulas = {torch.ops.leanseg.obelisk_convolve: _convolve_work}
        with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
            network(torch.zeros(image_shape))
    return Cost(parameters, weight_bytes, counter.get_total_flops() // 2)


def _convolve_work(
    images: Sequence[int],
    offsets: Sequence[int],
    weight: Sequence[int],
    groups: int,
    *axes: Sequence[int],
    **_: Any,
) -> int:
    """Additions and multiplications of the samples and of the convolution that follows.

    Arguments as the operator's shapes.
    """
    voxels = images[0] * prod(axis[0] for axis in axes)
    samples = voxels * images[1] * offsets[1] * offsets[2]
    return 2 * samples * _CORNERS + 2 * voxels * prod(weight)
