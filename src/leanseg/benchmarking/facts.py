"""What a model file is, before it runs: parameters, bytes, multiply-adds."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from leanseg.errors import LeansegError
from leanseg.modelfile import ModelFile, read_model

_STATISTICS = ("running_mean", "running_var")
_COUNTERS = ("num_batches_tracked",)


@dataclass(frozen=True)
class ModelFacts:
    """Size and work of a model.

    Attributes:
        name: The file's name without its suffix.
        file: Its path.
        network: Name in the registry.
        channels: Number of input channels.
        members: Networks whose probabilities are averaged.
        parameters: Weights but running statistics, of all members together.
        keras_total: With the running statistics of normalisation, as papers 000 and 001 count.
        file_bytes: Size of the model file.
        input_shape: What the network sees at once.
        multiply_adds: For one such input, all members together; None without PyTorch, which
            counts them, and for a stack.
    """

    name: str
    file: str
    network: str
    channels: int
    members: int
    parameters: int
    keras_total: int
    file_bytes: int
    input_shape: tuple[int, ...]
    multiply_adds: int | None


def model_facts(path: Path) -> ModelFacts:
    """Read a model file and count.

    Raises:
        ModelFileError: If the file is missing, damaged or altered.
    """
    model = read_model(path)
    statistics = parameters = 0
    for name, array in (pair for each in model.networks for pair in each.weights.items()):
        kind = name.rpartition(".")[2]
        if kind in _STATISTICS:
            statistics += array.size
        elif kind not in _COUNTERS:
            parameters += array.size
    return ModelFacts(
        name=path.stem,
        file=str(path),
        network=model.title,
        channels=len(model.plan.channels),
        members=len(model.members),
        parameters=parameters,
        keras_total=parameters + statistics,
        file_bytes=path.stat().st_size,
        input_shape=model.plan.final.network_shape,
        multiply_adds=_multiply_adds(model),
    )


def _multiply_adds(model: ModelFile) -> int | None:
    # What a stack does for one input of its last network says nothing of the others.
    if find_spec("torch") is None or model.plan.final.inputs:
        return None
    from leanseg.networks.measure import network_cost

    spec = model.members[0].network
    try:
        cost = network_cost(
            spec.name,
            model.plan.final.network_shape,
            in_channels=spec.in_channels,
            out_channels=spec.out_channels,
            options=spec.options,
        )
    except LeansegError:
        # A network from elsewhere, whose code is not run for a table.
        return None
    return cost.multiply_adds and cost.multiply_adds * len(model.members)
