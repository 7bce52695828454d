"""A ceiling on the process's memory: settings under which a scan stays below it, or a refusal.

What a prediction needs is added up before its first voxel is read: what the process holds now,
what the network will take (from its compiled graph), the scan and the label map (from the scan's
header), the buffers of every stage, and a margin. Of the settings that give the same result, the
fastest that fits is taken; where none does, the scan is refused.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from leanseg.errors import MemoryCeilingError, RecipeError
from leanseg.inference.memory import give_back_memory, resident_bytes
from leanseg.inference.needs import (
    compiler_bytes,
    postprocessing_bytes,
    predictor_bytes,
    writing_bytes,
)
from leanseg.modelfile import ModelFile
from leanseg.preprocessing import Plan
from leanseg.volumes.promise import Promise

# What the figures leave out: pages of libraries that are first touched at work, the allocator's
# own, Python's. Measured growth beyond the figures was 2 to 9 MB.
MARGIN_BYTES = 16_000_000
# An engine's library in memory, before any network.
_LIBRARY_BYTES = {"openvino": 92_000_000, "onnxruntime": 60_000_000, "torch": 260_000_000}
# Compiling holds a network's weights several times over.
_COPIES_OF_WEIGHTS = 5
# What an engine leaves behind when another is made in its place, measured.
_REMAKING_BYTES = {"openvino": 8_000_000}
_REMAKING_OTHERS_BYTES = 25_000_000
_SLICES_PER_BLOCK = (8, 4, 2, 1)

_UNITS = {
    "B": 1,
    **{f"{letter}B": 1000**n for n, letter in enumerate("KMGT", start=1)},
    **{f"{letter}IB": 1024**n for n, letter in enumerate("KMGT", start=1)},
}


def parse_bytes(text: str) -> int:
    """Bytes of "1GB", "512 MiB", "1.5 gb".

    Raises:
        RecipeError: If it is not a positive number with a unit.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z]*)\s*", text)
    unit = found[2].upper() if found else ""
    if found and not unit:
        msg = f"memory ceiling {text!r} has no unit; write for example {found[1]}GB or {found[1]}MB"
        raise RecipeError(msg)
    if not found or unit not in _UNITS or float(found[1]) * _UNITS[unit] < 1:
        msg = f"memory ceiling {text!r} is no amount of memory; write for example 1GB or 800MiB"
        raise RecipeError(msg)
    return int(float(found[1]) * _UNITS[unit])


def shown(n_bytes: float) -> str:
    """An amount in MB, rounded up."""
    return f"{math.ceil(n_bytes / 1e6):,d} MB"


@dataclass(frozen=True)
class Budget:
    """A ceiling on the resident memory of this process, in bytes."""

    ceiling_bytes: int

    @classmethod
    def of(cls, amount: str | int) -> Budget:
        """From "1GB", or from a number of bytes.

        Raises:
            RecipeError: If it is no amount of memory.
        """
        return cls(amount if isinstance(amount, int) else parse_bytes(amount))

    def require(self, need: float, subject: object) -> None:
        """Refuse where more is needed.

        Raises:
            MemoryCeilingError: Naming the subject, what it needs at least, and the ceiling.
        """
        if need > self.ceiling_bytes:
            msg = (
                f"{subject}: needs at least {shown(need)} of memory, but --max-memory allows "
                f"{shown(self.ceiling_bytes)}; allow more"
            )
            raise MemoryCeilingError(msg)

    def require_loading(self, path: Path, engine: str) -> None:
        """Refuse a model that cannot even be loaded, before it is.

        Args:
            path: The model file; one that is missing is left to whoever reads it.
            engine: The engine's name, or "auto".

        Raises:
            MemoryCeilingError: Naming the file.
        """
        if not path.is_file():
            return
        engine = "openvino" if engine == "auto" else engine
        library = 0 if engine in sys.modules else _LIBRARY_BYTES.get(engine, 0)
        weights = path.stat().st_size
        least = resident_bytes() + library + _COPIES_OF_WEIGHTS * weights
        self.require(least, path)


@dataclass(frozen=True)
class Settings:
    """How a scan is predicted; none of it changes the result.

    Attributes:
        lanes: Inputs that the engine works on side by side.
        threads: Threads that take slices through all stages.
        slices_per_call: Slices that the engine gets at once.
        prefetch: Whether the next scan may be read, and the last result written, meanwhile.
        slices_per_block: Of 3-D tiles: slices that are resampled together.
        postprocessing_bytes: What post-processing may take.
        need_bytes: Peak resident memory that is expected at most.
    """

    lanes: int
    threads: int
    slices_per_call: int
    prefetch: bool
    slices_per_block: int
    postprocessing_bytes: int
    need_bytes: int


