"""The ONNX Runtime engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import ModelFileError, RecipeError
from leanseg.inference.engines.openvino_engine import (
    exported_bytes,
    first_part_bytes,
    input_shape,
)
from leanseg.inference.engines.sampled_layers import SampledLayers
from leanseg.inference.engines.threads import shared_out
from leanseg.modelfile import ModelFile
from leanseg.modelfile.graph import INPUT

# What is wrong is said by exceptions; ONNX Runtime would say it twice.
_FATAL_ONLY = 4


class ONNXRuntimeEngine:
    """Runs a model file's exported network with ONNX Runtime on the processor.

    Args:
        model: The model file in memory.
        precision: "f32" or "int8".
        threads: Threads in all; None takes all cores.
        lanes: Inputs side by side; None takes one a thread, four at most.
        allow_imports: Plays no part here: the graph is data.

    Raises:
        RecipeError: If it does not compute in the precision, or the file lacks it.
        ModelFileError: If there is no exported network, or it is damaged or does not fit.
    """

    name = "onnxruntime"
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
        import onnxruntime

        if precision not in ("f32", "int8"):
            msg = (
                f"the onnxruntime engine does not compute in {precision}; choose f32, or "
                "--engine openvino"
            )
            raise RecipeError(msg)
        self.precision = precision
        # A whole volume at once leaves no second input to work on meanwhile.
        whole = model.manifest.plan.volume_shape is not None
        threads, self.lanes = shared_out(threads, 1 if whole else lanes)
        self._layers = SampledLayers(model, threads // self.lanes)
        options = onnxruntime.SessionOptions()
        # Each lane's thread works alone; where there are more threads they are its helpers.
        options.intra_op_num_threads = threads // self.lanes
        options.inter_op_num_threads = 1
        options.log_severity_level = _FATAL_ONLY
        self._n_outputs, self._path = model.manifest.plan.n_outputs, model.path
        self._session = _session(model, exported_bytes(model, precision), options)
        self._inputs = _check_ports(model, self._session, self._layers)
        self._first = None
        if self._layers:
            self._first = _session(model, first_part_bytes(model), options)

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities (batch, output, *spatial) of a batch (batch, channel, *spatial)."""
        parts = [self._run(batch[n : n + 1]) for n in range(len(batch))]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _run(self, one: NDArray[np.float32]) -> NDArray[np.float32]:
        feed: dict[str, Any] = {INPUT: np.ascontiguousarray(one)}
        if self._first is not None:
            feed |= self._layers.results(_results(self._path, self._first, feed))
            feed = {name: feed[name] for name in self._inputs}
        (logits,) = _results(self._path, self._session, feed)
        return sigmoid(logits) if self._n_outputs == 1 else softmax(logits)

    @classmethod
    def precisions(cls, model: ModelFile) -> tuple[str, ...]:
        """The precisions in which it can run the model."""
        has_int8 = model.exported is not None and model.exported.int8 is not None
        return ("f32", "int8") if has_int8 else ("f32",)

    @classmethod
    def version(cls) -> str:
        """The library's version."""
        import onnxruntime

        return str(onnxruntime.__version__)


def _session(model: ModelFile, content: bytes, options: Any) -> Any:
    import onnxruntime

    with _told(model.path):
        # Without falling back to the very same provider, with a banner on standard output.
        return onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"], enable_fallback=0
        )


def _results(path: Path | None, session: Any, feed: dict[str, Any]) -> list[Any]:
    # Weights of a wrong shape are only met when they are multiplied.
    with _told(path):
        return list(session.run(None, feed))


@contextmanager
def _told(path: Path | None) -> Iterator[None]:
    """What ONNX Runtime says of a network, as one sentence."""
    try:
        yield
    # The library's own exceptions have no common base but Exception.
    except Exception as error:
        first = str(error).splitlines()[0]
        msg = (
            f"{path}: its exported network cannot be used ({first}); export the model "
            "again with 'leanseg export', or choose --engine torch"
        )
        raise ModelFileError(msg) from error


def _check_ports(model: ModelFile, session: Any, layers: SampledLayers) -> list[str]:
    """Names of the inputs, if they and the output are what plan and manifest say."""
    found = {port.name: tuple(port.shape) for port in session.get_inputs()}
    given = [tuple(port.shape) for port in session.get_outputs()]
    shape = input_shape(model)
    wanted = {INPUT: shape, **layers.shapes}
    # A network that sees nothing but samples may have no image left.
    fits = all(wanted.get(name) == size for name, size in found.items())
    fits = fits and set(layers.shapes or wanted) <= set(found)
    if not fits or given != [(1, model.manifest.plan.n_outputs, *shape[2:])]:
        msg = (
            f"{model.path}: its exported network takes {found} and gives {given}, which is not "
            "what its plan says; export the model again with 'leanseg export'"
        )
        raise ModelFileError(msg)
    return list(found)


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 / (1 + exp(-x)), in place."""
    with np.errstate(over="ignore"):
        np.exp(np.negative(logits, out=logits), out=logits)
    logits += 1
    return np.divide(1, logits, out=logits)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Over axis 1, in place."""
    logits -= logits.max(axis=1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=1, keepdims=True)
    return logits
