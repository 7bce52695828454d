"""What the predictor asks of an engine, and the registry of engines."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import RecipeError
from leanseg.modelfile import ModelFile

Precision = Literal["auto", "f32", "bf16"]
PRECISIONS: tuple[str, ...] = ("auto", "f32", "bf16")


class Engine(Protocol):
    """Runs one network; everything around it belongs to the predictor."""

    name: str
    precision: str

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Class probabilities of a batch.

        Args:
            batch: Network input (batch, channel, *spatial), float32.

        Returns:
            Probabilities (batch, output, *spatial), float32: a sigmoid for one output, a
            softmax over several.
        """


# Name -> "module:class", imported only when the engine is asked for. A class takes
# (model: ModelFile, precision: str, threads: int | None, *, allow_imports: bool).
ENGINES: dict[str, str] = {
    "torch": "leanseg.inference.engines.torch_engine:TorchEngine",
}


def make_engine(
    model: ModelFile,
    name: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    *,
    allow_imports: bool = False,
) -> Engine:
    """Build the engine that runs a model.

    Args:
        model: The model file in memory.
        name: A registered engine, or "auto" for the best that is installed.
        precision: "f32", "bf16", or "auto": decided by a short measurement.
        threads: Number of threads; None leaves the engine's own choice.
        allow_imports: Whether the file may name a network by an import path.

    Raises:
        RecipeError: If the engine or precision is not known.
        MissingDependencyError: If the engine's library is not installed.
    """
    if name != "auto" and name not in ENGINES:
        msg = f"engine {name!r} is not known; choose one of: auto, {', '.join(ENGINES)}"
        raise RecipeError(msg)
    if precision not in PRECISIONS:
        msg = f"precision {precision!r} is not known; choose one of: {', '.join(PRECISIONS)}"
        raise RecipeError(msg)
    home, _, attribute = ENGINES["torch" if name == "auto" else name].partition(":")
    factory: Any = getattr(import_module(home), attribute)
    engines: list[Engine] = [
        factory(member, precision, threads, allow_imports=allow_imports)
        for member in model.members()
    ]
    if len(engines) == 1:
        return engines[0]
    from leanseg.inference.engines.ensemble import EnsembleEngine

    return EnsembleEngine(engines)
