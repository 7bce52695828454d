"""Patches laid over a frame, layer by layer along its third axis."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from leanseg.frames.interpolation import AxisTaps

Tiling = Literal["monai", "nnunet"]


@dataclass(frozen=True)
class Layer:
    """Where patches of one shape lie in a frame.

    Positions are those of MONAI's `sliding_window_inference`, or of nnU-Net's.

    Attributes:
        shape: (i, j, k) of the frame.
        patch: (i, j, k) of a patch.
        starts: Where patches begin along each axis; negative where the frame is smaller than a
            patch.
    """

    shape: tuple[int, int, int]
    patch: tuple[int, int, int]
    starts: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]

    @classmethod
    def over(
        cls,
        shape: tuple[int, int, int],
        patch: tuple[int, int, int],
        overlap: float,
        tiling: Tiling = "monai",
    ) -> Layer:
        """Patches over a frame.

        Args:
            shape: (i, j, k) of the frame.
            patch: (i, j, k) of a patch.
            overlap: Share of a patch that the next one along an axis covers again.
            tiling: As in `leanseg.Patch`.
        """
        sizes = zip(shape, patch, strict=True)
        i, j, k = (patch_starts(n, size, overlap, tiling) for n, size in sizes)
        return cls(shape, patch, (i, j, k))

    @property
    def n_patches(self) -> int:
        """How many there are."""
        return len(self.starts[0]) * len(self.starts[1]) * len(self.starts[2])

    @property
    def is_single(self) -> bool:
        """Whether one patch is the frame."""
        return self.shape == self.patch

    def in_plane(self) -> Iterator[tuple[int, int]]:
        """Where the patches at one place along k begin along i and j."""
        return ((i, j) for i in self.starts[0] for j in self.starts[1])

    def finished_before(self, number: int) -> int:
        """Planes that no patch touches after those at `starts[2][number]`."""
        layers = self.starts[2]
        return layers[number + 1] if number + 1 < len(layers) else self.shape[2]

    def depth_needed(self, taps: AxisTaps | None) -> int:
        """Planes of probabilities that have to be held at the same time.

        Args:
            taps: Interpolation from the frame's planes to the scan's slices; None for none.
        """
        n_planes = self.shape[2]
        depth, begun = 1, 0
        for number, start in enumerate(self.starts[2]):
            depth = max(depth, min(start + self.patch[2], n_planes) - min(begun, max(start, 0)))
            begun = stop = self.finished_before(number)
            if taps is not None:
                waiting = taps.indices[0][taps.indices[-1] >= stop]
                # The first plane that a slice of the scan still waits for.
                begun = int(waiting[0]) if waiting.size else n_planes
        return depth


def patch_starts(
    length: int, patch: int, overlap: float, tiling: Tiling = "monai"
) -> tuple[int, ...]:
    """Where patches begin along an axis.

    Args:
        length: Of the axis.
        patch: Length of a patch.
        overlap: Share of a patch that the next one covers again; with nnU-Net's equal steps the
            least share.
        tiling: As in `leanseg.Patch`.

    Returns:
        Ascending; the last patch ends at the axis' end. A single negative start where the axis is
        shorter than a patch, which then hangs over by as much on both sides (one voxel more
        behind).
    """
    if length <= patch:
        return (-((patch - length) // 2),)
    if tiling == "nnunet":
        n_steps = math.ceil((length - patch) / (patch * (1 - overlap)))
        return tuple(round((length - patch) / n_steps * number) for number in range(n_steps + 1))
    step = max(1, int(patch * (1 - overlap)))
    count = -(-(length - patch) // step) + 1
    return tuple(min(number * step, length - patch) for number in range(count))


def ready_slices(taps: AxisTaps | None, planes: int) -> int:
    """Slices of the scan that need none but the first `planes` planes of the frame."""
    if taps is None:
        return planes
    last: Sequence[int] = taps.indices[-1].tolist()
    return sum(plane < planes for plane in last)
