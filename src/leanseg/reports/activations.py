"""The activation study: how much of a network takes part in what it says of a scan.

Paper 000 (figure 5, "Visualization of intermediate activations") compares the feature maps of
early, intermediate and late layers of MoNet and U-Net-64, and finds the latter's collapsed to a
region near zero. Here every layer is looked at, over many slices, and the three are shown.
Needs PyTorch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import ModelFileError
from leanseg.frames.view import Scan
from leanseg.inference import Model
from leanseg.inference.engines import Engine
from leanseg.inference.engines.torch_engine import built
from leanseg.inference.pipeline import Pipeline
from leanseg.inference.stage_run import Settings
from leanseg.reports.activation_layers import LayerActivity, feature_maps, watch_layers
from leanseg.volumes import Volume, require_finite


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
        orientation: Axis codes of the frame that the inputs lie in.
        image: The middle one of the inputs, (channel, *spatial).
        maps: What the layers in `shown` answer to it, (channel, *spatial).
    """

    model: str
    network: str
    weights_sha256: str
    members: int
    scan: str
    inputs: tuple[int, ...]
    n_inputs: int
    layers: tuple[LayerActivity, ...]
    orientation: str
    image: NDArray[np.float32] = field(repr=False, compare=False)
    maps: Mapping[str, NDArray[np.float32]] = field(repr=False, compare=False)

    @property
    def shown(self) -> dict[str, LayerActivity]:
        """An early, a middle and a late layer; fewer where the network has fewer."""
        return {name: self.layers[place] for place, name in _shown(len(self.layers)).items()}

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
        """Everything but pictures, as values that JSON has."""
        shown = {each.name: getattr(self, each.name) for each in fields(self)}
        del shown["image"], shown["maps"]
        layers = [asdict(layer) for layer in self.layers]
        return shown | {"layers": layers, "n_channels": self.n_channels, "n_dead": self.n_dead}


def _shown(n_layers: int) -> dict[int, str]:
    last = n_layers - 1
    return {0: "early", last // 2: "middle", last: "late"}


def study_activations(
    model: Model,
    scan: Scan,
    channel_indices: Sequence[int] | None = None,
    *,
    max_inputs: int | None = None,
    name: str = "",
    allow_imports: bool = False,
) -> ActivationStudy:
    """Look at every activation function of a model while it sees a scan.

    Args:
        model: The model; of an ensemble the first network is looked at.
        scan: As for prediction.
        channel_indices: Which of the scan's channels are the plan's.
        max_inputs: So many slices (or tiles of a 3-D network) are looked at, evenly spaced;
            None for all. Of slices with a single value only the first is an input.
        name: Of the scan.
        allow_imports: Whether the file may name a network by an import path, which runs that code.

    Raises:
        LeansegError: If the scan does not fit the model, or a layer answers with NaN.
    """
    volume = scan.read()
    require_finite(volume)
    network = built(model.file.members[0], allow_imports)
    n_inputs = _collect(model, volume, channel_indices, ()).n_seen
    count = min(n_inputs, max_inputs or n_inputs)
    chosen = ((np.arange(count) + 0.5) * n_inputs / count).astype(int).tolist()
    kept = _collect(model, volume, channel_indices, chosen).kept
    file = model.file
    try:
        layers = watch_layers(network, kept)
        shown = _shown(len(layers))
        image = kept[len(kept) // 2]
        maps = feature_maps(network, image, shown)
    except ModelFileError as error:
        raise ModelFileError(f"{file.path or 'the model'}: {error}") from error
    return ActivationStudy(
        model="" if file.path is None else file.path.name,
        network=file.members[0].network.name,
        weights_sha256=file.weights_sha256,
        members=len(file.members),
        scan=name,
        inputs=tuple(chosen),
        n_inputs=n_inputs,
        layers=layers,
        orientation=model.plan.for_scan(volume.orientation).final.frame.orientation,
        image=image[0],
        maps={shown[place]: found for place, found in maps.items()},
    )


def _collect(
    model: Model, scan: Volume, channel_indices: Sequence[int] | None, chosen: Sequence[int]
) -> _CollectingEngine:
    """Predict a scan, but keep some of what the last network would see of it."""
    stage = model.plan.final
    collecting = _CollectingEngine(model.engine.shape, stage.n_outputs, chosen)
    pipeline = Pipeline(model.plan, {**model.pipeline.engines, stage.name: collecting})
    # One after another, so that inputs come in the order in which they lie in the scan.
    pipeline.settings = Settings(threads=1, batch_size=1)
    pipeline.predict(scan, channel_indices)
    return collecting


class _CollectingEngine:
    """Stands in for an engine: answers zeros, and keeps the chosen ones of its inputs."""

    name, precision, device = "collecting", "f32", "cpu"
    lanes = batch_size = passes = 1

    def __init__(self, shape: tuple[int, ...], n_outputs: int, chosen: Sequence[int]) -> None:
        self.shape = shape
        self.kept: list[NDArray[np.float32]] = []
        self.n_seen = 0
        self._n_outputs, self._chosen = n_outputs, frozenset(chosen)

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        for image in batch:
            if self.n_seen in self._chosen:
                self.kept.append(image[None].copy())
            self.n_seen += 1
        return np.zeros((len(batch), self._n_outputs, *batch.shape[2:]), dtype=np.float32)

    def memory_bytes(self) -> int:
        return 0

    def release(self) -> None:
        pass

    def scout(self) -> Engine:
        return self