def settings_for(
    model: ModelFile,
    engine: Any,
    promise: Promise,
    budget: Budget,
    *,
    largest: Promise | None = None,
    is_read: bool = False,
    resident: int | None = None,
    lanes_ready: int = 0,
    form: str | None = None,
) -> Settings:
    """The fastest settings under which a scan stays below the ceiling.

    Args:
        model: The model file.
        engine: Its engine; says how much memory a lane takes.
        promise: The scan, from its header.
        budget: The ceiling.
        largest: Another scan that may be in memory as well; None allows no prefetching.
        is_read: Whether the scan's voxels are in memory already.
        resident: What the process holds; None measures it.
        lanes_ready: So many lanes have worked before, so that their memory is held already.
        form: How the label map will be written, one of `leanseg.inference.formats.FORMATS`;
            None if it is not.

    Raises:
        MemoryCeilingError: Naming the scan's file, what it needs at least and the ceiling.
    """
    plan = model.plan
    # Before what is held is measured: telling it may bring a library into memory.
    network_bytes = engine.memory_bytes()
    if resident is None:
        give_back_memory()
    held = resident_bytes() if resident is None else resident
    scan = 0 if is_read else promise.n_bytes + promise.reading_bytes
    labels = _label_bytes(promise, plan)
    # What is left of the scan while components are found: slices need it no more.
    of_slices = plan.tile_shape is None and plan.volume_shape is None
    left = 0 if of_slices else scan
    least = postprocessing_bytes(promise.volume, plan)
    # The scan is not needed for writing, but compiled loops stay where they were used.
    writing = 0.0
    if form is not None:
        writing = writing_bytes(promise.volume, plan, form) + (compiler_bytes() if least else 0)
    compiling = _COPIES_OF_WEIGHTS * sum(
        array.nbytes for member in model.networks for array in member.weights.values()
    )
    remaking = _REMAKING_BYTES.get(engine.name, _REMAKING_OTHERS_BYTES)
    need = 0.0
    inputs = engine.lanes * engine.batch_size
    for choice in _choices(engine, plan):
        if choice.prefetch and largest is None:
            continue
        network = network_bytes * choice.lanes * choice.slices_per_call / inputs
        fixed = held + labels + MARGIN_BYTES + (network if choice.lanes > lanes_ready else 0)
        if choice.prefetch and largest is not None:
            # The next scan, and the last result on its way to the disk.
            fixed += largest.n_bytes + largest.reading_bytes + _label_bytes(largest, plan)
        running = fixed + scan + predictor_bytes(plan, promise.volume, choice)
        need = max(running, fixed + left + least, fixed + writing)
        if choice.lanes != engine.lanes:
            # The engine is made anew before the scan is read.
            need = max(need + remaking, held + MARGIN_BYTES + compiling)
        if need <= budget.ceiling_bytes:
            spare = budget.ceiling_bytes - int(fixed + left) - compiler_bytes()
            return replace(choice, postprocessing_bytes=max(spare, 0), need_bytes=int(need))
    budget.require(need, promise.volume.path or "the scan")
    raise AssertionError("the last choice is the smallest")


def _label_bytes(promise: Promise, plan: Plan) -> int:
    return math.prod(promise.volume.shape) * (1 if len(plan.labels) <= 255 else 2)


def _choices(engine: Any, plan: Plan) -> Iterator[Settings]:
    """Settings from the fastest to the smallest."""
    lanes, calls = engine.lanes, engine.batch_size

    def choice(lanes: int, threads: int, calls: int, block: int, prefetch: bool) -> Settings:
        return Settings(lanes, threads, calls, prefetch, block, 0, 0)

    blocks: Sequence[int] = _SLICES_PER_BLOCK if plan.tile_shape is not None else (1,)
    yield choice(lanes, max(2, lanes), calls, blocks[0], True)
    for block in blocks:
        yield choice(lanes, max(2, lanes), calls, block, False)
    for n in sorted({1, *range(1, lanes)}, reverse=True):
        yield choice(n, max(2, n), 1, blocks[-1], False)
    yield choice(1, 1, 1, blocks[-1], False)
