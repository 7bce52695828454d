"""Sources: paths, volumes and arrays; their files, and hashes that follow their content."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter

from leanseg.datasets import VolumeSource, read_source
from leanseg.datasets.sources import file_sha256
from leanseg.errors import DatasetError
from leanseg.volumes import Volume

ARRAY = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])


def test_a_files_hash_follows_its_content(tmp_path: Path) -> None:
    path = tmp_path / "scan"
    path.write_bytes(b"abc")
    # FIPS 180-2, appendix B.1.
    first = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_sha256(path) == first
    path.write_bytes(b"abd")
    os.utime(path, (1, 1))
    assert file_sha256(path) != first
    with pytest.raises(DatasetError, match=r"absent: cannot be read \(No such file"):
        file_sha256(tmp_path / "absent")


def test_arrays_and_volumes_are_read_as_they_are() -> None:
    for given in ((ARRAY, AFFINE), Volume(ARRAY, AFFINE)):
        source = VolumeSource.of(given)
        assert source.files() == []
        assert source.exists()
        np.testing.assert_array_equal(read_source(source).array, ARRAY)
        np.testing.assert_array_equal(read_source(source).affine, AFFINE)
    recorded = TypeAdapter(VolumeSource).validate_python(VolumeSource.of((ARRAY, AFFINE)).to_json())
    assert not recorded.exists()
    with pytest.raises(DatasetError, match="was given as an array, which is not stored"):
        read_source(recorded)


def test_the_hash_of_an_array_follows_values_type_shape_and_place() -> None:
    moved = AFFINE.copy()
    moved[0, 3] = 1
    arrays = (
        (ARRAY, AFFINE),
        (ARRAY + 1, AFFINE),
        (ARRAY.astype(np.int32), AFFINE),
        (ARRAY.reshape(4, 3, 2), AFFINE),
        (ARRAY, moved),
    )
    hashes = {VolumeSource.of(given).sha256() for given in arrays}
    assert len(hashes) == len(arrays)
    turned = np.asfortranarray(ARRAY)
    assert VolumeSource.of((turned, AFFINE)).sha256() == VolumeSource.of((ARRAY, AFFINE)).sha256()


def test_the_hash_of_files_follows_content_names_and_reader(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "series").mkdir(exist_ok=True)
        (tmp_path / "series" / name).write_bytes(name.encode())
    source = VolumeSource(tmp_path / "series")
    assert [file.name for file in source.files()] == ["a", "b"]
    seen = {source.sha256()}
    seen.add(VolumeSource(tmp_path / "series", "slices").sha256())
    seen.add(VolumeSource(tmp_path / "series", options={"series": 1}).sha256())
    copy = Path(shutil.copytree(tmp_path / "series", tmp_path / "copy"))
    assert VolumeSource(copy).sha256() in seen
    (tmp_path / "series/a").rename(tmp_path / "series/c")
    seen.add(source.sha256())
    assert len(seen) == 4


def test_places_in_a_zip_file_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a.nii").write_bytes(b"x")
    archive = Path(shutil.make_archive(str(tmp_path / "scans"), "zip", tmp_path / "d"))
    inside = VolumeSource(archive / "a.nii")
    assert inside.stored == archive
    assert inside.files() == [archive]
    assert inside.sha256() != VolumeSource(archive).sha256()
