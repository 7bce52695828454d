"""The activation study: how much of a network takes part in what it says of a scan.

Paper 000 (figure 5, "Visualization of intermediate activations") compares the feature maps of
early, intermediate and late layers of MoNet and U-Net-64, and finds the latter's collapsed to a
region near zero. Here every layer is looked at, over many slices, and the three are shown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import LeansegError, ModelFileError
from leanseg.preprocessing import Plan, ScanSlices
from leanseg.runtime import keep_large_blocks
from leanseg.volumes import Volume, require_finite

if TYPE_CHECKING:
    from leanseg.modelfile import ModelFile
    from leanseg.reports.activation_histogram import Histogram
    from leanseg.reports.activation_layers import LayerActivity, LayerWatch

# Bins of a stored histogram, over the range that holds all but this share at either end.
N_BINS, _TAIL = 120, 1e-5

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Selection:
    """Which slices of a scan are looked at.

    Attributes:
        count: So many, evenly spaced from the first to the last; None for all of the range.
        start: First of a range, from 0.
        stop: End of the range, excluded; None for the scan's end.
    """

    count: int | None = None
    start: int = 0
    stop: int | None = None

    @classmethod
    def parse(cls, text: str) -> Selection:
        """From "all", a number ("24": evenly spaced), or a range ("40:80": from 40 to 79).

        Raises:
            LeansegError: If it is none of these.
        """
        if text == "all":
            return cls()
        if re.fullmatch(r"[1-9]\d{0,8}", text):
            return cls(count=int(text))
        found = re.fullmatch(r"(\d{1,9}):(\d{1,9})", text)
        if found and int(found[1]) < int(found[2]):
            return cls(start=int(found[1]), stop=int(found[2]))
        msg = (
            f"--slices {text!r} is no choice of slices; give all, a number of slices such as 24, "
            "or a range such as 40:80"
        )
        raise LeansegError(msg)

    def of(self, n_slices: int) -> tuple[int, ...]:
        """Indices among `n_slices`.

        Raises:
            LeansegError: If the range ends past them.
        """
        stop = n_slices if self.stop is None else self.stop
        if stop > n_slices:
            msg = (
                f"slices {self.start}:{self.stop} are asked for, but the scan has {n_slices} "
                f"(0:{n_slices}); choose among those"
            )
            raise LeansegError(msg)
        every = range(self.start, stop)
        if self.count is None or self.count >= len(every):
            return tuple(every)
        if self.count == 1:
            return (every[len(every) // 2],)
        places = np.linspace(0, len(every) - 1, self.count).round().astype(int)
        return tuple(every[place] for place in places)


@dataclass(frozen=True)
class ActivationStudy:
    """What all layers of a network answered to a scan.

    Attributes:
        model: The model file's name.
        network: The network's name in the registry.
        weights_sha256: Of the model file's weights.
        members: Networks in the file; the first of an ensemble is looked at.
        scan: The scan's name.
        unit: What the network sees at once: "slice", "tile" or "volume".
        inputs: Which of these were looked at.
        n_inputs: How many the scan has.
        layers: Every activation function, in the order in which they run.
    """

    model: str
    network: str
    weights_sha256: str
    members: int
    scan: str
    unit: str
    inputs: tuple[int, ...]
    n_inputs: int
    layers: tuple[LayerActivity, ...]

    @property
    def shown(self) -> dict[str, LayerActivity]:
        """The early, middle and late layer; fewer where the network has fewer."""
        last = len(self.layers) - 1
        places = {"early": 0, "middle": last // 2, "late": last}
        kept = {place: name for name, place in reversed(places.items())}
        return {name: self.layers[kept_place] for kept_place, name in sorted(kept.items())}

    @property
    def n_channels(self) -> int:
        """Channels of all layers."""
        return sum(layer.channels for layer in self.layers)

    @property
    def n_dead(self) -> int:
        """Dead channels of all layers."""
        return sum(len(layer.dead) for layer in self.layers)

    def to_json(self) -> dict[str, Any]:
        """Everything, for a file."""
        stage = {id(layer): name for name, layer in self.shown.items()}
        return {
            "format": "leanseg-activations",
            "model": self.model,
            "network": self.network,
            "weights_sha256": self.weights_sha256,
            "members": self.members,
            "scan": self.scan,
            "unit": self.unit,
            "inputs": list(self.inputs),
            "n_inputs": self.n_inputs,
            "channels": self.n_channels,
            "dead_channels": self.n_dead,
            "dead_share": self.n_dead / self.n_channels,
            "layers": [_layer_json(layer, stage.get(id(layer))) for layer in self.layers],
        }


def _layer_json(layer: LayerActivity, stage: str | None) -> dict[str, Any]:
    histogram = display_histogram(layer)
    return {
        "name": layer.name,
        "stage": stage,
        "activation": layer.kind,
        "channels": layer.channels,
        "size": list(layer.size),
        "values": layer.n_values,
        "min": layer.minimum,
        "max": layer.maximum,
        "mean": layer.mean,
        "sd": layer.sd,
        "dead_channels": list(layer.dead),
        "dead_share": layer.dead_share,
        "negative": layer.negative,
        "near_zero": layer.near_zero,
        "at_floor": layer.at_floor,
        "histogram": {
            "low": histogram.low,
            "width": histogram.width,
            "counts": histogram.counts.tolist(),
        },
    }


def display_histogram(layer: LayerActivity, n_bins: int = N_BINS) -> Histogram:
    """The layer's histogram in few bins; the rare values at either end lie in the outer ones."""
    fine = layer.histogram
    low, high = fine.quantile(_TAIL), fine.quantile(1 - _TAIL) + fine.width
    # Fine bins share their edges with the wide ones, else some of these would look emptier.
    per_bin = max(1, round((high - low) / fine.width / n_bins))
    n_wide = max(1, int(np.ceil((high - low) / (per_bin * fine.width))))
    return fine.rebinned(low, low + n_wide * per_bin * fine.width, n_wide)


