"""Which prediction belongs to which reference."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from leanseg.datasets import Case, VolumeSource, find_label, is_ignore, open_dataset, without_ignore
from leanseg.datasets.layouts.listing import DATASET_JSON, foreground_labels
from leanseg.datasets.layouts.patterns import by_name, find
from leanseg.datasets.sources import VolumeLike
from leanseg.errors import DatasetError, told
from leanseg.files import read_parsed
from leanseg.plan import Stage
from leanseg.volumes import VOLUME_SUFFIXES, is_volume_path, volume_stem
from leanseg.volumes.label_table import label_table

# Written by `leanseg predict`.
_RECORDS_FILE = "predictions.json"


@dataclass(frozen=True)
class CasePair:
    """The two label maps of a case.

    Attributes:
        name: Names the case in scores.
        prediction: The predicted label map; None where there is none, which is scored as empty.
        reference: The reference label map, or the case of a dataset that has it.
        annotated: Values of the labels that the reference annotates; None for all. The others
            are unknown there and not scored.
    """

    name: str
    prediction: VolumeLike | None
    reference: VolumeLike | Case
    annotated: frozenset[int] | None = None

    def read_as(self, geometry: str) -> CasePair:
        """The same pair with a choice between sform and qform, as `VolumeSource.read_as`."""
        truth, guess = self.reference, self.prediction
        chosen = truth if isinstance(truth, Case) else VolumeSource.of(truth)
        guess = None if guess is None else VolumeSource.of(guess).read_as(geometry)
        return replace(self, prediction=guess, reference=chosen.read_as(geometry))


@dataclass(frozen=True)
class MatchedCases:
    """Pairs by file name, and predictions that have no reference.

    Attributes:
        predictions: Their folder, or the only one.
        pairs: The pairs.
        unmatched_predictions: Names of predictions without a reference.
        labels: Where the references are a dataset, or something names the values in them, as
            `labels_of`: their labels, without the one called "ignore".
        ignored_values: The values of that one.
    """

    predictions: Path
    pairs: tuple[CasePair, ...]
    unmatched_predictions: tuple[str, ...] = ()
    labels: Mapping[str, int | Sequence[int]] | None = None
    ignored_values: tuple[int, ...] = ()

    def files(self) -> Iterator[Path]:
        """What is read to score the pairs."""
        for pair in self.pairs:
            yield from (
                each for each in (pair.prediction, pair.reference) if isinstance(each, Path)
            )
            if isinstance(pair.reference, Case):
                yield from (source.stored for source in pair.reference.sources)


def match_cases(
    predictions: str | Path, references: str | Path, *, allow_missing: bool = False
) -> MatchedCases:
    """Match label maps by file name without its ending.

    Args:
        predictions: A label map, or a folder of them. A single one is scored alone.
        references: A label map, a folder of them, or a dataset in any layout, whose cases that
            have labels are matched by name. Two single files match whatever their names.
        allow_missing: Keep references without a prediction, to be scored as empty predictions.

    Raises:
        DatasetError: If a path is missing, a folder holds no volumes, two files of a folder
            have one name, no names are common, or a reference has no prediction.
    """
    predictions, references = Path(predictions), Path(references)
    if _is_dataset(references):
        return _match_dataset(predictions, references, allow_missing)
    predicted, referenced = _list_volumes(predictions), _list_volumes(references)
    if predictions.is_file() and references.is_file():
        name = next(iter(referenced))
        matched = MatchedCases(predictions, (CasePair(name, predictions, references),))
    else:
        matched = _pair(predictions, predicted, references, referenced, allow_missing)
    named = labels_of(references)
    return _named(matched, named) if named else matched


def reference_cases(references: Path) -> dict[str, Case]:
    """The cases of references by name, for what is known from their files' headers.

    Args:
        references: As `match_cases`.

    Raises:
        DatasetError: If there are none.
    """
    if _is_dataset(references):
        return {case.name: case for case in open_dataset(references).cases}
    return {name: Case(path, name=name) for name, path in _list_volumes(references).items()}


def _pair(
    predictions: Path,
    predicted: Mapping[str, Path],
    references: Path,
    referenced: Mapping[str, Path | Case],
    allow_missing: bool,
) -> MatchedCases:
    common = [name for name in referenced if name in predicted]
    if not common:
        raise DatasetError(
            f"no label map in {predictions} has the name of one in {references} "
            f"(such as {next(iter(predicted))} and {next(iter(referenced))}); rename them alike"
        )
    if predictions.is_file():
        # One prediction was asked about, not the whole folder of references.
        referenced = {name: referenced[name] for name in common}
    missing = [name for name in referenced if name not in predicted]
    if missing and not allow_missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise DatasetError(
            f"{predictions} has no prediction for {', '.join(missing[:3])}{more} of {references}; "
            "predict them, or allow missing ones (--allow-missing) to score them as empty"
        )
    return MatchedCases(
        predictions,
        tuple(CasePair(name, predicted.get(name), path) for name, path in referenced.items()),
        tuple(name for name in predicted if name not in referenced),
    )


def _is_dataset(path: Path) -> bool:
    """Whether references are a dataset and not label maps, which lie in their folder directly."""
    if path.is_dir():
        return not any(is_volume_path(file) and file.is_file() for file in path.iterdir()) and any(
            path.iterdir()
        )
    return path.is_file() and not is_volume_path(path)


def _match_dataset(predictions: Path, references: Path, allow_missing: bool) -> MatchedCases:
    dataset = open_dataset(references)
    labelled = {case.name: case for case in dataset.cases if case.label_parts}
    if not labelled:
        raise DatasetError(f"{references}: no case of this dataset has labels; give the references")
    predicted = _list_volumes(predictions)
    matched = _pair(predictions, predicted, references, labelled, allow_missing)
    labels = without_ignore(dataset.labels)
    pairs = tuple(
        replace(pair, annotated=_annotated_values(labelled[pair.name], labels))
        for pair in matched.pairs
    )
    return _named(replace(matched, pairs=pairs), dataset.labels)


def _named(matched: MatchedCases, labels: Mapping[str, int | Sequence[int]]) -> MatchedCases:
    """The same with names of the references' values."""
    scored = {name: values for name, values in labels.items() if not is_ignore(name)}
    ignored = (value for name, value in labels.items() if is_ignore(name))
    return replace(
        matched,
        labels=scored,
        # A region is never called so.
        ignored_values=tuple(value for value in ignored if isinstance(value, int)),
    )


