"""Memory of this process: what it holds, and how a scan is predicted under a ceiling.

Each part tells what it needs: the engine, the way through a stage, the label map's writer. The
ceiling adds that to what the process holds, before a scan's first voxel is read. Of the ways that
give the same result the fastest that fits is taken; where none does, the scan is refused.
"""

from __future__ import annotations

import gc
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from leanseg.errors import MemoryCeilingError, RecipeError
from leanseg.frames.source import planned_frame
from leanseg.frames.view import Scan, may_stream, stored_axes
from leanseg.inference import by_group, by_layer, by_slice
from leanseg.inference.crops import engine_of
from leanseg.inference.maps import kept_bytes, maps_bytes
from leanseg.inference.stage_run import Settings
from leanseg.plan import Around, Plan, Stage, label_dtype
from leanseg.runtime import return_freed_memory
from leanseg.volumes.volume import StoredVolume

if TYPE_CHECKING:
    from collections.abc import Mapping

    from leanseg.inference.engines import Engine

# Scans larger than this are streamed from their file where that can be: a little slower.
LARGE_SCAN_BYTES = 256_000_000
# What the figures leave out: pages of libraries that are first touched at work, the allocator's
# own, Python's. Measured growth beyond the figures was 2 to 9 MB.
_MARGIN_BYTES = 16_000_000
# Blocks of a file, of its unpacked form and of the slices on their way, while it is streamed.
_STREAM_BYTES = 8_000_000
# Of a label map's slice, while its components are numbered.
_BYTES_PER_COMPONENT_PIXEL = 40
_BYTES_PER_MASKED_VOXEL = 7
# What compiled loops bring into memory when the first of them is used, and scipy's own.
_COMPILER_BYTES, _COMPONENTS_BYTES = 110_000_000, 20_000_000
# What a scout brings: scipy, and the scan on a coarse grid.
_SCOUT_BYTES = 45_000_000
# Loading holds a network's weights several times over, and an engine's library before that.
_COPIES_OF_WEIGHTS = 5
_LIBRARY_BYTES = {"openvino": 92_000_000, "onnxruntime": 60_000_000, "torch": 260_000_000}

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"
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


@dataclass(frozen=True)
class Way:
    """A way to predict a scan; none of it changes the result.

    Attributes:
        lanes: Inputs that engines work on side by side; None leaves it to them.
        streams: Whether the scan is read piece by piece.
        prefetch: Whether the next scan may be read, and the last result written, meanwhile.
        settings: Of the pipeline.
        need_bytes: Peak resident memory that is expected at most.
    """

    lanes: int | None
    streams: bool
    prefetch: bool = False
    settings: Settings = field(default_factory=Settings)
    need_bytes: int = 0


@dataclass(frozen=True)
class Ceiling:
    """A ceiling on the resident memory of this process, in bytes."""

    limit_bytes: int

    @classmethod
    def of(cls, amount: str | int) -> Ceiling:
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
        if need > self.limit_bytes:
            raise MemoryCeilingError(
                f"{subject}: needs at least {_shown(need)} of memory, but --max-memory allows "
                f"{_shown(self.limit_bytes)}; allow more"
            )

    def require_loading(self, path: Path, engine: str) -> None:
        """Refuse a model that cannot even be loaded, before it is.

        Raises:
            MemoryCeilingError: Naming the file; one that is missing is left to whoever reads it.
        """
        if path.is_file():
            library = 0 if engine in sys.modules else _LIBRARY_BYTES.get(engine, 0)
            self.require(
                resident_bytes() + library + _COPIES_OF_WEIGHTS * path.stat().st_size, path
            )

    def way(
        self,
        scan: Scan,
        plan: Plan,
        engines: Mapping[str, Engine],
        *,
        writing_bytes: int = 0,
        next_scan: Scan | None = None,
        save_probabilities: bool = False,
    ) -> Way:
        """The fastest way to predict a scan below the ceiling.

        Args:
            scan: The scan, or its header alone; its voxels count as held where they are.
            plan: The plan.
            engines: By stage; they are asked to give back their working memory.
            writing_bytes: What the result's writer holds besides it.
            next_scan: Another that may be in memory as well; None allows no prefetching.
            save_probabilities: Whether the result has probabilities too.

        Raises:
            MemoryCeilingError: Naming the scan's file, what it needs at least and the ceiling.
        """
        plan = plan.for_scan(scan.orientation)
        for engine in engines.values():
            engine.release()
        gc.collect()
        return_freed_memory()
        held = resident_bytes()
        need = 0.0
        for way in _ways(scan, plan, with_prefetch=next_scan is not None):
            need = held + need_bytes(
                way, scan, plan, engines, writing_bytes, save_probabilities=save_probabilities
            )
            if way.prefetch and next_scan is not None:
                need += _voxel_bytes(next_scan) + _label_bytes(next_scan, plan.final)
            if need <= self.limit_bytes:
                return Way(way.lanes, way.streams, way.prefetch, way.settings, int(need))
        self.require(need, scan.path or "the scan")
        raise AssertionError("the last way is the smallest")


