"""What the header of a scan promises, so that memory can be reckoned before a voxel is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from leanseg.volumes.io import open_volume
from leanseg.volumes.volume import Volume


@dataclass(frozen=True)
class Promise:
    """A scan as `read_volume` would give it, without its voxels.

    Attributes:
        volume: Shape, affine and voxel type; its array takes no memory and holds zeros.
        reading_bytes: What reading holds besides the array, at most.
    """

    volume: Volume
    reading_bytes: int

    @property
    def n_bytes(self) -> int:
        """Size of the voxels in memory."""
        return int(self.volume.array.size) * self.volume.array.itemsize


def promised(path: str | Path, **dicom: Any) -> Promise:
    """What `read_volume` with the same arguments would give, from headers alone."""
    stored = open_volume(path, **dicom)
    # Without strides: an array of any size in a few bytes.
    array = np.broadcast_to(np.zeros((), dtype=stored.dtype), stored.array_shape)
    return Promise(Volume(array, stored.affine, stored.path), stored.reading_bytes)
