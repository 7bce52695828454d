"""From the files of each case to a dataset: labels by name, channels, and what is annotated."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from leanseg.datasets.case import Case, Dataset
from leanseg.datasets.labels import FoundLabels, is_ignore, unified
from leanseg.datasets.sources import LabelPart, VolumeSource
from leanseg.errors import DatasetError


@dataclass
class CaseFiles:
    """The files of one case.

    Attributes:
        name: Of the case.
        images: Scans by name of the channel.
        label: The label map, if there is one.
        names: Name to value in that label map; None where nobody names the values.
        masks: Label and mask, in the order in which they are laid over each other and the label
            map, "ignore" over all others; a label may have several.
        annotated: Labels that the case annotates, where that is told otherwise than by `names`
            and `masks`.
        metadata: Of the case.
        layered: Whether the order of the masks says what lies on top, wherever two overlap.
    """

    name: str
    images: Mapping[str, Path]
    label: VolumeSource | None = None
    names: Mapping[str, int] | None = None
    masks: Sequence[tuple[str, VolumeSource]] = ()
    annotated: Collection[str] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    layered: bool = False


def assembled(
    folder: Path,
    layout: str,
    files: Sequence[CaseFiles],
    labels: Mapping[str, int] | None = None,
    channels: Sequence[str] | None = None,
    masks: Iterable[str] = (),
    name: object = None,
) -> Dataset:
    """The dataset of some cases. Labels are matched by name: cases may number them differently.

    Args:
        folder: Where it lies.
        layout: Registered name of its layout.
        files: Its cases.
        labels: Name to value, where the layout numbers them itself.
        channels: Their names, where they are others than those of the images.
        masks: Labels that have masks of their own, in their order, even if no case has one.
        name: As in `dataset_of`.

    Raises:
        DatasetError: If cases differ in their channels, some label maps are named and others are
            not, or a case annotates what is no label.
    """
    own = list(files[0].images) if files else []
    for each in files:
        if set(each.images) != set(own):
            raise DatasetError(
                f"{folder}: {each.name} has {', '.join(each.images)}, but {files[0].name} has "
                f"{', '.join(own)}; every case needs the same channels. List the scans to "
                "use in a CSV file (columns case, image_<channel>, label)"
            )
    known = _labels(files, masks) if labels is None else labels
    for each in files:
        for label in each.annotated or ():
            if label not in known:
                msg = f"{folder}: case {each.name!r} annotates {label!r}, which is no label here"
                raise DatasetError(f"{msg}; the labels are {', '.join(known)}")
    cases = [_case(each, known, own) for each in files]
    return dataset_of(folder, layout, cases, known, channels or own, name)


def _labels(files: Sequence[CaseFiles], order: Iterable[str]) -> Mapping[str, int]:
    mapped = [each for each in files if each.label is not None]
    named = [each.names for each in mapped if each.names is not None]
    masks = dict.fromkeys([*order, *(label for each in files for label, _ in each.masks)])
    if not named and not masks:
        return FoundLabels(each.label for each in mapped if each.label is not None)
    for each in mapped:
        if each.label is not None and each.names is None:
            raise DatasetError(
                f"{each.label.path}: other labels have names, but nothing names the values of "
                "this label map; add a file beside it that does (labels.json, in BIDS dseg.tsv)"
            )
    labels = unified(named)
    for label in masks:
        labels.setdefault(label, max(labels.values(), default=0) + 1)
    return labels


def _case(files: CaseFiles, labels: Mapping[str, int], channels: Sequence[str]) -> Case:
    # What is ignored lies over whatever else was drawn there.
    masks = sorted(files.masks, key=lambda mask: is_ignore(mask[0]))
    parts = [
        LabelPart(source, value=labels[label], covers=files.layered or is_ignore(label))
        for label, source in masks
    ]
    known = {label for label, _ in files.masks}
    if files.label is not None and files.names is not None:
        values = {value: labels[name] for name, value in files.names.items()}
        is_own = any(old != new for old, new in values.items())
        parts.insert(0, LabelPart(files.label, values=values if is_own else None))
        known |= set(files.names)
    elif files.label is not None:
        parts.insert(0, LabelPart(files.label))
    annotated = files.annotated
    if annotated is None and known and known != set(labels):
        annotated = known
    images = [files.images[channel] for channel in channels]
    return Case(images, parts, files.name, annotated, files.metadata)


def dataset_of(
    folder: Path,
    layout: str,
    cases: Sequence[Case],
    labels: Mapping[str, int],
    channels: Sequence[str] = ("CT",),
    name: object = None,
) -> Dataset:
    """The dataset in a folder, its cases sorted by name.

    Args:
        folder: Where it lies.
        layout: Registered name of its layout.
        cases: Its cases.
        labels: Name to value.
        channels: Their names.
        name: What its own description calls it; the folder's name if that is no text.

    Raises:
        DatasetError: If there is no case.
    """
    if not cases:
        msg = f"{folder}: no case of the layout {layout!r} here; give the folder that holds them"
        raise DatasetError(f"{msg} (`leanseg datasets` shows the expected layout)")
    return Dataset(
        sorted(cases, key=lambda case: case.name),
        labels,
        channels,
        name=name if isinstance(name, str) and name else folder.resolve().name,
        root=folder,
        layout=layout,
    )
