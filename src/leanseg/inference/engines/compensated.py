"""A first layer that loses nothing in bf16, though it is computed in bf16.

Bf16 keeps 8 bits. Behind the first layer networks forgive that; in front of it, it is the image
itself that is rounded (to about 1.5 Hounsfield units in a window of 350), together with the
weights that look at it. On the trained networks tried, 39 to 72 % of all labels that bf16 changes
go back to that one layer (docs/performance.md). So both are split into a rounded part and what
rounding left over, x = x1 + x2 and w = w1 + w2, and x w = x1 w1 + x2 w1 + x1 w2 is one
convolution with three times the input channels, whose sums are kept in float32 anyway. The bias,
which would be rounded as well, is split into the weights of two channels of ones. Against the
layers that follow all this costs little: a millisecond a slice of ten to twenty, or less.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leanseg.modelfile.graph import INPUT

if TYPE_CHECKING:
    import openvino

_HALF_OF_THE_LAST_BIT = np.uint32(0x7FFF)
_KEPT_BITS = np.uint32(0xFFFF0000)


def rounded(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Float32 numbers rounded to bf16, ties to even; finite ones only."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    nearest = bits + _HALF_OF_THE_LAST_BIT + (bits >> np.uint32(16) & np.uint32(1))
    return (nearest & _KEPT_BITS).view(np.float32)


def split_input(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a compensated graph takes: (batch, 3 channels + 2, *spatial)."""
    first = rounded(image)
    ones = np.ones((len(image), 2, *image.shape[2:]), dtype=np.float32)
    return np.concatenate([first, image - first, first, ones], axis=1)


def compensate(graph: openvino.Model) -> openvino.Model | None:
    """The graph with a compensated first layer, taking `split_input` in place of the image.

    Args:
        graph: As exported; it is taken apart where a new one is returned.

    Returns:
        A new graph; None where something else than one plain convolution sees the image, or the
        image is not all that the graph is given.
    """
    from openvino import Model
    from openvino import opset13 as operators
    from openvino.passes import ConstantFolding, Manager

    passes = Manager()
    # Shapes that the exporter wrote as computations, and which also read the image.
    passes.register_pass(ConstantFolding())
    passes.run_passes(graph)
    parameter, *others = graph.get_parameters()
    targets = list(parameter.output(0).get_target_inputs())
    if others or len(targets) != 1:
        return None
    convolution = targets[0].get_node()
    if convolution.get_type_name() != "Convolution":
        return None
    if convolution.input_value(1).get_node().get_type_name() != "Constant":
        return None
    if not _middle_is_inside(convolution):
        return None
    weights, bias, last = _folded(convolution)
    first = rounded(weights)
    shape = list(parameter.get_partial_shape().to_shape())
    shape[1] = 3 * shape[1] + 2
    image = operators.parameter(shape, np.float32, name=INPUT)
    image.output(0).set_names({INPUT})
    settings = convolution.get_attributes()
    result = operators.convolution(
        image,
        operators.constant(
            np.concatenate([first, first, weights - first, _as_weights(bias, weights)], axis=1)
        ),
        settings["strides"],
        settings["pads_begin"],
        settings["pads_end"],
        settings["dilations"],
        settings["auto_pad"],
    )
    last.output(0).replace(result.output(0))
    return Model(graph.get_results(), [image], graph.get_name())


def _folded(
    convolution: openvino.Node,
) -> tuple[NDArray[np.float32], NDArray[np.float32], Any]:
    """Weights and bias with the bias and normalisation that follow, and the last node of these.

    The plugin would fold the normalisation into the weights itself, after they were split, and
    round the first part anew.
    """
    weights = _constant(convolution.input_value(1)).astype(np.float64)
    n_out = weights.shape[0]
    bias = np.zeros(n_out)
    last = convolution
    found = _only_user(last)
    if found is not None and found.get_type_name() == "Add":
        other = next((value for value in found.input_values() if value.get_node() != last), None)
        if other is not None and other.get_node().get_type_name() == "Constant":
            added = _constant(other)
            if added.size == n_out:
                bias, last = bias + added.reshape(-1), found
                found = _only_user(last)
    if found is not None and found.get_type_name() == "BatchNormInference":
        values = [value.get_node() for value in found.input_values()[1:]]
        if all(each.get_type_name() == "Constant" for each in values):
            gamma, beta, mean, variance = (
                _constant(value).astype(np.float64) for value in found.input_values()[1:]
            )
            factor = gamma / np.sqrt(variance + found.get_attributes()["epsilon"])
            weights *= factor.reshape(-1, *([1] * (weights.ndim - 1)))
            bias, last = (bias - mean) * factor + beta, found
    return weights.astype(np.float32), bias.astype(np.float32), last


def _as_weights(bias: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """The bias as weights of two channels of ones.

    In the middle of the kernel, where with the usual padding no output sees the image's border.
    """
    result = np.zeros((len(bias), 2, *weights.shape[2:]), dtype=np.float32)
    middle = tuple(n // 2 for n in weights.shape[2:])
    result[:, 0, *middle] = rounded(bias)
    result[:, 1, *middle] = bias - rounded(bias)
    return result


def _middle_is_inside(convolution: openvino.Node) -> bool:
    """Whether the middle of the kernel lies inside the image for every output."""
    settings = convolution.get_attributes()
    taps = _constant(convolution.input_value(1)).shape[2:]
    given = convolution.input_value(0).get_partial_shape().to_shape()[2:]
    found = convolution.output(0).get_partial_shape().to_shape()[2:]
    if settings["auto_pad"] != "explicit":
        return False
    for axis, n_taps in enumerate(taps):
        first = n_taps // 2 * settings["dilations"][axis] - settings["pads_begin"][axis]
        last = first + (found[axis] - 1) * settings["strides"][axis]
        if first < 0 or last >= given[axis]:
            return False
    return True


def _only_user(node: openvino.Node) -> openvino.Node | None:
    users = list(node.output(0).get_target_inputs())
    return users[0].get_node() if len(users) == 1 else None


def _constant(value: openvino.Output) -> NDArray[Any]:
    return np.array(value.get_node().data)
