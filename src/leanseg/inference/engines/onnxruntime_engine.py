"""The ONNX Runtime engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import ModelFileError, RecipeError
from leanseg.inference.engines.exported import (
    damaged,
    exported_bytes,
    first_part_bytes,
)
from leanseg.inference.engines.sampled_layers import SampledLayers
from leanseg.inference.engines.threads import shared_out
from leanseg.modelfile import Member
from leanseg.modelfile.graph import INPUT

if TYPE_CHECKING:
    from leanseg.inference.engines.base import Engine

# What is wrong is said by exceptions; ONNX Runtime would say it twice.
_FATAL_ONLY = 4
# What the library keeps beside the results of layers, once, measured.
_OWN_BYTES = 40_000_000
# It fuses fewer layers than OpenVINO and keeps what it frees.
_OVERHEAD = 2.2


class ONNXRuntimeEngine:
    """Runs an exported network with ONNX Runtime on the processor.

    Args:
        member: The network.
        shape: Shape (batch, channel, *spatial) of its input; it takes one at a time.
        precision: "f32".
        device: "cpu".
        threads: Threads in all; None takes all cores.
        lanes: Inputs side by side; None takes one a thread, four at most.
        allow_imports: Plays no part here: the graph is data.

    Raises:
        RecipeError: If it does not compute in the precision.
        ModelFileError: If there is no exported network, or it is damaged or does not fit.
    """

    name = "onnxruntime"
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
        import onnxruntime

        if precision != "f32":
            msg = (
                f"the onnxruntime engine does not compute in {precision}; choose f32, or "
                "--engine openvino"
            )
            raise RecipeError(msg)
        self.precision, self.device = precision, device
        self.shape = (1, *shape[1:])
        threads, self.lanes = shared_out(threads, lanes)
        self._layers = SampledLayers(member, threads // self.lanes)
        options = onnxruntime.SessionOptions()
        # Each lane's thread works alone; where there are more threads they are its helpers.
        options.intra_op_num_threads = threads // self.lanes
        options.inter_op_num_threads = 1
        options.log_severity_level = _FATAL_ONLY
        self._member, self._n_outputs = member, member.network.out_channels
        self._session = _session(member, exported_bytes(member), options)
        self._check_ports()
        self._first = None
        if self._layers:
            self._first = _session(member, first_part_bytes(member), options)

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities (batch, output, *spatial) of a batch (batch, channel, *spatial)."""
        parts = [self._run(batch[n : n + 1]) for n in range(len(batch))]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _run(self, one: NDArray[np.float32]) -> NDArray[np.float32]:
        feed: dict[str, Any] = {INPUT: np.ascontiguousarray(one)}
        # Weights of a wrong shape are only met when they are multiplied.
        with _errors_of(self._member):
            if self._first is not None:
                feed |= self._layers.results(self._first.run(None, feed))
                feed = {port.name: feed[port.name] for port in self._session.get_inputs()}
            (logits,) = self._session.run(None, feed)
        return sigmoid(logits) if self._n_outputs == 1 else softmax(logits)

    def memory_bytes(self) -> int:
        """From the layers as they are stored: the results that are needed at the same time."""
        from leanseg.inference.engines.working_memory import stored_bytes

        return int(self.lanes * _OVERHEAD * stored_bytes(self._member, self.shape)) + _OWN_BYTES

    def release(self) -> None:
        """Nothing: ONNX Runtime keeps what it once took."""

    def scout(self) -> Engine:
        """Itself."""
        return self

    def _check_ports(self) -> None:
        """Refuse a graph whose inputs and output are not what the network promises."""
        found = {port.name: tuple(port.shape) for port in self._session.get_inputs()}
        given = [tuple(port.shape) for port in self._session.get_outputs()]
        wanted = {INPUT: self.shape, **self._layers.shapes}
        # A network that sees nothing but samples may have no image left.
        fits = all(wanted.get(name) == size for name, size in found.items())
        fits = fits and set(self._layers.shapes or wanted) <= set(found)
        if not fits or given != [(1, self._n_outputs, *self.shape[2:])]:
            raise damaged(self._member, f"it takes {found} and gives {given}")


def _session(member: Member, content: bytes, options: Any) -> Any:
    import onnxruntime

    with _errors_of(member):
        # Without falling back to the very same provider, with a banner on standard output.
        return onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"], enable_fallback=0
        )


@contextmanager
def _errors_of(member: Member) -> Iterator[None]:
    """What ONNX Runtime says of a network, as one sentence."""
    try:
        yield
    except ModelFileError:
        raise
    # The library's own exceptions have no common base but Exception.
    except Exception as error:
        raise damaged(member, str(error).splitlines()[0]) from error


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
