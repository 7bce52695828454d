"""How much memory a network takes while it runs, told before it has run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from leanseg.inference.engines.exported import exported_bytes
from leanseg.inference.engines.openvino_engine import read_graph
from leanseg.modelfile import Member

_BYTES = {"f32": 4, "bf16": 2, "f16": 2, "i32": 4, "i64": 8}
_SMALLEST = 1


def compiled_bytes(compiled: Any) -> int:
    """Memory for the results of layers that are needed at the same time, for one request.

    Computed from the layers as OpenVINO has fused and ordered them. What the request really takes
    is that and a few MB of the libraries' own.

    Args:
        compiled: An `openvino.CompiledModel` with static shapes.
    """
    layers = compiled.get_runtime_model().get_ordered_ops()
    results = []
    for layer in layers:
        info = layer.get_rt_info()
        kind = info["outputPrecisions"].astype(str).split(",")[0].lower()
        is_weight = info["layerType"].astype(str) == "Const"
        results.append(0 if is_weight else _BYTES.get(kind, _SMALLEST))
    return _most_at_once(layers, results)


def stored_bytes(member: Member, shape: tuple[int, ...]) -> int:
    """The same for an exported network as it is stored, in float32 and with no layers fused.

    Raises:
        ModelFileError: If there is no exported network, or it is damaged.
    """
    from openvino.passes import ConstantFolding, Manager

    total = 0
    for part in exported_bytes(member):
        graph = read_graph(member, part, shape)
        # What follows from shapes alone, as the places that a mirrored boundary takes, has none
        # itself before it is computed.
        manager = Manager()
        manager.register_pass(ConstantFolding())
        manager.run_passes(graph)
        layers = graph.get_ordered_ops()
        per_value = [0 if layer.get_type_name() == "Constant" else 4 for layer in layers]
        total += _most_at_once(layers, per_value)
    return total


def _most_at_once(layers: Sequence[Any], bytes_per_value: Sequence[int]) -> int:
    """Largest sum of the results that are needed at the same time, in the order of the layers."""
    place = {layer.get_friendly_name(): n for n, layer in enumerate(layers)}
    change = np.zeros(len(layers) + 1, dtype=np.int64)
    for number, (layer, per_value) in enumerate(zip(layers, bytes_per_value, strict=True)):
        for port in layer.outputs() if per_value else ():
            users = (user.get_node().get_friendly_name() for user in port.get_target_inputs())
            last = max((place[user] for user in users), default=number)
            n_bytes = per_value * math.prod(port.get_partial_shape().to_shape())
            change[number] += n_bytes
            change[last + 1] -= n_bytes
    return int(np.cumsum(change).max())