def _ways(scan: Scan, plan: Plan, *, with_prefetch: bool) -> Iterator[Way]:
    """From the fastest to the smallest."""
    streams = may_stream(scan, plan)
    if with_prefetch:
        yield Way(None, streams=False, prefetch=True)
    smaller = Settings(threads=1, batch_size=1, slices_per_block=1)
    if not streams or scan.n_bytes <= LARGE_SCAN_BYTES:
        yield Way(None, streams=False)
    if streams:
        yield Way(None, streams=True)
    yield Way(1, streams, settings=Settings(batch_size=1, slices_per_block=2))
    yield Way(1, streams, settings=smaller)


def need_bytes(
    way: Way,
    scan: Scan,
    plan: Plan,
    engines: Mapping[str, Engine],
    writing_bytes: int = 0,
    *,
    save_probabilities: bool = False,
) -> int:
    """What predicting a scan takes at its peak, beside what the process holds before.

    Args:
        way: How it is done.
        scan: The scan, or its header alone.
        plan: The plan.
        engines: By stage.
        writing_bytes: What the result's writer holds besides it.
        save_probabilities: Whether the result has probabilities too.
    """
    fixed = _MARGIN_BYTES
    if save_probabilities:
        fixed += 2 * math.prod(scan.shape) * plan.final.n_outputs
    peak = held = 0
    fed: list[Stage] = []
    for stage in plan.runs:
        labels = _label_bytes(scan, stage) if plan.is_labelled(stage) else 0
        begun = [each for each in plan.networks if stage.name in each.inputs and each not in fed]
        fed += begun
        # Whole from a stage's first input on; they are let go of when it has run.
        held += sum(_maps_bytes(scan, plan, each) for each in begun)
        engine = engine_of(stage, plan, engines)
        running, finishing = _stage_bytes(way, scan, plan, stage, engine)
        if not stage.sees_all:
            running += labels
        # Pages of a label map are there once they are written to.
        peak = max(peak, held + running, held + labels + finishing)
        held += labels - (_maps_bytes(scan, plan, stage) if stage.inputs else 0)
    return int(fixed + max(peak, held + writing_bytes))


def _maps_bytes(scan: Scan, plan: Plan, stage: Stage) -> int:
    return maps_bytes(scan, stage, plan.n_channels(stage))


def _stage_bytes(way: Way, scan: Scan, plan: Plan, stage: Stage, engine: Engine) -> tuple[int, int]:
    """What a stage takes besides label maps: while its network runs, and after that."""
    (i, j, k), shape = planned_frame(scan, stage)
    channels, lanes = plan.n_channels(stage), way.lanes or engine.lanes
    voxels = _STREAM_BYTES if way.streams else _voxel_bytes(scan)
    # The engine is made anew where it has more lanes; a lane's share is what it takes then.
    network = engine.memory_bytes() * lanes // max(1, engine.lanes)
    if stage.patch_shape[2] == 1 and shape[2] == k:
        running = restoring = by_slice.memory_bytes(
            stage, shape, (i, j, k), channels, scan.dtype.itemsize, way.settings,
            lanes=lanes, batch_size=engine.batch_size,
            interleaves=not stage.inputs
            and stored_axes(scan.orientation, stage.frame.orientation)[2] != 2,
        )  # fmt: skip
    else:
        # Layers that sample, the only compiled loops here, are of networks that see all.
        is_compiled = stage.sees_all and "numba" not in sys.modules
        network += (_COMPILER_BYTES if is_compiled else 0) + (
            _SCOUT_BYTES if isinstance(stage.frame.region, Around) else 0
        )
        by = by_group if stage.patch.is_interleaved else by_layer
        running, restoring = by.memory_bytes(
            stage, shape, (i, j, k), channels, way.settings, lanes=lanes, passes=engine.passes
        )
    if stage.intensity.over == "nonzero":
        # A mask, and the numbers of what is zero while it is made.
        running += _BYTES_PER_MASKED_VOXEL * i * j * k
    components = 0
    if stage.cleaned_labels:
        pixels = math.prod(scan.shape) // min(scan.shape)
        components = _COMPONENTS_BYTES + _BYTES_PER_COMPONENT_PIXEL * pixels
    # An ensemble of networks of a whole region lets go of them; others keep what they have.
    kept = _COMPILER_BYTES if stage.sees_all and engine.passes > 1 else network
    finishing = voxels + kept + max(components, restoring)
    combiners = [each for each in plan.networks if stage.name in each.inputs]
    maps = sum(kept_bytes(stage, shape, scan, each) for each in combiners)
    return voxels + network + running + maps, finishing + maps


def _voxel_bytes(scan: Scan) -> int:
    """What reading a scan takes; nothing where it is in memory."""
    return scan.n_bytes + scan.reading_bytes if isinstance(scan, StoredVolume) else 0


def _label_bytes(scan: Scan, stage: Stage) -> int:
    return math.prod(scan.shape) * (1 if label_dtype(len(stage.labels)) == "uint8" else 2)


def _shown(n_bytes: float) -> str:
    """An amount in MB, rounded up."""
    return f"{math.ceil(n_bytes / 1e6):,d} MB"


def reset_peak() -> bool:
    """Start a new measurement of the peak; False where the system only knows the total peak."""
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return False
    return True


def resident_bytes() -> int:
    """Resident memory of this process now."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def peak_memory_mb() -> float:
    """Peak resident memory in MB (10^6 bytes) since the last reset, else of the process."""
    try:
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    except OSError:
        pass
    if sys.platform == "win32":
        import psutil

        return float(psutil.Process().memory_info().peak_wset) / 1e6
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Kilobytes on Linux, bytes on macOS.
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
