"""The cache: whole entries or none, keyed by all that shapes them and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from leanseg.errors import LeansegError
from leanseg.frames.cache import ArrayCache, cache_key
from leanseg.plan import HounsfieldWindow, Plan
from plans import slices

KEY = "ab" + "0" * 62
ARRAYS = {
    "image": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "classes": np.array([[0, 1], [2, 3]], dtype=np.uint8),
}


def never():
    pytest.fail("the entry was made again")


def assert_whole(entry) -> None:
    assert set(entry) == set(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(entry[name], array)
        assert entry[name].dtype == array.dtype


def files_in(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


WHOLE = sorted(f"ab/{KEY}/{name}" for name in ("arrays.json", "classes.npy", "image.npy"))


def test_made_once_and_memory_mapped(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path / "not there yet")
    assert_whole(cache.get(KEY, lambda: ARRAYS))
    entry = cache.get(KEY, never)
    assert_whole(entry)
    assert isinstance(entry["image"], np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        entry["image"][0] = 1
    assert files_in(cache.root) == WHOLE


def test_failing_to_make_leaves_nothing(tmp_path: Path) -> None:
    def fails():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ArrayCache(tmp_path).get(KEY, fails)
    assert files_in(tmp_path) == []


def test_interrupted_while_writing_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    save = np.save

    def interrupted(path, array, **options):
        save(path, array, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ArrayCache(tmp_path).get(KEY, lambda: ARRAYS)
    assert files_in(tmp_path) == []


KILLED = """
import os, signal, sys
import numpy as np
from pathlib import Path
from leanseg.frames import ArrayCache
save, written = np.save, []
def dying(path, array, **options):
    save(path, array, **options)
    written.append(path)
    if len(written) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
np.save = dying
arrays = {"image": np.zeros((50, 50)), "classes": np.zeros((50, 50))}
ArrayCache(Path(sys.argv[1])).get(sys.argv[2], lambda: arrays)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_killed_while_writing_leaves_no_entry(tmp_path: Path) -> None:
    died = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), KEY], check=False)
    assert died.returncode == -9
    assert not (tmp_path / "ab" / KEY / "arrays.json").exists()
    assert files_in(tmp_path), "it died before it wrote anything: this test shows nothing"
    assert_whole(ArrayCache(tmp_path).get(KEY, lambda: ARRAYS))


RACING = """
import sys, time
import numpy as np
from pathlib import Path
from leanseg.frames import ArrayCache
root, key, number = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
def make():
    # Both are in here before either of them stores.
    (root / f"ready-{number}").touch()
    for _ in range(2000):
        if len(list(root.glob("ready-*"))) == 2:
            break
        time.sleep(0.005)
    else:
        sys.exit("the other process never came")
    return {"image": np.arange(100_000, dtype=np.float32)}
entry = ArrayCache(root).get(key, make)
assert entry["image"].sum(dtype=float) == 4999950000, entry["image"]
"""


def test_two_processes_at_once(tmp_path: Path) -> None:
    racers = [
        subprocess.Popen([sys.executable, "-c", RACING, str(tmp_path), KEY, str(n)])
        for n in range(2)
    ]
    assert [racer.wait(60) for racer in racers] == [0, 0]
    files = [name for name in files_in(tmp_path) if not name.startswith("ready")]
    assert files == [f"ab/{KEY}/arrays.json", f"ab/{KEY}/image.npy"]


def cut(folder: Path) -> None:
    path = folder / "image.npy"
    path.write_bytes(path.read_bytes()[:-10])


def empty(folder: Path) -> None:
    (folder / "image.npy").write_bytes(b"")


def remove(folder: Path) -> None:
    (folder / "classes.npy").unlink()


def replace(folder: Path) -> None:
    np.save(folder / "image.npy", np.zeros((2, 3, 5), dtype=np.float32))


def garble(folder: Path) -> None:
    (folder / "image.npy").write_bytes(b"these are not the bytes you are looking for" * 10)


def unlist(folder: Path) -> None:
    (folder / "arrays.json").write_text('{"image":')


def flip(folder: Path) -> None:
    content = bytearray((folder / "image.npy").read_bytes())
    content[-1] ^= 1
    (folder / "image.npy").write_bytes(content)


def rename(folder: Path) -> None:
    listing = (folder / "arrays.json").read_text()
    (folder / "arrays.json").write_text(listing.replace('"image", ', ""))


def listed(text: str):
    def damage(folder: Path) -> None:
        (folder / "arrays.json").write_text(text)

    return damage


JSON = ("null", "[]", "-1", "{}", '{"arrays": null}', '{"arrays": [-1]}', "[" * 100_000)
DAMAGES = [cut, empty, remove, replace, garble, unlist, flip, rename, *map(listed, JSON)]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_made_again(tmp_path: Path, damage) -> None:
    cache = ArrayCache(tmp_path)
    cache.get(KEY, lambda: ARRAYS)
    damage(tmp_path / "ab" / KEY)
    calls = []

    def again():
        calls.append(1)
        return ARRAYS

    assert_whole(cache.get(KEY, again))
    assert calls == [1]
    assert files_in(tmp_path) == WHOLE


def test_a_full_disk(tmp_path: Path, monkeypatch) -> None:
    def full(path, array, **options):
        Path(path).write_bytes(b"half")
        msg = "24 requested and 4 written"
        raise OSError(msg)  # numpy's, without a reason

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(LeansegError, match=r"cannot be written \(24 requested"):
        ArrayCache(tmp_path).get(KEY, lambda: ARRAYS)
    assert files_in(tmp_path) == []


def test_a_cache_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(LeansegError, match=r"cannot be written \(Not a directory\)"):
        ArrayCache(tmp_path / "cache").get(KEY, lambda: ARRAYS)


PLAN = slices((32, 32), ("a",), window=HounsfieldWindow())


def key(hashes=("aa", "bb"), plan: Plan = PLAN, values=None, channels=None) -> str:
    return cache_key(hashes, plan.final, values or {"a": [1, 2]}, channels)


def test_the_key_changes_with_whatever_shapes_the_arrays() -> None:
    ct = {"window": HounsfieldWindow()}
    keys = [
        key(),
        key(hashes=("aa", "bc")),
        key(hashes=("bb", "aa")),
        key(values={"a": [1]}),
        key(values={"a": [1, 3]}),
        key(channels=(0,)),
        key(channels=(1,)),
        key(plan=slices((32, 32), ("a",), window=HounsfieldWindow(low=-151))),
        key(plan=slices((32, 32), ("a",), scaling="zscore", **ct)),
        key(plan=slices((32, 16), ("a",), **ct)),
        key(plan=slices((32, 32), ("a",), orientation="RAS", **ct)),
        key(plan=slices((32, 32), ("a", "b"), **ct), values={"a": [1], "b": [2]}),
    ]
    assert len(set(keys)) == len(keys)


def test_the_key_does_not_change_with_what_comes_after() -> None:
    after = {"largest_component": True, "neighbours": 1}
    assert key(plan=slices((32, 32), ("a",), window=HounsfieldWindow(), **after)) == key()
