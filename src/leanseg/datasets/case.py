"""What a dataset is made of: cases, each a scan of one patient with, perhaps, its labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from leanseg.datasets.labels import FoundLabels
from leanseg.datasets.load import LARGEST_LABEL, load_image, load_label
from leanseg.datasets.readers import read_source
from leanseg.datasets.sources import LabelPart, VolumeLike, VolumeSource, is_volume_like
from leanseg.errors import DatasetError, LeansegError, told
from leanseg.files import shortened
from leanseg.volumes import is_volume_path, volume_stem
from leanseg.volumes.volume import Volume


@dataclass(frozen=True, init=False)
class Case:
    """One scan and its label map; files are not read before they are needed.

    Attributes:
        name: Unique within the dataset; names the result files.
        images: One 3-D volume per channel, or a single 3-D or 4-D volume with all of them.
        label_parts: What the label map is made of, from the bottom up; empty where the case has
            no labels. Parts overlap where a layout says which lies on top, or one lies within
            another's label.
        annotated: Names of the dataset's labels that this case annotates; None for all of
            them. The others are unknown here, never background.
        metadata: What is known about the case besides (patient, site, ...).

    Example:
        >>> case = leanseg.Case("scan.nii.gz", name="patient 7")
        >>> case.name, case.image.orientation, case.label is None
        ('patient 7', 'RPS', True)
    """

    name: str
    images: tuple[VolumeSource, ...]
    label_parts: tuple[LabelPart, ...] = ()
    annotated: frozenset[str] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __init__(
        self,
        images: VolumeLike | Sequence[VolumeLike],
        label_parts: VolumeLike | Sequence[LabelPart] | None = None,
        name: str = "",
        annotated: Iterable[str] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """A case of files or arrays: `Case("ct.nii.gz", "organs.nii.gz")`.

        Args:
            images: A path, a `Volume`, or an array (i, j, k[, channel]) with its affine; or a
                list with one of these per channel.
            label_parts: The label map likewise, or the parts that it is made of.
            name: The first file's name without suffix if not given; for arrays, the dataset
                numbers its cases.
            annotated: Names of the labels that the case annotates; None for all of them.
            metadata: Facts such as `{"patient": "7"}`; cases of one patient are never split.
        """
        given: Any = [images] if is_volume_like(images) else images
        sources = tuple(VolumeSource.of(each) for each in given)
        parts: Any = label_parts or ()
        if is_volume_like(parts):
            parts = (LabelPart(VolumeSource.of(parts)),)
        if not name and sources[0].reader != "memory":
            name = name_of(sources[0].path)
        # The class is frozen.
        self.__dict__.update(
            name=told(name),
            images=sources,
            label_parts=tuple(parts),
            annotated=None if annotated is None else frozenset(annotated),
            metadata=dict(metadata or {}),
        )

    @property
    def image(self) -> Volume:
        """The scan, (i, j, k) or (i, j, k, channel), read now."""
        return load_image(self.images)

    @property
    def label(self) -> Volume | None:
        """The label map on the scan's grid, read now; None where the case has no labels."""
        return load_case(self)[1]

    @property
    def label_path(self) -> Path | None:
        """Where the label map, or its first part, lies; None where the case has no labels."""
        return self.label_parts[0].source.path if self.label_parts else None

    @property
    def sources(self) -> tuple[VolumeSource, ...]:
        """Everything that is read for this case, images first."""
        return (*self.images, *(part.source for part in self.label_parts))

    def annotates(self, label: str) -> bool:
        """Whether a label of the dataset is annotated in this case."""
        return bool(self.label_parts) and (self.annotated is None or label in self.annotated)

    def with_paths(self, change: Callable[[Path], Path]) -> Case:
        """The same case with `change` applied to every path."""
        return self._with_sources(lambda source: source.moved(change))

    def read_as(self, geometry: str) -> Case:
        """The same case with a choice between sform and qform, as `VolumeSource.read_as`."""
        return self._with_sources(lambda source: source.read_as(geometry))

    def _with_sources(self, change: Callable[[VolumeSource], VolumeSource]) -> Case:
        parts = (replace(part, source=change(part.source)) for part in self.label_parts)
        images = tuple(change(image) for image in self.images)
        return replace(self, images=images, label_parts=tuple(parts))

    def to_json(self) -> dict[str, Any]:
        """As values that JSON has."""
        return {
            "name": self.name,
            "images": [source.to_json() for source in self.images],
            "label_parts": [part.to_json() for part in self.label_parts],
            "annotated": None if self.annotated is None else sorted(self.annotated),
            "metadata": dict(self.metadata),
        }


def name_of(path: Path) -> str:
    """What a scan is called after: its file or folder, without the suffix of a file."""
    return path.name if path.is_dir() else volume_stem(path)


