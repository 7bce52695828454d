"""The OpenVINO engine: the default on processors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from queue import LifoQueue
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import RecipeError
from leanseg.inference.engines.exported import (
    damaged,
    exported_bytes,
    first_part_bytes,
)
from leanseg.inference.engines.openvino_import import import_openvino
from leanseg.inference.engines.sampled_layers import SampledLayers
from leanseg.inference.engines.threads import shared_out
from leanseg.modelfile import Member
from leanseg.modelfile.graph import INPUT
from leanseg.runtime import return_freed_memory

if TYPE_CHECKING:
    import openvino

    from leanseg.inference.engines.base import Engine

# What a processor must offer for a precision; float32 is always there.
_CAPABILITIES = {"bf16": "BF16", "f16": "FP16"}
_DEVICE = "CPU"
# What the library keeps beside the results of layers, once, measured.
_OWN_BYTES = 12_000_000
# Scratch of rounding, alignment and reordering, as a share of the layers' results.
_OVERHEAD = 1.1
# Where layers sample between two graphs, in scratch of their own, measured.
_OVERHEAD_OF_SAMPLING = 1.3


class OpenVINOEngine:
    """Runs an exported network with OpenVINO on the processor.

    Args:
        member: The network.
        shape: Shape (batch, channel, *spatial) of its input; it takes one at a time.
        precision: "f32", "bf16" or "f16"; the processor must have it.
        device: "cpu".
        threads: Threads in all; None takes all cores.
        lanes: Inputs side by side; None takes one a thread, four at most.
        allow_imports: Plays no part here: the graph is data.

    Raises:
        RecipeError: If the processor does not compute in the precision.
        ModelFileError: If there is no exported network, or it is damaged or does not fit.
    """

    name = "openvino"
    batch_size = 1
    passes = 1

    def __init__(
        self,
        member: Member,
        shape: Sequence[int],
        *,
        precision: str = "f32",
        device: str = "cpu",
        threads: int | None = None,
        lanes: int | None = None,
        allow_imports: bool = False,
    ) -> None:
        _settle_bindings()
        _check_precision(precision)
        self.precision, self.device = precision, device
        self.shape = (1, *shape[1:])
        threads, self.lanes = shared_out(threads, lanes)
        self._layers = SampledLayers(member, threads // self.lanes)
        graphs = [_graph(member, self.shape, self._layers)]
        precisions = [precision]
        if self._layers:
            graphs.insert(0, _first_graph(member, self.shape, len(self._layers)))
            # Where a network samples, and what it reads there, is not to be rounded.
            precisions.insert(0, "f32")
        self._compiled = [
            _compiled(graph, member, each, threads, self.lanes)
            for graph, each in zip(graphs, precisions, strict=True)
        ]
        last = self._compiled[-1]
        self._result_shape = tuple(last.output(0).shape)
        self._inputs = {port.any_name for port in last.inputs}
        # Last in, first out: the request whose memory is still in the processor's cache.
        self._requests: LifoQueue[list[Any]] = LifoQueue()
        self._make_requests()

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities (batch, output, *spatial) of a batch (batch, channel, *spatial)."""
        requests = self._requests.get()
        try:
            parts = [self._run(requests, batch[n : n + 1]) for n in range(len(batch))]
        finally:
            self._requests.put(requests)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _run(self, requests: list[Any], one: NDArray[np.float32]) -> NDArray[np.float32]:
        feed = {INPUT: np.ascontiguousarray(one)}
        *first, last = requests
        if first:
            first[0].infer(feed, share_inputs=True, share_outputs=True)
            sampled = [first[0].get_output_tensor(n).data for n in range(len(self._layers))]
            feed |= self._layers.results(sampled)
            feed = {name: feed[name] for name in self._inputs}
        # An array of its own for every result: the caller may keep it.
        result = np.empty(self._result_shape, dtype=np.float32)
        last.set_output_tensor(0, _shared(result))
        last.infer(feed, share_inputs=True, share_outputs=True)
        return result

    def release(self) -> None:
        """Give back the memory of the activations until the next run; none may be under way."""
        # A request holds on to what it was last given and gave.
        while not self._requests.empty():
            self._requests.get()
        for compiled in self._compiled:
            compiled.release_memory()
        return_freed_memory()
        self._make_requests()

    def _make_requests(self) -> None:
        for _ in range(self.lanes):
            self._requests.put([each.create_infer_request() for each in self._compiled])

    def memory_bytes(self) -> int:
        """From the compiled layers: the results that are needed at the same time."""
        from leanseg.inference.engines.working_memory import compiled_bytes

        between = sum(4 * math.prod(shape) for shape in self._layers.shapes.values())
        lane = 2 * between + sum(compiled_bytes(each) for each in self._compiled)
        overhead = _OVERHEAD_OF_SAMPLING if self._layers else _OVERHEAD
        return int(self.lanes * overhead * lane) + _OWN_BYTES

    def scout(self) -> Engine:
        """Itself."""
        return self

    @classmethod
    def version(cls) -> str:
        """The library's version."""
        return str(import_openvino().get_version())


