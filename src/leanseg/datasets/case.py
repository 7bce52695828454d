"""What a dataset is made of: cases, each a scan of one patient with, perhaps, its labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Source:
    """Where the voxels of one volume lie and how they are read.

    Attributes:
        path: A volume file, a folder (DICOM series, stack of slices), or a place in a zip file
            (`scans.zip/ct.nii.gz`).
        reader: Registered name of the reader (`leanseg.datasets.readers`).
        options: What the reader needs to know besides, as values that JSON has.
    """

    path: Path
    reader: str = "volume"
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As values that JSON has."""
        return {"path": str(self.path), "reader": self.reader, "options": dict(self.options)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Source:
        """The inverse of `to_json`."""
        return cls(Path(content["path"]), content["reader"], content["options"])


@dataclass(frozen=True)
class LabelPart:
    """One of the volumes that make up a case's label map.

    Attributes:
        source: Where it lies.
        values: The dataset's label for each of its values, those not listed becoming
            background; None takes the values as they are.
        value: The dataset's label for every voxel above zero; overrides `values`.
    """

    source: Source
    values: Mapping[int, int] | None = None
    value: int | None = None

    def to_json(self) -> dict[str, Any]:
        """As values that JSON has."""
        values = None if self.values is None else {str(k): v for k, v in self.values.items()}
        return {"source": self.source.to_json(), "values": values, "value": self.value}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> LabelPart:
        """The inverse of `to_json`."""
        values = content["values"]
        return cls(
            Source.from_json(content["source"]),
            None if values is None else {int(k): int(v) for k, v in values.items()},
            content["value"],
        )


@dataclass(frozen=True)
class Case:
    """One scan and its label map, as paths; nothing is read before it is needed.

    Attributes:
        name: Unique within the dataset; names the result files.
        images: One 3-D volume per channel, or a single 3-D or 4-D volume with all of them.
        label_parts: What the label map is made of; where parts overlap, the later one wins.
            Empty where the case has no labels.
        annotated: Names of the dataset's labels that this case annotates; None for all of
            them. The others are unknown here, never background.
        metadata: What the layout knows about the case besides (patient, site, ...).
    """

    name: str
    images: tuple[Source, ...]
    label_parts: tuple[LabelPart, ...] = ()
    annotated: frozenset[str] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_files(
        cls,
        name: str,
        images: Iterable[Path],
        label: Path | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Case:
        """A case of plain volume files, with one label map or none."""
        return cls(
            name,
            tuple(Source(path) for path in images),
            () if label is None else (LabelPart(Source(label)),),
            metadata=metadata or {},
        )

    @property
    def label(self) -> Path | None:
        """Where the label map, or its first part, lies; None where the case has no labels."""
        return self.label_parts[0].source.path if self.label_parts else None

    @property
    def sources(self) -> tuple[Source, ...]:
        """Everything that is read for this case, images first."""
        return (*self.images, *(part.source for part in self.label_parts))

    def annotates(self, label: str) -> bool:
        """Whether a label of the dataset is annotated in this case."""
        return bool(self.label_parts) and (self.annotated is None or label in self.annotated)

    def with_paths(self, change: Callable[[Path], Path]) -> Case:
        """The same case with `change` applied to every path."""

        def moved(source: Source) -> Source:
            return replace(source, path=change(source.path))

        return replace(
            self,
            images=tuple(moved(source) for source in self.images),
            label_parts=tuple(replace(p, source=moved(p.source)) for p in self.label_parts),
        )

    def to_json(self) -> dict[str, Any]:
        """As values that JSON has."""
        return {
            "name": self.name,
            "images": [source.to_json() for source in self.images],
            "label_parts": [part.to_json() for part in self.label_parts],
            "annotated": None if self.annotated is None else sorted(self.annotated),
            "metadata": dict(self.metadata),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Case:
        """The inverse of `to_json`."""
        annotated = content["annotated"]
        return cls(
            content["name"],
            tuple(Source.from_json(source) for source in content["images"]),
            tuple(LabelPart.from_json(part) for part in content["label_parts"]),
            None if annotated is None else frozenset(annotated),
            content["metadata"],
        )


@dataclass(frozen=True)
class Dataset:
    """A set of cases with the meaning of their channels and labels.

    Attributes:
        name: From the dataset's own description, else the folder's name.
        root: The folder, or the zip file.
        layout: Registered name of the layout that read it.
        cases: Sorted by name.
        labels: Foreground label name to value in the label maps, in ascending value.
        channels: Channel names in file order, such as ("CT",) or ("FLAIR", "T1w").
    """

    name: str
    root: Path
    layout: str
    cases: tuple[Case, ...]
    labels: Mapping[str, int]
    channels: tuple[str, ...]

    def case(self, name: str) -> Case:
        """The case called `name`.

        Raises:
            KeyError: If there is none.
        """
        for case in self.cases:
            if case.name == name:
                return case
        raise KeyError(name)
