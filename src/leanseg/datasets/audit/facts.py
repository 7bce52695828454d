"""What is measured of each case: small facts, from which every check is made without voxels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.datasets.splits import Split


@dataclass(frozen=True)
class Failure:
    """A source that could not be read.

    Attributes:
        kind: The kind of finding that it makes.
        message: One sentence with the file.
    """

    kind: str
    message: str


@dataclass(frozen=True)
class GridFacts:
    """The grid of one source.

    Attributes:
        path: The source, for messages.
        shape: Voxels along the axes as stored.
        spacing_mm: Along the axes as stored.
        orientation: Such as "LPS".
        dtype: Of the voxels, as read.
        apart_mm: How far the same corner voxel lies from the one of the case's first image,
            infinite where the shapes differ; None where both are one grid.
        turned: Whether it is the image's grid stored along other axes.
        has_zero_spacing: Whether the header says 0 for a spacing that is in use.
        notes: What the reader of a DICOM series remarked.
    """

    path: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    orientation: str
    dtype: str
    apart_mm: float | None = None
    turned: bool = False
    has_zero_spacing: bool = False
    notes: tuple[str, ...] = ()

    def in_ras(self) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Shape and spacing along the axes left-right, back-front, feet-head."""
        axes = [next(n for n, c in enumerate(self.orientation) if c in p) for p in ("LR", "PA")]
        axes.append(3 - sum(axes))
        return tuple(self.shape[a] for a in axes), tuple(self.spacing_mm[a] for a in axes)


@dataclass(frozen=True)
class ChannelFacts:
    """Grey values of one channel; percentiles from an even sample of the finite voxels."""

    low: float
    p1: float
    p50: float
    p99: float
    high: float
    n_nan: int = 0
    n_infinite: int = 0


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
    """An axial slice as a radiologist sees it, small.

    Attributes:
        grey: (rows, columns) uint8, windowed, the patient's right at the left, anterior up.
        labels: (rows, columns) uint8 or uint16, or None.
        pixel_mm: Height and width of a pixel.
        z_mm: Where the slice lies.
    """

    grey: NDArray[np.uint8]
    labels: NDArray[Any] | None
    pixel_mm: tuple[float, float]
    z_mm: float


@dataclass(frozen=True, eq=False)
class CaseFacts:
    """What is known of a case after reading it.

    Attributes:
        name: The case's name.
        images: Grid of each image source that could be read.
        n_channels: Over all sources; 0 where one could not be read.
        channels: Grey values, one for each channel read.
        label_grids: Grid of each label part that could be read.
        has_labels: Whether the case has label parts at all.
        labels: By value, ascending.
        odd_labels: Voxels whose label is not a whole number from 0 to 65535; with an example.
        unlisted: Path of a label part, and values in it that its list of values leaves out.
        annotated: Names of the labels that the case annotates; None for all.
        failures: Sources that could not be read.
        digest: Of the voxels in RAS order as float32: equal for the same scan however stored.
        mirror_digest: Equal also for a mirrored or turned one.
        body_centre_x_mm: Middle of the body from left to right in RAS+ mm.
        body_width_mm: Its width within the scan.
        patient: What tells cases of one patient, if the layout knows.
        thumbnail: If asked for.
    """

    name: str
    images: tuple[GridFacts, ...] = ()
    n_channels: int = 0
    channels: tuple[ChannelFacts, ...] = ()
    label_grids: tuple[GridFacts, ...] = ()
    has_labels: bool = False
    labels: tuple[LabelFacts, ...] = ()
    odd_labels: tuple[tuple[str, int, float], ...] = ()
    unlisted: tuple[tuple[str, tuple[int, ...]], ...] = ()
    annotated: tuple[str, ...] | None = None
    failures: tuple[Failure, ...] = ()
    digest: str | None = None
    mirror_digest: str | None = None
    body_centre_x_mm: float | None = None
    body_width_mm: float | None = None
    patient: str | None = None
    thumbnail: Thumbnail | None = None

    @property
    def image(self) -> GridFacts | None:
        """Grid of the first image; None where it could not be read."""
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
    splits: tuple[Split, ...] = field(default=())

    def name_of(self, value: int) -> str:
        """The label's name, or a name made of its value."""
        return next((name for name, v in self.labels.items() if v == value), f"label_{value}")
