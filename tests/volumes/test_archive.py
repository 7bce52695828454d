"""Zip files as folders: what they hold is found, what they should not do is refused."""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from leanseg.errors import FileFormatError
from leanseg.volumes import is_archive, read_volume, unpacked
from leanseg.volumes.archive import archive_of, packed


def make(path: Path, members: dict[str, bytes], compression=zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_paths_inside_are_files_on_disk(tmp_path):
    archive = make(tmp_path / "scans.zip", {"a/b.txt": b"one", "größe/ç.txt": b"two"})
    assert is_archive(archive)
    assert not is_archive(tmp_path / "absent.zip")
    folder = unpacked(archive)
    assert folder.name == "scans"
    assert (folder / "a/b.txt").read_bytes() == b"one"
    inner = archive / "größe" / "ç.txt"
    assert unpacked(inner).read_bytes() == b"two"
    assert archive_of(inner) == archive
    assert packed(unpacked(inner), archive) == inner
    # The same place each time in one process.
    assert unpacked(archive) == folder


def test_ordinary_paths_come_back(tmp_path):
    assert unpacked(tmp_path / "x.nii") == tmp_path / "x.nii"
    assert archive_of(tmp_path / "x.nii") is None
    (tmp_path / "folder.zip").mkdir()
    assert unpacked(tmp_path / "folder.zip" / "a") == tmp_path / "folder.zip" / "a"


def test_a_changed_zip_file_is_unpacked_anew(tmp_path):
    archive = make(tmp_path / "a.zip", {"x": b"old"})
    assert unpacked(archive / "x").read_bytes() == b"old"
    make(archive, {"x": b"newer"})
    os.utime(archive, ns=(1, 1))
    assert unpacked(archive / "x").read_bytes() == b"newer"


def test_a_zip_file_in_a_zip_file(tmp_path):
    inner = make(tmp_path / "inner.zip", {"x.txt": b"deep"})
    archive = make(tmp_path / "outer.zip", {"inner.zip": inner.read_bytes()})
    assert unpacked(archive / "inner.zip" / "x.txt").read_bytes() == b"deep"


def test_a_volume_in_a_zip_file(tmp_path, rng):
    array = rng.integers(0, 100, (5, 4, 3)).astype(np.int16)
    nib.save(nib.Nifti1Image(array, np.diag([1, 2, 3, 1])), tmp_path / "ct.nii.gz")
    archive = make(tmp_path / "a.zip", {"scans/ct.nii.gz": (tmp_path / "ct.nii.gz").read_bytes()})
    volume = read_volume(archive / "scans" / "ct.nii.gz")
    np.testing.assert_array_equal(volume.array, array)
    assert volume.path == archive / "scans" / "ct.nii.gz"


@pytest.mark.parametrize(
    "name", ["../out.txt", "a/../../out.txt", "/etc/out.txt", "..\\out.txt", "C:/out.txt"]
)
def test_paths_that_climb_out_stay_inside(tmp_path, name):
    archive = make(tmp_path / "a.zip", {name: b"x"})
    folder = unpacked(archive)
    assert [file.name for file in folder.rglob("*") if file.is_file()] == ["out.txt"]
    assert list(tmp_path.iterdir()) == [archive]


def test_links_lead_nowhere(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    found = unpacked(tmp_path / "a.zip") / "link"
    assert found.is_file()
    assert not found.is_symlink()


def test_a_bomb_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    archive = make(tmp_path / "bomb.zip", {f"{n}": bytes(1_000_000) for n in range(10)})
    assert 100 * archive.stat().st_size < 10_000_000
    monkeypatch.setattr("tempfile.mkdtemp", lambda **_: pytest.fail("unpacks"))
    with pytest.raises(FileFormatError, match=r"bomb\.zip: would unpack to \d+ times its size"):
        unpacked(archive)


def test_a_small_archive_may_be_packed_tightly(tmp_path):
    archive = make(tmp_path / "mask.zip", {"mask": bytes(500_000)})
    assert unpacked(archive / "mask").stat().st_size == 500_000


def test_more_than_was_declared_is_refused(tmp_path):
    archive = make(tmp_path / "a.zip", {"x": b"y" * 5000}, zipfile.ZIP_STORED)
    content = bytearray(archive.read_bytes())
    # Both places that declare the unpacked size: 5000 becomes 50.
    size = (5000).to_bytes(4, "little")
    place = content.rindex(size)
    content[place : place + 4] = (50).to_bytes(4, "little")
    archive.write_bytes(content)
    with pytest.raises(FileFormatError, match="damaged"):
        unpacked(archive)


@pytest.mark.parametrize("keep", [0, 10, 60, 200])
def test_damaged_archives(tmp_path, keep):
    archive = make(tmp_path / "a.zip", {"x": os.urandom(1000)})
    archive.write_bytes(archive.read_bytes()[:keep])
    with pytest.raises(FileFormatError, match=r"a\.zip: the zip file is damaged"):
        unpacked(archive)


def test_flipped_content_is_noticed(tmp_path):
    archive = make(tmp_path / "a.zip", {"x": os.urandom(1000)}, zipfile.ZIP_STORED)
    content = bytearray(archive.read_bytes())
    content[500] ^= 255
    archive.write_bytes(content)
    with pytest.raises(FileFormatError, match="damaged"):
        unpacked(archive)


def test_a_locked_archive_says_so(tmp_path):
    archive = make(tmp_path / "a.zip", {"x": b"secret"})
    content = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    archive.write_bytes(content)
    with pytest.raises(FileFormatError, match="password"):
        unpacked(archive)


def test_mutated_archives_are_read_or_refused(tmp_path, rng):
    original = make(tmp_path / "a.zip", {"d/x.txt": b"abc" * 50, "ü.bin": os.urandom(80)})
    content = np.frombuffer(original.read_bytes(), np.uint8)
    for number in range(400):
        mutated = content.copy()
        for place in rng.integers(0, len(mutated), rng.integers(1, 4)):
            mutated[place] = rng.integers(0, 256)
        path = tmp_path / f"{number}.zip"
        path.write_bytes(
            mutated[: len(mutated) - rng.integers(0, 2) * rng.integers(0, 50)].tobytes()
        )
        try:
            folder = unpacked(path)
        except FileFormatError as error:
            assert f"{number}.zip" in str(error)
        else:
            assert folder.is_dir()
