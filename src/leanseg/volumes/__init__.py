"""Volumes: reading, writing and moving voxels without losing their place in the world."""

from leanseg.volumes.archive import is_archive, unpacked
from leanseg.volumes.axes import LPS_TO_RAS, axis_view, reoriented_view
from leanseg.volumes.grids import (
    Box,
    bounding_box,
    corners_apart_mm,
    crop,
    on_grid_of,
    paste,
    reorient,
    same_grid,
)
from leanseg.volumes.io import (
    VOLUME_SUFFIXES,
    is_volume_path,
    open_volume,
    read_volume,
    volume_stem,
    write_mask,
    write_volume,
)
from leanseg.volumes.resample import resample
from leanseg.volumes.resize import axis_weights, nearest_indices, resize_array
from leanseg.volumes.volume import Volume, require_finite

# The names under which the package itself offers them.
read, write = read_volume, write_volume

__all__ = [
    "LPS_TO_RAS",
    "VOLUME_SUFFIXES",
    "Box",
    "Volume",
    "axis_view",
    "axis_weights",
    "bounding_box",
    "corners_apart_mm",
    "crop",
    "is_archive",
    "is_volume_path",
    "nearest_indices",
    "on_grid_of",
    "open_volume",
    "paste",
    "read",
    "read_volume",
    "reorient",
    "reoriented_view",
    "require_finite",
    "resample",
    "resize_array",
    "same_grid",
    "unpacked",
    "volume_stem",
    "write",
    "write_mask",
    "write_volume",
]
