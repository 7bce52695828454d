"""What is measured of each case: small facts, from which every check is made without voxels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from leanseg.datasets.labels import without_ignore
from leanseg.datasets.split_files import Split
from leanseg.volumes import Volume


@dataclass(frozen=True)
class GridFacts:
    """One source as it was read.

    Attributes:
        path: The source, for messages.
        shape: Voxels along the axes as stored.
        spacing_mm: Along the axes as stored.
        orientation: Such as "LPS".
        dtype: Of the voxels, as read.
        apart_mm: How far the same corner voxel lies from the one of the case's first image,
            infinite where the shapes differ; None where both are one grid.
        turned: Whether it is the image's grid stored along other axes.
        notes: What the reader of a DICOM series remarked.
        header_notes: What is to be said of the file's header.
        n_odd: Of a label part: voxels whose value is not a whole number from 0 to 65535.
        odd: Of a label part: one of these values.
        unlisted: Of a label part: values that its own list of values leaves out.
        contested: Of a label part: its label, that of an earlier part, and the number of voxels,
            of each pair that claims the same voxels.
    """

    path: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    orientation: str
    dtype: str
    apart_mm: float | None = None
    turned: bool = False
    notes: tuple[str, ...] = ()
    header_notes: tuple[str, ...] = ()
    n_odd: int = 0
    odd: float = 0.0
    unlisted: tuple[int, ...] = ()
    contested: tuple[tuple[int, int, int], ...] = ()

    def in_ras(self) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Shape and spacing along the axes left-right, back-front, feet-head."""
        axes = [next(n for n, c in enumerate(self.orientation) if c in p) for p in ("LR", "PA")]
        axes.append(3 - sum(axes))
        return tuple(self.shape[a] for a in axes), tuple(self.spacing_mm[a] for a in axes)


@dataclass(frozen=True)
class ChannelFacts:
    """Grey values of one channel.

    Attributes:
        low: The lowest finite value; NaN where no voxel is finite, as in the next four.
        p1: 1st percentile of an even sample of the finite voxels.
        p50: Their median.
        p99: Their 99th percentile.
        high: The highest finite value.
        n_nan: Number of NaN voxels.
        n_infinite: Number of infinite voxels.
        body_x_mm: Middle of what is brighter than air, from left to right in RAS+ mm; NaN where
            nothing is.
        body_width_mm: Its width within the scan.
        digest: Of the voxels in RAS order as float32: equal for the same scan however stored.
        mirror_digest: Equal also for a mirrored or turned one.
    """

    low: float
    p1: float
    p50: float
    p99: float
    high: float
    n_nan: int = 0
    n_infinite: int = 0
    body_x_mm: float = float("nan")
    body_width_mm: float = 0.0
    digest: str = ""
    mirror_digest: str = ""


@dataclass(frozen=True)
class LabelFacts:
    """One value of a case's label map.

    Attributes:
        value: In the dataset's numbering.
        voxels: How many voxels have it.
        volume_ml: Their volume.
        centre_mm: Their centre in RAS+ mm.
    """

    value: int
    voxels: int
    volume_ml: float
    centre_mm: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Thumbnail:
    """An axial slice, small.

    Attributes:
        image: One slice (i, j, 1), uint8, windowed, LPS, where it lies in the world.
        labels: Label map of that slice, or None.
    """

    image: Volume
    labels: NDArray[Any] | None


@dataclass(eq=False)
class CaseFacts:
    """What is known of a case; filled while its sources are read one after another.

    Attributes:
        name: The case's name.
        images: Each image source that could be read.
        n_channels: Over all image sources; 0 where one could not be read.
        channels: Grey values, one for each channel read.
        label_grids: Each label part that could be read.
        has_labels: Whether the case has label parts at all.
        labels: By value, ascending.
        annotated: Names of the labels that the case annotates; None for all.
        failures: Of each source that could not be read: the kind of finding that it makes, and a
            sentence with the file.
        patient: What tells cases of one patient, if layout or DICOM headers know.
        thumbnail: If asked for.
    """

    name: str
    images: list[GridFacts] = field(default_factory=list)
    n_channels: int = 0
    channels: list[ChannelFacts] = field(default_factory=list)
    label_grids: list[GridFacts] = field(default_factory=list)
    has_labels: bool = False
    labels: Sequence[LabelFacts] = ()
    annotated: Sequence[str] | None = None
    failures: list[tuple[str, str]] = field(default_factory=list)
    patient: str | None = None
    thumbnail: Thumbnail | None = None

    @property
    def image(self) -> GridFacts | None:
        """The first image; None where it could not be read."""
        return self.images[0] if self.images else None

    def annotates(self, label: str) -> bool:
        """Whether a label of the dataset is annotated in this case."""
        return self.has_labels and (self.annotated is None or label in self.annotated)


@dataclass(frozen=True, eq=False)
class Survey:
    """All that a check may look at.

    Attributes:
        labels: Foreground names to values; empty where the dataset declares none.
        declared: Whether the dataset says which labels there are. Where names are taken from
            the label maps themselves, no value can be outside of them.
        channels: Names of the channels.
        cases: Facts of every case, sorted by name.
        splits: Splits that the cases will be used in.
    """

    labels: Mapping[str, int]
    declared: bool
    channels: tuple[str, ...]
    cases: tuple[CaseFacts, ...]
    splits: tuple[Split, ...] = ()

    @property
    def organs(self) -> dict[str, int]:
        """The labels but the one called "ignore": whether a case has that says nothing."""
        return without_ignore(self.labels)

    def name_of(self, value: int) -> str:
        """The label's name, or a name made of its value."""
        return next((name for name, v in self.labels.items() if v == value), f"label_{value}")

    def channel(self, n: int) -> str:
        """The channel's name, or a name made of its number."""
        return self.channels[n] if n < len(self.channels) else f"channel {n}"


def is_ct(channel: str) -> bool:
    """Whether a channel is called CT, alone or among other words ("CT portal venous")."""
    return "ct" in re.split(r"[\W_]+", channel.lower())
