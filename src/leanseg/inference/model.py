"""A model ready to run: the Python face of `leanseg predict`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leanseg.datasets.case import Case
from leanseg.errors import DatasetError, GeometryError
from leanseg.inference.engines import Engine, make_engine
from leanseg.inference.engines.base import check_names
from leanseg.inference.engines.tta import NONE, AugmentingEngine, augmented, parse_tta
from leanseg.inference.later import Later
from leanseg.inference.memory import give_back_memory
from leanseg.inference.predictor import Prediction, Predictor
from leanseg.modelfile import ModelFile, read_model
from leanseg.preprocessing import Plan
from leanseg.volumes import Volume, read_volume, require_finite

if TYPE_CHECKING:
    from leanseg.inference.ceiling import Ceiling
    from leanseg.inference.tile_predictor import TilePredictor
    from leanseg.inference.volume_predictor import VolumePredictor


class Model:
    """A loaded model that stays warm between scans.

    Args:
        file: The model file in memory.
        engine: The engine that runs it; it may still be getting ready.

    Attributes:
        ceiling: Keeps the process's memory under what `load_model` was given, if anything.
    """

    def __init__(self, file: ModelFile, engine: Engine | Later[Engine]) -> None:
        self.file = file
        self.ceiling: Ceiling | None = None
        self._engine: Engine | Later[Engine] | None = engine
        self._turn = Lock()

    @cached_property
    def predictor(self) -> Predictor | VolumePredictor | TilePredictor:
        """What takes a scan through the network; waits until the engine is ready.

        Raises:
            LeansegError: Whatever kept the engine from getting ready.
        """
        engine = self._engine
        assert engine is not None
        result = predictor_for(engine.result() if isinstance(engine, Later) else engine, self.plan)
        # It alone holds the engine now, and may let it go.
        self._engine = None
        return result

    def replace_engine(self, make: Callable[[], Engine]) -> None:
        """Let go of the engine, and only then make another."""
        predictor = self.predictor
        del predictor.engine
        give_back_memory()
        predictor.engine = make()

    @property
    def plan(self) -> Plan:
        """The plan that turns a scan into network input and back."""
        return self.file.plan

    @property
    def tta(self) -> str:
        """The test-time augmentation, as `load_model` takes it."""
        engine = self.predictor.engine
        return engine.tta if isinstance(engine, AugmentingEngine) else NONE

    @property
    def cost(self) -> str:
        """What the network's passes cost, for the user: "4 passes of the network per slice ..."."""
        engine = self.predictor.engine
        unit = "slice" if n_axes(self.plan) == 2 else "tile" if self.plan.tile_shape else "volume"
        if isinstance(engine, AugmentingEngine):
            return engine.cost(unit)
        if engine.passes == 1:
            return f"1 pass of the network per {unit}"
        n = engine.passes
        return f"{n} passes of the network per {unit} ({n} networks: about {n} times the time)"

    @property
    def labels(self) -> dict[str, int]:
        """Label names to their values in predicted label maps."""
        return {name: number for number, name in enumerate(self.plan.labels, start=1)}

    def predict(
        self,
        scan: Volume | NDArray[Any] | Path | str,
        affine: NDArray[np.float64] | None = None,
        channel_indices: Sequence[int] | None = None,
    ) -> Volume:
        """Segment a scan.

        The model stays ready between calls, so that only the first pays for loading it. Calls
        take turns: a scan keeps all cores busy by itself.

            model = leanseg.load_model("pancreas.leanseg")
            labels = model.predict("scan.nii.gz")
            leanseg.volumes.write_mask("mask.nii.gz", labels.array, like=labels)

            voxels, affine = ...  # Hounsfield units (i, j, k), and (4, 4) to RAS+ millimetres
            mask = model.predict(voxels, affine).array == model.labels["pancreas"]

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
        return self.predict_timed(_as_volume(scan, affine), channel_indices).labels

    def predict_timed(
        self,
        scan: Volume | Path | str,
        channel_indices: Sequence[int] | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Prediction:
        """As `predict`, with the seconds of each stage and a call after every batch."""
        with self._turn:
            if self.ceiling is not None and not isinstance(scan, Volume):
                self.ceiling.fit(Case.of_files("", (Path(scan),)))
            volume = scan if isinstance(scan, Volume) else read_volume(Path(scan))
            require_finite(volume)
            if self.ceiling is not None:
                self.ceiling.fit_read(volume)
            # Handed over rather than lent: post-processing may have the memory of a scan that
            # nobody holds any more.
            handed, n_slices = [volume], volume.shape[2]
            del scan, volume
            prediction = self.predictor.predict(handed.pop(), channel_indices, on_progress)
            if self.ceiling is not None:
                self.ceiling.done(n_slices - prediction.slices_skipped)
            return prediction


def _as_volume(
    scan: Volume | NDArray[Any] | Path | str, affine: NDArray[np.float64] | None
) -> Volume | Path | str:
    if not isinstance(scan, np.ndarray):
        if affine is not None:
            msg = "an affine is for voxels in an array; a volume or a file has its own, drop it"
            raise GeometryError(msg)
        return scan
    if affine is None:
        msg = "voxels in an array need an affine (4, 4) to RAS+ mm, which says how they lie"
        raise GeometryError(msg)
    if scan.dtype.kind not in "iuf":
        msg = f"voxels of type {scan.dtype} are not grey values; give integers or floats"
        raise DatasetError(msg)
    return Volume(scan, affine)


def predictor_for(engine: Engine, plan: Plan) -> Predictor | VolumePredictor | TilePredictor:
    """What takes a scan through the network as the plan says: slices, one region, or tiles."""
    # Imported where they are needed: most models see slices.
    if plan.tile_shape is not None:
        from leanseg.inference.tile_predictor import TilePredictor

        return TilePredictor(engine, plan)
    if plan.volume_shape is not None:
        from leanseg.inference.volume_predictor import VolumePredictor

        return VolumePredictor(engine, plan)
    return Predictor(engine, plan)


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
        path: The model file.
        engine: A registered engine, or "auto".
        precision: "f32", "bf16" or "f16".
        device: "cpu", or "cuda", "cuda:1" or "mps", for which PyTorch is needed.
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
        MissingDependencyError: If no engine is installed.
        RecipeError: If the engine, precision, augmentation or ceiling makes no sense.
        MemoryCeilingError: If the model cannot be loaded under the ceiling.
    """
    # What is misspelled is said before a large file is read.
    parse_tta(tta)
    check_names(engine, precision, device)
    if max_memory is not None:
        # Imported where it is needed: the start should not wait for it.
        from leanseg.inference.budget import Budget

        budget = Budget.of(max_memory)
        budget.require_loading(Path(path), engine)
    file = read_model(Path(path))

    def ready(lanes: int | None = None) -> Engine:
        # A whole volume at once leaves no second input to work on meanwhile.
        whole = file.plan.volume_shape is not None
        plain = make_engine(
            file,
            name=engine,
            precision=precision,
            device=device,
            threads=threads,
            lanes=1 if whole else lanes,
            allow_imports=allow_imports,
        )
        return augmented(plain, tta, n_axes(file.plan))

    if max_memory is None:
        return Model(file, Later(ready) if in_background else ready())
    from leanseg.inference.ceiling import Ceiling

    model = Model(file, ready())
    model.ceiling = Ceiling(budget, model, ready)
    return model


def n_axes(plan: Plan) -> int:
    """Spatial axes of what the network sees at once."""
    return 2 if plan.volume_shape is None and plan.tile_shape is None else 3
