"""A source: network input from any place of a frame, from a scan or from the cache."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import GeometryError
from leanseg.frames.intensity import IntensityTransform, fit_by_extremes, fit_intensity
from leanseg.frames.interpolation import Kind, axis_taps, prepare_slice, resize_planes
from leanseg.frames.nonzero import enclosed_by_nonzero
from leanseg.frames.place import Place, read_place
from leanseg.frames.view import Channels, Scan, ScanView, stored_axes
from leanseg.plan import Frame, Plan, StageSettings
from leanseg.volumes import Box

# A frame of more voxels would be past 8 GB for one channel.
_MOST_VOXELS = 2**31
# Of slices whose voxels interleave in memory: a cache line holds voxels of this many.
_INTERLEAVED_SLICES = 16
_SLICES_AT_ONCE = 8

Floats = NDArray[np.float32]
# The value that each channel has everywhere in a slice; None where any has several.
Constant = tuple[float, ...] | None


@dataclass(frozen=True, eq=False)
class Portion:
    """Some consecutive slices of a region, read but not prepared.

    Attributes:
        start: The first one's number.
        n_slices: How many there are.
        channels: Grey values of each channel (i, j, slice), where the source is a scan.
    """

    start: int
    n_slices: int
    channels: Channels


class ScanSource:
    """A scan windowed, scaled and resampled on demand, with half-pixel centres.

    Args:
        view: The scan in the frame's orientation.
        stage: Its frame and intensity are used.
        region: The part that the frame covers; None for all.

    Raises:
        GeometryError: If the frame would have absurdly many voxels: the header is wrong.

    Attributes:
        shape: (i, j, k) of the frame.
        region: The box that it covers, in voxels of the scan in the frame's orientation.
        restoring: How each axis is interpolated on the way back to the scan's grid.
    """

    def __init__(self, view: ScanView, stage: StageSettings, region: Box | None = None) -> None:
        self._view, self._stage = view, stage
        self.region = region or Box((0, 0, 0), view.shape)
        self.shape = frame_shape(stage, self.region.shape, view.spacing_mm, view.name)
        self._kinds, self.restoring = interpolation_kinds(
            stage.frame, self.region.shape, view.spacing_mm
        )
        self._taps = axis_taps(self.region.shape[2], self.shape[2], self._kinds[2])
        # Slices that were prepared last, from the first one's number on: splines need many again.
        self._kept: tuple[int, Floats] = (0, np.empty(0, np.float32))

    @cached_property
    def transforms(self) -> list[IntensityTransform]:
        """What happens to the grey values of each channel."""
        view, intensity = self._view, self._stage.intensity
        if not view.streams:
            channels = view.channels if intensity.over == "scan" else self._covered
            return [
                fit_intensity(channel, intensity.of_channel(index), self._inside)
                for index, channel in enumerate(channels)
            ]
        pieces = view.pieces(_SLICES_AT_ONCE, 0, view.shape[2])
        slabs = (channels[0] for _, channels in pieces)
        return [fit_by_extremes(slabs, intensity.of_channel(0))]

    @property
    def _covered(self) -> Channels:
        return [channel[self.region.slices] for channel in self._view.channels]

    @cached_property
    def _inside(self) -> NDArray[np.bool_] | None:
        """The voxels of the region whose scaled values are used; None for all."""
        if self._stage.intensity.over != "nonzero":
            return None
        return enclosed_by_nonzero(self._covered)

    @property
    def _keeps_range_of_slices(self) -> bool:
        return self._kinds[2] == "nearest"

    @cached_property
    def _ranges(self) -> list[tuple[float, float]]:
        """The least and greatest scaled value of each channel, which splines may not leave."""
        if self._keeps_range_of_slices or "cubic" not in self._kinds:
            return []
        found = []
        _, _, k = self.region.slices
        for index, transform in enumerate(self.transforms):
            pieces = self._view.pieces(_SLICES_AT_ONCE, k.start, k.stop)
            cut = (channels[index][self.region.slices[:2]] for _, channels in pieces)
            ends = np.array([(piece.min(), piece.max()) for piece in cut])
            values = [float(each) for each in transform.apply(ends).ravel()]
            if self._inside is not None and not self._inside.all():
                values.append(0.0)
            found.append((min(values), max(values)))
        return found

    def _within_range(self, planes: Floats) -> Floats:
        for index, ends in enumerate(self._ranges):
            np.clip(planes[:, index], *ends, out=planes[:, index])
        return planes

    def portions(self, n: int) -> Iterator[Portion]:
        """All slices of the region, about `n` at a time, in the order in which they are read."""
        if self._view.interleaves:
            # One slice of such a scan touches every piece of memory that all of them do.
            n = -(-_INTERLEAVED_SLICES // n) * n
        yield from self._portions(n, 0, self.region.shape[2])

    def prepare(self, portion: Portion) -> tuple[Floats, list[Constant]]:
        """Slices as network input; several threads may call it at once.

        Returns:
            (slice, channel, i, j) in the frame in-plane, and for each slice the value that it has
            everywhere. Slices with the same value have the same input.
        """
        out = np.empty((portion.n_slices, len(portion.channels), *self.shape[:2]), np.float32)
        constants = self._prepare(portion, out)
        return self._within_range(out), constants

    def planes(self, start: int, stop: int, out: Floats | None = None) -> Floats:
        """Planes [start, stop) of the frame along k: (plane, channel, i, j)."""
        taps, first, last = None, start, stop
        if self._taps is not None:
            taps, first, last = self._taps.part(start, stop)
        shape = (self._view.n_channels, *self.shape[:2])
        if out is None:
            out = np.empty((stop - start, *shape), dtype=np.float32)
        own = out if taps is None else np.empty((last - first, *shape), dtype=np.float32)
        begun, (start, kept) = first, self._kept
        if taps is not None and start <= first < start + len(kept):
            again = kept[first - start : last - start]
            own[: len(again)] = again
            begun += len(again)
        for portion in self._portions(_SLICES_AT_ONCE, begun, last):
            place = portion.start - first
            self._prepare(portion, own[place : place + portion.n_slices])
        if taps is not None:
            if self._kinds[2] == "cubic" and last < self.region.shape[2]:
                self._kept = (first, own)
            resize_planes(own, taps, out)
        return self._within_range(out)

    def read(self, place: Place) -> Floats:
        """The voxels at a place of the frame: (channel, i, j, k)."""
        return read_place(place, self.shape, self.planes)

    def _portions(self, n: int, first: int, last: int) -> Iterator[Portion]:
        i, j, k = self.region.slices
        for start, channels in self._view.pieces(n, k.start + first, k.start + last):
            cropped = [channel[i, j] for channel in channels]
            yield Portion(start - k.start, cropped[0].shape[2], cropped)

    def _prepare(self, portion: Portion, out: Floats) -> list[Constant]:
        values: list[list[float | None]] = [[] for _ in out]
        for index, (channel, transform) in enumerate(
            zip(portion.channels, self.transforms, strict=True)
        ):
            slab = np.asfortranarray(channel) if self._view.interleaves else channel
            for number, found in enumerate(values):
                k = portion.start + number
                value = prepare_slice(
                    slab[:, :, number],
                    transform,
                    out[number, index],
                    self._kinds[:2],
                    None if self._inside is None else self._inside[:, :, k],
                    keeps_range=self._keeps_range_of_slices,
                )
                found.append(value)
        # A sum is finite where all are, but for values that no network could use.
        with np.errstate(all="ignore"):
            total = out.sum()
        if not np.isfinite(total):
            raise GeometryError(
                f"{self._view.name}: its grey values leave the range of 32-bit numbers; correct "
                "them, or give the recipe's plan.intensity a window"
            )
        return [_all_known(found) for found in values]


def _all_known(values: Sequence[float | None]) -> Constant:
    known = tuple(value for value in values if value is not None)
    return known if len(known) == len(values) else None


# More than this many times as coarse as another, an axis is not interpolated along: nnU-Net's.
_ANISOTROPIC = 3.0
Kinds = tuple[Kind, Kind, Kind]


def interpolation_kinds(
    frame: Frame, n_voxels: tuple[int, ...], spacing_mm: tuple[float, ...]
) -> tuple[Kinds, Kinds]:
    """How each axis is interpolated, from the scan to a frame and back.

    Args:
        frame: The frame.
        n_voxels: Of the region that it covers, along the frame's axes.
        spacing_mm: Along these.
    """
    if frame.resampling == "linear":
        there: Kind = "smooth" if frame.antialias else "linear"
        return (there, there, there), ("smooth", "smooth", "smooth")
    lengths = frame.shape(n_voxels, spacing_mm)
    grid_mm = tuple(
        axis.spacing_mm or mm * n / length
        for axis, n, mm, length in zip(frame.axes, n_voxels, spacing_mm, lengths, strict=True)
    )
    return (
        _kinds("cubic", _coarse_axis(spacing_mm, grid_mm)),
        _kinds("linear", _coarse_axis(grid_mm, spacing_mm)),
    )


def _kinds(kind: Kind, coarse: int | None) -> Kinds:
    i, j, k = ("nearest" if axis == coarse else kind for axis in range(3))
    return i, j, k


def _coarse_axis(*spacings_mm: Sequence[float]) -> int | None:
    """The one axis along which the first anisotropic spacing is the coarsest."""
    for spacing_mm in spacings_mm:
        coarsest = max(spacing_mm)
        if coarsest / min(spacing_mm) > _ANISOTROPIC:
            axes = [axis for axis, mm in enumerate(spacing_mm) if mm == coarsest]
            return axes[0] if len(axes) == 1 else None
    return None


def frame_shape(
    stage: StageSettings, n_voxels: tuple[int, ...], spacing_mm: tuple[float, ...], name: str
) -> tuple[int, int, int]:
    """(i, j, k) of a stage's frame over a region.

    Raises:
        GeometryError: If it would have absurdly many voxels, naming the scan.
    """
    i, j, k = stage.frame.shape(n_voxels, spacing_mm)
    if math.prod((i, j, k)) > _MOST_VOXELS:
        size = " x ".join(f"{n * mm:.4g}" for n, mm in zip(n_voxels, spacing_mm, strict=True))
        raise GeometryError(
            f"{name}: is {size} mm by its header and would have {i} x {j} x {k} voxels in the "
            f"model's spacing, {4e-9 * math.prod((i, j, k)):.0f} GB; correct the header, or give "
            "the model's frame a larger spacing_mm"
        )
    return i, j, k


def require_sensible_frames(scan: Scan, plan: Plan) -> None:
    """Refuse a scan of which a frame would have absurdly many voxels, from its header alone.

    Raises:
        GeometryError: Naming the scan.
    """
    for stage in plan.for_scan(scan.orientation).networks:
        if stage.frame.region == "scan":
            planned_frame(scan, stage)


def planned_frame(scan: Scan, stage: StageSettings) -> tuple[tuple[int, ...], tuple[int, int, int]]:
    """A scan's shape turned to a stage's orientation, and that of the frame over all of it.

    Raises:
        GeometryError: If the frame would have absurdly many voxels, naming the scan.
    """
    order = stored_axes(scan.orientation, stage.frame.orientation)
    turned = tuple(scan.shape[axis] for axis in order)
    spacing_mm = tuple(scan.spacing_mm[axis] for axis in order)
    return turned, frame_shape(stage, turned, spacing_mm, str(scan.path or "the scan"))


class CachedSource:
    """A frame that was prepared before, from the cache: the same bits as `ScanSource`.

    Args:
        image: (k, channel, i, j), as `ScanSource.planes` gives them, or in 16 bits; may be
            memory-mapped.
        region: The box that the frame covers.
        channels: Which of the image's channels there are, in order; None for all.
    """

    restoring: Kinds = ("smooth", "smooth", "smooth")

    def __init__(
        self, image: NDArray[np.floating], region: Box, channels: Sequence[int] | None = None
    ) -> None:
        self._image, self._channels = image, slice(None) if channels is None else list(channels)
        self.region = region
        self.shape = (int(image.shape[2]), int(image.shape[3]), int(image.shape[0]))

    def portions(self, n: int) -> Iterator[Portion]:
        """All slices, `n` at a time."""
        for start in range(0, len(self._image), n):
            yield Portion(start, min(n, len(self._image) - start), [])

    def prepare(self, portion: Portion) -> tuple[Floats, list[Constant]]:
        """Slices as network input; which of them are constant is not known."""
        planes = self.planes(portion.start, portion.start + portion.n_slices)
        return planes, [None] * portion.n_slices

    def planes(self, start: int, stop: int, out: Floats | None = None) -> Floats:
        """Planes [start, stop) of the frame along k: (plane, channel, i, j)."""
        if out is None:
            # A copy: the cache's memory map is read-only, and engines may own their input.
            return np.array(self._image[start:stop][:, self._channels], dtype=np.float32)
        out[...] = self._image[start:stop][:, self._channels]
        return out

    def read(self, place: Place) -> Floats:
        """The voxels at a place of the frame: (channel, i, j, k)."""
        return read_place(place, self.shape, self.planes)


# A scan in its frame, from where network inputs are read.
Source = ScanSource | CachedSource
