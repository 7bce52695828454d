"""What each stage of a cascade costs: the second looks around what the first finds, or the truth.

Slices go through the first stage once and through the second twice, by the pipeline's own ways
and on the same grids, so that with the found box the label map is that of `leanseg predict`. The
reference travels with the slices as one more channel, and no map of probabilities is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from leanseg.datasets import Case, Dataset, find_label, is_ignore, load_case
from leanseg.errors import DatasetError, LeansegError, told
from leanseg.evaluation.budget import CaseBudget, ErrorBudget
from leanseg.evaluation.labels import normalise_labels, require_not_ignored
from leanseg.evaluation.lesions import LesionScores, lesion_scores, require_panoptica
from leanseg.frames.classes import class_map, ignored_class, resize_classes
from leanseg.frames.source import Constant, Portion, ScanSource, frame_shape
from leanseg.frames.view import ScanView
from leanseg.inference.crops import CroppingEngine, Floats, window_of
from leanseg.inference.engines import Engine
from leanseg.inference.inputs import channels_by_name
from leanseg.inference.model import Model
from leanseg.inference.pipeline import postprocess, run_stage
from leanseg.inference.stage_run import StageRun
from leanseg.plan import Crop, Plan, Stage, label_dtype
from leanseg.volumes import require_finite
from leanseg.volumes.windows import FOUND

# Pixels of the frame; the model's own comes in addition.
MARGINS: Final = (0, 5, 10, 20, 40)
# Values of the channel of the reference: the organ, and from the next on each part.
_ORGAN: Final = 1


def error_budget(
    model: Model,
    dataset: Dataset,
    labels: Mapping[str, int | Sequence[int]] | None = None,
    *,
    ignored_values: Sequence[int] = (),
    on_case: Callable[[str], None] = lambda name: None,
) -> ErrorBudget:
    """Find what each of the two stages of a cascade costs.

    Args:
        model: Its second stage crops around the first in each slice.
        dataset: Cases without labels, or that do not annotate all of the model's, are left out.
        labels: For each of the model's labels the value in the label maps, or the values merged
            into it; None takes the dataset's of the same names. The lesion's belong to the organ.
        ignored_values: Values of voxels of which nothing is known, besides those of a label
            called "ignore".
        on_case: Called with the name of each case when it is done.

    Raises:
        LeansegError: If the model is no cascade, the dataset has not its labels, or no case can
            be used; or a scan cannot be read.
        MissingDependencyError: If a lesion is labelled and panoptica is not installed.

    Example:
        >>> model = leanseg.load_model("cascade.leanseg")
        >>> budget = error_budget(model, leanseg.open_dataset("data"))
        >>> print(budget.verdict)  # doctest: +SKIP
    """
    require_cascade(model)
    cases, values, ignored = _choose(dataset, model.plan.labels, labels, ignored_values)
    if len(model.plan.labels) > 1:
        require_panoptica()
    channels = None
    if tuple(dataset.channels) != model.plan.channels:
        channels = channels_by_name(dataset.root, dataset.channels, model.plan)
    notes: list[str] = []
    if left_out := len(dataset.cases) - len(cases):
        notes.append(f"{left_out} case(s) without all of the labels are left out")
    found = []
    for case in cases:
        found.append(_Case(model, case, values, ignored, channels).budget())
        on_case(case.name)
    organ, target = model.plan.labels[0], model.plan.labels[-1]
    return ErrorBudget(organ, target, _crop(model.plan).margin, tuple(found), tuple(notes))


def require_cascade(model: Model) -> None:
    """Refuse models that are no cascade.

    Raises:
        LeansegError: Saying so.
    """
    plan = model.plan
    if plan.final.patch.crop is None or len(plan.stages) != 2:
        raise LeansegError(
            f"{model.file.path or 'the model'}: is no cascade, in which the second of two stages "
            "crops slices around what the first finds; give a model that is one"
        )


def _crop(plan: Plan) -> Crop:
    crop = plan.final.patch.crop
    assert crop is not None
    return crop


def _choose(
    dataset: Dataset,
    names: Sequence[str],
    labels: Mapping[str, int | Sequence[int]] | None,
    ignored_values: Sequence[int],
) -> tuple[list[Case], dict[str, tuple[int, ...]], list[int]]:
    """The cases that can be used, the values of each label, and the ignored ones."""
    labelled = [case for case in dataset.cases if case.label_parts]
    if not labelled:
        raise DatasetError(
            f"{dataset.root}: no case has labels to compare with; give scans with their labels"
        )
    given = normalise_labels(labels if labels is not None else dict(dataset.labels))
    values: dict[str, tuple[int, ...]] = {}
    for name in names:
        own = find_label(name, given)
        if own is None:
            where = dataset.root if labels is None else "--labels"
            raise DatasetError(
                f"{where}: has no label {name!r}, which the model has, but "
                f"{', '.join(map(told, given))}; give the values of the model's labels with "
                f"--labels, such as {','.join(f'{n}={k}' for k, n in enumerate(names, 1))}"
            )
        values[name] = given[own]
    # The lesion lies in the organ, whether or not the label maps say so.
    of_all = tuple(sorted({value for own in values.values() for value in own}))
    values[names[0]] = of_all
    known = {value: name for name, value in dataset.labels.items()}
    ignored = {v for name, v in dataset.labels.items() if is_ignore(name)} - {*of_all}
    ignored.update(ignored_values)
    require_not_ignored(values, sorted(ignored))
    cases = [
        case
        for case in labelled
        if all(value not in known or case.annotates(known[value]) for value in of_all)
    ]
    if not cases:
        raise DatasetError(
            f"{dataset.root}: no case annotates all of {', '.join(names)}; give scans with these"
        )
    return cases, values, sorted(ignored)


@dataclass
class _Case:
    """One case on its way through both stages and both boxes."""

    _model: Model
    _case: Case
    _values: Mapping[str, Sequence[int]]
    _ignored: Sequence[int]
    _channels: Sequence[int] | None

    def budget(self) -> CaseBudget:
        scan, label = load_case(self._case)
        plan = self._model.plan.for_scan(scan.orientation)
        stage = plan.final
        require_finite(scan)
        assert label is not None  # there is one, or the case would have been left out
        view = ScanView(scan, stage.frame.orientation, plan.channels, self._channels)
        truth = np.moveaxis(class_map(label, stage, self._values, self._ignored), 0, 2)
        is_ignored = truth == ignored_class(stage.labels) if self._ignored else None
        if is_ignored is not None:
            truth[is_ignored] = 0
        target_value = len(stage.labels)
        numbers = _numbered(truth, target_value)
        n_parts = max(0, int(numbers.max()) - _ORGAN)
        shape = frame_shape(stage, view.shape, view.spacing_mm, view.name)
        source = _WithTruth(view, stage, resize_classes(np.moveaxis(numbers, 2, 0), shape))
        assert source.transforms
        del numbers
        engines = self._model.pipeline.engines
        coarse = plan.network(_crop(plan).stage)
        engine = _BothBoxes(engines[coarse.name], engines[stage.name], stage, n_parts)
        organ, found, true = (
            StageRun(each, engine, source, np.zeros(view.shape, _dtype(each), order="F"))
            for each in (coarse, stage, stage)
        )
        run_stage(_Together.of(stage, engine, source, (organ, found, true)))
        for run in (found, true):
            postprocess(run.target, stage)
        if is_ignored is not None:
            for run in (organ, found, true):
                run.target[is_ignored] = 0
        reference = truth == target_value
        masks = [run.target == target_value for run in (found, true)]
        lesions: list[LesionScores | None] = [None, None]
        if target_value > 1:
            lesions = [lesion_scores(mask, reference, scan.affine) for mask in masks]
        voxels, kept, off_grid = engine.kept()
        return CaseBudget(
            case=self._case.name,
            labelled_slices=engine.n_labelled,
            missed_slices=engine.n_missed,
            found_nothing=not engine.n_found,
            organ_dice=_dice(organ.target > 0, truth > 0),
            voxels=voxels,
            kept=kept,
            off_grid=off_grid,
            dice_found=_dice(masks[0], reference),
            dice_true=_dice(masks[1], reference),
            lesions_found=lesions[0],
            lesions_true=lesions[1],
        )


def _dtype(stage: Stage) -> str:
    return label_dtype(len(stage.labels))


def _numbered(truth: NDArray[Any], target: int) -> NDArray[np.int32]:
    """The organ as 1 and its parts from 2: lesions, or where it is the target, all of it as 2."""
    if target == 1:
        return np.where(truth == target, np.int32(_ORGAN + 1), np.int32(0))
    numbers = np.empty(truth.shape, dtype=np.int32)
    ndimage.label(truth == target, np.ones((3, 3, 3)), output=numbers)
    numbers[truth > 0] += _ORGAN
    return numbers


def _dice(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float | None:
    """None where there is nothing to find."""
    n = int(np.count_nonzero(truth))
    if not n:
        return None
    both = int(np.count_nonzero(found & truth))
    return 2 * both / (n + int(np.count_nonzero(found)))


class _WithTruth(ScanSource):
    """A scan in its frame, whose last channel is the reference.

    Args:
        view: The scan.
        stage: The stage.
        numbers: (k, i, j) of the frame, as `_numbered`; float32 holds them up to 2^24.
    """

    def __init__(self, view: ScanView, stage: Stage, numbers: NDArray[np.int32]) -> None:
        super().__init__(view, stage)
        self._numbers = numbers

    def prepare(self, portion: Portion) -> tuple[Floats, list[Constant]]:
        """Slices; those with a reference have no single value."""
        inputs, constants = super().prepare(portion)
        truth = self._numbers[portion.start : portion.start + portion.n_slices]
        pairs = zip(constants, truth, strict=True)
        return _joined(inputs, truth), [None if own.any() else value for value, own in pairs]

    def planes(self, start: int, stop: int, out: Floats | None = None) -> Floats:
        """Planes (plane, channel, i, j)."""
        planes = _joined(super().planes(start, stop), self._numbers[start:stop])
        if out is None:
            return planes
        out[...] = planes
        return out


def _joined(inputs: Floats, truth: NDArray[np.int32]) -> Floats:
    return np.concatenate((inputs, truth[:, None].astype(np.float32)), axis=1)


class _BothBoxes(CroppingEngine):
    """Both stages on slices that bring their reference.

    Three outputs: the organ by the first stage, and what the second says around what that finds,
    and around the reference.

    Args:
        first: Engine of the first stage.
        second: Of the second.
        stage: The second.
        n_parts: Parts of the reference.

    Attributes:
        n_labelled: Slices with a reference.
        n_missed: Those of them in which the first stage finds nothing.
    """

    def __init__(self, first: Engine, second: Engine, stage: Stage, n_parts: int) -> None:
        crop = stage.patch.crop
        assert crop is not None  # it is a cascade
        super().__init__(first, second, crop, keeps_first=True)
        self._neighbours = stage.patch.neighbours
        self.n_labelled = self.n_missed = 0
        margins = sorted({*MARGINS, crop.margin})
        self._crops = {m: crop.model_copy(update={"margin": m}) for m in margins}
        self._n_numbers = _ORGAN + 1 + n_parts
        # Of the reference's values how many pixels there are, and how many each crop holds.
        self._sizes = np.zeros(self._n_numbers, dtype=np.int64)
        self._inside = {m: np.zeros_like(self._sizes) for m in margins}

    def run(self, batch: Floats) -> Floats:
        """Probabilities (batch, 3, i, j) of slices whose last channel is the reference."""
        n, _, *plane = batch.shape
        # Each of the neighbouring slices comes with its own.
        around = batch.reshape(n, 2 * self._neighbours + 1, -1, *plane)
        images = np.ascontiguousarray(around[:, :, :-1].reshape(n, -1, *plane))
        truth = around[:, self._neighbours, -1].astype(np.int32)
        coarse = self._first.run(images)
        answers = np.zeros((n, 2, 1, *plane), dtype=np.float32)
        for image, organ, (found, true), own in zip(images, coarse, answers, truth, strict=True):
            is_found = self._look(image, organ, found)
            box = window_of(own > 0, self._crop)
            if box is not None:
                self._look(image, organ, true, box)
            self._count(organ[0] >= FOUND, own, is_found=is_found)
        return np.concatenate((coarse, answers[:, :, 0]), axis=1)

    def _count(self, found: NDArray[np.bool_], truth: NDArray[np.int32], *, is_found: bool) -> None:
        """Add up a slice."""
        n = self._n_numbers
        with self._lock:
            self.n_found += is_found
            if not truth.any():
                return
            self.n_labelled += 1
            self.n_missed += not is_found
            self._sizes += np.bincount(truth.ravel(), minlength=n)
            for margin, crop in self._crops.items():
                window = window_of(found, crop)
                if window is not None:
                    self._inside[margin] += np.bincount(truth[window].ravel(), minlength=n)

    def kept(self) -> tuple[tuple[int, ...], dict[int, tuple[float, ...]], int]:
        """Voxels of the parts that have any, by margin their shares, and how many have none."""
        sizes = self._sizes[_ORGAN + 1 :]
        there = sizes > 0
        shares = {
            margin: tuple((inside[_ORGAN + 1 :][there] / sizes[there]).tolist())
            for margin, inside in self._inside.items()
        }
        return tuple(sizes[there].tolist()), shares, int(np.count_nonzero(~there))


@dataclass
class _Together(StageRun):
    """A run whose outputs are decided as those of several."""

    runs: Sequence[tuple[StageRun, list[int]]] = field(default_factory=tuple)

    @classmethod
    def of(
        cls, stage: Stage, engine: Engine, source: ScanSource, runs: tuple[StageRun, ...]
    ) -> _Together:
        """Of the three that `_BothBoxes` tells; where the second stage keeps the organ, with it."""
        # Three probabilities of their own, whatever they mean.
        named = stage.model_copy(
            update={"labels": ("organ", "found", "true")}
            | {"inside": {"found": "organ", "true": "organ"}}
        )
        organ, found, true = runs
        kept = [0] if stage.n_outputs > 1 else []
        parts = ((organ, [0]), (found, [*kept, 1]), (true, [*kept, 2]))
        return cls(named, engine, source, found.target, runs=parts)

    def decide(self, k: int, probabilities: Floats) -> None:
        """Fill slice k of the targets of all."""
        for run, outputs in self.runs:
            run.decide(k, probabilities[outputs])
