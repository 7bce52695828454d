"""Measuring a scan slice by slice: grey values, fingerprints, the middle of the body."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.datasets.audit.facts import ChannelFacts
from leanseg.volumes import Volume, axis_view

_SAMPLE_VOXELS = 400_000
_PERCENTILES = (1, 5, 50, 95, 99)
# A column of the picture belongs to the body if it holds this part of the fullest column's body.
_BODY_EDGE = 0.05


@dataclass
class Fingerprint:
    """Fingerprints of all channels of a scan, one after another.

    `same` is made of the voxels in RAS order as float32: equal for every file format, voxel type
    and storage order. It hashes a checksum of every slice beside the sums along each axis, which
    no accident makes equal and which costs a fifth of hashing the voxels. `mirrored` is made of
    the sums alone, from whichever end and in whichever order of axes: mirroring and turning
    change none of it.
    """

    same: Any = field(default_factory=lambda: hashlib.blake2b(digest_size=16))
    mirrored: Any = field(default_factory=lambda: hashlib.blake2b(digest_size=16))


@dataclass(frozen=True)
class Body:
    """Left to right: the middle and the width of what is brighter than air, RAS+ mm."""

    centre_x_mm: float
    width_mm: float


@dataclass
class _Range:
    """Lowest and highest finite value so far, and how many were not finite."""

    low: float = np.inf
    high: float = -np.inf
    n_nan: int = 0
    n_infinite: int = 0

    def add(self, section: NDArray[np.float32]) -> None:
        low, high = float(section.min()), float(section.max())
        if not np.isfinite((low, high)).all():
            self.n_nan += int(np.isnan(section).sum())
            self.n_infinite += int(np.isinf(section).sum())
            finite = section[np.isfinite(section)]
            if not finite.size:
                return
            low, high = float(finite.min()), float(finite.max())
        self.low, self.high = min(self.low, low), max(self.high, high)


def measure_channel(
    array: NDArray[Any], affine: NDArray[np.float64], fingerprint: Fingerprint
) -> tuple[ChannelFacts, Body | None]:
    """Grey values, body and fingerprint of one channel; only one slice is ever copied.

    Args:
        array: (i, j, k).
        affine: To RAS+ mm.
        fingerprint: Is updated.
    """
    from isal.isal_zlib import crc32

    view, ras = axis_view(array, affine, "RAS")
    p1, p5, p50, p95, p99 = _percentiles(view)
    sums = [np.zeros(n, dtype=np.int64) for n in view.shape]
    body = np.zeros(view.shape[0], dtype=np.int64)
    values = _Range()
    fingerprint.same.update(str(view.shape).encode())
    for k in range(view.shape[2]):
        section = np.asfortranarray(view[:, :, k], dtype=np.float32)
        # Minus zero is zero, but has other bits.
        section = section + np.float32(0)
        fingerprint.same.update(crc32(section.T.data).to_bytes(4, "little"))
        # Sums of bit patterns are exact in whatever order; sums of floats are not.
        bits = section.view(np.int32)
        along = bits.sum(axis=1, dtype=np.int64)
        sums[0] += along
        sums[1] += bits.sum(axis=0, dtype=np.int64)
        sums[2][k] = along.sum()
        values.add(section)
        body += (section > (p5 + p95) / 2).sum(axis=1)
    for line in sums:
        fingerprint.same.update(line.tobytes())
    for either in sorted(min(line.tobytes(), line[::-1].tobytes()) for line in sums):
        fingerprint.mirrored.update(str(len(either)).encode() + either)
    if values.low > values.high:
        values.low = values.high = float("nan")
    facts = ChannelFacts(values.low, p1, p50, p99, values.high, values.n_nan, values.n_infinite)
    return facts, _body(body, ras, view.shape)


def _percentiles(array: NDArray[Any]) -> list[float]:
    """Of an even sample of the finite voxels; NaN where there are none."""
    step = max(1, round((array.size / _SAMPLE_VOXELS) ** (1 / 3)))
    # Thin scans give up fewer slices than columns.
    steps = [min(step, max(1, n // 8)) for n in array.shape]
    values = array[tuple(slice(None, None, s) for s in steps)].astype(np.float32).ravel()
    values = values[np.isfinite(values)]
    if not values.size:
        return [float("nan")] * len(_PERCENTILES)
    return [float(value) for value in np.percentile(values, _PERCENTILES)]


def _body(
    profile: NDArray[np.int64], affine: NDArray[np.float64], shape: tuple[int, ...]
) -> Body | None:
    columns = np.flatnonzero(profile > _BODY_EDGE * profile.max())
    if not columns.size:
        return None
    middle = float((profile * np.arange(profile.size)).sum() / profile.sum())
    centre = np.array([middle, (shape[1] - 1) / 2, (shape[2] - 1) / 2, 1.0])
    width = (columns[-1] - columns[0] + 1) * np.linalg.norm(affine[:3, 0])
    return Body(float(affine[0] @ centre), float(width))


def without_voxels(volume: Volume) -> Volume:
    """The same grid and header with voxels that take no memory, for readers that need a grid."""
    array = np.broadcast_to(np.zeros((), dtype=volume.array.dtype), volume.shape)
    return volume.with_array(array)
