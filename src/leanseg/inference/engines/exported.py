"""Engines that run the exported network of a model file: what they have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import ModelFileError
from leanseg.inference.engines.base import Engine
from leanseg.inference.engines.sampled_layers import SampledLayers
from leanseg.machine import usable_cores
from leanseg.modelfile import Member, with_weights
from leanseg.modelfile.graph import INPUT

Floats = NDArray[np.float32]
# More inputs side by side than this gain little and take their memory each.
_MOST_LANES = 4


class ExportedEngine(Engine):
    """An engine on the processor that takes one input at a time.

    Args:
        member: The network.
        shape: Shape (batch, channel, *spatial) of its input.
        precision: What it computes in.
        threads: Threads in all; None takes all cores.
        lanes: Inputs side by side; None takes one a thread, four at most.
        varies: Whether inputs may be smaller than `shape` in their spatial axes.
        **_: The device is the processor, and the graph is data that imports nothing.

    Raises:
        ModelFileError: If the weights of a sampling layer are missing.
    """

    device = "cpu"
    batch_size = 1
    passes = 1

    def __init__(
        self,
        member: Member,
        shape: Sequence[int],
        precision: str,
        threads: int | None = None,
        lanes: int | None = None,
        varies: bool = False,
        **_: Any,
    ) -> None:
        self.precision = precision
        self.shape = (1, *shape[1:])
        self.threads, self.lanes = shared_out(threads, lanes)
        self._member = member
        self._layers = SampledLayers(member, self.threads // self.lanes)
        self._result_shape = (1, member.network.out_channels, *shape[2:])
        self._varies = varies

    def run(self, batch: Floats) -> Floats:
        """Probabilities (batch, output, *spatial) of a batch (batch, channel, *spatial)."""
        parts = [self.run_one(np.ascontiguousarray(batch[n : n + 1])) for n in range(len(batch))]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    @abstractmethod
    def run_one(self, one: Floats) -> Floats:
        """Probabilities of a batch of one."""

    def check_ports(
        self, inputs: Mapping[str, Sequence[int]], outputs: Sequence[Sequence[int]]
    ) -> None:
        """Refuse a graph whose inputs and outputs are not what the network promises.

        Args:
            inputs: Names and shapes.
            outputs: Shapes.

        Raises:
            ModelFileError: Naming what the graph has.
        """
        if self._varies:
            # Their sizes are names, or none.
            inputs = {name: (*shape[:2], *self.shape[2:]) for name, shape in inputs.items()}
            outputs = [(*shape[:2], *self.shape[2:]) for shape in outputs]
        wanted = {INPUT: self.shape, **self._layers.shapes}
        # A network that sees nothing but samples may have no image left.
        fits = all(wanted.get(name) == tuple(shape) for name, shape in inputs.items())
        fits = fits and set(self._layers.shapes or wanted) <= set(inputs)
        if not fits or [tuple(shape) for shape in outputs] != [self._result_shape]:
            raise damaged(self._member, f"it takes {dict(inputs)} and gives {list(outputs)}")


def shared_out(threads: int | None, lanes: int | None) -> tuple[int, int]:
    """Threads in all and lanes: whole inputs side by side before several threads to one.

    Threads that share one input wait for one another after every layer; lanes never do.
    """
    in_all = threads or len(usable_cores())
    return in_all, max(1, min(lanes or _MOST_LANES, in_all))


def exported_bytes(member: Member) -> list[bytes]:
    """The ONNX models from the image to the logits, weights included.

    Returns:
        One; or two for a network that samples, the first to what its sparse deformable layers
        read.

    Raises:
        ModelFileError: If the file lacks one.
    """
    exported = member.exported
    if exported is None:
        raise ModelFileError(
            f"{member.path}: holds no exported network; run 'leanseg export {member.path}' where "
            "PyTorch is installed, or choose --engine torch"
        )
    graphs = [exported.graph]
    if exported.record.sampling:
        if exported.sampled is None:
            raise damaged(member, "it lacks its first part")
        graphs.insert(0, exported.sampled)
    return [with_weights(graph, member.weights) for graph in graphs]


def damaged(member: Member, error: object) -> ModelFileError:
    """What to say of an exported network that an engine does not take."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[-1] if lines else "no reason given"
    return ModelFileError(
        f"{member.path}: its exported network cannot be used ({reason}); export the model again "
        "with 'leanseg export', or choose --engine torch"
    )
