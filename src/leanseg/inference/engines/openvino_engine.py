"""The OpenVINO engine: the default on processors."""

from __future__ import annotations

import math
from functools import cache
from queue import LifoQueue
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import ModelFileError, RecipeError
from leanseg.inference.engines.compensated import compensate, split_input
from leanseg.inference.engines.quiet import import_openvino
from leanseg.inference.engines.sampled_layers import SampledLayers
from leanseg.inference.engines.threads import shared_out
from leanseg.modelfile import ModelFile, with_weights
from leanseg.modelfile.graph import INPUT
from leanseg.runtime import return_freed_memory

if TYPE_CHECKING:
    import openvino

# What a processor must offer for a precision; float32 is always there.
_CAPABILITIES = {"bf16": "BF16", "f16": "FP16", "int8": "INT8"}
_DEVICE = "CPU"


class OpenVINOEngine:
    """Runs a model file's exported network with OpenVINO on the processor.

    Args:
        model: The model file in memory.
        precision: "f32", "bf16", "f16" or "int8"; the processor must have it.
        threads: Threads in all; None takes all cores.
        lanes: Inputs side by side; None takes one a thread, four at most.
        allow_imports: Plays no part here: the graph is data.

    Raises:
        RecipeError: If the processor does not compute in the precision, or the file lacks it.
        ModelFileError: If there is no exported network, or it is damaged or does not fit.
    """

    name = "openvino"
    slices_per_call = 1
    passes = 1
    note = ""

    def __init__(
        self,
        model: ModelFile,
        precision: str = "f32",
        threads: int | None = None,
        *,
        lanes: int | None = None,
        allow_imports: bool = False,
    ) -> None:
        _settle_bindings()
        self.precision = precision
        # A whole volume at once leaves no second input to work on meanwhile.
        whole = model.manifest.plan.volume_shape is not None
        threads, self.lanes = shared_out(threads, 1 if whole else lanes)
        self._layers = SampledLayers(model, threads // self.lanes)
        graph = _graph(model, precision, self._layers)
        # Where a network samples, samples are a part of what it sees first.
        wanted = precision == "bf16" and not self._layers
        compensated = compensate(graph) if wanted else None
        self._splits = compensated is not None
        graphs = [compensated or graph]
        if self._layers:
            graphs.insert(0, _first_graph(model, len(self._layers)))
        # Where a network samples, and what it reads there, is not to be rounded.
        precisions = ("f32", precision) if self._layers else (precision,)
        compiled = [
            _compiled(graph, model, each, threads, self.lanes)
            for graph, each in zip(graphs, precisions, strict=True)
        ]
        self._compiled = compiled
        self._result_shape = tuple(compiled[-1].output(0).shape)
        self._inputs = {port.any_name for port in compiled[-1].inputs}
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
        feed = {INPUT: split_input(one) if self._splits else np.ascontiguousarray(one)}
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

    def working_bytes(self) -> int:
        """About how much memory a lane takes while it runs; it is kept until `release`."""
        from leanseg.inference.engines.working_memory import compiled_bytes

        between = sum(4 * math.prod(shape) for shape in self._layers.shapes.values())
        return 2 * between + sum(compiled_bytes(each) for each in self._compiled)

    @classmethod
    def precisions(cls, model: ModelFile) -> tuple[str, ...]:
        """The precisions in which this processor can run the model."""
        found = tuple(p for p, name in _CAPABILITIES.items() if name in _capabilities())
        has_int8 = model.exported is not None and model.exported.int8 is not None
        return ("f32", *(p for p in found if p != "int8" or has_int8))

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


def _capabilities() -> list[str]:
    return list(_core().get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES"))


def _graph(model: ModelFile, precision: str, layers: SampledLayers) -> openvino.Model:
    """The exported network up to its probabilities."""
    _check_precision(model, precision)
    graph = _read(model, exported_bytes(model, precision))
    inputs = {port.any_name: tuple(port.shape) for port in graph.inputs}
    wanted = {INPUT: input_shape(model), **layers.shapes}
    if not set(layers.shapes or wanted) <= set(inputs) <= set(wanted) or any(
        wanted[name] != shape for name, shape in inputs.items()
    ):
        raise _damaged(model, f"it takes {inputs}")
    return _with_probabilities(graph, model)


def _first_graph(model: ModelFile, n_layers: int) -> openvino.Model:
    """From the image to what sparse deformable layers read."""
    graph = _read(model, first_part_bytes(model))
    if len(graph.outputs) != n_layers:
        raise _damaged(model, f"its first part gives {len(graph.outputs)} arrays")
    return graph


def _compiled(
    graph: openvino.Model, model: ModelFile, precision: str, threads: int, lanes: int
) -> Any:
    settings = {
        # Quantised layers are what the graph says; the others stay in float32.
        "INFERENCE_PRECISION_HINT": "f32" if precision == "int8" else precision,
        "NUM_STREAMS": lanes,
        "INFERENCE_NUM_THREADS": threads,
        # Several processes on one machine would be pinned to the same cores.
        "ENABLE_CPU_PINNING": False,
    }
    try:
        return _core().compile_model(graph, _DEVICE, settings)
    # Names in a damaged graph may be no text: a UnicodeDecodeError, which is a ValueError.
    except (RuntimeError, ValueError) as error:
        raise _damaged(model, error) from error


@cache
def _core() -> openvino.Core:
    core: openvino.Core = import_openvino().Core()
    return core


def _check_precision(model: ModelFile, precision: str) -> None:
    needed = _CAPABILITIES.get(precision)
    if needed and needed not in _capabilities():
        processor = _core().get_property(_DEVICE, "FULL_DEVICE_NAME")
        msg = (
            f"this processor ({processor}) does not compute "
            f"in {precision}; choose another precision, such as f32 or auto"
        )
        raise RecipeError(msg)


def exported_bytes(model: ModelFile, precision: str) -> bytes:
    """The ONNX model that an engine reads, weights included.

    Raises:
        ModelFileError: If the file holds no exported network.
        RecipeError: If it holds none in this precision.
    """
    if model.exported is None:
        msg = (
            f"{model.path}: holds no exported network; run 'leanseg export {model.path}' where "
            "PyTorch is installed, or choose --engine torch"
        )
        raise ModelFileError(msg)
    if precision == "int8":
        if model.exported.int8 is None:
            msg = (
                f"{model.path}: holds no int8 network; make one with "
                f"'leanseg export {model.path} --int8', or choose another precision"
            )
            raise RecipeError(msg)
        return model.exported.int8
    return with_weights(model.exported.graph, model.weights)


def first_part_bytes(model: ModelFile) -> bytes:
    """The ONNX model from the image to what sparse deformable layers read, weights included.

    Raises:
        ModelFileError: If the file lacks it.
    """
    if model.exported is None or model.exported.sampled is None:
        raise _damaged(model, "it lacks its first part")
    return with_weights(model.exported.sampled, model.weights)


def input_shape(model: ModelFile) -> tuple[int, ...]:
    """(1, channel, *spatial) as the plan says."""
    plan = model.manifest.plan
    return (1, len(plan.channels), *plan.network_shape)


def stored_graphs(model: ModelFile) -> list[openvino.Model]:
    """The exported network as it is stored: one graph, or two around sampled layers.

    Raises:
        ModelFileError: If there is none, or it is damaged.
    """
    parts = [exported_bytes(model, "f32")]
    if model.exported is not None and model.exported.sampled is not None:
        parts.append(first_part_bytes(model))
    return [_read(model, part) for part in parts]


def _read(model: ModelFile, content: bytes) -> openvino.Model:
    try:
        graph = _core().read_model(content)
        # A network that sees nothing but samples has no image left.
        if any(INPUT in port.names for port in graph.inputs):
            graph.reshape({INPUT: list(input_shape(model))})
    # Names in a damaged graph may be no text: a UnicodeDecodeError, which is a ValueError.
    except (RuntimeError, ValueError) as error:
        raise _damaged(model, error) from error
    return graph


def _with_probabilities(graph: openvino.Model, model: ModelFile) -> openvino.Model:
    """Sigmoid or softmax at the end, and the shape that the plan promises."""
    from openvino import Model
    from openvino import opset13 as operators

    outputs = model.manifest.plan.n_outputs
    shape = input_shape(model)
    found = [tuple(port.get_partial_shape().to_shape()) for port in graph.outputs]
    if found != [(1, outputs, *shape[2:])]:
        raise _damaged(model, f"it gives arrays of shape {found}")
    logits = graph.output(0).get_node().input_value(0)
    last = operators.sigmoid(logits) if outputs == 1 else operators.softmax(logits, axis=1)
    return Model([last], graph.get_parameters(), "leanseg")


def _damaged(model: ModelFile, error: object) -> ModelFileError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[-1] if lines else "no reason given"
    return ModelFileError(
        f"{model.path}: its exported network cannot be used ({reason}); export the model again "
        "with 'leanseg export', or choose --engine torch"
    )
