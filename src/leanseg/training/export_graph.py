"""A network as an ONNX graph without its weights."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.export import Dim

from leanseg.errors import LeansegError, require_package
from leanseg.modelfile import Member
from leanseg.modelfile.graph import INPUT, OUTPUT

OPSET = 20
# What a network that is wrapped in a part of it puts before the names of its weights.
_WRAPPED = "network."


class ExportError(LeansegError):
    """A network that cannot be exported, or whose export gives other labels."""


def give_biases(network: nn.Module) -> None:
    """Zeros as the bias of 3-D convolutions without one, in place.

    The exporter gives such a convolution a bias that it computes from the weight's shape, which
    OpenVINO does not take.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv3d) and module.bias is None:
            module.bias = nn.Parameter(torch.zeros(module.out_channels), requires_grad=False)


def export_graph(
    network: nn.Module,
    member: Member,
    shape: Sequence[int],
    further: Mapping[str, Sequence[int]] | None = None,
    outputs: Sequence[str] = (OUTPUT,),
    dynamic: int | None = None,
) -> bytes:
    """A network as an ONNX model without its weights.

    Args:
        network: With the weights of `member`; or a part of that network, as `network`.
        member: What the model file says of it.
        shape: Of the image.
        further: Names and shapes of inputs besides the image; not where `dynamic` is given.
        outputs: Names of what it gives.
        dynamic: Where given, the graph takes images whose last two axes are any multiples of it,
            whatever they are in `shape`.

    Returns:
        The serialised model; every initializer that is a weight of the file is left out.

    Raises:
        ExportError: If PyTorch cannot export it.
        MissingDependencyError: If the exporter's packages are not installed.
    """
    for package in ("onnx", "onnxscript"):
        require_package(package, "exporting a network", "leanseg[train]")
    network = network.eval().requires_grad_(False)
    further = further or {}
    assert not (further and dynamic)  # no network has both
    shapes = None
    if dynamic is not None:
        # Unlike sizes, and not one multiple: the exporter takes an axis of 1 for a constant.
        shape = (*shape[:-2], 2 * dynamic, 3 * dynamic)
        axes = (len(shape) - 2, len(shape) - 1)
        shapes = ({axis: dynamic * Dim(f"blocks{axis}", min=1) for axis in axes},)
    with _quiet():
        try:
            program = torch.onnx.export(
                network,
                tuple(torch.zeros(tuple(each)) for each in (shape, *further.values())),
                dynamic_shapes=shapes,
                dynamo=True,
                optimize=False,
                verbose=False,
                opset_version=OPSET,
                input_names=[INPUT, *further],
                output_names=list(outputs),
            )
        # The exporter wraps whatever goes wrong in a network's code in errors of its own.
        except Exception as error:
            raise cannot_export(member, error) from error
    assert program is not None
    return _bare(program.model_proto, member)


def cannot_export(member: Member, reason: object) -> ExportError:
    """What to say of a network that cannot be exported."""
    first = str(reason).strip().splitlines()[0]
    return ExportError(
        f"{member.path}: network {member.network.name!r} cannot be exported to ONNX "
        f"({first}); predict with --engine torch"
    )


def _bare(proto: Any, member: Member) -> bytes:
    """Without weights, and without what the exporter notes of the machine's files."""
    _unprefix(proto, member)
    kept = [each for each in proto.graph.initializer if not _is_weight(each, member)]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    del proto.graph.value_info[:]
    graphs = [proto.graph, *proto.functions]
    for graph in graphs:
        graph.ClearField("metadata_props")
        for node in graph.node:
            node.ClearField("metadata_props")
            node.doc_string = ""
    for port in (*proto.graph.input, *proto.graph.output):
        port.ClearField("metadata_props")
    proto.ClearField("metadata_props")
    proto.graph.doc_string = proto.doc_string = ""
    return bytes(proto.SerializeToString(deterministic=True))


def _unprefix(proto: Any, member: Member) -> None:
    """Call the weights of a network that was wrapped in a part of it as the network does."""

    def own(name: str) -> str:
        # Networks of other libraries have a wrapper of that name in their weights' names.
        return name if name in member.weights else name.removeprefix(_WRAPPED)

    for each in proto.graph.initializer:
        each.name = own(each.name)
    for node in proto.graph.node:
        node.input[:] = map(own, node.input)


def _is_weight(initializer: Any, member: Member) -> bool:
    from onnx.numpy_helper import to_array

    weight = member.weights.get(initializer.name)
    if weight is None:
        return False
    # The exporter may one day fold one weight into another and keep its name.
    found = to_array(initializer)
    if found.size == weight.size and np.array_equal(found.reshape(-1), weight.reshape(-1)):
        return True
    msg = f"the exporter changed weight {initializer.name!r}, which the graph would then lack"
    raise AssertionError(msg)


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter reports its progress and every optional package that it does without."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
