"""Where the voxels of a volume come from: a file, a folder, a place in a zip file, or memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from pydantic import InstanceOf

from leanseg.errors import DatasetError
from leanseg.files import require_file
from leanseg.volumes.archive import archive_of
from leanseg.volumes.placing import check_geometry
from leanseg.volumes.volume import Volume

_IN_MEMORY = Path("array in memory")


@dataclass(frozen=True)
class VolumeSource:
    """Where the voxels of one volume lie and how they are read; nothing is read before it is asked.

    Attributes:
        path: A volume file, a folder (DICOM series, stack of slices), or a place in a zip file
            (`scans.zip/ct.nii.gz`). For a volume in memory, what messages call it.
        reader: Registered name of the reader (`leanseg.datasets.readers`).
        options: What the reader needs to know besides, as values that JSON has.
        volume: The volume itself, where it is in memory.
    """

    path: Path
    reader: str = "volume"
    options: Mapping[str, Any] = field(default_factory=dict)
    volume: InstanceOf[Volume] | None = field(default=None, repr=False)

    @classmethod
    def of(cls, given: VolumeLike) -> VolumeSource:
        """The source of a path, a `Volume`, or an array with its affine.

        Raises:
            GeometryError: If array and affine make no volume.
        """
        if isinstance(given, VolumeSource):
            return given
        if isinstance(given, str | Path):
            return cls(Path(given))
        if not isinstance(given, Volume):
            array, affine = given
            given = Volume(np.asarray(array), np.asarray(affine, dtype=np.float64))
        return cls(given.path or _IN_MEMORY, "memory", volume=given)

    @property
    def stored(self) -> Path:
        """The file, folder or whole zip file that the voxels are read from."""
        return archive_of(self.path) or self.path

    def exists(self) -> bool:
        """Whether it can be read: its files are there, or it is in memory."""
        return self.volume is not None if self.reader == "memory" else self.stored.exists()

    def files(self) -> list[Path]:
        """Every file that it may be read from; none for a volume in memory."""
        if self.reader == "memory":
            return []
        if not self.stored.is_dir():
            return [self.stored]
        return sorted(path for path in self.stored.rglob("*") if path.is_file())

    def moved(self, change: Callable[[Path], Path]) -> VolumeSource:
        """The same source with `change` applied to its path."""
        return self if self.reader == "memory" else replace(self, path=change(self.path))

    def read_as(self, geometry: str) -> VolumeSource:
        """The same source with a choice between sform and qform, where it may be NIfTI.

        Raises:
            LeansegError: If it is none of `leanseg.volumes.placing.GEOMETRIES`.
        """
        check_geometry(geometry)
        if geometry == "auto" or self.reader not in ("volume", "companion"):
            return self
        return replace(self, options={**self.options, "geometry": geometry})

    def sha256(self) -> str:
        """SHA-256 over its content, files or voxels, and how it is read.

        Raises:
            DatasetError: If a file cannot be read.
        """
        digest = hashlib.sha256()
        if self.volume is not None:
            array = self.volume.array
            digest.update(f"{array.dtype.str} {array.shape} {self.volume.affine.tolist()}".encode())
            digest.update(np.ascontiguousarray(array).data)
        for file in self.files():
            inner = file.relative_to(self.stored) if self.stored.is_dir() else ""
            digest.update(f"{inner}\0{file_sha256(file)}\n".encode())
        inside = str(self.path.relative_to(self.stored)) if self.files() else ""
        how = {"inside": inside, "reader": self.reader, "options": dict(self.options)}
        digest.update(json.dumps(how, sort_keys=True).encode())
        return digest.hexdigest()

    def to_json(self) -> dict[str, Any]:
        """As values that JSON has; of a volume in memory, its hash."""
        options = dict(self.options)
        if self.volume is not None:
            options["sha256"] = self.sha256()
        return {"path": str(self.path), "reader": self.reader, "options": options}


VolumeLike: TypeAlias = VolumeSource | Volume | Path | str | tuple[ArrayLike, ArrayLike]


def is_volume_like(value: object) -> bool:
    """Whether something is one volume, and no list or tuple of several."""
    if isinstance(value, tuple):
        return len(value) == 2 and isinstance(value[1], np.ndarray | list)
    return not isinstance(value, list)


@dataclass(frozen=True)
class LabelPart:
    """One of the volumes that make up a case's label map.

    Attributes:
        source: Where it comes from.
        values: The dataset's label for each of its values, those not listed becoming
            background; None takes the values as they are.
        value: The dataset's label for every voxel above zero; overrides `values`.
        covers: Whether it lies over whatever other parts have there, because its layout says so.
            Any other part may only lie within one label of an earlier one.
    """

    source: VolumeSource
    values: Mapping[int, int] | None = None
    value: int | None = None
    covers: bool = False

    def to_json(self) -> dict[str, Any]:
        """As values that JSON has."""
        values = None if self.values is None else {str(k): v for k, v in self.values.items()}
        covers = {"covers": True} if self.covers else {}
        return {"source": self.source.to_json(), "values": values, "value": self.value, **covers}


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal digits.

    A file whose size and time of change are as before is not read again in this process.

    Raises:
        DatasetError: If the file cannot be read.
    """
    try:
        status = require_file(path).stat()
        return _sha256_of(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        msg = f"{path}: cannot be read ({error.strerror}); put the file back or correct its path"
        raise DatasetError(msg) from error


@lru_cache(maxsize=100_000)
def _sha256_of(path: Path, size: int, changed_ns: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
