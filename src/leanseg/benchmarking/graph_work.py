"""Multiply-adds of an exported network, counted in its graph; needs no PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

from leanseg.inference.engines.sampled_layers import SampledLayers, sampling_layers
from leanseg.modelfile import Member, with_weights
from leanseg.modelfile.graph import INPUT

# Voxels around a point, each with its own weight in trilinear sampling.
_CORNERS = 8

# Operators that multiply many numbers, but in ways that no formula below knows.
_WITHOUT_FORMULA = frozenset(
    (
        *("GridSample", "DeformableConvolution", "Einsum", "GRUSequence", "LSTMSequence"),
        *("ScaledDotProductAttention", "BinaryConvolution", "ROIAlign", "Loop", "If"),
    )
)


class GraphWork(NamedTuple):
    """The work in a graph.

    Attributes:
        multiply_adds: Of one input, in convolutions, transposed convolutions and products of
            matrices: what `leanseg.networks.measure` counts.
        uncounted: Kinds of operators whose work is not in it.
    """

    multiply_adds: int
    uncounted: tuple[str, ...]


def exported_work(member: Member, shape: Sequence[int]) -> GraphWork:
    """Count the multiply-adds of an exported network on one input.

    Args:
        member: The network, exported.
        shape: Shape (1, channel, *spatial) of the input.

    Raises:
        RuntimeError: If OpenVINO cannot read it.
        ModelFileError: If the weights of a sampling layer are missing.
    """
    assert member.exported is not None
    image = {INPUT: shape}
    layers = SampledLayers(member, threads=1)
    content = with_weights(member.exported.graph, member.weights)
    work = graph_work(content, image | layers.shapes)
    if member.exported.sampled is None:
        return work
    first = graph_work(with_weights(member.exported.sampled, member.weights), image)
    total = work.multiply_adds + first.multiply_adds + _sampling_work(member)
    return GraphWork(total, tuple(sorted({*work.uncounted, *first.uncounted})))


def _sampling_work(member: Member) -> int:
    """Of OBELISK's layers, which lie between the graphs: samples and a 1 x 1 x 1 convolution."""
    total = 0
    for layer in sampling_layers(member):
        voxels, weight = prod(layer.grid), member.weights[layer.weight]
        samples = weight.shape[1] * layer.groups * member.weights[layer.offsets].shape[1]
        total += voxels * (samples * _CORNERS + weight.size)
    return total


def graph_work(model: bytes, shapes: Mapping[str, Sequence[int]]) -> GraphWork:
    """Count the multiply-adds of an ONNX model, weights included, with OpenVINO's reader.

    Args:
        model: The serialised model.
        shapes: Of its inputs by name, such as (batch, channel, *spatial). Others are left out.

    Raises:
        RuntimeError: If OpenVINO cannot read it.
    """
    from openvino import Core
    from openvino.passes import ConstantFolding, Manager

    graph = Core().read_model(model)
    own = {name for port in graph.inputs for name in port.get_names()}
    graph.reshape({name: list(shape) for name, shape in shapes.items() if name in own})
    # Shapes that the graph computes become known.
    manager = Manager()
    manager.register_pass(ConstantFolding())
    manager.run_passes(graph)
    total, uncounted = 0, set()
    for node in graph.get_ordered_ops():
        kind = node.get_type_name()
        if kind in _FORMULAS:
            total += _FORMULAS[kind](node)
        elif kind in _WITHOUT_FORMULA:
            uncounted.add(kind)
    return GraphWork(total, tuple(sorted(uncounted)))


def _shape(port: Any) -> tuple[int, ...]:
    return tuple(port.get_partial_shape().to_shape())


def _convolution(node: Any) -> int:
    # Weights (out, in, *kernel): each output value sums over all but the first axis.
    return prod(_shape(node.output(0))) * prod(_shape(node.input(1))[1:])


def _grouped_convolution(node: Any) -> int:
    # Weights (group, out / group, in / group, *kernel).
    return prod(_shape(node.output(0))) * prod(_shape(node.input(1))[2:])


def _transposed(node: Any) -> int:
    # Weights (in, out, *kernel): each input value is spread over all but the first axis.
    return prod(_shape(node.input(0))) * prod(_shape(node.input(1))[1:])


def _grouped_transposed(node: Any) -> int:
    # Weights (group, in / group, out / group, *kernel).
    return prod(_shape(node.input(0))) * prod(_shape(node.input(1))[2:])


def _matrix_product(node: Any) -> int:
    first = _shape(node.input(0))
    transposed = node.get_attributes().get("transpose_a", False) and len(first) > 1
    return prod(_shape(node.output(0))) * first[-2 if transposed else -1]


_FORMULAS: dict[str, Callable[[Any], int]] = {
    "Convolution": _convolution,
    "GroupConvolution": _grouped_convolution,
    "ConvolutionBackpropData": _transposed,
    "GroupConvolutionBackpropData": _grouped_transposed,
    "MatMul": _matrix_product,
}
