"""The on-disk cache of preprocessed cases: memory-mapped arrays, keyed by content and plan.

An entry is a folder of `.npy` files that appears in one rename, so an interrupted run leaves no
half entry; a key covers the files' bytes and everything in the plan that shapes the arrays, so a
changed scan or plan never meets a stale entry.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.preprocessing.plan import Plan

_FORMAT = 1


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal digits.

    A file whose size and time of change are as before is not read again in this process.
    """
    status = path.stat()
    return _sha256_of(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=100_000)
def _sha256_of(path: Path, size: int, changed_ns: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def cache_key(
    file_hashes: Sequence[str],
    plan: Plan,
    label_values: Mapping[str, Sequence[int]],
    channel_indices: Sequence[int] | None,
    kind: str,
) -> str:
    """Key of an entry: the content of the case's files and what is done to them."""
    shaping = plan.model_dump(mode="json", exclude={"postprocessing"})
    if kind != "training":
        shaping.pop("training_slices")
    description = {
        "format": _FORMAT,
        "files": list(file_hashes),
        "plan": shaping,
        "label_values": {name: list(values) for name, values in label_values.items()},
        "channels": None if channel_indices is None else list(channel_indices),
        "kind": kind,
    }
    text = json.dumps(description, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class ArrayCache:
    """A folder of entries; safe to share between runs and to interrupt at any moment."""

    root: Path

    def get(self, key: str, make: Callable[[], Mapping[str, NDArray[Any]]]) -> dict[str, Any]:
        """The arrays of an entry, memory-mapped read-only; made and stored when absent.

        Args:
            key: From `cache_key`.
            make: Computes the arrays, by name.

        Returns:
            Name to memory-mapped array.
        """
        folder = self.root / key[:2] / key
        entry = self._load(folder)
        if entry is None:
            self._store(folder, make())
            entry = self._load(folder)
            if entry is None:
                msg = f"cache entry {folder} cannot be read back just after it was written"
                raise RuntimeError(msg)
        return entry

    @staticmethod
    def _load(folder: Path) -> dict[str, Any] | None:
        if not folder.is_dir():
            return None
        try:
            return {
                path.stem: np.load(path, mmap_mode="r", allow_pickle=False)
                for path in sorted(folder.glob("*.npy"))
            }
        except (ValueError, OSError, EOFError):
            # Damaged from outside (a truncated copy, a failing disk): make it again.
            shutil.rmtree(folder, ignore_errors=True)
            return None

    @staticmethod
    def _store(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder.parent))
        try:
            for name, array in arrays.items():
                np.save(scratch / f"{name}.npy", array, allow_pickle=False)
            try:
                scratch.rename(folder)
            except OSError:
                # Another process stored the same entry first; its content is the same.
                if not folder.is_dir():
                    raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
