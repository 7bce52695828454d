"""What the layers of a network answer: histograms and dead channels, in one pass, bounded memory.

Looked at is what stands right behind each activation function, whether the network calls it as a
module or as a function. Needs PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from leanseg.errors import ModelFileError
from leanseg.reports.activation_histogram import GrowingHistogram, Histogram
from leanseg.reports.activation_kernels import count_values

# Values this near to an activation's floor, or to zero, say nothing any more.
NEAR: Final = 0.01
# Farther from zero than this a float32 network is about to overflow.
_LARGEST = 1e30


class _Kind(NamedTuple):
    """An activation function.

    Attributes:
        name: As it is shown.
        floor: From the operator's arguments, the value for very negative inputs; None where
            there is none, as in LeakyReLU.
        tolerance: How near to the floor counts as there.
    """

    name: str
    floor: Callable[..., float] | None
    tolerance: float = NEAR


def _elu_floor(_: Any, alpha: float = 1.0, scale: float = 1.0, *others: float) -> float:
    return -alpha * scale


def _hardtanh_floor(_: Any, low: float = -1.0, *others: float) -> float:
    return low


def _zero(*_: Any) -> float:
    return 0.0


# By the name of PyTorch's operator; the variant in place ("relu_") is the same. What PyTorch
# composes of these (SELU, ReLU6) needs no line.
KINDS: Final[dict[str, _Kind]] = {
    "relu": _Kind("ReLU", _zero, 0.0),
    "elu": _Kind("ELU", _elu_floor),
    "celu": _Kind("CELU", _elu_floor),
    "leaky_relu": _Kind("LeakyReLU", None),
    "_prelu_kernel": _Kind("PReLU", None),
    "hardtanh": _Kind("hardtanh", _hardtanh_floor),
    "gelu": _Kind("GELU", _zero),
    "silu": _Kind("SiLU", _zero),
    "mish": _Kind("Mish", _zero),
    "hardswish": _Kind("Hardswish", _zero),
    "softplus": _Kind("Softplus", _zero),
}


@dataclass(frozen=True)
class LayerActivity:
    """What one layer answered over all inputs.

    Attributes:
        name: Path of the module within the network.
        kind: The activation function.
        channels: Number of feature maps.
        size: Their size at the last input.
        n_values: How many values were seen.
        minimum: Of all values.
        maximum: Of all values.
        mean: Of all values.
        sd: Their standard deviation.
        dead: Channels that never left the activation's floor (ReLU 0, ELU -1), or, where it has
            none (LeakyReLU), have one value everywhere.
        negative: Share of values below zero.
        near_zero: Share of values within 0.01 of zero.
        at_floor: Share of values at the floor: exactly for ReLU, else within 0.01; None where
            there is no floor.
        histogram: Of all values.
    """

    name: str
    kind: str
    channels: int
    size: tuple[int, ...]
    n_values: int
    minimum: float
    maximum: float
    mean: float
    sd: float
    dead: tuple[int, ...]
    negative: float
    near_zero: float
    at_floor: float | None
    histogram: Histogram

    @property
    def dead_share(self) -> float:
        """Share of the channels that are dead."""
        return len(self.dead) / self.channels


class _Layer:
    """The running statistics of one layer."""

    def __init__(self, name: str, kind: _Kind, floor: float | None) -> None:
        self.name, self.kind, self.floor = name, kind, floor
        self.n = 0
        self.counts = np.zeros(3, dtype=np.int64)
        self.sums = np.zeros(2, dtype=np.float64)
        self.size: tuple[int, ...] = ()
        self.low = self.high = np.empty(0, dtype=np.float32)
        self.histogram = GrowingHistogram()

    def add(self, values: NDArray[np.float32]) -> None:
        """Take in feature maps (batch, channel, *spatial), or tokens (batch, token, channel)."""
        axis = 2 if values.ndim == 3 else 1
        others = tuple(n for n in range(values.ndim) if n != axis)
        low, high = values.min(axis=others), values.max(axis=others)
        farthest = float(max(-low.min(), high.max(), 0.0))
        if not np.isfinite([*low, *high]).all() or farthest > _LARGEST:
            msg = (
                f"layer {self.name} answers with values that are no finite numbers, so the "
                "weights are damaged or diverged in training; use another model"
            )
            raise ModelFileError(msg)
        self.size = tuple(values.shape[n] for n in others[1:])
        self.low = low if not self.n else np.minimum(self.low, low)
        self.high = high if not self.n else np.maximum(self.high, high)
        self.n += values.size
        self.histogram.make_room(farthest)
        count_values(
            np.ascontiguousarray(values).reshape(-1),
            self.histogram.width,
            self.histogram.counts,
            NEAR,
            math.nan if self.floor is None else self.floor,
            self.kind.tolerance,
            self.counts,
            self.sums,
        )

    def _dead(self) -> NDArray[np.bool_]:
        if self.floor is None:
            return np.asarray(self.low == self.high)
        lowest, highest = self.floor - self.kind.tolerance, self.floor + self.kind.tolerance
        return np.asarray((self.low >= lowest) & (self.high <= highest))

    def result(self) -> LayerActivity:
        """The statistics of all that was taken in."""
        mean, squares = (self.sums / self.n).tolist()
        negative, near_zero, at_floor = (self.counts / self.n).tolist()
        return LayerActivity(
            name=self.name,
            kind=self.kind.name,
            channels=len(self.low),
            size=self.size,
            n_values=self.n,
            minimum=float(self.low.min()),
            maximum=float(self.high.max()),
            mean=mean,
            sd=max(squares - mean**2, 0.0) ** 0.5,
            dead=tuple(np.flatnonzero(self._dead()).tolist()),
            negative=negative,
            near_zero=near_zero,
            at_floor=None if self.floor is None else at_floor,
            histogram=self.histogram.result(),
        )


class _Watching(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Takes in what every activation function answers, in the order in which they run."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layers: list[_Layer] = []
        self.modules: list[str] = []
        self._next = 0

    def begin(self) -> None:
        """Another input goes through the network."""
        self._next = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        kind = KINDS.get(func.overloadpacket.__name__.rstrip("_"))
        if kind is not None and func.namespace == "aten":
            if self._next == len(self.layers):
                floor = None if kind.floor is None else float(kind.floor(*args))
                self.layers.append(_Layer(self._name(), kind, floor))
            self.layers[self._next].add(result.detach().float().numpy())
            self._next += 1
        return result

    def _name(self) -> str:
        path = self.modules[-1] if self.modules else ""
        before = sum(layer.name.partition("#")[0] == path for layer in self.layers)
        return f"{path}#{before + 1}" if before or not path else path


class LayerWatch:
    """A network in evaluation mode that is looked at while it runs; to be used in a `with`.

    Args:
        network: Its weights stay as they are.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network.eval()
        self._watching = _Watching()
        self._hooks = ExitStack()

    def __enter__(self) -> LayerWatch:
        for name, module in self._network.named_modules():
            for hook in (
                module.register_forward_pre_hook(self._entered(name)),
                module.register_forward_hook(self._left),
            ):
                self._hooks.callback(hook.remove)
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.close()

    def _entered(self, name: str) -> Callable[..., None]:
        return lambda *_: self._watching.modules.append(name)

    def _left(self, *_: Any) -> None:
        self._watching.modules.pop()

    def look(self, batch: NDArray[np.float32]) -> None:
        """Run the network on a batch (batch, channel, *spatial).

        Raises:
            ModelFileError: If a layer answers with NaN or infinity.
        """
        self._watching.begin()
        with torch.no_grad(), self._watching:
            self._network(torch.from_numpy(np.ascontiguousarray(batch)))

    def layers(self) -> tuple[LayerActivity, ...]:
        """The layers in the order in which they run; one that runs twice is there twice.

        Raises:
            ModelFileError: If no activation function was run.
        """
        if not self._watching.layers:
            msg = "the network ran no activation function of a known kind, so none can be studied"
            raise ModelFileError(msg)
        return tuple(layer.result() for layer in self._watching.layers)


def watch_layers(
    network: nn.Module, inputs: Iterable[NDArray[np.float32]]
) -> tuple[LayerActivity, ...]:
    """What stands behind each activation function of a network over some inputs.

    Args:
        network: Is put into evaluation mode.
        inputs: Batches (batch, channel, *spatial), float32, one after another.

    Raises:
        ModelFileError: As the methods of `LayerWatch`.
    """
    with LayerWatch(network) as watch:
        for batch in inputs:
            watch.look(batch)
    return watch.layers()
