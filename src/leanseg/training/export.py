"""Networks exported to ONNX, checked against PyTorch, and put into the model file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from leanseg.inference.engines.openvino_engine import OpenVINOEngine
from leanseg.inference.engines.sampled_layers import results_name
from leanseg.inference.engines.torch_engine import TorchEngine, built
from leanseg.modelfile import Exported, ExportRecord, Member, ModelFile
from leanseg.runtime import return_freed_memory
from leanseg.training.export_graph import OPSET, ExportError, export_graph, give_biases
from leanseg.training.export_sampling import PartOfNetwork, sampling_layers

# At least this share of the labels must be PyTorch's, or there is no package.
LEAST_EQUAL_LABELS = 0.9999
# Rounding in another order moves a probability by 1e-4 at most; another network by more.
CLOSE = 0.01


def export_model(model: ModelFile, *, allow_imports: bool = False) -> ModelFile:
    """The model with its networks exported, if they give PyTorch's labels on synthetic input.

    Args:
        model: The model file in memory.
        allow_imports: Whether a network may be built from an import path.

    Returns:
        The model with every network `exported`; nothing is written.

    Raises:
        ExportError: If a network cannot be exported, or fewer than 99.99 % of its labels or
            probabilities are PyTorch's.
        MissingDependencyError: If the exporter's packages are not installed.
    """
    stages = {
        stage.name: _exported_stage(
            model.stages[stage.name],
            (1, *model.plan.input_shape(stage)),
            stage.threshold,
            allow_imports,
            multiple=None if stage.patch.crop is None else stage.patch.crop.multiple,
        )
        for stage in model.plan.networks
    }
    return replace(model, stages=stages)


def _exported_stage(
    members: Sequence[Member],
    shape: Sequence[int],
    threshold: float,
    allow_imports: bool,
    multiple: int | None,
) -> tuple[Member, ...]:
    image = synthetic_input(shape)
    # Networks of one kind have one graph: it holds no weights.
    drafts: dict[str, Exported] = {}
    found = []
    for member in members:
        kind = member.network.model_dump_json()
        if kind not in drafts:
            network = built(member, allow_imports)
            drafts[kind] = (
                _exported(network, member, shape)
                if multiple is None
                else _exported_for_crops(network, member, shape, multiple)
            )
        draft = replace(member, exported=drafts[kind])
        # Of crops a smaller one is as good as the largest.
        seen = image if multiple is None else image[..., : 2 * multiple, :multiple]
        found.append(_checked(draft, seen, threshold, allow_imports))
    return tuple(found)


def _exported_for_crops(
    network: nn.Module, member: Member, shape: Sequence[int], multiple: int
) -> Exported:
    """The network's graph for slices of any size that is a multiple of one; not yet checked."""
    graph = export_graph(network, member, shape, dynamic=multiple)
    return Exported(graph, ExportRecord(opset=OPSET))


def _exported(network: nn.Module, member: Member, shape: Sequence[int]) -> Exported:
    """The network's graph, or two of them around the layers that sample; not yet checked."""
    network = network.eval().requires_grad_(False)
    give_biases(network)
    layers = sampling_layers(network, member, torch.zeros(tuple(shape)))
    # The engine that is compared with has to know of the layers between the graphs.
    record = ExportRecord(opset=OPSET, sampling=tuple(layers))
    if not layers:
        return Exported(export_graph(network, member, shape), record)
    results = [(1, member.weights[each.weight].shape[0], *each.grid) for each in layers]
    part = PartOfNetwork(network, results)
    outputs = [f"sampled.{number}" for number in range(len(layers))]
    first = export_graph(part, member, shape, outputs=outputs)
    further = {results_name(number): result for number, result in enumerate(results)}
    return Exported(export_graph(part, member, shape, further), record, first)


def _checked(
    member: Member, image: NDArray[np.float32], threshold: float, allow_imports: bool
) -> Member:
    """The member, with a record of how far OpenVINO agrees with PyTorch.

    Raises:
        ExportError: If that is not far enough.
    """
    expected = TorchEngine.of_member(member, image.shape, allow_imports=allow_imports).run(image)
    return_freed_memory()
    found = OpenVINOEngine(member, image.shape).run(image)
    equal_labels, close = agreement(found, expected, member.network.activation, threshold)
    if min(equal_labels, close) < LEAST_EQUAL_LABELS:
        raise ExportError(
            f"{member.path}: the exported network gives PyTorch's label for "
            f"{100 * equal_labels:.3f} % of the voxels and its probability, to {CLOSE}, for "
            f"{100 * close:.3f} % ({100 * LEAST_EQUAL_LABELS:.2f} % are needed), so it was "
            "not packaged; predict with --engine torch"
        )
    assert member.exported is not None
    checked_with = f"openvino {OpenVINOEngine.version()}"
    record = member.exported.record.model_copy(
        update={"equal_labels": equal_labels, "checked_with": checked_with}
    )
    return replace(member, exported=replace(member.exported, record=record))


def network_labels(
    probabilities: NDArray[np.float32], activation: str = "softmax", threshold: float = 0.5
) -> NDArray[Any]:
    """What the network says of each pixel of probabilities (batch, output, *spatial).

    Returns:
        (batch, 1, *spatial) the class; or (batch, output, *spatial) whether it is in each region.
    """
    if probabilities.shape[1] == 1 or activation == "sigmoid":
        return probabilities > np.float32(threshold)
    return probabilities.argmax(axis=1, keepdims=True)


def agreement(
    found: NDArray[np.float32],
    expected: NDArray[np.float32],
    activation: str = "softmax",
    threshold: float = 0.5,
) -> tuple[float, float]:
    """How far two arrays of probabilities (batch, output, *spatial) agree.

    Returns:
        The share of the voxels with the same label, and of those whose probabilities are the same
        to `CLOSE`. Where a network gives one label everywhere, as an untrained one does, labels
        alone prove nothing.
    """
    labels = (network_labels(each, activation, threshold) for each in (found, expected))
    equal = np.equal(*labels).all(axis=1).mean()
    close = (np.abs(found - expected).max(axis=1) <= CLOSE).mean()
    return float(equal), float(close)


def synthetic_input(shape: Sequence[int]) -> NDArray[np.float32]:
    """Smooth blobs between 0 and 1 with some noise, (1, channel, *spatial): of no patient."""
    from scipy import ndimage

    rng = np.random.default_rng(0)
    noise = rng.random(tuple(shape[1:]), dtype=np.float32)
    blobs = ndimage.gaussian_filter(noise, (0, *(max(1.0, n / 16) for n in shape[2:])))
    blobs = (blobs - blobs.min()) / max(float(np.ptp(blobs)), 1e-6)
    return (0.9 * blobs + 0.1 * noise).astype(np.float32)[None]
