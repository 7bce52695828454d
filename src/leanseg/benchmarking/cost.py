"""What a model file is, before it runs: parameters, bytes, multiply-adds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from leanseg.benchmarking.graph_work import exported_work
from leanseg.errors import LeansegError
from leanseg.inference.engines.base import planned_shape
from leanseg.modelfile import ModelFile, read_model
from leanseg.preprocessing import Plan

_STATISTICS = ("running_mean", "running_var")
_COUNTERS = ("num_batches_tracked",)


@dataclass(frozen=True)
class ModelFacts:
    """Size and work of a model.

    Attributes:
        name: The file's name without its suffix.
        file: Its path.
        network: Name in the registry.
        labels: Number of foreground classes.
        channels: Number of input channels.
        members: Networks whose probabilities are averaged.
        parameters: Weights but running statistics, of all members together.
        keras_total: With the running statistics of normalisation, as papers 000 and 001 count.
        file_bytes: Size of the model file.
        input_shape: What the network sees at once.
        input_kind: "slice", "tile" or "volume".
        multiply_adds: For one input, all members together; None where nothing can count them.
        uncounted: Kinds of operators whose work is not in `multiply_adds`.
    """

    name: str
    file: str
    network: str
    labels: int
    channels: int
    members: int
    parameters: int
    keras_total: int
    file_bytes: int
    input_shape: tuple[int, ...]
    input_kind: str
    multiply_adds: int | None
    uncounted: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def model_facts(path: Path) -> ModelFacts:
    """Read a model file and count.

    Multiply-adds are counted in the exported network; in a file without one, in PyTorch's, if
    that is installed.

    Raises:
        ModelFileError: If the file is missing, damaged or altered.
    """
    model = read_model(path)
    plan, spec = model.plan, model.members[0].network
    statistics = parameters = 0
    for member in model.networks:
        for name, array in member.weights.items():
            kind = name.rpartition(".")[2]
            if kind in _STATISTICS:
                statistics += array.size
            elif kind not in _COUNTERS:
                parameters += array.size
    multiply_adds, uncounted = _work(model)
    return ModelFacts(
        name=path.stem,
        file=str(path),
        network=spec.name,
        labels=len(plan.labels),
        channels=len(plan.channels),
        members=len(model.members),
        parameters=parameters,
        keras_total=parameters + statistics,
        file_bytes=path.stat().st_size,
        input_shape=tuple(plan.network_shape),
        input_kind=_kind(plan),
        multiply_adds=None if multiply_adds is None else multiply_adds * len(model.members),
        uncounted=uncounted,
    )


def _kind(plan: Plan) -> str:
    if not plan.is_3d:
        return "slice"
    return "volume" if plan.tile_shape is None else "tile"


def _work(model: ModelFile) -> tuple[int | None, tuple[str, ...]]:
    """Of one network on one input."""
    plan, spec = model.plan, model.members[0].network
    if model.is_exported and find_spec("openvino") is not None:
        try:
            return exported_work(model.members[0], planned_shape(model))
        except (RuntimeError, LeansegError):
            # An engine will say what is wrong with the graph.
            return None, ()
    if find_spec("torch") is None:
        return None, ()
    from leanseg.networks.measure import network_cost

    try:
        cost = network_cost(
            spec.name,
            plan.network_shape,
            in_channels=spec.in_channels,
            out_channels=spec.out_channels,
            options=spec.options,
        )
    except LeansegError:
        # A network from elsewhere, whose code is not run for a table.
        return None, ()
    return cost.multiply_adds, cost.uncounted
