"""Blenders: patches' probabilities become planes of a frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from leanseg.inference.layer import Tiling
from leanseg.inference.tiles import TOGETHER, add_tile

# Standard deviation of the Gaussian, as a share of the patch.
_SIGMA = 0.125
# No voxel of a patch counts less, relative to its centre.
_SMALLEST_WEIGHT = 1e-3

Floats = NDArray[np.float32]


class SinglePatch:
    """For a patch that is the whole frame: nothing to blend; otherwise as `GaussianBlend`."""

    def __init__(self) -> None:
        self._probabilities: Floats | None = None

    def add(self, probabilities: Floats, start: tuple[int, int, int]) -> None:
        """Keep the patch."""
        self._probabilities = probabilities

    def finish(self, stop: int) -> None:
        """Nothing to do."""

    def planes(self, first: int, last: int) -> Floats:
        """Planes [first, last): (plane, output, i, j)."""
        assert self._probabilities is not None
        return np.ascontiguousarray(np.moveaxis(self._probabilities[..., first:last], 3, 0))


class GaussianBlend:
    """Weighted means of overlapping patches, for a window of planes along the third axis.

    Weights are those of MONAI's `sliding_window_inference` with mode "gaussian", or nnU-Net's.
    Patches come ascending along the third axis. Planes that no
    later patch touches are finished, and make room for later ones once nobody waits for them.

    Args:
        shape: (i, j, k) of the frame.
        patch: Of a patch.
        n_outputs: Probabilities per voxel.
        depth: Planes that are held at the same time.
        along_k: Whether voxels count less towards the patch's ends along the third axis, too.
        tiling: Whose weights, as in `leanseg.Patch`.
    """

    def __init__(
        self,
        shape: Sequence[int],
        patch: Sequence[int],
        n_outputs: int,
        depth: int,
        *,
        along_k: bool = True,
        tiling: Tiling = "monai",
    ) -> None:
        rows, columns, self._n_planes = shape
        weight = importance(patch if along_k else (*patch[:2], 1), tiling)
        weight = np.broadcast_to(weight, tuple(patch))
        self._weight = np.ascontiguousarray(weight.transpose(2, 0, 1))
        self._patch_depth = patch[2]
        self._sums = np.empty((depth, n_outputs, rows, columns), dtype=np.float32)
        self._weights = np.empty((depth, rows, columns), dtype=np.float32)
        self._cleared = 0
        self._finished = 0

    def add(self, probabilities: Floats, start: tuple[int, int, int]) -> None:
        """Add a patch (output, *patch) that begins at `start`; what hangs over is left out."""
        stop = min(start[2] + self._patch_depth, self._n_planes)
        depth = len(self._sums)
        for plane in range(self._cleared, stop):
            self._sums[plane % depth] = 0
            self._weights[plane % depth] = 0
        self._cleared = max(self._cleared, stop)
        add_tile(probabilities, self._weight, start, self._n_planes, self._sums, self._weights)

    def finish(self, stop: int) -> None:
        """No later patch touches the planes before `stop`: their sums become means."""
        depth = len(self._sums)
        for plane in range(self._finished, stop):
            self._sums[plane % depth] /= self._weights[plane % depth]
        self._finished = stop

    def planes(self, first: int, last: int) -> Floats:
        """Finished planes [first, last): (plane, output, i, j)."""
        return self._sums[np.arange(first, last) % len(self._sums)]

    @staticmethod
    def memory_bytes(shape: Sequence[int], patch: Sequence[int], n_outputs: int, depth: int) -> int:
        """What it holds."""
        rows, columns, n_planes = patch
        block = min(n_planes, TOGETHER) * rows * columns
        return 4 * (depth * (n_outputs + 1) * shape[0] * shape[1] + int(np.prod(patch)) + block)


def importance(patch: Sequence[int], tiling: Tiling = "monai") -> Floats:
    """Weight of each voxel of a patch: a Gaussian around its centre, at least a thousandth.

    nnU-Net's is around the voxel behind the middle, ten times as large, in 16 bits and at least
    what these can hold.
    """
    result = np.ones((), dtype=np.float32)
    for length in patch:
        centre = length // 2 if tiling == "nnunet" else (length - 1) / 2
        place = np.arange(length, dtype=np.float32) - np.float32(centre)
        along = np.exp(place**2 / np.float32(-2 * (length * _SIGMA) ** 2))
        result = result[..., None] * along
    if tiling == "nnunet":
        half = (10 * result).astype(np.float16).astype(np.float32)
        return np.maximum(half, half[half > 0].min())
    return np.maximum(result, np.float32(max(result.min(), _SMALLEST_WEIGHT)))