def _annotated_values(case: Case, labels: Mapping[str, int]) -> frozenset[int] | None:
    if case.annotated is None:
        return None
    return frozenset(value for name, value in labels.items() if case.annotates(name))


def recorded_labels(
    predictions: Path, labels: Iterable[str], *, whole_regions: bool = False
) -> dict[str, int | Sequence[int]] | None:
    """Values in the predictions of those labels that they name, as `labels_of`.

    Args:
        predictions: Their folder, or one of them.
        labels: Names, in any spelling.
        whole_regions: As `labels_of`.

    Returns:
        Those of the names that are there; None without a record, or where it has none of them.

    Raises:
        DatasetError: If there is a dataset.json whose labels cannot be read.
    """
    named = labels_of(predictions, whole_regions=whole_regions)
    found = {label: find_label(label, named) for label in labels}
    return {label: named[name] for label, name in found.items() if name is not None} or None


def labels_of(label_maps: Path, *, whole_regions: bool = False) -> dict[str, int | Sequence[int]]:
    """The names of values in label maps, from what lies beside them or stands in their headers.

    The first of these that there is: the dataset.json that nnU-Net leaves with its predictions,
    whose regions have several values; leanseg's own record; a label table in NIfTI headers, as
    `leanseg.volumes.label_table`. A model of leanseg numbers its labels 1, 2, ...; of a region
    that others lie inside, that is the value of what lies in none of them, as in a label map that
    has one label a voxel.

    Args:
        label_maps: Their folder, or one of them.
        whole_regions: Whether a region of leanseg's own record has the values of those inside it,
            too.

    Returns:
        Name to value or values; empty where nothing names them.

    Raises:
        DatasetError: If there is a dataset.json whose labels cannot be read, or the tables of two
            files name a value differently.
    """
    folder = label_maps if label_maps.is_dir() else label_maps.parent
    listing = folder / DATASET_JSON
    if listing.is_file():
        return _listed_labels(listing)
    return _own_labels(folder, whole_regions) or _labels_in_headers(label_maps)


def _labels_in_headers(label_maps: Path) -> dict[str, int | Sequence[int]]:
    named: dict[str, int | Sequence[int]] = {}
    found = find(label_maps, "*{volume}") if label_maps.is_dir() else ()
    for file in [each.path for each in found] or [label_maps]:
        for name, value in label_table(file).items():
            if named.setdefault(name, value) != value:
                raise DatasetError(
                    f"{file}: its label table says that {told(name)} is {value}, that of another "
                    f"file of this folder says {named[name]}; put them into folders of their own"
                )
    return named


def _listed_labels(listing: Path) -> dict[str, int | Sequence[int]]:
    def parse(text: str) -> dict[str, int | Sequence[int]]:
        listed = json.loads(text)["labels"]
        regions = {
            name: tuple(map(int, values))
            for name, values in listed.items()
            if isinstance(values, list)
        }
        others = {name: value for name, value in listed.items() if name not in regions}
        alone = {} if regions and set(others) <= {"background"} else foreground_labels(others)
        return {**alone, **regions}

    return read_parsed(listing, parse)


def _own_labels(folder: Path, whole_regions: bool) -> dict[str, int | Sequence[int]]:
    def parse(text: str) -> list[dict[str, int | Sequence[int]]]:
        return [
            _values_of(case["plan"]["stages"][-1], case.get("labels"), whole_regions)
            for case in json.loads(text)["cases"].values()
        ]

    try:
        named = read_parsed(folder / _RECORDS_FILE, parse)
    except DatasetError:
        return {}
    return named[0] if named and all(each == named[0] for each in named) else {}


def _values_of(
    stage: Mapping[str, Any], chosen: Sequence[str] | None, whole_regions: bool
) -> dict[str, int | Sequence[int]]:
    named: Mapping[str, int | Sequence[int]]
    if whole_regions:
        named = Stage.model_validate(stage).label_values
    else:
        named = {str(name): number for number, name in enumerate(stage["labels"], start=1)}
    return {name: values for name, values in named.items() if chosen is None or name in chosen}


def _list_volumes(path: Path) -> dict[str, Path]:
    """Case name to file, sorted by name."""
    if path.is_file():
        return {told(volume_stem(path)): path}
    if not path.is_dir():
        raise DatasetError(f"{path} does not exist; give a label map or a folder of them")
    files = (found.path for found in find(path, "*{volume}"))
    listed = by_name(((told(volume_stem(file)), file) for file in files), "label maps")
    if not listed:
        msg = f"{path} holds no label maps ({', '.join(VOLUME_SUFFIXES)}); check the folder"
        raise DatasetError(msg)
    return dict(sorted(listed.items()))
