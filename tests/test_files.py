"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from leanseg.errors import LeansegError
from leanseg.files import read_parsed, require_outputs, write_text, written_whole
from leanseg.scratch import scratch_folder


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


KILLED = """
import os, signal, sys
from pathlib import Path
from leanseg.files import read_parsed, require_outputs, write_text, written_whole
from leanseg.scratch import scratch_folder
from leanseg.scratch import scratch_folder
with scratch_folder() as secret, written_whole(Path(sys.argv[1]) / "a.txt") as name:
    (secret / "patient.dcm").write_text("secret")
    name.write_text("half")
    print(secret, flush=True)
    os.kill(os.getpid(), signal.SIGKILL) if sys.argv[2] == "kill" else sys.stdin.read()
"""


@pytest.mark.skipif(os.name != "posix", reason="needs locks")
def test_folders_of_the_dead_are_swept_and_those_of_the_living_are_not(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    # A user's own, which only look alike.
    for name in (".writing-notes", ".writing-12345678", "temporary/leanseg-papers01"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.txt").write_text("precious")
    (tmp_path / ".writing-abcdefgh").symlink_to(tmp_path / ".writing-notes")
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([*command, "live"], **pipes) as living:
        alive = Path(living.stdout.readline().strip())
        assert stat.S_IMODE(alive.stat().st_mode) == 0o700
        killed = subprocess.run([*command, "kill"], stdout=subprocess.PIPE, text=True, check=False)
        dead = Path(killed.stdout.strip())
        assert dead.exists()
        assert len(list(tmp_path.glob(".writing-*/a.txt"))) == 2
        with scratch_folder():
            write_text(tmp_path / "b.txt", "another file in the same folder")
        assert not dead.exists()
        assert (alive / "patient.dcm").read_text() == "secret"
        assert len(list(tmp_path.glob(".writing-*/a.txt"))) == 1
        living.communicate("")
    assert living.returncode == 0
    assert (tmp_path / "a.txt").read_text() == "half"
    kept = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("mine.txt"))
    assert kept == [
        ".writing-12345678/mine.txt",
        ".writing-notes/mine.txt",
        "temporary/leanseg-papers01/mine.txt",
    ]
    assert not list(tmp_path.rglob(".lock"))


def test_a_failed_move_takes_companions_back(tmp_path, monkeypatch):
    replace = os.replace

    def failing(source, target):
        if target.name == "a.mhd":
            raise OSError(errno.EIO, "Input/output error")
        replace(source, target)

    monkeypatch.setattr("leanseg.files.os.replace", failing)
    with pytest.raises(LeansegError, match="Input/output"), written_whole(tmp_path / "a.mhd") as a:
        a.write_text("header")
        a.with_name("a.raw").write_text("voxels")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_read_is_not_called_unwritable(tmp_path):
    with (
        pytest.raises(LeansegError, match=r"gone\.nii: cannot be read"),
        written_whole(tmp_path / "out" / "a", in_new_folder=True),
    ):
        (tmp_path / "gone.nii").read_bytes()


def test_a_pipe_or_device_is_neither_read_nor_replaced(tmp_path):
    pipe = tmp_path / "a.json"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(LeansegError, match="a pipe or a device, not a file"):
            read_parsed(path, str)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path in (pipe, loop, Path("/dev/null")):
        with pytest.raises(LeansegError, match="give another name"):
            require_outputs([path])
    assert pipe.is_fifo()
    assert loop.is_symlink()
