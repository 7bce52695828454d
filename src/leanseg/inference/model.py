"""A model ready to run: the Python face of `leanseg predict`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import DatasetError, GeometryError
from leanseg.frames.source import require_sensible_frames
from leanseg.frames.view import Scan, may_stream
from leanseg.inference.engines import Engine, make_engine
from leanseg.inference.engines.base import check_names
from leanseg.inference.engines.tta import NONE, AugmentingEngine, augmented, parse_tta
from leanseg.inference.memory import LARGE_SCAN_BYTES, Ceiling, Way
from leanseg.inference.pipeline import Pipeline, Prediction
from leanseg.inference.threads import later
from leanseg.modelfile import ModelFile, find_model, read_model
from leanseg.plan import Plan
from leanseg.volumes import Volume, open_volume, require_finite

Engines = dict[str, Engine]


class Model:
    """A loaded model that stays warm between scans.

    Args:
        file: The model file in memory.
        make: Makes the engines, by stage, with so many lanes; None leaves that to them.
        ceiling: What this process's memory stays under.
        precision: What the engines compute in.
        tta: The test-time augmentation, as `load_model` takes it.
        in_background: Whether to make the engines meanwhile.

    Example:
        >>> model = leanseg.load_model("model.leanseg")
        >>> mask = model.predict("scan.nii.gz")
        >>> mask.shape, mask.dtype, model.labels
        ((64, 64, 20), dtype('uint8'), {'liver': 1})
        >>> mask = model.predict(np.zeros((64, 64, 3)), affine=np.eye(4))
    """

    def __init__(
        self,
        file: ModelFile,
        make: Callable[[int | None], Engines],
        ceiling: Ceiling | None = None,
        *,
        precision: str = "f32",
        tta: str = NONE,
        in_background: bool = False,
    ) -> None:
        self.file, self.precision, self.tta = file, precision, tta
        self._make, self._ceiling = make, ceiling
        self._lanes: int | None = None
        self._coming = later(lambda: make(None)) if in_background else None
        self._turn = Lock()
        if not in_background:
            _ = self.pipeline

    @cached_property
    def pipeline(self) -> Pipeline:
        """What takes scans through the networks; waits until the engines are ready.

        Raises:
            LeansegError: Whatever kept an engine from getting ready.
        """
        coming, self._coming = self._coming, None
        return Pipeline(self.plan, coming.result() if coming else self._make(None))

    @property
    def engine(self) -> Engine:
        """The engine of the stage that answers."""
        return self.pipeline.engines[self.plan.final.name]

    @property
    def plan(self) -> Plan:
        """How scans become network input."""
        return self.file.plan

    @property
    def cost(self) -> str:
        """What the network's passes cost, for the user: "4 passes of the network per slice ..."."""
        stage, engine = self.plan.final, self.engine
        unit = "slice" if not stage.is_3d else "patch"
        if stage.inputs:
            passes = [each.passes for each in self.pipeline.engines.values()]
            return f"{sum(passes)} passes of networks: {len(passes) - 1} stages, and their combiner"
        if stage.patch.crop is not None:
            first = self.pipeline.engines[stage.patch.crop.stage].passes
            return (
                f"{first} pass(es) of the network {stage.patch.crop.stage!r} per slice, and where "
                f"it finds something {engine.passes} of {stage.name!r} around that"
            )
        if isinstance(engine, AugmentingEngine):
            return engine.cost(unit)
        n = engine.passes
        if n == 1:
            return f"1 pass of the network per {unit}"
        return f"{n} passes of the network per {unit} ({n} networks: about {n} times the time)"

    @property
    def labels(self) -> dict[str, int]:
        """Label names to their values in predicted label maps.

        Of a region that others lie inside, the value of what lies in none of them.
        """
        return {name: number for number, name in enumerate(self.plan.labels, start=1)}

    @property
    def label_values(self) -> dict[str, tuple[int, ...]]:
        """For each label all values that belong to it: of regions also those inside them."""
        return self.plan.final.label_values

    def predict(
        self,
        scan: Scan | NDArray[Any] | Path | str,
        affine: NDArray[np.float64] | None = None,
        channel_indices: Sequence[int] | None = None,
    ) -> Volume:
        """Segment a scan.

        The model stays ready between calls, so that only the first pays for loading it. Calls
        take turns: a scan keeps all cores busy by itself.

        Args:
            scan: A volume, the path of one, or voxels (i, j, k) or (i, j, k, channel).
            affine: For bare voxels: (4, 4) from their indices to RAS+ millimetres, as in NIfTI.
                It says which way the patient lies in them.
            channel_indices: Which of the scan's channels are the plan's, in order; None where
                the scan has exactly those.

        Returns:
            The label map, on exactly the scan's grid: values as in `labels`.

        Raises:
            LeansegError: If the scan cannot be read or does not fit the model, or an affine is
                missing, or given where the scan has its own.
        """
        opened = _opened(scan, affine)
        way = self.prepare(opened)
        return self.predict_timed(opened if way.streams else opened.read(), channel_indices).labels

    @property
    def has_ceiling(self) -> bool:
        """Whether predictions stay under a ceiling on memory."""
        return self._ceiling is not None

    def streams(self, scan: Scan) -> bool:
        """Whether a scan is so large that it is read piece by piece, ceiling or not."""
        return scan.n_bytes > LARGE_SCAN_BYTES and may_stream(
            scan, self.plan.for_scan(scan.orientation)
        )

    def prepare(
        self,
        scan: Scan,
        writing_bytes: int = 0,
        next_scan: Scan | None = None,
        *,
        save_probabilities: bool = False,
    ) -> Way:
        """Choose how a scan is predicted, and make ready for that.

        Args:
            scan: The scan, or its header alone.
            writing_bytes: What the result's writer will hold besides it.
            next_scan: What may be read meanwhile.
            save_probabilities: Whether the result has probabilities too.

        Returns:
            How, and whether the next scan may be read meanwhile.

        Raises:
            GeometryError: If a frame would have absurdly many voxels.
            MemoryCeilingError: If it cannot be done below the ceiling.
        """
        require_sensible_frames(scan, self.plan)
        if self._ceiling is None:
            return Way(None, self.streams(scan), prefetch=True)
        with self._turn:
            pipeline = self.pipeline
            way = self._ceiling.way(
                scan,
                self.plan,
                pipeline.engines,
                writing_bytes=writing_bytes,
                next_scan=next_scan,
                save_probabilities=save_probabilities,
            )
            if way.lanes != self._lanes:
                # Let go of the engines before others are made.
                pipeline.engines.clear()
                pipeline.engines.update(self._make(way.lanes))
                self._lanes = way.lanes
            pipeline.settings = way.settings
            return way

    def predict_timed(
        self,
        scan: Scan,
        channel_indices: Sequence[int] | None = None,
        on_progress: Callable[[int, int], None] | None = None,
        *,
        save_probabilities: bool = False,
    ) -> Prediction:
        """As `predict`, with the seconds of each step, reports of progress, and probabilities."""
        with self._turn:
            if isinstance(scan, Volume):
                require_finite(scan)
            # Handed over rather than lent, so that nobody else holds the scan.
            handed = [scan]
            del scan
            kept = np.dtype(np.float16) if save_probabilities else None
            return self.pipeline.predict(
                handed.pop(), channel_indices, on_progress, probabilities=kept
            )


