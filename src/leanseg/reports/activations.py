"""The activation study: how much of a network takes part in what it says of a scan.

Paper 000 (figure 5, "Visualization of intermediate activations") compares the feature maps of
early, intermediate and late layers of MoNet and U-Net-64, and finds the latter's collapsed to a
region near zero. Here everything that stands right behind an activation function is looked at,
whether the network calls it as a module or as a function, and nothing but running statistics is
kept. Needs PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.module_tracker import ModuleTracker

from leanseg.errors import ModelFileError
from leanseg.inference.engines.torch_engine import built
from leanseg.inference.model import predictor_for
from leanseg.preprocessing import Plan, ScanSlices
from leanseg.volumes import Volume, require_finite

if TYPE_CHECKING:
    from leanseg.modelfile import ModelFile

# Values this near to an activation's floor, or to zero, say nothing any more.
NEAR: Final = 0.01
# Farther from zero than this a float32 network is about to overflow.
_LARGEST: Final = 1e30
# Bins while counting; of a histogram to show, over what holds all but a share at either end.
_N_BINS, _N_SHOWN, _TAIL = 1 << 14, 120, 1e-5
# Values that are counted together; bounds the memory.
_CHUNK: Final = 1 << 20


class _Function(NamedTuple):
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


def _zero(*_: Any) -> float:
    return 0.0


def _elu_floor(_: Any, alpha: float = 1.0, scale: float = 1.0, *others: float) -> float:
    return -alpha * scale


def _hardtanh_floor(_: Any, low: float = -1.0, *others: float) -> float:
    return low


# By the name of PyTorch's operator; the variant in place ("relu_") is the same. What PyTorch
# composes of these (SELU, ReLU6) needs no line.
FUNCTIONS: Final[dict[str, _Function]] = {
    "relu": _Function("ReLU", _zero, 0.0),
    "elu": _Function("ELU", _elu_floor),
    "celu": _Function("CELU", _elu_floor),
    "leaky_relu": _Function("LeakyReLU", None),
    "_prelu_kernel": _Function("PReLU", None),
    "hardtanh": _Function("hardtanh", _hardtanh_floor),
    "gelu": _Function("GELU", _zero),
    "silu": _Function("SiLU", _zero),
    "mish": _Function("Mish", _zero),
    "hardswish": _Function("Hardswish", _zero),
    "softplus": _Function("Softplus", _zero),
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

    def __init__(self, name: str, function: _Function, floor: float | None) -> None:
        self.name, self.function, self.floor = name, function.name, floor
        self.size: tuple[int, ...] = ()
        self.n_values = 0
        self.low = self.high = torch.empty(0)
        self._tolerance = function.tolerance
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
        result = func(*args, **(kwargs or {}))
        function = FUNCTIONS.get(func.overloadpacket.__name__.rstrip("_"))
        if function is not None and func.namespace == "aten":
            if self._next == len(self.layers):
                floor = None if function.floor is None else float(function.floor(*args))
                self.layers.append(LayerActivity(self._name(), function, floor))
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


@dataclass(frozen=True)
class ActivationStudy:
    """What all layers of a network answered to a scan.

    Attributes:
        model: The model file's name.
        network: The network's name in the registry.
        weights_sha256: Of the model file's weights.
        members: Networks in the file; the first of an ensemble is looked at.
        scan: The scan's name.
        inputs: Which of the network's inputs (slices, tiles) were looked at.
        n_inputs: How many the scan has.
        layers: Every activation function, in the order in which they run.
    """

    model: str
    network: str
    weights_sha256: str
    members: int
    scan: str
    inputs: tuple[int, ...]
    n_inputs: int
    layers: tuple[LayerActivity, ...]

    @property
    def shown(self) -> dict[str, LayerActivity]:
        """An early, a middle and a late layer; fewer where the network has fewer."""
        last = len(self.layers) - 1
        places = {0: "early", last // 2: "middle", last: "late"}
        return {name: self.layers[place] for place, name in places.items()}

    @property
    def n_channels(self) -> int:
        """Channels of all layers."""
        return sum(layer.n_channels for layer in self.layers)

    @property
    def n_dead(self) -> int:
        """Dead channels of all layers."""
        return sum(len(layer.dead) for layer in self.layers)

    @property
    def summary(self) -> str:
        """One sentence, such as "3 of 120 channels are dead (monet; ct, 24 of 90 inputs)"."""
        which = f", the first of {self.members} networks" if self.members > 1 else ""
        return (
            f"{self.n_dead} of {self.n_channels} channels are dead ({self.network}{which}; "
            f"{self.scan}, {len(self.inputs)} of {self.n_inputs} inputs)"
        )

    def to_json(self) -> dict[str, Any]:
        """Everything, as values that JSON has."""
        return {
            **{key: value for key, value in vars(self).items() if key != "layers"},
            "channels": self.n_channels,
            "dead_channels": self.n_dead,
            "layers": [layer.to_json() for layer in self.layers],
        }


def study_activations(
    model: ModelFile,
    scan: Volume,
    channel_indices: Sequence[int] | None = None,
    *,
    max_inputs: int | None = None,
    name: str = "",
    allow_imports: bool = False,
) -> ActivationStudy:
    """Look at every activation function of a model while it sees a scan.

    Args:
        model: The model file in memory; of an ensemble the first network.
        scan: As for prediction.
        channel_indices: Which of the scan's channels are the plan's.
        max_inputs: So many slices (or tiles of a 3-D network) are looked at, evenly spaced;
            None for all. A network that sees the whole scan has one.
        name: Of the scan.
        allow_imports: Whether the file may name a network by an import path, which runs that code.

    Raises:
        LeansegError: If the scan does not fit the model, or a layer answers with NaN.
    """
    require_finite(scan)
    network = built(model.members()[0], allow_imports)
    n_inputs, read = _network_inputs(model.manifest.plan, scan, channel_indices)
    count = min(n_inputs, max_inputs or n_inputs)
    chosen = ((np.arange(count) + 0.5) * n_inputs / count).astype(int).tolist()
    try:
        layers = watch_layers(network, read(chosen))
    except ModelFileError as error:
        raise ModelFileError(f"{model.path or 'the model'}: {error}") from error
    return ActivationStudy(
        model="" if model.path is None else model.path.name,
        network=model.manifest.network.name,
        weights_sha256=model.manifest.weights_sha256,
        members=model.manifest.members,
        scan=name,
        inputs=tuple(chosen),
        n_inputs=n_inputs,
        layers=layers,
    )


_ReadInputs = Callable[[Sequence[int]], Iterable[NDArray[np.float32]]]


def _network_inputs(
    plan: Plan, scan: Volume, channel_indices: Sequence[int] | None
) -> tuple[int, _ReadInputs]:
    """How many inputs the network sees of a scan, and what reads some of them."""
    if not plan.is_3d:
        slices = ScanSlices(scan, plan, channel_indices)
        return slices.n_slices, lambda chosen: (slices.read(k, k + 1) for k in chosen)

    def collect(chosen: Sequence[int]) -> _CollectingEngine:
        engine = _CollectingEngine(plan.n_outputs, chosen)
        predictor_for(engine, plan).predict(scan, channel_indices)
        return engine

    return collect(()).n_seen, lambda chosen: collect(chosen).kept


class _CollectingEngine:
    """Stands in for the network of a prediction, and keeps the chosen ones of its inputs."""

    name, precision, note = "collecting", "f32", ""
    lanes = slices_per_call = passes = 1

    def __init__(self, n_outputs: int, chosen: Sequence[int]) -> None:
        self.kept: list[NDArray[np.float32]] = []
        self.n_seen = 0
        self._n_outputs, self._chosen = n_outputs, frozenset(chosen)

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Zeros (batch, output, *spatial)."""
        for image in batch:
            if self.n_seen in self._chosen:
                self.kept.append(image[None].copy())
            self.n_seen += 1
        return np.zeros((len(batch), self._n_outputs, *batch.shape[2:]), dtype=np.float32)
