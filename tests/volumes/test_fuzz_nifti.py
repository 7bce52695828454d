"""Damaged NIfTI files by the hundred: each is a volume or one sentence, fast, in little memory."""

from __future__ import annotations

import contextlib
import gzip
import io
import logging
import time
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from leanseg.datasets.load import as_label_map
from leanseg.errors import LeansegError
from leanseg.volumes import Volume, read_volume, write_mask

N_FILES = 600
SHAPE = (6, 5, 4)
LARGEST_BYTES = 32 * 2**20
LONGEST_S = 2.0
AFFINE = np.array([[-0.7, 0.1, 0, 90], [0.1, 0.8, 0, -80], [0, 0, 2.5, 30], [0, 0, 0, 1.0]])

# Offset, numpy type of the fields that mean something in a NIfTI-1 header.
FIELDS = {
    "sizeof_hdr": (0, "<i4"),
    "dim": (40, "<8i2"),
    "datatype": (70, "<i2"),
    "bitpix": (72, "<i2"),
    "pixdim": (76, "<8f4"),
    "vox_offset": (108, "<f4"),
    "slope": (112, "<f4"),
    "inter": (116, "<f4"),
    "xyzt_units": (123, "u1"),
    "qform_code": (252, "<i2"),
    "sform_code": (254, "<i2"),
    "quaternion": (256, "<3f4"),
    "offset": (268, "<3f4"),
    "srow": (280, "<12f4"),
    "magic": (344, "4u1"),
}
ODD_INTEGERS = (0, 1, -1, 2, 7, 8, 127, 255, 256, 348, 512, 1024, 2304, 32767, -32768, 30000)
ODD_FLOATS = (0.0, -0.0, -1.0, 1e-38, 1e-12, 1e12, 1e38, -1e38, np.nan, np.inf, -np.inf, 352.5)


def good_files() -> list[bytes]:
    """One file of each kind, unpacked."""
    rng = np.random.default_rng(1)
    values = rng.integers(-1000, 1000, (*SHAPE, 2))
    kinds = []
    for array in (values[..., 0].astype("<i2"), values[..., 0].astype("<f4"), values.astype("<i2")):
        for kind in (nib.Nifti1Image, nib.Nifti2Image):
            kinds.append(kind(array, AFFINE))
    swapped = nib.Nifti1Image(values[..., 1].astype(">i2"), AFFINE, None)
    swapped = nib.Nifti1Image(swapped.dataobj, AFFINE, swapped.header.as_byteswapped(">"))
    quaternion = nib.Nifti1Image(values[..., 0].astype("<u2"), None)
    quaternion.set_qform(AFFINE * [[1], [1], [1], [1]], 1, strip_shears=True)
    return [image.to_bytes() for image in (*kinds, swapped, quaternion)]


def odd_field(content: bytearray, rng: np.random.Generator) -> None:
    """One or more header fields of values that nobody expects."""
    for _ in range(rng.integers(1, 4)):
        offset, kind = FIELDS[str(rng.choice(list(FIELDS)))]
        dtype = np.dtype(kind)
        base, count = (dtype.subdtype or (dtype, (1,)))[0], int(np.prod(dtype.shape or (1,)))
        place = offset + base.itemsize * int(rng.integers(count))
        odd = rng.choice(ODD_FLOATS if base.kind == "f" else ODD_INTEGERS)
        with np.errstate(all="ignore"):
            content[place : place + base.itemsize] = np.array(odd).astype(base).tobytes()


def flipped_bits(content: bytearray, rng: np.random.Generator) -> None:
    """Bits turned over in the header."""
    for place in rng.integers(0, 352, rng.integers(1, 9)):
        content[place] ^= 1 << int(rng.integers(8))


def flipped_data(content: bytearray, rng: np.random.Generator) -> None:
    """Bits turned over anywhere."""
    for place in rng.integers(0, len(content), rng.integers(1, 40)):
        content[place] ^= 1 << int(rng.integers(8))


def cut_short(content: bytearray, rng: np.random.Generator) -> None:
    """The end missing."""
    del content[int(rng.integers(0, len(content))) :]


def made_longer(content: bytearray, rng: np.random.Generator) -> None:
    """Bytes too many, in the middle or at the end."""
    place = int(rng.choice([int(rng.integers(0, len(content))), len(content)]))
    content[place:place] = rng.integers(0, 256, rng.integers(1, 400), dtype=np.uint8).tobytes()


def random_header(content: bytearray, rng: np.random.Generator) -> None:
    """Noise in place of the header, its size and magic aside."""
    content[4:344] = rng.integers(0, 256, 340, dtype=np.uint8).tobytes()


MUTATIONS: tuple[Callable[[bytearray, np.random.Generator], None], ...] = (
    *(odd_field, odd_field, odd_field, flipped_bits, flipped_bits),
    *(flipped_data, cut_short, made_longer, random_header),
)


def mutant(number: int, good: list[bytes]) -> tuple[str, bytes]:
    """A damaged file and its name; the number alone decides."""
    rng = np.random.default_rng([20240229, number])
    content = bytearray(good[number % len(good)])
    MUTATIONS[int(rng.integers(len(MUTATIONS)))](content, rng)
    packing = number % 3
    if packing == 0:
        return "scan.nii", bytes(content)
    buffer = io.BytesIO()
    with gzip.GzipFile("", "wb", 1, buffer, mtime=0) as zipped:
        zipped.write(content)
    packed = bytearray(buffer.getvalue())
    if packing == 2:
        # The damage is to the packed bytes, too.
        (flipped_data if number % 2 else cut_short)(packed, rng)
    return "scan.nii.gz", bytes(packed)


def outcome(path: Path) -> Volume | LeansegError:
    """What reading gives; everything that a volume promises is asked of it."""
    try:
        volume = read_volume(path)
        assert len(volume.orientation) == 3
        assert np.isfinite(volume.spacing_mm).all()
        assert volume.array.ndim in (3, 4)
    except LeansegError as error:
        return error
    with contextlib.suppress(LeansegError):
        as_label_map(volume)
    # A mask for it can be written, on the very same grid.
    mask = path.with_name("mask.nii")
    write_mask(mask, np.ones(volume.shape, np.uint8), like=volume)
    np.testing.assert_array_equal(read_volume(mask).affine, volume.affine)
    return volume


@pytest.mark.parametrize("part", range(3))
def test_every_damaged_file_is_a_volume_or_a_sentence(
    tmp_path: Path, part: int, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    good = good_files()
    tracemalloc.start()
    try:
        with caplog.at_level(logging.DEBUG):
            for number in range(part, N_FILES, 3):
                name, content = mutant(number, good)
                path = tmp_path / name
                path.write_bytes(content)
                tracemalloc.reset_peak()
                start = time.perf_counter()
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    found = outcome(path)
                assert time.perf_counter() - start < LONGEST_S, number
                assert tracemalloc.get_traced_memory()[1] < LARGEST_BYTES, number
                if isinstance(found, LeansegError):
                    message = str(found)
                    assert str(path) in message, number
                    assert "\n" not in message, number
                    assert len(message) < 500, number
    finally:
        tracemalloc.stop()
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


def test_mutants_are_of_both_kinds(tmp_path: Path) -> None:
    """Were all refused, or all taken, the test above would see only half of the reader."""
    good = good_files()
    refused = 0
    for number in range(300):
        name, content = mutant(number, good)
        (tmp_path / name).write_bytes(content)
        refused += isinstance(outcome(tmp_path / name), LeansegError)
    assert 100 < refused < 270
