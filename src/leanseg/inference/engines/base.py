"""What every engine offers, and the registry of engines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import MissingDependencyError, ModelFileError, RecipeError
from leanseg.modelfile import ModelFile

Precision = Literal["auto", "f32", "bf16", "f16", "int8"]
# What networks store: floating point weights, counters and masks.
_WEIGHT_TYPES = frozenset({"float32", "float16", "int64", "int32", "int8", "uint8", "bool"})
PRECISIONS: tuple[str, ...] = ("auto", "f32", "bf16", "f16", "int8")


class Engine(Protocol):
    """Runs one network; everything around it belongs to the predictor.

    Attributes:
        name: As in the registry.
        precision: What it computes in, never "auto".
        lanes: How many threads may call `run` at the same time with profit.
        slices_per_call: The batch that `run` handles best.
        passes: How often the network runs for one input (ensembles, test-time augmentation).
        note: Why precision "auto" became what it is; empty where it was given.
    """

    name: str
    precision: str
    lanes: int
    slices_per_call: int
    passes: int
    note: str

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Class probabilities of a batch; may be called from several threads.

        Args:
            batch: Network input (batch, channel, *spatial), float32.

        Returns:
            Probabilities (batch, output, *spatial), float32: a sigmoid for one output, a
            softmax over several. The caller may keep and change the array.
        """


@dataclass(frozen=True)
class EngineEntry:
    """One engine of the registry.

    Attributes:
        home: "module:class", imported only when the engine is asked for. The class takes
            (model: ModelFile, precision: str, threads: int | None, *, lanes: int | None,
            allow_imports: bool).
        package: The top-level package that it needs.
        install: What to give pip where the package is missing.
        needs_export: Whether it runs the exported network rather than the registry's.
    """

    home: str
    package: str
    install: str
    needs_export: bool

    @property
    def is_installed(self) -> bool:
        """Whether the package is there; it is not imported for that."""
        return find_spec(self.package) is not None


# In the order in which "auto" tries them.
ENGINES: dict[str, EngineEntry] = {
    "openvino": EngineEntry(
        "leanseg.inference.engines.openvino_engine:OpenVINOEngine", "openvino", "openvino", True
    ),
    "onnxruntime": EngineEntry(
        "leanseg.inference.engines.onnxruntime_engine:ONNXRuntimeEngine",
        "onnxruntime",
        "leanseg[onnx]",
        True,
    ),
    "torch": EngineEntry(
        "leanseg.inference.engines.torch_engine:TorchEngine", "torch", "leanseg[train]", False
    ),
}


def engine_factory(name: str) -> Any:
    """The class of an engine.

    Raises:
        MissingDependencyError: If the package that it needs is not installed.
    """
    entry = ENGINES[name]
    if not entry.is_installed:
        msg = (
            f"the {name} engine needs the package {entry.package}, which is not installed; "
            f"install it with: pip install '{entry.install}'"
        )
        raise MissingDependencyError(msg)
    home, _, attribute = entry.home.partition(":")
    return getattr(import_module(home), attribute)


def check_names(name: str, precision: str) -> None:
    """Refuse an engine or precision that does not exist.

    Raises:
        RecipeError: Naming those that do.
    """
    if name != "auto" and name not in ENGINES:
        msg = f"engine {name!r} is not known; choose one of: auto, {', '.join(ENGINES)}"
        raise RecipeError(msg)
    if precision not in PRECISIONS:
        msg = f"precision {precision!r} is not known; choose one of: {', '.join(PRECISIONS)}"
        raise RecipeError(msg)


def check_weights(model: ModelFile) -> None:
    """Refuse weights that no engine can compute with.

    With NaN among them every probability is NaN, which is above no threshold: the label map
    would be empty, and look as if there were nothing to find. Empty arrays end the process inside
    an engine's library.

    Raises:
        ModelFileError: Naming the array.
    """
    for name, array in model.weights.items():
        if array.size == 0 or array.dtype.name not in _WEIGHT_TYPES:
            found = f"type {array.dtype}, shape {array.shape}"
        # The extremes of an array with NaN are NaN: no mask of its size is made.
        elif array.dtype.kind == "f" and not np.isfinite([array.min(), array.max()]).all():
            found = "NaN or infinity is among them: the training diverged"
        else:
            continue
        msg = f"{model.path}: its weights {name!r} cannot be used ({found}); use another model"
        raise ModelFileError(msg)


def check_reference(model: ModelFile) -> None:
    """Refuse a reference input that is not what the network takes.

    Raises:
        ModelFileError: Naming its shape.
    """
    plan = model.manifest.plan
    reference = None if model.exported is None else model.exported.reference
    wanted = (len(plan.channels), *plan.network_shape)
    if reference is not None and reference.shape[1:] != wanted:
        msg = (
            f"{model.path}: its reference input of shape {reference.shape} does not fit its plan; "
            "export the model again with 'leanseg export'"
        )
        raise ModelFileError(msg)


def choose_engine(model: ModelFile) -> str:
    """The first engine of the registry that is installed and can run the model.

    Raises:
        MissingDependencyError: If there is none.
    """
    for name, entry in ENGINES.items():
        if entry.is_installed and (model.exported is not None or not entry.needs_export):
            return name
    if model.exported is None:
        msg = (
            f"{model.path}: holds no exported network, so that PyTorch alone can run it; install "
            "it with: pip install 'leanseg[train]', or have the model's maker run: leanseg export"
        )
        raise MissingDependencyError(msg)
    msg = "no engine is installed; install one with: pip install openvino"
    raise MissingDependencyError(msg)


def make_engine(
    model: ModelFile,
    name: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    *,
    lanes: int | None = None,
    allow_imports: bool = False,
) -> Engine:
    """Build the engine that runs a model.

    Args:
        model: The model file in memory.
        name: A registered engine, or "auto" for the best that is installed.
        precision: One of `PRECISIONS`; "auto" is decided by a short measurement.
        threads: Number of threads in all; None leaves the engine's own choice.
        lanes: How many inputs are worked on side by side, with threads / lanes threads each;
            None leaves the engine's own choice. Fewer take less memory.
        allow_imports: Whether the file may name a network by an import path.

    Raises:
        RecipeError: If the engine or precision is not known, or they do not go together.
        MissingDependencyError: If the engine's library is not installed.
        ModelFileError: If the exported network is damaged or does not fit its weights.
    """
    check_names(name, precision)
    check_weights(model)
    check_reference(model)
    name = choose_engine(model) if name == "auto" else name
    factory = engine_factory(name)
    options: dict[str, Any] = {"lanes": lanes, "allow_imports": allow_imports}
    first, *others = model.members()
    note = ""
    if precision == "auto":
        from leanseg.inference.engines.choice import choose_precision

        choice = choose_precision(first, name, factory, threads, options)
        precision, note = choice.precision, choice.why
    engines: Sequence[Engine] = [
        factory(member, precision, threads, **options) for member in (first, *others)
    ]
    for engine in engines:
        engine.note = note
    if len(engines) == 1:
        return engines[0]
    from leanseg.inference.engines.ensemble import EnsembleEngine

    # Activations of a whole volume are hundreds of megabytes.
    return EnsembleEngine(engines, frugal=model.manifest.plan.volume_shape is not None)
