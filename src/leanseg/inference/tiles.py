"""Overlapping tiles of a scan: where they lie, how they are weighted, and how they are blended.

Positions and weights are those of MONAI's `sliding_window_inference` with mode "gaussian"; nnU-Net
takes as many tiles, spread evenly, and the same Gaussian but for its cut-off.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from leanseg.inference.tile_kernels import add_tile, blend_planes

# Standard deviation of the Gaussian, as a share of the tile.
_SIGMA = 0.125
# No voxel of a tile counts less, relative to its centre.
_SMALLEST_WEIGHT = 1e-3


def tile_starts(length: int, tile: int, overlap: float) -> tuple[int, ...]:
    """Where tiles begin along an axis.

    Args:
        length: Of the axis.
        tile: Length of a tile.
        overlap: Share of a tile that the next one covers again.

    Returns:
        Ascending; the last tile ends at the axis' end. A single negative start where the axis is
        shorter than a tile, which then hangs over by as much on both sides (one voxel more behind).
    """
    if length <= tile:
        return (-((tile - length) // 2),)
    step = max(1, int(tile * (1 - overlap)))
    count = -(-(length - tile) // step) + 1
    return tuple(min(number * step, length - tile) for number in range(count))


def importance(tile_shape: Sequence[int]) -> NDArray[np.float32]:
    """Weight of each voxel of a tile: a Gaussian around its centre, at least a thousandth."""
    result = np.ones((), dtype=np.float32)
    for length in tile_shape:
        place = np.arange(length, dtype=np.float32) - np.float32((length - 1) / 2)
        along = np.exp(place**2 / np.float32(-2 * (length * _SIGMA) ** 2))
        result = result[..., None] * along
    return np.maximum(result, np.float32(max(result.min(), _SMALLEST_WEIGHT)))


class RollingBlend:
    """Weighted sums of tiles' probabilities, for a window of planes along the third axis.

    Tiles come layer by layer (one position along the third axis), ascending. Planes that no later
    tile touches are `finished`; those that are released make room for later ones, so that the
    window stays as deep as a tile and the few planes that are still wanted.

    Args:
        shape: (i, j, k) of the grid that the tiles lie on.
        tile_shape: Of a tile.
        n_outputs: Probabilities per voxel.
        depth: Planes that are held at the same time.
    """

    def __init__(
        self, shape: Sequence[int], tile_shape: Sequence[int], n_outputs: int, depth: int
    ) -> None:
        rows, columns, self._n_planes = shape
        self._weight = np.ascontiguousarray(importance(tile_shape).transpose(0, 2, 1))
        self._tile_depth = tile_shape[2]
        self._sums = np.empty((depth, n_outputs, rows, columns), dtype=np.float32)
        self._weights = np.empty((depth, rows, columns), dtype=np.float32)
        self._cleared = 0
        self._finished = 0

    def add(self, probabilities: NDArray[np.float32], start: tuple[int, int, int]) -> None:
        """Add a tile (output, *tile_shape) that begins at `start`; what hangs over is left out."""
        stop = min(start[2] + self._tile_depth, self._n_planes)
        depth = len(self._sums)
        for plane in range(self._cleared, stop):
            self._sums[plane % depth] = 0
            self._weights[plane % depth] = 0
        self._cleared = max(self._cleared, stop)
        add_tile(probabilities, self._weight, *start, self._n_planes, self._sums, self._weights)

    def finish(self, stop: int) -> None:
        """No later tile touches the planes before `stop`: their sums become means."""
        depth = len(self._sums)
        for plane in range(self._finished, stop):
            self._sums[plane % depth] /= self._weights[plane % depth]
        self._finished = stop

    def blended(self, first: int, weights: NDArray[np.float32]) -> NDArray[np.float32]:
        """Weighted means of finished planes.

        Args:
            first: The first plane.
            weights: (n, planes), adding up to 1, of the planes from `first` on.

        Returns:
            (n, output, i, j).
        """
        _, n_outputs, rows, columns = self._sums.shape
        out = np.empty((len(weights), n_outputs, rows, columns), dtype=np.float32)
        blend_planes(self._sums, first, np.ascontiguousarray(weights), out)
        return out


def depth_needed(
    layers: Sequence[int], tile: int, n_planes: int, along: NDArray[np.float32]
) -> int:
    """Planes that have to be held at the same time.

    Args:
        layers: Where the layers of tiles begin along the third axis.
        tile: Length of a tile along it.
        n_planes: Length of the axis.
        along: (slices, n_planes), the weights of the planes in each slice of the scan.
    """
    first, last = plane_ranges(along)
    depth, begun = 1, 0
    for number, start in enumerate(layers):
        depth = max(depth, min(start + tile, n_planes) - min(begun, max(start, 0)))
        stop = layers[number + 1] if number + 1 < len(layers) else n_planes
        waiting = np.flatnonzero(last >= stop)
        # The first plane that a slice of the scan still waits for.
        begun = int(first[waiting[0]]) if waiting.size else n_planes
    return depth


def plane_ranges(along: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First and last plane that takes part in each slice of the scan."""
    used = along != 0
    first = used.argmax(axis=1)
    last = along.shape[1] - 1 - used[:, ::-1].argmax(axis=1)
    return first, last