def _opened(scan: Scan | NDArray[Any] | Path | str, affine: NDArray[np.float64] | None) -> Scan:
    """The scan, from whatever it was given as.

    Raises:
        LeansegError: If it cannot be read, or an affine is missing or one too many.
    """
    if not isinstance(scan, np.ndarray):
        if affine is not None:
            msg = "an affine is for voxels in an array; a volume or a file has its own, drop it"
            raise GeometryError(msg)
        return open_volume(scan) if isinstance(scan, Path | str) else scan
    if affine is None:
        msg = "voxels in an array need an affine (4, 4) to RAS+ mm, which says how they lie"
        raise GeometryError(msg)
    if scan.dtype.kind not in "iuf":
        msg = f"voxels of type {scan.dtype} are not grey values; give integers or floats"
        raise DatasetError(msg)
    return Volume(scan, affine)


def load_model(
    path: Path | str,
    *,
    engine: str = "auto",
    precision: str = "f32",
    device: str = "cpu",
    threads: int | None = None,
    tta: str = "none",
    max_memory: str | int | None = None,
    allow_imports: bool = False,
    in_background: bool = False,
) -> Model:
    """Load a model file and make it ready to run.

    Args:
        path: The model file, or the name of a model that `leanseg models get` fetched.
        engine: A registered engine, or "auto".
        precision: "f32", "bf16" or "f16"; the processor or device has to compute in it.
        device: "cpu", or for the torch engine "cuda", "cuda:1" or "mps".
        threads: Number of threads for the engine; None leaves its own choice.
        tta: Test-time augmentation: "none", "flips", "shifts" or "flips,shifts".
        max_memory: Ceiling on the resident memory of this process, such as "1GB", or in bytes:
            predictions stay below it, or are refused before they begin.
        allow_imports: Whether the file may name a network by an import path, which runs that
            code: only for files that you trust.
        in_background: Return at once and make the engine ready meanwhile; what goes wrong with
            that is raised when the model is first used.

    Returns:
        A model whose `predict` segments scans.

    Raises:
        ModelFileError: If the file is damaged or altered.
        MissingDependencyError: If no engine is installed, or the device needs one that is not.
        RecipeError: If the engine, precision, device, augmentation or ceiling makes no sense.
        MemoryCeilingError: If the model cannot be loaded under the ceiling.

    Example:
        >>> model = leanseg.load_model("model.leanseg", tta="flips", max_memory="4GB")
        >>> model.predict("scan.nii.gz").array.max() <= 1
        np.True_
    """
    # What is misspelled is said before a large file is read.
    tta = ",".join(parse_tta(tta)) or NONE
    check_names(engine, precision, device)
    path = find_model(path)
    ceiling = None if max_memory is None else Ceiling.of(max_memory)
    if ceiling is not None:
        ceiling.require_loading(path, "openvino" if engine == "auto" else engine)
    file = read_model(path)

    def make(lanes: int | None) -> Engines:
        return {
            stage.name: augmented(
                make_engine(
                    file.stages[stage.name],
                    name=engine,
                    precision=precision,
                    device=device,
                    threads=threads,
                    # A network that sees a whole region leaves no second input to work on.
                    lanes=1 if stage.sees_all else lanes,
                    input_shape=(0, *file.plan.input_shape(stage)),
                    varies=stage.patch.crop is not None,
                    allow_imports=allow_imports,
                ),
                tta,
                len(stage.network_shape),
                file.plan.network_outputs(stage),
                stage.flips,
            )
            for stage in file.plan.networks
        }

    return Model(file, make, ceiling, precision=precision, tta=tta, in_background=in_background)
