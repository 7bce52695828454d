"""Volumes: reading, writing and moving voxels without losing their place in the world."""

from leanseg.volumes.archive import is_archive, unpacked
from leanseg.volumes.checks import require_finite
from leanseg.volumes.crop import Box, bounding_box, crop, paste_back
from leanseg.volumes.grids import corners_apart_mm, on_grid_of, same_grid
from leanseg.volumes.io import (
    VOLUME_SUFFIXES,
    is_volume_path,
    open_volume,
    read_volume,
    volume_stem,
    write_mask,
    write_volume,
)
from leanseg.volumes.orientation import axis_view, reorient, reoriented_view
from leanseg.volumes.resample import resample_to, resample_to_spacing, resize, resized_affine
from leanseg.volumes.resize import (
    Interpolation,
    axis_weights,
    nearest_indices,
    resize_array,
    resize_slices,
)
from leanseg.volumes.volume import AnyVolume, StoredVolume, Volume

__all__ = [
    "VOLUME_SUFFIXES",
    "AnyVolume",
    "Box",
    "Interpolation",
    "StoredVolume",
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
    "paste_back",
    "read_volume",
    "reorient",
    "reoriented_view",
    "require_finite",
    "resample_to",
    "resample_to_spacing",
    "resize",
    "resize_array",
    "resize_slices",
    "resized_affine",
    "same_grid",
    "unpacked",
    "volume_stem",
    "write_mask",
    "write_volume",
]
