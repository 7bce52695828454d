"""The on-disk cache of preprocessed cases: memory-mapped arrays, keyed by content and plan.

An entry is a folder of `.npy` files and a listing with their checksum that is written last: an
interrupted run leaves no half entry, and a damaged one is made anew. A key covers the files' bytes
and everything in the plan that shapes the arrays, so that a changed scan or plan never meets a
stale entry.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.datasets.case import Case
from leanseg.errors import LeansegError
from leanseg.files import written_whole
from leanseg.plan import Stage

_FORMAT = 6
# Names of an entry's arrays and the CRC-32 of these and of the files, one after another.
_LISTING = "arrays.json"
_BLOCK_BYTES = 1 << 22


def case_sha256(case: Case) -> list[str]:
    """What a case's arrays are made from: each source's hash, and how labels are merged."""
    merging = [[part.to_json()["values"], part.value] for part in case.label_parts]
    annotated = None if case.annotated is None else sorted(case.annotated)
    rules = json.dumps([merging, annotated], sort_keys=True)
    hashes = [source.sha256() for source in case.sources]
    return [*hashes, hashlib.sha256(rules.encode()).hexdigest()]


def cases_sha256(cases: Sequence[Case]) -> str:
    """SHA-256 over the names, contents and reading of all files of some cases, in order of name."""
    digest = hashlib.sha256()
    for case in sorted(cases, key=lambda case: case.name):
        digest.update("\0".join([case.name, *case_sha256(case)]).encode() + b"\n")
    return digest.hexdigest()


def cache_key(
    file_hashes: Sequence[str],
    stage: Stage,
    label_values: Mapping[str, Sequence[int]],
    channel_indices: Sequence[int] | None,
    ignored_values: Sequence[int] = (),
) -> str:
    """Key of an entry: the content of the case's files and what is done to them."""
    description = {
        "format": _FORMAT,
        "files": list(file_hashes),
        "frame": stage.frame.model_dump(mode="json"),
        "intensity": stage.intensity.model_dump(mode="json"),
        "labels": list(stage.labels),
        "label_values": {name: list(values) for name, values in label_values.items()},
        "ignored_values": list(ignored_values),
        "channels": None if channel_indices is None else list(channel_indices),
    }
    text = json.dumps(description, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class ArrayCache:
    """A folder of entries; safe to share between processes and to interrupt at any moment."""

    root: Path

    def get(self, key: str, make: Callable[[], Mapping[str, NDArray[Any]]]) -> dict[str, Any]:
        """The arrays of an entry, memory-mapped read-only; made and stored when absent.

        Args:
            key: From `cache_key`.
            make: Computes the arrays, by name.

        Returns:
            Name to memory-mapped array.

        Raises:
            LeansegError: If the cache cannot be written to, or its disk is full.
        """
        folder = self.root / key[:2] / key
        entry = _load(folder)
        if entry is None:
            _store(folder, make())
            entry = _load(folder)
        if entry is None:
            msg = f"{folder}: cannot be read back just after it was written; check the disk"
            raise LeansegError(msg)
        return entry


def _load(folder: Path) -> dict[str, Any] | None:
    """The entry in a folder, or None where there is none or it was damaged from outside."""
    try:
        listed = json.loads((folder / _LISTING).read_text(encoding="utf-8"))
        if listed != _listing(folder, listed["arrays"]):
            return None
        return {
            name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in listed["arrays"]
        }
    except (ValueError, OSError, EOFError, LookupError, TypeError, RecursionError):
        return None


def _listing(folder: Path, names: Iterable[str]) -> dict[str, Any]:
    """What the listing of an entry says, from the files of its arrays."""
    checksum = 0
    for name in names:
        checksum = zlib.crc32(str(name).encode(), checksum)
        with (folder / f"{name}.npy").open("rb") as stream:
            while block := stream.read(_BLOCK_BYTES):
                checksum = zlib.crc32(block, checksum)
    return {"arrays": list(names), "crc32": checksum}


def _store(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an entry; where another process did so meanwhile, its content is the same."""
    with written_whole(folder / _LISTING, in_new_folder=True) as scratch:
        for name, array in arrays.items():
            np.save(scratch.with_name(f"{name}.npy"), array, allow_pickle=False)
        listed = _listing(scratch.parent, arrays)
        scratch.write_text(json.dumps(listed), encoding="utf-8")