def _settle_bindings() -> None:
    """Let OpenVINO's bindings look up numpy once, in this thread.

    They do so at the first array that they are given; where two threads give them their first at
    the same time, each waits for the other for ever.
    """
    import_openvino().Tensor(np.zeros(1, dtype=np.float32), shared_memory=True)


def _shared(array: NDArray[np.float32]) -> openvino.Tensor:
    from openvino import Tensor

    return Tensor(array, shared_memory=True)


@cache
def _core() -> openvino.Core:
    core: openvino.Core = import_openvino().Core()
    return core


def precisions() -> tuple[str, ...]:
    """The precisions in which this processor computes."""
    offered = _core().get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")
    return ("f32", *(p for p, name in _CAPABILITIES.items() if name in offered))


def _check_precision(precision: str) -> None:
    if precision not in precisions():
        processor = _core().get_property(_DEVICE, "FULL_DEVICE_NAME")
        msg = (
            f"this processor ({processor}) does not compute in {precision}; choose another "
            f"precision: {' or '.join(precisions())}"
        )
        raise RecipeError(msg)


def _graph(member: Member, shape: tuple[int, ...], layers: SampledLayers) -> openvino.Model:
    """The exported network up to its probabilities."""
    graph = read_graph(member, exported_bytes(member), shape)
    inputs = {port.any_name: tuple(port.shape) for port in graph.inputs}
    wanted = {INPUT: shape, **layers.shapes}
    if not set(layers.shapes or wanted) <= set(inputs) <= set(wanted) or any(
        wanted[name] != found for name, found in inputs.items()
    ):
        raise damaged(member, f"it takes {inputs}")
    return _with_probabilities(graph, member, shape)


def _first_graph(member: Member, shape: tuple[int, ...], n_layers: int) -> openvino.Model:
    """From the image to what sparse deformable layers read."""
    graph = read_graph(member, first_part_bytes(member), shape)
    if len(graph.outputs) != n_layers:
        raise damaged(member, f"its first part gives {len(graph.outputs)} arrays")
    return graph


def _compiled(
    graph: openvino.Model, member: Member, precision: str, threads: int, lanes: int
) -> Any:
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "NUM_STREAMS": lanes,
        "INFERENCE_NUM_THREADS": threads,
        # Several processes on one machine would be pinned to the same cores.
        "ENABLE_CPU_PINNING": False,
    }
    try:
        return _core().compile_model(graph, _DEVICE, settings)
    # Names in a damaged graph may be no text: a UnicodeDecodeError, which is a ValueError.
    except (RuntimeError, ValueError) as error:
        raise damaged(member, error) from error


def read_graph(member: Member, content: bytes, shape: tuple[int, ...]) -> openvino.Model:
    """A serialised graph of the model, for an input of this shape.

    Raises:
        ModelFileError: If it is damaged, or takes no such input.
    """
    try:
        graph = _core().read_model(content)
        # A network that sees nothing but samples has no image left.
        if any(INPUT in port.names for port in graph.inputs):
            graph.reshape({INPUT: list(shape)})
    # Names in a damaged graph may be no text: a UnicodeDecodeError, which is a ValueError.
    except (RuntimeError, ValueError) as error:
        raise damaged(member, error) from error
    return graph


def _with_probabilities(
    graph: openvino.Model, member: Member, shape: tuple[int, ...]
) -> openvino.Model:
    """Sigmoid or softmax at the end, and the shape that the network promises."""
    from openvino import Model
    from openvino import opset13 as operators

    outputs = member.network.out_channels
    found = [tuple(port.get_partial_shape().to_shape()) for port in graph.outputs]
    if found != [(1, outputs, *shape[2:])]:
        raise damaged(member, f"it gives arrays of shape {found}")
    logits = graph.output(0).get_node().input_value(0)
    last = operators.sigmoid(logits) if outputs == 1 else operators.softmax(logits, axis=1)
    return Model([last], graph.get_parameters(), "leanseg")
