"""A scan as the stack of slices that a 2-D network sees, read a few at a time.

Training and prediction both read scans through `ScanSlices`, so that they see the same values.
Protocol of paper 000 and its public loader: clip Hounsfield units, scale each volume to [0, 1],
resize in-plane to the network's slice shape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import DatasetError
from leanseg.preprocessing.fused import prepare_slice
from leanseg.preprocessing.intensity import IntensityTransform, fit_intensity
from leanseg.preprocessing.plan import LabelCentredSlices, Plan
from leanseg.volumes import Volume, nearest_indices, reoriented_view, resize_array

# Of slices whose voxels interleave in memory: a cache line holds voxels of this many.
_INTERLEAVED_SLICES = 16


class SliceSource(Protocol):
    """Anything that hands out a case's network slices: a scan, or arrays from the cache."""

    @property
    def n_slices(self) -> int:
        """Number of slices along the plan's third axis."""

    @property
    def in_plane_shape(self) -> tuple[int, int]:
        """Rows and columns of a slice in the scan's own resolution, in plan orientation."""

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Slices `start` to `stop` as network input (stop - start, channel, row, column)."""


class ScanSlices:
    """A volume seen through a plan: reoriented, windowed, scaled and resized on demand.

    Args:
        volume: The scan, in any orientation; 4-D when it has several channels.
        plan: What the network expects.
        channel_indices: Which of the volume's channels are the plan's, in order; None takes
            them as they are.

    Attributes:
        channels: The plan's channels of the scan (row, column, slice), as views.
        transforms: What happens to the grey values of each.

    Raises:
        DatasetError: If the volume does not have the channels that the plan names.
    """

    def __init__(
        self, volume: Volume, plan: Plan, channel_indices: Sequence[int] | None = None
    ) -> None:
        self._size = plan.slice_shape
        array = reoriented_view(volume.array, volume.orientation, plan.orientation)
        channels = [array] if array.ndim == 3 else list(np.moveaxis(array, 3, 0))
        wanted = range(len(channels)) if channel_indices is None else channel_indices
        check_channels(volume, plan, wanted)
        self.channels = [channels[index] for index in wanted]
        self.transforms: tuple[IntensityTransform, ...] = tuple(
            fit_intensity(channel, plan) for channel in self.channels
        )

    @property
    def n_slices(self) -> int:
        """Number of slices along the plan's third axis."""
        return int(self.channels[0].shape[2])

    @property
    def in_plane_shape(self) -> tuple[int, int]:
        """Rows and columns of a slice in the scan's own resolution, in plan orientation."""
        rows, columns = self.channels[0].shape[:2]
        return int(rows), int(columns)

    @property
    def slices_together(self) -> int:
        """How many slices are best read at once: several where they interleave in memory."""
        strides = [abs(stride) for stride in self.channels[0].strides]
        return 1 if strides[2] > min(strides) else _INTERLEAVED_SLICES

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Slices `start` to `stop` as network input (stop - start, channel, row, column)."""
        return self.prepare(start, stop)[0]

    def prepare(
        self, start: int, stop: int
    ) -> tuple[NDArray[np.float32], list[tuple[float, ...] | None]]:
        """Slices as network input, and which of them hold nothing.

        May be called from several threads at once.

        Args:
            start: The first slice.
            stop: The slice after the last.

        Returns:
            Input (stop - start, channel, row, column), and for each slice the value that every
            channel has everywhere in it, None where any channel has several. Slices with the
            same values have the same input.
        """
        stop = min(stop, self.n_slices)
        out = np.empty((stop - start, len(self.channels), *self._size), dtype=np.float32)
        values: list[list[float | None]] = [[] for _ in range(stop - start)]
        for index, (channel, transform) in enumerate(
            zip(self.channels, self.transforms, strict=True)
        ):
            slab = channel[:, :, start:stop]
            if self.slices_together > 1:
                # One slice of such a scan touches every piece of memory that all of them do.
                slab = np.asfortranarray(slab)
            for k in range(stop - start):
                values[k].append(prepare_slice(slab[:, :, k], transform, out[k, index]))
        return out, [_all_known(found) for found in values]


def _all_known(values: list[float | None]) -> tuple[float, ...] | None:
    known = tuple(value for value in values if value is not None)
    return known if len(known) == len(values) else None


def check_channels(volume: Volume, plan: Plan, wanted: Sequence[int]) -> None:
    """Refuse a scan that does not have the channels that a plan names.

    Raises:
        DatasetError: Naming what the network needs.
    """
    name, available = volume.path or "the volume", volume.n_channels
    names = ", ".join(plan.channels)
    if len(wanted) != len(plan.channels):
        msg = (
            f"{name}: {len(wanted)} channel(s) are given, but the network needs "
            f"{len(plan.channels)} ({names}); give a scan with just those, or choose among its "
            "channels by number"
        )
        raise DatasetError(msg)
    absent = [index for index in wanted if not 0 <= index < available]
    if absent:
        msg = (
            f"{name}: has no channel {absent[0]}, only {available} (numbered from 0); "
            f"choose the channel(s) for {names} among those"
        )
        raise DatasetError(msg)


def _class_dtype(labels: Sequence[str]) -> type[np.uint8 | np.uint16]:
    return np.uint8 if len(labels) <= 255 else np.uint16


def class_lookup(labels: Sequence[str], label_values: Mapping[str, Sequence[int]]) -> NDArray[Any]:
    """Table from a label file's value to the plan's class: 0 background, n + 1 for labels[n].

    Args:
        labels: The plan's foreground labels.
        label_values: For each, the values in the label files that are merged into it.

    Returns:
        Array indexed by file value, uint8 or, past 255 classes, uint16.
    """
    largest = max((value for values in label_values.values() for value in values), default=0)
    table = np.zeros(largest + 1, dtype=_class_dtype(labels))
    for number, name in enumerate(labels, start=1):
        table[list(label_values[name])] = number
    return table


def class_map(label: Volume, plan: Plan, label_values: Mapping[str, Sequence[int]]) -> NDArray[Any]:
    """A label volume as classes (slice, row, column) in plan orientation, own resolution.

    Values that no class names become background.
    """
    # The last entry, background, stands for every value past the table's end.
    table = np.append(class_lookup(plan.labels, label_values), 0).astype(_class_dtype(plan.labels))
    view = np.moveaxis(reoriented_view(label.array, label.orientation, plan.orientation), 2, 0)
    classes = np.empty(view.shape, dtype=table.dtype)
    # Slice by slice: numpy widens indices to 8 bytes each.
    for section, out in zip(view, classes, strict=True):
        np.take(table, section, out=out, mode="clip")
    return classes


def resize_classes(classes: NDArray[Any], slice_shape: tuple[int, int]) -> NDArray[Any]:
    """A class map (slice, row, column) resized in-plane to the network's slice shape."""
    rows = nearest_indices(classes.shape[1], slice_shape[0])
    columns = nearest_indices(classes.shape[2], slice_shape[1])
    return np.ascontiguousarray(classes[:, rows][:, :, columns])


