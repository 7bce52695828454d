"""Ordinary headers without nibabel, against nibabel, to the last bit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from leanseg.volumes.axes import axis_codes
from leanseg.volumes.nifti import _ordinary

DTYPES = ("u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")
floats = st.floats(-1e4, 1e4, width=32)


@st.composite
def headers(draw) -> nib.Nifti1Header:
    """What scanners and programs write, and some of what they should not."""
    header = nib.Nifti1Header(endianness=draw(st.sampled_from("<>")))
    shape = draw(st.lists(st.integers(1, 600), min_size=2, max_size=5))
    header.set_data_shape(shape)
    header.set_data_dtype(
        draw(st.sampled_from([*DTYPES, "c8", "c16"])) if draw(st.booleans()) else "i2"
    )
    header["pixdim"][1:4] = draw(
        st.lists(st.sampled_from([0.7, 0.783203125, 1, 5, 2.5]), min_size=3, max_size=3)
    )
    header["pixdim"][0] = draw(st.sampled_from([1, -1, 1, -1, 0]))
    header["qform_code"] = draw(st.integers(0, 4))
    header["sform_code"] = draw(st.sampled_from([0, 0, 1, 2, 4, 9]))
    quaternion = np.array(draw(st.lists(st.floats(-1, 1), min_size=4, max_size=4)))
    assume(np.linalg.norm(quaternion) > 1e-3)
    quaternion /= np.linalg.norm(quaternion) * draw(st.sampled_from([1, 1, 1, 0.9]))
    for name, value in zip("bcd", quaternion[1:], strict=True):
        header[f"quatern_{name}"] = value
    for name in "xyz":
        header[f"qoffset_{name}"] = draw(floats)
        header[f"srow_{name}"] = draw(st.lists(floats, min_size=4, max_size=4))
    header["scl_slope"] = draw(st.sampled_from([1, 0, 2.5, np.nan, np.inf]))
    header["scl_inter"] = draw(st.sampled_from([0, -1024, np.nan]))
    header["vox_offset"] = draw(st.sampled_from([352, 352, 0, 416, 1000]))
    header["magic"] = b"n+1"
    return header


@settings(max_examples=400, deadline=None)
@given(headers())
def test_as_nibabel_reads_it(header: nib.Nifti1Header) -> None:
    found = _ordinary(header.binaryblock)
    checked = header.copy()
    problems = nib.Nifti1Header.diagnose_binaryblock(header.binaryblock, header.endianness)
    if found is None:
        return
    # Nothing that nibabel would repair is read here, but for offsets that SPM cannot map.
    assert not [line for line in problems.splitlines() if "divisible by 16" not in line]
    assert found.record.tobytes() == header.binaryblock
    assert found.shape == checked.get_data_shape()
    assert found.dtype == checked.get_data_dtype()
    assert found.first_voxel == checked.get_data_offset()
    slope_inter = checked.get_slope_inter()
    assert (found.slope, found.inter) == ((1.0, 0.0) if slope_inter[0] is None else slope_inter)
    assert found.affine.tobytes() == np.asarray(checked.get_best_affine(), np.float64).tobytes()


def ordinary() -> nib.Nifti1Header:
    header = nib.Nifti1Image(np.zeros((5, 6, 7), np.int16), np.diag([-1, -1, 3, 1])).header.copy()
    header["vox_offset"], header["magic"] = 352, b"n+1"
    return header


@pytest.mark.parametrize("order", "<>")
def test_what_programs_write_is_ordinary(order: str) -> None:
    header = ordinary().as_byteswapped(order)
    found = _ordinary(header.binaryblock)
    assert found is not None
    for name in ("dim", "pixdim", "qform_code", "xyzt_units", "descrip"):
        assert found[name].tobytes() == header[name].tobytes(), name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sizeof_hdr", 540),
        ("magic", b"ni1"),
        ("datatype", 32),
        ("datatype", 77),
        ("dim", [2, 5, 6, 1, 1, 1, 1, 1]),
        ("dim", [8, 5, 6, 7, 1, 1, 1, 1]),
        ("dim", [3, 5, 0, 7, 1, 1, 1, 1]),
        ("dim", [3, -1, 1, 1, 1, 1, 1, 1]),
        ("dim", [3, 27307, 1, 6, 1, 1, 1, 1]),
        ("pixdim", [1, 0, 1, 1, 1, 1, 1, 1]),
        ("pixdim", [1, 1, -1, 1, 1, 1, 1, 1]),
        ("pixdim", [1, 1, np.nan, 1, 1, 1, 1, 1]),
        ("pixdim", [0, 1, 1, 1, 1, 1, 1, 1]),
        ("vox_offset", 300),
        ("vox_offset", np.inf),
        ("sform_code", 7),
        ("qform_code", -1),
        ("scl_inter", np.nan),
    ],
)
def test_whatever_needs_care_is_left_to_nibabel(name: str, value: object) -> None:
    header = ordinary()
    assert _ordinary(header.binaryblock) is not None
    if name == "scl_inter":
        header["scl_slope"] = 1
    header[name] = value
    assert _ordinary(header.binaryblock) is None


@settings(max_examples=300, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=9, max_size=9), st.sampled_from([0.0, 0.3, 1.0]))
def test_axes_are_nibabels(numbers: list[float], blend: float) -> None:
    """From axes along the patient's to any, sheared too."""
    rng = np.random.default_rng(abs(hash(tuple(numbers))) % 2**32)
    aligned = np.eye(3)[rng.permutation(3)] * rng.choice([-1, 1], 3)
    matrix = (1 - blend) * aligned + blend * np.array(numbers).reshape(3, 3)
    matrix = matrix @ np.diag(rng.uniform(0.3, 5, 3))
    spacing = np.linalg.norm(matrix, axis=0)
    assume(spacing.min() > 1e-3 and abs(np.linalg.det(matrix / spacing)) > 1e-4)
    affine = np.eye(4)
    affine[:3, :3] = matrix
    assert axis_codes(affine) == "".join(nib.aff2axcodes(affine))


def test_an_ordinary_scan_is_read_and_its_mask_written_without_nibabel(tmp_path: Path) -> None:
    nib.save(
        nib.Nifti1Image(np.ones((5, 6, 7), np.int16), np.diag([-1, -1, 3, 1])),
        tmp_path / "s.nii.gz",
    )
    code = (
        "import sys, numpy as np\n"
        "from leanseg.volumes import read_volume, write_mask\n"
        f"scan = read_volume({str(tmp_path / 's.nii.gz')!r})\n"
        f"write_mask({str(tmp_path / 'm.nii.gz')!r}, scan.array > 0, like=scan)\n"
        "assert scan.orientation == 'LPS'\n"
        "print('nibabel' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    assert nib.load(tmp_path / "m.nii.gz").get_fdata().all()
