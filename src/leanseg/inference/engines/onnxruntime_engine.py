"""The ONNX Runtime engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from leanseg.errors import ModelFileError, RecipeError
from leanseg.inference.engines.activation import sigmoid, softmax
from leanseg.inference.engines.exported import ExportedEngine, Floats, damaged, exported_bytes
from leanseg.modelfile import Member
from leanseg.modelfile.graph import INPUT

# What is wrong is said by exceptions; ONNX Runtime would say it twice.
_FATAL_ONLY = 4
# What the library keeps beside the results of layers, once, measured.
_OWN_BYTES = 40_000_000
# It fuses fewer layers than OpenVINO and keeps what it frees.
_OVERHEAD = 2.2


class ONNXRuntimeEngine(ExportedEngine):
    """Runs an exported network with ONNX Runtime on the processor.

    Args:
        member: The network.
        shape: Shape (batch, channel, *spatial) of its input; it takes one at a time.
        precision: "f32".
        **others: As for every exported engine.

    Raises:
        RecipeError: If it does not compute in the precision.
        ModelFileError: If there is no exported network, or it is damaged or does not fit.
    """

    name = "onnxruntime"

    def __init__(
        self, member: Member, shape: Sequence[int], *, precision: str = "f32", **others: Any
    ) -> None:
        import onnxruntime

        if precision != "f32":
            raise RecipeError(
                f"the onnxruntime engine does not compute in {precision}; choose f32, or "
                "--engine openvino"
            )
        super().__init__(member, shape, precision, **others)
        options = onnxruntime.SessionOptions()
        # Each lane's thread works alone; where there are more threads they are its helpers.
        options.intra_op_num_threads = self.threads // self.lanes
        options.inter_op_num_threads = 1
        # With a pattern it takes, at the second run, one block for all results besides what it
        # holds from the first: up to twice the memory, and no faster.
        options.enable_mem_pattern = False
        options.log_severity_level = _FATAL_ONLY
        sessions = [_session(member, content, options) for content in exported_bytes(member)]
        *self._first, self._last = sessions
        self.check_ports(
            {port.name: tuple(port.shape) for port in self._last.get_inputs()},
            [tuple(port.shape) for port in self._last.get_outputs()],
        )

    def run_one(self, one: Floats) -> Floats:
        """Probabilities of a batch of one."""
        feed: dict[str, Any] = {INPUT: one}
        # Weights of a wrong shape are only met when they are multiplied.
        with _errors_of(self._member):
            for first in self._first:
                feed |= self._layers.results(first.run(None, feed))
                feed = {port.name: feed[port.name] for port in self._last.get_inputs()}
            (logits,) = self._last.run(None, feed)
        if self._member.network.activation == "none":
            return logits
        return sigmoid(logits) if self._member.network.is_sigmoid else softmax(logits)

    def memory_bytes(self) -> int:
        """From the layers as they are stored: the results that are needed at the same time."""
        from leanseg.inference.engines.working_memory import stored_bytes

        return int(self.lanes * _OVERHEAD * stored_bytes(self._member, self.shape)) + _OWN_BYTES

    def release(self) -> None:
        """Nothing: ONNX Runtime keeps what it once took."""


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
