"""A scan turned to a frame's orientation: its channels, in memory or streamed from the file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import DatasetError
from leanseg.frames.intensity import needs_all_voxels
from leanseg.plan import Plan
from leanseg.volumes import reoriented_view
from leanseg.volumes.volume import AnyVolume, StoredVolume

Channels = list[NDArray[Any]]


# In memory (`Volume`), or one whose header alone has been read (`StoredVolume`).
Scan = AnyVolume


class ScanView:
    """The channels that a plan names, in the orientation of a frame.

    Args:
        scan: In any orientation.
        orientation: The frame's.
        channels: Names of the plan's channels, for messages.
        channel_indices: Which of the scan's channels these are, in order; None takes them as
            they are.
        streams: Whether voxels are read from the file, piece by piece, each time that they are
            asked for. Needs a scan whose slices are stored one after another (`may_stream`).

    Attributes:
        shape: (i, j, k) in the frame's orientation.
        spacing_mm: Along these axes.

    Raises:
        DatasetError: If the scan does not have the channels.
    """

    def __init__(
        self,
        scan: Scan,
        orientation: str,
        channels: Sequence[str] = ("CT",),
        channel_indices: Sequence[int] | None = None,
        *,
        streams: bool = False,
    ) -> None:
        wanted = range(scan.n_channels) if channel_indices is None else channel_indices
        check_channels(scan, channels, wanted)
        self._scan, self._codes, self._wanted = scan, orientation, list(wanted)
        order = stored_axes(scan.orientation, orientation)
        i, j, k = (scan.shape[axis] for axis in order)
        self.shape = (i, j, k)
        i_mm, j_mm, k_mm = (scan.spacing_mm[axis] for axis in order)
        self.spacing_mm = (i_mm, j_mm, k_mm)
        self.name = str(scan.path or "the scan")
        self.streams = streams
        self._channels = None if streams else self._turned(scan.read().array)

    @property
    def n_channels(self) -> int:
        """Number of the plan's channels."""
        return len(self._wanted)

    @property
    def channels(self) -> Channels:
        """Each channel (i, j, k), as a view; not for streamed scans."""
        assert self._channels is not None
        return self._channels

    @property
    def interleaves(self) -> bool:
        """Whether slices interleave in memory, so that several are best read together."""
        if self._channels is None:
            return False
        strides = [abs(stride) for stride in self._channels[0].strides]
        return strides[2] == min(strides)

    def pieces(self, n: int, first: int, last: int) -> Iterator[tuple[int, Channels]]:
        """Slices [first, last) of every channel, `n` at a time, in the order of the file.

        Yields:
            The number of a piece's first slice, and its channels (i, j, up to n).
        """
        if self._channels is not None:
            for start in range(first, last, n):
                stop = min(start + n, last)
                yield start, [channel[:, :, start:stop] for channel in self._channels]
            return
        n_slices = self.shape[2]
        is_reversed = self._scan.orientation[2] != self._codes[2]
        begin, end = (n_slices - last, n_slices - first) if is_reversed else (first, last)
        for slab in self._scan.slabs(n, begin):
            # At the end of the file its checksum is looked at, which another round sees to.
            if begin >= end:
                return
            kept = self._turned(slab[:, :, : end - begin])
            depth = kept[0].shape[2]
            yield n_slices - begin - depth if is_reversed else begin, kept
            begin += depth

    def _turned(self, array: NDArray[Any]) -> Channels:
        turned = reoriented_view(array, self._scan.orientation, self._codes)
        channels = [turned] if turned.ndim == 3 else list(np.moveaxis(turned, 3, 0))
        return [channels[index] for index in self._wanted]


def coarse_voxels(view: ScanView, steps: Sequence[int]) -> NDArray[Any]:
    """Every n-th voxel of the first channel along each axis, for finding large things quickly.

    Args:
        view: The scan.
        steps: n along i, j and k.
    """
    if not view.streams:
        return view.channels[0][:: steps[0], :: steps[1], :: steps[2]]
    found = {
        start + number: channels[0][:: steps[0], :: steps[1], number].copy()
        for start, channels in view.pieces(1, 0, view.shape[2])
        for number in range(channels[0].shape[2])
        if (start + number) % steps[2] == 0
    }
    return np.stack([found[k] for k in sorted(found)], axis=2)


def stored_axes(scan_codes: str, codes: str) -> tuple[int, int, int]:
    """For each axis of an orientation, the axis of a scan in another one that it is."""
    pairs = {code: pair for pair in ("LR", "PA", "IS") for code in pair}
    i, j, k = (
        next(axis for axis, own in enumerate(scan_codes) if own in pairs[code]) for code in codes
    )
    return i, j, k


def may_stream(scan: Scan, plan: Plan) -> bool:
    """Whether a scan can be read piece by piece for every stage of a plan.

    Its slices have to be stored one after another, whole numbers (so that none is NaN), and no
    stage may need all voxels together: for quantiles or moments, or for overlapping patches,
    which are read in an order of their own.
    """
    return (
        isinstance(scan, StoredVolume)
        and scan.streams
        and scan.n_channels == 1
        and scan.dtype.kind in "iu"
        and all(
            stored_axes(scan.orientation, stage.frame.orientation)[2] == 2
            and not needs_all_voxels(stage.intensity)
            and (stage.sees_all or (stage.patch_shape[2] == 1 and not stage.patch.neighbours))
            for stage in plan.networks
            if not stage.inputs
        )
    )


def check_channels(scan: Scan, names: Sequence[str], wanted: Sequence[int]) -> None:
    """Refuse a scan that does not have the channels that a plan names.

    Raises:
        DatasetError: Naming what the network needs.
    """
    name, available = scan.path or "the volume", scan.n_channels
    if len(wanted) != len(names):
        raise DatasetError(
            f"{name}: {len(wanted)} channel(s) are given, but the network needs "
            f"{len(names)} ({', '.join(names)}); give a scan with just those, or choose among its "
            "channels by number"
        )
    absent = [index for index in wanted if not 0 <= index < available]
    if absent:
        raise DatasetError(
            f"{name}: has no channel {absent[0]}, only {available} (numbered from 0); "
            f"choose the channel(s) for {', '.join(names)} among those"
        )
