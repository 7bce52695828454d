"""Where a patch lies in a frame: three index arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Place:
    """Indices into a frame along its three axes: contiguous, interleaved, or any others.

    An index before 0 or past the frame's end is outside and reads as 0.

    Attributes:
        i: Along the first axis.
        j: Along the second.
        k: Along the third.
    """

    i: Indices
    j: Indices
    k: Indices

    @classmethod
    def box(cls, start: Sequence[int], shape: Sequence[int]) -> Place:
        """A contiguous patch that begins at `start`, which may be negative."""
        i, j, k = (np.arange(a, a + n) for a, n in zip(start, shape, strict=True))
        return cls(i, j, k)

    @classmethod
    def slice(cls, frame_shape: Sequence[int], index: int, neighbours: int = 0) -> Place:
        """A whole slice, with neighbours on either side; the last is repeated past the ends."""
        along = np.arange(index - neighbours, index + neighbours + 1)
        return cls(
            np.arange(frame_shape[0]), np.arange(frame_shape[1]), along.clip(0, frame_shape[2] - 1)
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """How many indices there are along each axis."""
        return len(self.i), len(self.j), len(self.k)


def read_place(
    place: Place, shape: Sequence[int], planes: Callable[[int, int], NDArray[np.float32]]
) -> NDArray[np.float32]:
    """The voxels at a place, from whatever reads planes of a frame.

    Args:
        place: The place.
        shape: (i, j, k) of the frame.
        planes: Gives planes [start, stop) along k as (plane, channel, i, j).

    Returns:
        (channel, i, j, k) in C order.
    """
    within = [
        np.flatnonzero((index >= 0) & (index < n))
        for index, n in zip((place.i, place.j, place.k), shape, strict=True)
    ]
    i, j, k = (index[kept] for index, kept in zip((place.i, place.j, place.k), within, strict=True))
    if not k.size:
        return np.zeros((planes(0, 1).shape[1], *place.shape), dtype=np.float32)
    first = int(k.min())
    read = planes(first, int(k.max()) + 1)
    out = np.zeros((read.shape[1], *place.shape), dtype=np.float32)
    found = read[k - first][:, :, i][..., j].transpose(1, 2, 3, 0)
    out[np.ix_(np.arange(len(out)), *within)] = found
    return out
