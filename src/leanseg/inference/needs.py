"""How much memory the stages of a prediction need, from shapes alone."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

from leanseg.preprocessing import Plan
from leanseg.preprocessing.region_input import plan_spacing_mm
from leanseg.volumes import Volume

if TYPE_CHECKING:
    from leanseg.inference.budget import Settings

_FLOAT = 4
# Floating point maps of one slice in the scan's resolution that a thread holds: five while it is
# prepared and at most as many again while it is decided, measured with these dimensions.
_MAPS_PER_THREAD = 8
# Slices whose voxels interleave in memory are copied together.
_INTERLEAVED_SLICES = 16
# Pieces of components: what numbering one plane takes, whatever the map holds.
_BYTES_PER_PLANE_VOXEL = 48
_COMPILER_BYTES = 140_000_000
# Writers: blocks of a file; the library for DICOM objects, and what it holds of a label map.
_WRITER_BYTES = 4_000_000
_DICOM_WRITER_BYTES = 120_000_000
_COPIES_FOR_CONTOURS = 3
_COPIES_FOR_SEGMENTS = 2.5
_COARSE_MM = 3.0
_COARSE_BYTES = 40
_SLICES_DECIDED = 8


def predictor_bytes(plan: Plan, scan: Volume, settings: Settings) -> float:
    """Buffers of preprocessing, restoring and writing, beside scan, label map and network."""
    if plan.tile_shape is not None:
        from leanseg.inference.tile_predictor import tile_memory_bytes

        return compiler_bytes() + tile_memory_bytes(
            plan,
            _turned(plan, scan),
            plan_spacing_mm(scan, plan),
            lanes=settings.lanes,
            slices_per_block=settings.slices_per_block,
        )
    if plan.volume_shape is not None:
        return compiler_bytes() + _region_bytes(plan, scan)
    return _slices_bytes(plan, scan, settings)


def _turned(plan: Plan, scan: Volume) -> tuple[int, int, int]:
    """The scan's shape in the plan's orientation."""
    places = {code: axis for axis, code in enumerate(scan.orientation)}
    pairs = ("LR", "PA", "IS")
    i, j, k = (
        next(places[c] for pair in pairs if code in pair for c in pair if c in places)
        for code in plan.orientation
    )
    return scan.shape[i], scan.shape[j], scan.shape[k]


def _slices_bytes(plan: Plan, scan: Volume, settings: Settings) -> float:
    rows, columns, n_slices = _turned(plan, scan)
    own = rows * columns
    seen = math.prod(plan.slice_shape)
    per_slice = len(plan.channels) + 2 * plan.n_outputs
    maps = _FLOAT * _MAPS_PER_THREAD * max(own, seen)
    inputs = _FLOAT * settings.slices_per_call * per_slice * seen
    together = 0
    if scan.shape[2] != n_slices or scan.shape[0] * scan.shape[1] != own:
        together = _INTERLEAVED_SLICES * (
            own * scan.array.itemsize + _FLOAT * len(plan.channels) * seen
        )
    whole_scan = 0
    if plan.window.kind == "quantile":
        # Quantiles need the voxels in order: a copy, and one without zeros.
        whole_scan = math.prod(scan.shape) * scan.array.itemsize * 2
    return max(settings.threads * (maps + inputs + together), whole_scan)


def _region_bytes(plan: Plan, scan: Volume) -> float:
    """One input of a fixed shape: along the slices first, and its probabilities, some twice."""
    assert plan.volume_shape is not None
    seen = math.prod(plan.volume_shape)
    rows, columns, n_slices = _turned(plan, scan)
    between = _FLOAT * n_slices * plan.volume_shape[0] * plan.volume_shape[1]
    inputs = _FLOAT * seen * (len(plan.channels) + 2) + between
    probabilities = _FLOAT * seen * plan.n_outputs * 2
    restoring = _FLOAT * rows * columns * _SLICES_DECIDED * 6
    landmarks = 0.0
    if plan.region != "scan":
        voxel_mm3 = math.prod(max(mm, _COARSE_MM) for mm in scan.spacing_mm)
        extent_mm3 = math.prod(n * mm for n, mm in zip(scan.shape, scan.spacing_mm, strict=True))
        landmarks = _COARSE_BYTES * extent_mm3 / voxel_mm3
    return probabilities + max(inputs, restoring, landmarks)


def postprocessing_bytes(scan: Volume, plan: Plan) -> int:
    """The least that post-processing can do with."""
    if not plan.postprocessing.largest_component:
        return 0
    _, j, k = sorted(scan.shape)
    return compiler_bytes() + 2 * _BYTES_PER_PLANE_VOXEL * j * k


def writing_bytes(scan: Volume, plan: Plan, form: str) -> float:
    """What writing a label map as one of `leanseg.inference.formats.FORMATS` holds besides it."""
    if form == "nifti":
        return _WRITER_BYTES
    library = 0 if "highdicom" in sys.modules else _DICOM_WRITER_BYTES
    voxels = math.prod(scan.shape)
    if form == "rtstruct":
        return _WRITER_BYTES + library + _COPIES_FOR_CONTOURS * voxels
    # A bit for every voxel and label, in frames and joined, beside the labels in order of slices.
    copies = _COPIES_FOR_SEGMENTS + len(plan.labels) / 4
    return _WRITER_BYTES + library + copies * voxels


def compiler_bytes() -> int:
    """What compiled loops bring into memory when the first of them is used."""
    return 0 if "numba" in sys.modules else _COMPILER_BYTES
