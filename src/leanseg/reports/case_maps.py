"""What pictures of a case are made from: its scan, its reference and what methods found in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.datasets import Case, find_label, load_case
from leanseg.errors import LeansegError
from leanseg.evaluation.labels import LabelValues, normalise_labels
from leanseg.reports.overlay import Scene, grey_window
from leanseg.reports.run_folder import RunFolder
from leanseg.volumes import Volume, bounding_box, crop, on_grid_of, read_volume, reorient

# What is shown around the labels.
_MARGIN_MM = 20.0
# Of voxels that do not count; labels are numbered, and there are fewer.
_IGNORED = 255


@dataclass(frozen=True)
class CaseMaps:
    """A scan and label maps on its grid in the orientation "LPS", cut to what is labelled.

    Attributes:
        name: The case's name.
        image: The scan, one channel.
        reference: Label map, uint8: labels are numbered from 1.
        predictions: Method to its label map, likewise.
        window: Grey values that are black and white.
    """

    name: str
    image: Volume
    reference: NDArray[np.uint8]
    predictions: Mapping[str, NDArray[np.uint8]]
    window: tuple[float, float]

    @classmethod
    def of(
        cls,
        name: str,
        image: Volume,
        reference: Volume,
        predictions: Mapping[str, Volume],
        *,
        window: tuple[float, float] | None = None,
        ignored: int | None = None,
    ) -> CaseMaps:
        """Bring scan and label maps, stored in any orientation and on any grid, together.

        Args:
            name: The case's name.
            image: The scan, (i, j, k).
            reference: Label map whose labels are numbered from 1.
            predictions: Method to its label map, likewise.
            window: Grey values shown as black and white; None takes `grey_window`.
            ignored: Value in the reference of voxels that do not count; all maps become
                background there.
        """
        upright = reorient(image, "LPS")
        truth = on_grid_of(upright, reference).array
        counted = np.True_ if ignored is None else truth != ignored
        maps = {method: on_grid_of(upright, v).array for method, v in predictions.items()}
        labelled = np.any([truth != 0, *(each != 0 for each in maps.values())], axis=0) & counted
        box = bounding_box(labelled, margin_mm=_MARGIN_MM, spacing_mm=upright.spacing_mm)
        inside = ... if box is None else box.slices

        def shown(array: NDArray[Any]) -> NDArray[np.uint8]:
            return np.ascontiguousarray((array * counted)[inside], dtype=np.uint8)

        return cls(
            name=name,
            image=upright if box is None else crop(upright, box),
            reference=shown(truth),
            predictions={method: shown(array) for method, array in maps.items()},
            window=grey_window(upright) if window is None else window,
        )

    def scene(self, method: str) -> Scene:
        """Scan, reference and the prediction of one method."""
        return Scene(self.image, self.reference, self.predictions[method])


# A case's name to its maps; raises LeansegError or OSError where files cannot be read.
ReadCase = Callable[[str], CaseMaps]


@dataclass(frozen=True)
class Masks:
    """Label maps of a method.

    Attributes:
        files: Case to its file.
        values: Label, in any spelling, to its values in them.
    """

    files: Mapping[str, Path]
    values: LabelValues

    @classmethod
    def of_runs(cls, runs: Iterable[RunFolder]) -> Masks:
        """Test cases of all folds of runs of one plan; of several masks of a case the first."""
        files: dict[str, Path] = {}
        values: LabelValues = {}
        for run in runs:
            values = {label: (value,) for label, value in run.labels.items()}
            for fold in run.folds:
                for score in fold.scores.cases:
                    files.setdefault(score.case, fold.prediction_path(score.case))
        return cls(files, values)


@dataclass(frozen=True)
class References:
    """Scans with references that are no run's.

    Attributes:
        cases: Case name to its files.
        values: Label, in any spelling, to its values in them.
        ignored_values: Of voxels that do not count.
    """

    cases: Mapping[str, Case]
    values: LabelValues
    ignored_values: Sequence[int] = ()


def case_reader(
    labels: Sequence[str],
    masks: Mapping[str, Masks],
    runs: Iterable[RunFolder] = (),
    references: References | None = None,
) -> ReadCase:
    """Reads cases by name.

    Args:
        labels: Their names, which get the numbers 1, 2, ...
        masks: Of each method; those that lack a case are not shown with it.
        runs: Tell scans and references of their cases.
        references: Tells those of others.
    """
    of_runs = list(runs)

    def read(name: str) -> CaseMaps:
        run = next((each for each in of_runs if name in each.data.annotated), None)
        window = None if run is None else run.window_hu
        if run is not None:
            image, truth = run.volumes(name)
            values: LabelValues = {label: (value,) for label, value in run.labels.items()}
            ignored: Sequence[int] = () if run.ignored is None else (run.ignored,)
        else:
            if references is None or name not in references.cases:
                raise LeansegError(
                    f"the scan of case {name!r} is not known; name its dataset (--references)"
                )
            image, found = load_case(references.cases[name])
            assert found is not None  # it was scored
            image = image.with_array(image.array.reshape(*image.shape, -1)[..., 0])
            truth, values, ignored = found, references.values, references.ignored_values
        predictions = {
            method: _numbered(read_volume(each.files[name]), each.values, labels)
            for method, each in masks.items()
            if name in each.files
        }
        truth_map = _numbered(truth, values, labels, ignored)
        marked = _IGNORED if ignored else None
        return CaseMaps.of(name, image, truth_map, predictions, window=window, ignored=marked)

    return read


def _numbered(
    volume: Volume, values: LabelValues, labels: Sequence[str], ignored: Sequence[int] = ()
) -> Volume:
    """A label map whose labels have the numbers 1, 2, ...; parts of others lie above these."""
    own = normalise_labels(values)
    numbers = np.zeros(volume.shape, dtype=np.uint8)
    names = {n: find_label(label, own) for n, label in enumerate(labels, start=1)}
    placed = [(own[name], n) for n, name in names.items() if name is not None]
    for merged, number in sorted(placed, key=lambda each: -len(each[0])):
        numbers[np.isin(volume.array, merged)] = number
    if ignored:
        numbers[np.isin(volume.array, ignored)] = _IGNORED
    return volume.with_array(numbers)
