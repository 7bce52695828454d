"""What the activation functions of a network answer: histograms and dead channels.

Looked at is what stands right behind each activation function, whether the network calls it as a
module or as a function; nothing but counts is kept. Needs PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.module_tracker import ModuleTracker

from leanseg.errors import ModelFileError

# Values this near to an activation's floor, or to zero, say nothing any more.
NEAR: Final = 0.01
# Bins of a histogram, over what holds all but a share of the values at either end.
_N_BINS, _TAIL = 120, 1e-5
# Values that are counted together; bounds the memory.
_CHUNK: Final = 1 << 20
# The number that each of float16's bit patterns stands for; those of no number are never counted.
_HALVES = np.nan_to_num(np.arange(1 << 16, dtype=np.uint16).view(np.float16)).astype(np.float64)
_LARGEST = float(np.finfo(np.float16).max)

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


@dataclass(frozen=True)
class LayerActivity:
    """What one activation function answered, over all inputs.

    Attributes:
        name: Path of the module within the network.
        function: The activation function.
        size: Of the feature maps, at the last input.
        n_channels: Number of feature maps.
        n_values: How many values were seen.
        low: The least of them.
        high: The largest.
        mean: Their mean.
        sd: Their standard deviation.
        negative: Share of values below zero.
        near_zero: Share of values within 0.01 of zero.
        at_floor: Share of values at the floor, which is the function's value for very negative
            inputs: exactly for ReLU, else within 0.01; None without floor.
        dead: Channels that never left the floor, or, without one, have one value everywhere.
        counts: Of values in 120 bins; rare ones at either end lie in the outer bins.
        edges: Of these bins.
    """

    name: str
    function: str
    size: tuple[int, ...]
    n_channels: int
    n_values: int
    low: float
    high: float
    mean: float
    sd: float
    negative: float
    near_zero: float
    at_floor: float | None
    dead: tuple[int, ...]
    counts: tuple[int, ...]
    edges: tuple[float, ...]


class _Counter:
    """Counts what one activation function answers.

    Values are counted by their float16 bit pattern: three digits are kept whatever their scale,
    and all figures but the channels' extremes follow from these counts.
    """

    def __init__(self, name: str, function: str, floor: float | None) -> None:
        self.name, self.function, self.floor = name, function, floor
        # A ReLU reaches its floor exactly, the others come ever closer.
        self.tolerance = 0.0 if function == "ReLU" else NEAR
        self.size: tuple[int, ...] = ()
        self.low, self.high = torch.tensor(torch.inf), torch.tensor(-torch.inf)
        self.counts = np.zeros(len(_HALVES), dtype=np.int64)

    def add(self, values: Tensor) -> None:
        """Take in feature maps (batch, channel, *spatial), or tokens (batch, token, channel).

        Raises:
            ModelFileError: If there is NaN or infinity among them.
        """
        maps = values.detach().float().movedim(2 if values.ndim == 3 else 1, 0)
        low, high = torch.aminmax(maps.flatten(1), dim=1)
        if not (torch.isfinite(low) & torch.isfinite(high)).all():
            raise ModelFileError(
                f"layer {self.name} answers with values that are no finite numbers, so the "
                "weights are damaged or diverged in training; use another model"
            )
        self.size = tuple(maps.shape[2:])
        self.low, self.high = torch.minimum(self.low, low), torch.maximum(self.high, high)
        for part in torch.split(maps.reshape(-1), _CHUNK):
            halves = part.clamp(-_LARGEST, _LARGEST).half().numpy()
            self.counts += np.bincount(halves.view(np.uint16), minlength=len(_HALVES))

    def activity(self) -> LayerActivity:
        """The figures over all that was counted."""
        (seen,) = self.counts.nonzero()
        seen = seen[np.argsort(_HALVES[seen])]
        values, counts = _HALVES[seen], self.counts[seen]
        n_values = int(counts.sum())
        mean = values @ counts / n_values
        low, high = values[np.searchsorted(counts.cumsum() / n_values, (_TAIL, 1 - _TAIL))]
        bins, edges = np.histogram(values.clip(low, high), _N_BINS, (low, high), weights=counts)

        def share(chosen: NDArray[np.bool_]) -> float:
            return float(counts[chosen].sum() / n_values)

        floor = self.floor
        at_floor = None if floor is None else share(abs(values - floor) <= self.tolerance)
        return LayerActivity(
            name=self.name,
            function=self.function,
            size=self.size,
            n_channels=len(self.low),
            n_values=n_values,
            low=float(self.low.min()),
            high=float(self.high.max()),
            mean=float(mean),
            sd=float(np.sqrt((values - mean) ** 2 @ counts / n_values)),
            negative=share(values < 0),
            near_zero=share(abs(values) <= NEAR),
            at_floor=at_floor,
            dead=self._dead(),
            counts=tuple(bins.tolist()),
            edges=tuple(edges.tolist()),
        )

    def _dead(self) -> tuple[int, ...]:
        still = self.low == self.high
        if self.floor is not None:
            still = (self.low >= self.floor - self.tolerance) & (
                self.high <= self.floor + self.tolerance
            )
        return tuple(still.nonzero().flatten().tolist())


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
            watch.next = 0
            with watch:
                network(torch.from_numpy(np.ascontiguousarray(batch)))
    if not watch.layers:
        msg = "the network ran no activation function of a known kind, so none can be studied"
        raise ModelFileError(msg)
    return tuple(layer.activity() for layer in watch.layers)


def feature_maps(
    network: nn.Module, image: NDArray[np.float32], places: Collection[int]
) -> dict[int, NDArray[np.float32]]:
    """What some layers answer to one input.

    Args:
        network: Is put into evaluation mode.
        image: (1, channel, *spatial), float32.
        places: Which layers, as `watch_layers` numbers them from 0.

    Returns:
        Place to feature maps (channel, *spatial); tokens (token, channel) as they are.
    """
    network.eval()
    with torch.no_grad(), ModuleTracker() as modules:
        watch = _Watch(modules, places)
        with watch:
            network(torch.from_numpy(np.ascontiguousarray(image)))
    return {place: maps[0].float().numpy() for place, maps in watch.maps.items()}


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Takes in what every activation function answers, in the order in which they run."""

    def __init__(self, modules: ModuleTracker, kept: Collection[int] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layers: list[_Counter] = []
        self.maps: dict[int, Tensor] = {}
        self._kept = kept
        self.next = 0
        self._modules = modules

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        function = FUNCTIONS.get(func.overloadpacket.__name__.rstrip("_"))
        if function is None or func.namespace != "aten":
            return func(*args, **kwargs)
        if self.next == len(self.layers):
            floor = _floor(lambda values: func(values, *args[1:], **kwargs), args[0])
            self.layers.append(_Counter(self._name(), function, floor))
        result = func(*args, **kwargs)
        self.layers[self.next].add(result)
        if self.next in self._kept:
            # What follows may work in place.
            self.maps[self.next] = result.clone()
        self.next += 1
        return result

    def _name(self) -> str:
        """Path of the innermost module that is running, numbered where it runs several."""
        path = max(self._modules.parents - {"Global"}, key=len).partition(".")[2]
        before = sum(layer.name.partition("#")[0] == path for layer in self.layers)
        return f"{path}#{before + 1}" if before or not path else path


def _floor(function: Callable[[Tensor], Tensor], like: Tensor) -> float | None:
    """The value of an activation function for very negative inputs; None where it has none."""
    low, lower = (function(torch.full_like(like, value)).flatten()[0] for value in (-1e4, -2e4))
    return float(low) if low == lower else None
