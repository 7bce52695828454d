"""The OpenVINO engine: the default on processors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from queue import LifoQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from leanseg.errors import RecipeError
from leanseg.inference.engines.exported import ExportedEngine, Floats, damaged, exported_bytes
from leanseg.inference.engines.openvino_import import import_openvino
from leanseg.modelfile import Member, NetworkSpec
from leanseg.modelfile.graph import INPUT
from leanseg.runtime import return_freed_memory

if TYPE_CHECKING:
    import openvino

# What a processor must offer for a precision; float32 is always there.
_CAPABILITIES = {"bf16": "BF16", "f16": "FP16"}
_DEVICE = "CPU"
# What the library keeps beside the results of layers, once, measured.
_OWN_BYTES = 12_000_000
# Scratch of rounding, alignment and reordering, as a share of the layers' results.
_OVERHEAD = 1.1
# Where layers sample between two graphs, in scratch of their own, measured.
_OVERHEAD_OF_SAMPLING = 1.3


class OpenVINOEngine(ExportedEngine):
    """Runs an exported network with OpenVINO on the processor.

    Args:
        member: The network.
        shape: Shape (batch, channel, *spatial) of its input; it takes one at a time.
        precision: "f32", "bf16" or "f16"; the processor must have it.
        **others: As for every exported engine.

    Raises:
        RecipeError: If the processor does not compute in the precision.
        ModelFileError: If there is no exported network, or it is damaged or does not fit.
    """

    name = "openvino"

    def __init__(
        self, member: Member, shape: Sequence[int], *, precision: str = "f32", **others: Any
    ) -> None:
        _settle_bindings()
        _check_precision(precision)
        super().__init__(member, shape, precision, **others)
        free = len(self.shape) - 2 if self._varies else 0
        seen = (*self.shape[: len(self.shape) - free], *[-1] * free)
        *first, last = (read_graph(member, each, seen) for each in exported_bytes(member))
        self.check_ports(
            {port.any_name: _lengths(port) for port in last.inputs},
            [_lengths(port) for port in last.outputs],
        )
        if first and len(first[0].outputs) != len(self._layers):
            raise damaged(member, f"its first part gives {len(first[0].outputs)} arrays")
        # Where a network samples, and what it reads there, is not to be rounded.
        self._compiled = [
            *(self._compile(graph, "f32") for graph in first),
            self._compile(_with_probabilities(last, member.network), precision),
        ]
        self._inputs = {port.any_name for port in self._compiled[-1].inputs}
        # Last in, first out: the request whose memory is still in the processor's cache.
        self._requests: LifoQueue[list[Any]] = LifoQueue()
        self._make_requests()

    def _compile(self, graph: openvino.Model, precision: str) -> Any:
        settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "NUM_STREAMS": self.lanes,
            "INFERENCE_NUM_THREADS": self.threads,
            # Several processes on one machine would be pinned to the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        try:
            return _core().compile_model(graph, _DEVICE, settings)
        # Names in a damaged graph may be no text: a UnicodeDecodeError, which is a ValueError.
        except (RuntimeError, ValueError) as error:
            raise damaged(self._member, error) from error

    def run_one(self, one: Floats) -> Floats:
        """Probabilities of a batch of one."""
        requests = self._requests.get()
        try:
            return self._infer(requests, one)
        finally:
            self._requests.put(requests)

    def _infer(self, requests: list[Any], one: Floats) -> Floats:
        feed = {INPUT: one}
        *first, last = requests
        if first:
            first[0].infer(feed, share_inputs=True, share_outputs=True)
            sampled = [first[0].get_output_tensor(n).data for n in range(len(self._layers))]
            feed |= self._layers.results(sampled)
            feed = {name: feed[name] for name in self._inputs}
        # An array of its own for every result: the caller may keep it.
        shape = (*self._result_shape[:2], *one.shape[2:])
        result = np.empty(shape, dtype=np.float32)
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

        compiled = self._compiled
        if self._varies:
            # Only of a fixed size can be told what its layers take.
            (content,) = exported_bytes(self._member)
            graph = read_graph(self._member, content, self.shape)
            compiled = [
                self._compile(_with_probabilities(graph, self._member.network), self.precision)
            ]
        between = sum(4 * math.prod(shape) for shape in self._layers.shapes.values())
        lane = 2 * between + sum(compiled_bytes(each) for each in compiled)
        overhead = _OVERHEAD_OF_SAMPLING if self._layers else _OVERHEAD
        return int(self.lanes * overhead * lane) + _OWN_BYTES

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


def _shared(array: Floats) -> openvino.Tensor:
    from openvino import Tensor

    return Tensor(array, shared_memory=True)


@cache
def _core() -> openvino.Core:
    return import_openvino().Core()


def precisions() -> tuple[str, ...]:
    """The precisions in which this processor computes."""
    offered = _core().get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")
    return ("f32", *(p for p, name in _CAPABILITIES.items() if name in offered))


def _check_precision(precision: str) -> None:
    if precision not in precisions():
        processor = _core().get_property(_DEVICE, "FULL_DEVICE_NAME")
        raise RecipeError(
            f"this processor ({processor}) does not compute in {precision}; choose another "
            f"precision: {' or '.join(precisions())}"
        )


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


def _lengths(port: Any) -> tuple[int, ...]:
    """Of a port's axes; -1 where any fits."""
    return tuple(-1 if each.is_dynamic else each.get_length() for each in port.partial_shape)


def _with_probabilities(graph: openvino.Model, network: NetworkSpec) -> openvino.Model:
    """Sigmoid or softmax at the end, where the network's logits are not wanted."""
    from openvino import Model
    from openvino import opset13 as operators

    if network.activation == "none":
        return graph
    logits = graph.output(0).get_node().input_value(0)
    last = operators.sigmoid(logits) if network.is_sigmoid else operators.softmax(logits, axis=1)
    return Model([last], graph.get_parameters(), "leanseg")
