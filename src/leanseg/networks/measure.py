"""What a network costs, found without running it: parameters, weights, multiply-adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from math import prod
from typing import Any, NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from leanseg.networks import obelisk_operators  # noqa: F401  (it defines the operators below)
from leanseg.networks.registry import ParameterCount, build, count_parameters

# Operators of these kinds that have no formula are not products of many numbers.
_PLAIN = ("aten", "prims", "prim")
# Voxels around a point, each with its own weight in trilinear sampling.
_CORNERS = 8


class Cost(NamedTuple):
    """Size and work of a network.

    Attributes:
        parameters: In both conventions.
        weights: Name -> type (as "float32") and shape of all that a model file stores.
        multiply_adds: Of one image, in convolutions, transposed convolutions, products of
            matrices and OBELISK's sampling; None where no input size is given.
        uncounted: Operators of other libraries whose work is not in `multiply_adds`.
    """

    parameters: ParameterCount
    weights: Mapping[str, tuple[str, tuple[int, ...]]]
    multiply_adds: int | None
    uncounted: tuple[str, ...]


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
    except (RuntimeError, NotImplementedError):
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
        weights = {
            key: (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
            for key, tensor in network.state_dict().items()
        }
        parameters = count_parameters(network)
        if image_shape is None:
            return Cost(parameters, weights, None, ())
        image = torch.zeros(image_shape)
        counter = FlopCounterMode(display=False, custom_mapping=_formulas())
        with counter, _Uncounted() as uncounted:
            network(image)
    operators = tuple(sorted(uncounted.operators))
    return Cost(parameters, weights, counter.get_total_flops() // 2, operators)


def _formulas() -> dict[Any, Any]:
    """Formulas for our own operators, which PyTorch does not know."""
    return {
        torch.ops.leanseg.obelisk_convolve: _convolve_work,
        torch.ops.leanseg.obelisk_sample: _sample_work,
    }


def _sample_work(
    images: Sequence[int], offsets: Sequence[int], points: Sequence[int], **_: Any
) -> int:
    """Additions and multiplications of trilinear samples; arguments as the operator's shapes."""
    values = images[0] * images[1] * offsets[1] * offsets[2] * points[1]
    return 2 * values * _CORNERS


def _convolve_work(
    images: Sequence[int],
    offsets: Sequence[int],
    weight: Sequence[int],
    groups: int,
    *axes: Sequence[int],
    **_: Any,
) -> int:
    """The same of samples on a grid and of the 1 x 1 x 1 convolution that follows."""
    voxels = prod(axis[0] for axis in axes)
    sampled = _sample_work(images, offsets, (images[0], voxels, 3))
    return sampled + 2 * images[0] * voxels * prod(weight)


class _Uncounted(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the operators of other libraries that have no formula for their work."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operators: set[str] = set()
        self._known = {*flop_registry, *_formulas()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        operator = func.overloadpacket
        if func.namespace not in _PLAIN and operator not in self._known:
            self.operators.add(f"{func.namespace}::{operator.__name__}")
        return func(*args, **(kwargs or {}))
