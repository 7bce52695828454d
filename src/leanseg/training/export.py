"""Packaging: the network exported to ONNX, checked against PyTorch, put into the model file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from leanseg.inference.engines.exported import planned_shape
from leanseg.inference.engines.openvino_engine import OpenVINOEngine
from leanseg.inference.engines.sampled_layers import results_name
from leanseg.inference.engines.torch_engine import TorchEngine, built
from leanseg.inference.labels import network_labels
from leanseg.modelfile import (
    Exported,
    ExportRecord,
    ModelFile,
    SamplingLayer,
    read_model,
    write_model,
)
from leanseg.training.export_graph import (
    OPSET,
    ExportError,
    cannot_export,
    export_graph,
    give_biases,
)
from leanseg.training.export_sampling import parts

__all__ = [
    "Agreement",
    "ExportError",
    "compare",
    "export_graph",
    "export_model",
    "package",
]

# At least this share of the labels must be PyTorch's, or there is no package.
LEAST_EQUAL_LABELS = 0.9999
# Rounding in another order moves a probability by 1e-4 at most; another network by more.
CLOSE = 0.01


def export_model(model: ModelFile, *, allow_imports: bool = False) -> ModelFile:
    """The model with its network exported, if that gives PyTorch's labels on synthetic input.

    Args:
        model: The model file in memory.
        allow_imports: Whether the network may be built from an import path.

    Returns:
        The model with `exported` and the manifest's `export`; nothing is written.

    Raises:
        ExportError: If the network cannot be exported, or fewer than 99.99 % of the labels or
            probabilities of any member are PyTorch's.
        MissingDependencyError: If the exporter's packages are not installed.
    """
    members = model.members()
    image = synthetic_input(planned_shape(model))
    exported, sampling = _exported(built(members[0], allow_imports), members[0])
    # The engine that is compared with has to know of layers between the graphs.
    draft = ExportRecord(opset=OPSET, equal_labels=0.0, sampling=sampling)
    found = [
        compare(_with(member, exported, draft), image, allow_imports=allow_imports)
        for member in members
    ]
    equal = min(each.equal_labels for each in found)
    close = min(each.close for each in found)
    if min(equal, close) < LEAST_EQUAL_LABELS:
        msg = (
            f"{model.path}: the exported network gives PyTorch's label for {100 * equal:.3f} % of "
            f"the voxels and its probability, to {CLOSE}, for {100 * close:.3f} % "
            f"({100 * LEAST_EQUAL_LABELS:.2f} % are needed), so it was not packaged; predict with "
            "--engine torch"
        )
        raise ExportError(msg)
    checked_with = f"openvino {OpenVINOEngine.version()}"
    record = draft.model_copy(update={"equal_labels": equal, "checked_with": checked_with})
    return _with(model, exported, record)


def _with(model: ModelFile, exported: Exported, record: ExportRecord) -> ModelFile:
    manifest = model.manifest.model_copy(update={"export": record})
    return replace(model, manifest=manifest, exported=exported)


def _exported(network: nn.Module, model: ModelFile) -> tuple[Exported, tuple[SamplingLayer, ...]]:
    """The network's graph, or two of them around the layers that sample."""
    network = network.eval().requires_grad_(False)
    give_biases(network)
    try:
        cut = parts(network, torch.zeros(planned_shape(model)))
    except ValueError as error:
        raise cannot_export(model, error) from error
    if cut is None:
        return Exported(export_graph(network, model)), ()
    names = [results_name(number) for number in range(len(cut.layers))]
    second = export_graph(cut.second, model, dict(zip(names, cut.results, strict=True)))
    outputs = [f"sampled.{number}" for number in range(len(cut.layers))]
    first = export_graph(cut.first, model, outputs=outputs)
    return Exported(second, sampled=first), cut.layers


@dataclass(frozen=True)
class Agreement:
    """How far OpenVINO agrees with PyTorch in float32.

    Attributes:
        equal_labels: Share of the voxels with the same label.
        close: Share of the voxels whose probabilities are the same to `CLOSE`. Where a network
            gives one label everywhere, as an untrained one does, labels alone prove nothing.
    """

    equal_labels: float
    close: float


def compare(
    model: ModelFile, image: NDArray[np.float32], *, allow_imports: bool = False
) -> Agreement:
    """The exported network against the registry's on one input (1, channel, *spatial)."""
    expected = TorchEngine.of_file(model, allow_imports=allow_imports).run(image)
    found = OpenVINOEngine(model).run(image)
    equal = (network_labels(found) == network_labels(expected)).mean()
    close = (np.abs(found - expected).max(axis=1) <= CLOSE).mean()
    return Agreement(float(equal), float(close))


def synthetic_input(shape: Sequence[int]) -> NDArray[np.float32]:
    """Smooth blobs between 0 and 1 with some noise, (1, channel, *spatial): of no patient."""
    from scipy import ndimage

    rng = np.random.default_rng(0)
    noise = rng.random(tuple(shape[1:]), dtype=np.float32)
    blobs = ndimage.gaussian_filter(noise, (0, *(max(1.0, n / 16) for n in shape[2:])))
    blobs = (blobs - blobs.min()) / max(float(np.ptp(blobs)), 1e-6)
    image: NDArray[np.float32] = (0.9 * blobs + 0.1 * noise).astype(np.float32)[None]
    return image


def package(path: Path, *, allow_imports: bool = False) -> ModelFile:
    """Export the network of a model file and write the file anew, atomically.

    Raises:
        ExportError: As `export_model`; the file stays as it was.
    """
    model = export_model(read_model(path), allow_imports=allow_imports)
    write_model(path, model.manifest, model.weights, model.exported)
    return model