@dataclass(frozen=True, init=False)
class Dataset:
    """A set of cases with the meaning of their channels and labels.

    Attributes:
        cases: In the given order; from files, sorted by name.
        labels: Foreground label name to value in the label maps, in ascending value.
        channels: Channel names in file order, such as ("CT",) or ("FLAIR", "T1w").
        name: From the dataset's own description, else the folder's name.
        root: The folder, or the zip file.
        layout: Registered name of the layout that read it.

    Example:
        >>> scan, label = np.zeros((8, 8, 4), np.int16), np.ones((8, 8, 4), np.uint8)
        >>> case = leanseg.Case((scan, np.eye(4)), (label, np.eye(4)))
        >>> data = leanseg.Dataset([case], labels={"liver": 1}, channels=["CT"])
        >>> len(data), data[0].name, data[0].label.array.max()
        (1, 'case_000', np.uint8(1))
    """

    cases: tuple[Case, ...]
    labels: Mapping[str, int]
    channels: tuple[str, ...]
    name: str
    root: Path
    layout: str

    def __init__(
        self,
        cases: Iterable[Case],
        labels: Mapping[str, int] | None = None,
        channels: Sequence[str] = (),
        *,
        name: str = "dataset",
        root: Path = Path("dataset"),
        layout: str = "memory",
    ) -> None:
        """A dataset of cases.

        Args:
            cases: At least one; those without a name are called case_000, case_001, ...
            labels: Foreground label name to value; the values that are found in the label maps,
                called label_1, label_2, ..., if not given.
            channels: Their names; channel_0, channel_1, ... if not given.
            name: What reports call it.
            root: What messages call it.
            layout: Registered name of the layout that read it.

        Raises:
            DatasetError: If there is no case, two have the same name, or labels are not numbered
                with different whole numbers from 1 on.
        """
        cases = tuple(
            case if case.name else replace(case, name=f"case_{number:03d}")
            for number, case in enumerate(cases)
        )
        if labels is None:
            labels = FoundLabels(part.source for case in cases for part in case.label_parts)
        _check(root, cases, labels)
        # The class is frozen.
        self.__dict__.update(
            cases=cases,
            labels=labels,
            channels=tuple(map(told, channels)) or generic_channels(cases[0].images),
            name=told(name),
            root=root,
            layout=layout,
        )

    def files(self) -> Iterator[Path]:
        """What it is read from: files and folders of its cases, and listings beside them."""
        sources = (source for case in self.cases for source in case.sources)
        yield from (source.stored for source in sources if source.volume is None)
        for kind in ("*.csv", "*.tsv", "dataset*.json", "labels.json"):
            yield from self.root.rglob(kind)

    def __len__(self) -> int:
        return len(self.cases)

    def __iter__(self) -> Iterator[Case]:
        return iter(self.cases)

    def __getitem__(self, index: int | str) -> Case:
        """A case by its place or its name.

        Raises:
            IndexError: If there is no such place.
            KeyError: If there is no such name.
        """
        if isinstance(index, int):
            return self.cases[index]
        return self.case(index)

    def read_as(self, geometry: str) -> Dataset:
        """The same dataset with a choice between sform and qform, as `VolumeSource.read_as`."""
        return replace(self, cases=tuple(case.read_as(geometry) for case in self.cases))

    def case(self, name: str) -> Case:
        """The case called `name`.

        Raises:
            KeyError: If there is none.
        """
        for case in self.cases:
            if case.name == name:
                return case
        raise KeyError(name)


def _check(root: Path, cases: Sequence[Case], labels: Mapping[str, int]) -> None:
    if not cases:
        raise DatasetError(f"{root}: there is no case; give at least one")
    ((name, count),) = Counter(case.name for case in cases).most_common(1)
    if count > 1:
        shown = shortened(name)
        msg = f"{root}: {count} cases are called {shown}; give every scan its own name"
        raise DatasetError(msg)
    # Labels that are found are whole numbers, and finding them would read the label maps.
    known = {} if isinstance(labels, FoundLabels) else labels
    # Cases name files, and labels stand in tables.
    odd = [case.name for case in cases if "/" in case.name] + [n for n in known if told(n) != n]
    if odd:
        msg = (
            f"{root}: a case or label cannot be called {shortened(odd[0])}; leave out slashes and "
        )
        raise DatasetError(f"{msg}line breaks")
    values = list(known.values())
    if len({*values}) < len(values) or not all(0 < value <= LARGEST_LABEL for value in values):
        raise DatasetError(
            f"{root}: labels have the values {shortened(values)}; number them with different "
            f"whole numbers from 1 to {LARGEST_LABEL}"
        )


def generic_channels(images: Sequence[VolumeSource]) -> tuple[str, ...]:
    """Names for the channels of a scan about which nothing is known: channel_0, channel_1, ..."""
    count = len(images)
    if count == 1 and (images[0].volume is not None or is_volume_path(images[0].path)):
        # A DICOM series has one value per voxel, and reading it would take its time. One damaged
        # scan must not hide the others: whoever loads this case gets the reason.
        try:
            count = read_source(images[0]).n_channels
        except LeansegError:
            count = 1
    return tuple(f"channel_{number}" for number in range(count))


def load_case(case: Case, dataset: Dataset | None = None) -> tuple[Volume, Volume | None]:
    """The scan and the label map of a case, reading the scan once.

    Args:
        case: One of the dataset's cases.
        dataset: Tells how many channels the scan must have; None accepts any number.

    Returns:
        The image, (i, j, k) or (i, j, k, channel), and the label map, (i, j, k) uint8 or
        uint16, or None where the case has none.

    Raises:
        FileFormatError: If a file cannot be read.
        GeometryError: If label map or channels do not lie on the same grid.
        DatasetError: If voxels are not finite, labels are not whole numbers from 0 on, two labels
            claim a voxel, or the number of channels is not the dataset's.
    """
    image = case.image
    if dataset is not None and image.n_channels != len(dataset.channels):
        raise DatasetError(
            f"{case.images[0].path}: has {image.n_channels} channel(s), but the dataset names "
            f"{len(dataset.channels)} ({', '.join(dataset.channels)}); correct one of the two"
        )
    if not case.label_parts:
        return image, None
    names = {} if dataset is None else {value: name for name, value in dataset.labels.items()}
    return image, load_label(case.label_parts, image, case.name, names)
