"""A series slab by slab: the same voxels as the whole volume, whatever the series is."""

from __future__ import annotations

import os
import tracemalloc

import numpy as np
import pytest
from pydicom.uid import JPEG2000Lossless, RLELossless

from dicom_writer import compress, enhanced_dataset, volume_datasets, write_slices
from leanseg.errors import GeometryError
from leanseg.volumes.dicom import open_series

from .conftest import AFFINE, scan_array

TILTED = AFFINE.copy()
TILTED[1, 2] = 0.9


def series(kind: str) -> list:
    """Nine slices of some kind."""
    array = scan_array((40, 36, 9))
    whole = {
        "tilted CT": lambda: volume_datasets(array, TILTED),
        "tilted MR": lambda: volume_datasets(abs(array), TILTED, modality="MR", intercept=0.0),
        "fractions": lambda: volume_datasets(array / 4, AFFINE, slope=0.25),
        "too large": lambda: volume_datasets(array * 60, AFFINE, dtype="<i4"),
        "small in 16 bits": lambda: volume_datasets(array, AFFINE, dtype="<u2", bits_stored=16),
        "missing": lambda: [d for k, d in enumerate(volume_datasets(array, AFFINE)) if k != 4],
    }
    if kind in whole:
        return whole[kind]()
    datasets = volume_datasets(array, AFFINE, dtype="<u2")
    if kind == "enhanced":
        return [compress(enhanced_dataset(datasets), JPEG2000Lossless)]
    return [compress(dataset, RLELossless) for dataset in datasets]


KINDS = ["tilted CT", "tilted MR", "fractions", "too large", "small in 16 bits", "missing"]
KINDS += ["enhanced", "RLE"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_planes", [1, 4, 100])
def test_slabs_are_parts_of_the_whole(tmp_path, rng, kind, n_planes):
    write_slices(tmp_path / "scan", series(kind), rng)
    whole = open_series(tmp_path / "scan", fill_missing=True).read()
    opened = open_series(tmp_path / "scan", fill_missing=True)
    assert opened.shape == whole.shape
    assert opened.dtype in (whole.array.dtype, np.float32)
    np.testing.assert_array_equal(opened.affine, whole.affine)
    first = 0
    for slab in opened.slabs(n_planes):
        assert slab.dtype == whole.array.dtype
        assert slab.shape[2] == min(n_planes, 9 - first)
        np.testing.assert_array_equal(slab, whole.array[:, :, first : first + slab.shape[2]])
        first += slab.shape[2]
    assert first == 9


def test_slabs_of_a_long_scan_take_little_memory(tmp_path):
    array = scan_array((64, 64, 200))
    write_slices(tmp_path / "scan", volume_datasets(array, AFFINE, dtype="<u2", bits_stored=12))
    opened = open_series(tmp_path / "scan")
    tracemalloc.start()
    total = sum(int(slab.sum(dtype=np.int64)) for slab in opened.slabs(8))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == array.sum(dtype=np.int64)
    in_flight = 8 * (os.cpu_count() or 1)
    assert peak < (2 * 8 + in_flight) * array[:, :, 0].size * 8 + (1 << 20)
    assert peak < array.nbytes


def test_missing_slices_are_refused_when_it_is_opened(tmp_path):
    write_slices(tmp_path / "scan", series("missing"))
    with pytest.raises(GeometryError, match="these are missing: slice 5"):
        open_series(tmp_path / "scan")
