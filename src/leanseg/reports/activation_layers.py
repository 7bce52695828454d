"""What the activation functions of a network answer: histograms and dead channels.

Looked at is what stands right behind each activation function, whether the network calls it as a
module or as a function; nothing but running statistics is kept. Needs PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.module_tracker import ModuleTracker

from leanseg.errors import ModelFileError

# Values this near to an activation's floor, or to zero, say nothing any more.
NEAR: Final = 0.01
# Farther from zero than this a float32 network is about to overflow.
_LARGEST: Final = 1e30
# Bins while counting; of a histogram to show, over what holds all but a share at either end.
_N_BINS, _N_SHOWN, _TAIL = 1 << 14, 120, 1e-5
# Values that are counted together; bounds the memory.
_CHUNK: Final = 1 << 20


# By the name of PyTorch's operator; the variant in place ("relu_") is the same. What PyTorch
# composes of these (SELU, ReLU6) needs no line.
FUNCTIONS: Final[dict[str, str]] = {
    "relu": "ReLU",
    "elu": "ELU",
    "celu": "CELU",
    "leaky_relu": "LeakyReLU",
    "_prelu_kernel": "PReLU",
    "hardtanh": "hardtanh",
    "gelu": "GELU",
    "silu": "SiLU",
    "mish": "Mish",
    "hardswish": "Hardswish",
    "softplus": "Softplus",
}


class Histogram(NamedTuple):
    """Counts in bins of one width; bin n holds values of [low + n width, low + (n + 1) width)."""

    low: float
    width: float
    counts: NDArray[np.int64]


class LayerActivity:
    """What one activation function answered, over all inputs so far.

    Attributes:
        name: Path of the module within the network.
        function: The activation function.
        floor: Its value for very negative inputs, or None.
        size: Of the feature maps, at the last input.
        n_values: How many values were seen.
        low: Least value of each channel, (channel,).
        high: Largest value of each channel, (channel,).
    """

    def __init__(self, name: str, function: str, floor: float | None) -> None:
        self.name, self.function, self.floor = name, function, floor
        self.size: tuple[int, ...] = ()
        self.n_values = 0
        self.low = self.high = torch.empty(0)
        # A ReLU reaches its floor exactly, the others come ever closer.
        self._tolerance = 0.0 if function == "ReLU" else NEAR
        self._sum = self._sum_of_squares = 0.0
        self._n_negative = self._n_near_zero = self._n_at_floor = 0
        # The width is a power of two and zero is an edge, so the order of values plays no part.
        self._width = 2.0**-16
        self._counts = torch.zeros(_N_BINS, dtype=torch.int64)

    def add(self, values: Tensor) -> None:
        """Take in feature maps (batch, channel, *spatial), or tokens (batch, token, channel).

        Raises:
            ModelFileError: If there is NaN or infinity among them.
        """
        maps = values.detach().float().movedim(2 if values.ndim == 3 else 1, 0)
        low, high = torch.aminmax(maps.flatten(1), dim=1)
        farthest = float(torch.maximum(-low, high).max())
        # NaN is not below anything.
        if not farthest < _LARGEST:
            msg = (
                f"layer {self.name} answers with values that are no finite numbers, so the "
                "weights are damaged or diverged in training; use another model"
            )
            raise ModelFileError(msg)
        self.size = tuple(maps.shape[2:])
        self.low = torch.minimum(self.low, low) if self.n_values else low
        self.high = torch.maximum(self.high, high) if self.n_values else high
        self.n_values += maps.numel()
        while self._width * (_N_BINS // 2) <= farthest:
            self._widen()
        for part in torch.split(maps.reshape(-1), _CHUNK):
            self._count(part.double())

    def _widen(self) -> None:
        """Merge bins in pairs, so that there is room for values twice as far from zero."""
        pairs = self._counts.reshape(-1, 2).sum(1)
        self._counts = nn.functional.pad(pairs, (_N_BINS // 4, _N_BINS // 4))
        self._width *= 2

    def _count(self, values: Tensor) -> None:
        bins = torch.floor(values / self._width).long() + _N_BINS // 2
        self._counts += torch.bincount(bins, minlength=_N_BINS)
        self._sum += float(values.sum())
        self._sum_of_squares += float(values.square().sum())
        self._n_negative += int((values < 0).sum())
        self._n_near_zero += int((values.abs() <= NEAR).sum())
        if self.floor is not None:
            self._n_at_floor += int(((values - self.floor).abs() <= self._tolerance).sum())

    @property
    def n_channels(self) -> int:
        """Number of feature maps."""
        return len(self.low)

    @property
    def mean(self) -> float:
        """Of all values."""
        return self._sum / self.n_values

    @property
    def sd(self) -> float:
        """Standard deviation of all values."""
        return float(max(self._sum_of_squares / self.n_values - self.mean**2, 0.0) ** 0.5)

    @property
    def negative(self) -> float:
        """Share of values below zero."""
        return self._n_negative / self.n_values

    @property
    def near_zero(self) -> float:
        """Share of values within 0.01 of zero."""
        return self._n_near_zero / self.n_values

    @property
    def at_floor(self) -> float | None:
        """Share of values at the floor: exactly for ReLU, else within 0.01; None without floor."""
        return None if self.floor is None else self._n_at_floor / self.n_values

    @property
    def dead(self) -> tuple[int, ...]:
        """Channels that never left the floor, or, without one, have one value everywhere."""
        if self.floor is None:
            still = self.low == self.high
        else:
            still = (self.low >= self.floor - self._tolerance) & (
                self.high <= self.floor + self._tolerance
            )
        return tuple(still.nonzero().flatten().tolist())

    def histogram(self) -> Histogram:
        """All values in at most 120 bins; the rare ones at either end lie in the outer bins."""
        counts = self._counts.numpy()
        share_below = counts.cumsum() / self.n_values
        first, last = np.searchsorted(share_below, (_TAIL, 1 - _TAIL)).tolist()
        together = -(-(last + 1 - first) // _N_SHOWN)
        places = np.clip((np.arange(_N_BINS) - first) // together, 0, (last - first) // together)
        shown = np.zeros(places[-1] + 1, dtype=np.int64)
        np.add.at(shown, places, counts)
        return Histogram((first - _N_BINS // 2) * self._width, together * self._width, shown)

    def to_json(self) -> dict[str, Any]:
        """Everything, as values that JSON has."""
        histogram = self.histogram()
        return {
            "name": self.name,
            "activation": self.function,
            "channels": self.n_channels,
            "size": list(self.size),
            "values": self.n_values,
            "min": float(self.low.min()),
            "max": float(self.high.max()),
            "mean": self.mean,
            "sd": self.sd,
            "dead_channels": list(self.dead),
            "negative": self.negative,
            "near_zero": self.near_zero,
            "at_floor": self.at_floor,
            "histogram": {**histogram._asdict(), "counts": histogram.counts.tolist()},
        }


def _floor(function: Callable[[Tensor], Tensor], like: Tensor) -> float | None:
    """The value of an activation function for very negative inputs; None where it has none."""
    low, lower = (function(torch.full_like(like, value)).flatten()[0] for value in (-1e4, -2e4))
    return float(low) if low == lower else None


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Takes in what every activation function answers, in the order in which they run."""

    def __init__(self, modules: ModuleTracker) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layers: list[LayerActivity] = []
        self._modules = modules
        self._next = 0

    def look(self, network: nn.Module, batch: Tensor) -> None:
        """Run the network once."""
        self._next = 0
        with self:
            network(batch)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        function = FUNCTIONS.get(func.overloadpacket.__name__.rstrip("_"))
        if function is None or func.namespace != "aten":
            return func(*args, **kwargs)
        if self._next == len(self.layers):
            floor = _floor(lambda values: func(values, *args[1:], **kwargs), args[0])
            self.layers.append(LayerActivity(self._name(), function, floor))
        result = func(*args, **kwargs)
        self.layers[self._next].add(result)
        self._next += 1
        return result

    def _name(self) -> str:
        """Path of the innermost module that is running, numbered where it runs several."""
        path = max(self._modules.parents - {"Global"}, key=len).partition(".")[2]
        before = sum(layer.name.partition("#")[0] == path for layer in self.layers)
        return f"{path}#{before + 1}" if before or not path else path


def watch_layers(
    network: nn.Module, inputs: Iterable[NDArray[np.float32]]
) -> tuple[LayerActivity, ...]:
    """What stands behind each activation function of a network over some inputs.

    Args:
        network: Is put into evaluation mode.
        inputs: Batches (batch, channel, *spatial), float32, one after another.

    Returns:
        The layers in the order in which they run; one that runs twice is there twice.

    Raises:
        ModelFileError: If a layer answers with NaN or infinity, or no activation function was run.
    """
    network.eval()
    with torch.no_grad(), ModuleTracker() as modules:
        watch = _Watch(modules)
        for batch in inputs:
            watch.look(network, torch.from_numpy(np.ascontiguousarray(batch)))
    if not watch.layers:
        msg = "the network ran no activation function of a known kind, so none can be studied"
        raise ModelFileError(msg)
    return tuple(watch.layers)