def study_activations(
    model: ModelFile,
    scan: Volume,
    channel_indices: Sequence[int] | None = None,
    selection: Selection | None = None,
    *,
    name: str = "",
    allow_imports: bool = False,
    on_progress: OnProgress = lambda done, total: None,
) -> ActivationStudy:
    """Look at every activation function of a model while it sees a scan.

    Args:
        model: The model file in memory; of an ensemble the first network.
        scan: As for prediction.
        channel_indices: Which of the scan's channels are the plan's.
        selection: Which slices, or tiles of a 3-D network; all if None. A network that sees the
            whole scan at once has one input.
        name: Of the scan.
        allow_imports: Whether the file may name a network by an import path, which runs that code.
        on_progress: Called with (inputs done, inputs in all).

    Raises:
        MissingDependencyError: If PyTorch is not installed.
        LeansegError: If the scan does not fit the model, or a layer answers with NaN.
    """
    from leanseg.inference.engines.torch_engine import built
    from leanseg.reports.activation_layers import LayerWatch

    keep_large_blocks()
    require_finite(scan)
    plan = model.plan
    chosen = selection or Selection()
    network = built(model.members[0], allow_imports)
    unit, inputs, n_inputs = "volume", tuple(range(1)), 1
    with _of_file(model), LayerWatch(network) as watch:
        if plan.volume_shape is not None:
            _look_at_region(watch, plan, scan, channel_indices)
            on_progress(1, 1)
        elif plan.tile_shape is not None:
            unit = "tile"
            inputs, n_inputs = _look_at_tiles(
                watch, plan, scan, channel_indices, chosen, on_progress
            )
        else:
            unit = "slice"
            slices = ScanSlices(scan, plan, channel_indices)
            inputs, n_inputs = chosen.of(slices.n_slices), slices.n_slices
            for done, k in enumerate(inputs, start=1):
                watch.look(slices.read(k, k + 1))
                on_progress(done, len(inputs))
        layers = watch.layers()
    return ActivationStudy(
        model="" if model.path is None else model.path.name,
        network=model.members[0].network.name,
        weights_sha256=model.weights_sha256,
        members=len(model.members),
        scan=name,
        unit=unit,
        inputs=inputs,
        n_inputs=n_inputs,
        layers=layers,
    )


@contextmanager
def _of_file(model: ModelFile) -> Iterator[None]:
    """What is wrong with the network is wrong with the file."""
    try:
        yield
    except ModelFileError as error:
        raise ModelFileError(f"{model.path or 'the model'}: {error}") from error


class _LookingEngine:
    """Shows chosen inputs to the watch; what it answers to the predictor is of no meaning."""

    name, precision, device = "study", "f32", "cpu"
    lanes = batch_size = passes = 1
    shape: tuple[int, ...] = ()

    def __init__(
        self, watch: LayerWatch, n_outputs: int, wanted: Sequence[int], on_progress: OnProgress
    ) -> None:
        self._watch, self._n_outputs = watch, n_outputs
        self._wanted, self._on_progress = frozenset(wanted), on_progress
        self._n_seen = self._n_looked = 0

    def memory_bytes(self) -> int:
        """Not told."""
        return 0

    def release(self) -> None:
        """Nothing."""

    def scout(self) -> _LookingEngine:
        """Itself."""
        return self

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Zeros (batch, output, *spatial)."""
        for image in batch:
            if self._n_seen in self._wanted:
                self._watch.look(image[None])
                self._n_looked += 1
                self._on_progress(self._n_looked, len(self._wanted))
            self._n_seen += 1
        return np.zeros((len(batch), self._n_outputs, *batch.shape[2:]), dtype=np.float32)


def _look_at_tiles(
    watch: LayerWatch,
    plan: Plan,
    scan: Volume,
    channel_indices: Sequence[int] | None,
    selection: Selection,
    on_progress: OnProgress,
) -> tuple[tuple[int, ...], int]:
    from leanseg.inference.tile_predictor import Layout, TilePredictor
    from leanseg.preprocessing.region_input import plan_spacing_mm
    from leanseg.volumes import reoriented_view

    shape = reoriented_view(scan.array, scan.orientation, plan.orientation).shape[:3]
    n_tiles = Layout.of(plan, shape, plan_spacing_mm(scan, plan)).n_tiles
    wanted = selection.of(n_tiles)
    engine = _LookingEngine(watch, plan.n_outputs, wanted, on_progress)
    TilePredictor(engine, plan).predict(scan, channel_indices)
    return wanted, n_tiles


def _look_at_region(
    watch: LayerWatch, plan: Plan, scan: Volume, channel_indices: Sequence[int] | None
) -> None:
    """The region of a 3-D network; where the network itself has to find it, the box around it."""
    from leanseg.inference.volume_predictor import VolumePredictor

    engine = _LookingEngine(watch, plan.n_outputs, (0,), lambda done, total: None)
    VolumePredictor(engine, plan).predict(scan, channel_indices)