def training_range(classes: NDArray[Any], rule: LabelCentredSlices) -> tuple[int, int]:
    """Slices [start, stop) around the labelled ones (paper 000, public loader).

    A case without any labelled slice keeps them all: it teaches background.
    """
    labelled = np.flatnonzero(classes.any(axis=(1, 2)))
    if labelled.size == 0:
        return 0, classes.shape[0]
    start = max(int(labelled[0]) - rule.margin, 0)
    stop = min(int(labelled[-1]) + rule.margin, classes.shape[0])
    return start, max(stop, start + 1)


def training_slices(
    image: NDArray[np.float32], classes: NDArray[Any], rule: LabelCentredSlices | None
) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """The slices that training sees, resized along the slice axis to the rule's count.

    Args:
        image: Network slices (slice, channel, row, column).
        classes: Their classes (slice, row, column).
        rule: The range and count; None keeps every slice.

    Returns:
        Image and classes, with the same number of slices.
    """
    if rule is None:
        return image, classes
    start, stop = training_range(classes, rule)
    image, classes = image[start:stop], classes[start:stop]
    if rule.count is None or rule.count == stop - start:
        return image, classes
    resized = resize_array(image, (rule.count,), "linear", axes=(0,))
    return resized, classes[nearest_indices(stop - start, rule.count)]
