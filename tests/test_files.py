"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from leanseg.errors import LeansegError
from leanseg.files import written_whole


def test_success_replaces_and_leaves_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with written_whole(target) as temporary:
        temporary.write_text("new")
        temporary.with_name("a.raw").write_text("companion")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.raw", "a.txt"]


def test_permissions_follow_the_umask(tmp_path):
    previous = os.umask(0o022)
    try:
        with written_whole(tmp_path / "a") as temporary:
            temporary.write_text("")
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, RuntimeError])
def test_any_exception_leaves_nothing(tmp_path, error):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(error), written_whole(target) as temporary:
        temporary.write_text("half")
        raise error
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert target.read_text() == "old"


@pytest.mark.parametrize(
    ("number", "message"),
    [(errno.ENOSPC, "the disk is full"), (errno.EACCES, "Permission denied")],
)
def test_write_errors_are_one_sentence(tmp_path, number, message):
    with (
        pytest.raises(LeansegError, match=message) as caught,
        written_whole(tmp_path / "a.txt") as temporary,
    ):
        temporary.write_text("half")
        raise OSError(number, os.strerror(number))
    assert str(tmp_path / "a.txt") in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_missing_folder_and_file_as_folder(tmp_path):
    (tmp_path / "file").write_text("")
    for target in (tmp_path / "none" / "a.txt", tmp_path / "file" / "a.txt"):
        with pytest.raises(LeansegError, match="cannot be written"), written_whole(target):
            pass
    with pytest.raises(LeansegError, match="cannot be written"), written_whole(tmp_path) as name:
        name.write_text("a folder is in the way")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_unwritable_folder(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(LeansegError, match="Permission denied"), written_whole(tmp_path / "a"):
            pass
    finally:
        tmp_path.chmod(0o700)
