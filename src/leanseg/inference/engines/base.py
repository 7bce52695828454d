"""What every engine offers, and the registry of engines."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pkgutil import resolve_name
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import MissingDependencyError, ModelFileError, RecipeError, require_package
from leanseg.modelfile import Member, ModelFile

PRECISIONS: tuple[str, ...] = ("f32", "bf16", "f16")
# What networks store: floating point weights, counters and masks.
_WEIGHT_TYPES = frozenset({"float32", "float16", "int64", "int32", "int8", "uint8", "bool"})
_DEVICE = re.compile(r"cpu|mps|cuda(:\d+)?")


class Engine(Protocol):
    """Runs one network; everything around it belongs to the pipeline.

    Attributes:
        name: As in the registry.
        precision: What it computes in, one of `PRECISIONS`.
        device: "cpu", "cuda", "cuda:1" or "mps".
        lanes: How many threads may call `run` at the same time with profit.
        batch_size: The number of inputs that one call of `run` handles best.
        passes: How often the network runs for one input (ensembles, test-time augmentation).
        shape: Shape of its input, (batch_size, channel, *spatial).
    """

    name: str
    precision: str
    device: str
    lanes: int
    batch_size: int
    passes: int
    shape: tuple[int, ...]

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Class probabilities of a batch; may be called from several threads.

        Args:
            batch: Network input (batch, channel, *spatial), float32; any number of inputs.

        Returns:
            Probabilities (batch, output, *spatial), float32: a sigmoid for one output and for
            regions, else a softmax over all. The caller may keep and change the array.
        """

    def memory_bytes(self) -> int:
        """Memory of this process that the network takes at work in all lanes together.

        It is told before the first run. Engines keep that memory from the first run on, until
        `release`.
        """

    def release(self) -> None:
        """Give back the working memory until the next run; none may be under way."""

    def scout(self) -> Engine:
        """An engine for a first look: one network, one pass."""
        return self


@dataclass(frozen=True)
class EngineEntry:
    """One engine of the registry.

    Attributes:
        home: "module:factory", imported only when the engine is asked for. It takes
            (member: Member, shape, *, precision, device, threads, lanes, varies, allow_imports); a
            batch of 0 in the shape leaves its size to the engine.
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


# In the order in which "auto" tries them on the processor.
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
        "leanseg.inference.engines.torch_engine:TorchEngine.of_member",
        "torch",
        "leanseg[train]",
        False,
    ),
}
# The one engine that runs on other devices than the processor.
_GPU_ENGINE = "torch"


def check_names(name: str, precision: str, device: str = "cpu") -> None:
    """Refuse an engine, precision or device that does not exist, or that do not go together.

    Raises:
        RecipeError: Naming what there is.
    """
    if name != "auto" and name not in ENGINES:
        msg = f"engine {name!r} is not known; choose one of: auto, {', '.join(ENGINES)}"
        raise RecipeError(msg)
    if precision not in PRECISIONS:
        msg = f"precision {precision!r} is not known; choose one of: {', '.join(PRECISIONS)}"
        raise RecipeError(msg)
    if not _DEVICE.fullmatch(device):
        msg = f"device {device!r} is not known; choose cpu, cuda, cuda:1 (or another number) or mps"
        raise RecipeError(msg)
    if device != "cpu" and name not in ("auto", _GPU_ENGINE):
        raise RecipeError(
            f"the {name} engine runs only on the processor, not on device {device!r}; choose "
            f"--engine {_GPU_ENGINE}, or --device cpu"
        )


def check_weights(member: Member) -> None:
    """Refuse weights that no engine can compute with.

    With NaN among them every probability is NaN, which is above no threshold: the label map
    would be empty, and look as if there were nothing to find. Empty arrays end the process inside
    an engine's library.

    Raises:
        ModelFileError: Naming the array.
    """
    for name, array in member.weights.items():
        if array.size == 0 or array.dtype.name not in _WEIGHT_TYPES:
            found = f"type {array.dtype}, shape {array.shape}"
        # The extremes of an array with NaN are NaN: no mask of its size is made.
        elif array.dtype.kind == "f" and not np.isfinite([array.min(), array.max()]).all():
            found = "NaN or infinity is among them: the training diverged"
        else:
            continue
        msg = f"{member.path}: its weights {name!r} cannot be used ({found}); use another model"
        raise ModelFileError(msg)


def choose_engine(members: Sequence[Member], device: str = "cpu") -> str:
    """The first engine of the registry that is installed and can run the networks.

    Raises:
        MissingDependencyError: If there is none.
    """
    if device != "cpu":
        return _GPU_ENGINE
    bare = next((member for member in members if member.exported is None), None)
    for name, entry in ENGINES.items():
        if entry.is_installed and (bare is None or not entry.needs_export):
            return name
    if bare is not None:
        raise MissingDependencyError(
            f"{bare.path}: holds no exported network, so only PyTorch can run it; install "
            "it with: pip install 'leanseg[train]', or have the model's maker run: leanseg export"
        )
    raise MissingDependencyError("no engine is installed; install one with: pip install openvino")


def _factory(name: str, device: str) -> Any:
    """What makes an engine.

    Raises:
        MissingDependencyError: If the package that it needs is not installed.
    """
    entry = ENGINES[name]
    need = f"the {name} engine" if device == "cpu" else f"device {device!r}"
    require_package(entry.package, need, entry.install)
    return resolve_name(entry.home)


def make_engine(
    model: ModelFile | Sequence[Member],
    *,
    name: str = "auto",
    precision: str = "f32",
    device: str = "cpu",
    threads: int | None = None,
    lanes: int | None = None,
    input_shape: Sequence[int] | None = None,
    varies: bool = False,
    allow_imports: bool = False,
) -> Engine:
    """Build the engine that runs the networks of a stage.

    Args:
        model: A model, for the stage that answers; or the members of a stage.
        name: A registered engine, or "auto" for the best that is installed.
        precision: One of `PRECISIONS`.
        device: "cpu", or "cuda", "cuda:1" or "mps", for which PyTorch is needed.
        threads: Number of threads in all; None leaves the engine's own choice.
        lanes: How many inputs are worked on side by side, with threads / lanes threads each;
            None leaves the engine's own choice. Fewer take less memory; a network that sees a
            whole scan at once has no use for more than one.
        input_shape: Shape (batch, channel, *spatial) of what the networks will be given; a batch
            of 0 leaves its size to the engine. None for that of a model's plan.
        varies: Whether inputs may be smaller than that in their spatial axes.
        allow_imports: Whether the file may name a network by an import path.

    Raises:
        RecipeError: If engine, precision or device is not known or not there, or they do not go
            together.
        MissingDependencyError: If the engine's library is not installed.
        ModelFileError: If the exported network is damaged or does not fit its weights.
    """
    check_names(name, precision, device)
    members = model.members if isinstance(model, ModelFile) else model
    for member in members:
        check_weights(member)
    if input_shape is None:
        assert isinstance(model, ModelFile), "members alone do not say what they see"
        input_shape = (0, *model.plan.input_shape(model.plan.final))
    factory = _factory(choose_engine(members, device) if name == "auto" else name, device)
    makers: list[Callable[[], Engine]] = [
        partial(
            factory,
            member,
            tuple(input_shape),
            precision=precision,
            device=device,
            threads=threads,
            lanes=lanes,
            varies=varies,
            allow_imports=allow_imports,
        )
        for member in members
    ]
    if len(makers) == 1:
        return makers[0]()
    from leanseg.inference.engines.ensemble import EnsembleEngine

    return EnsembleEngine(makers)
