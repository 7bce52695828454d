"""The one-file model: a zip of `manifest.json`, `weights.safetensors` and the exported network.

Any zip tool lists it and no reader of it executes anything. The archive's comment ends in the
SHA-256 of every byte before that digest, so a file that was cut or altered anywhere is refused.
The weights lie uncompressed; `network.onnx` is the graph alone, whose weights are those
(`leanseg.modelfile.graph`). `sampled.onnx` is the first part of a network whose sparse deformable
layers lie between two graphs.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from leanseg.errors import ModelFileError
from leanseg.modelfile.manifest import Manifest
from leanseg.volumes.atomic import written_whole

SUFFIX = ".leanseg"
_MANIFEST = "manifest.json"
_WEIGHTS = "weights.safetensors"
_GRAPH = "network.onnx"
_SAMPLED = "sampled.onnx"
_LARGEST_SWELL = 50
_SMALL_BYTES = 1 << 20
_SEAL = b"leanseg sha256:"
_DIGEST_LENGTH = 64
# Zip's own earliest date: the same model gives the same bytes at any time.
_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Exported:
    """What engines other than PyTorch run.

    Attributes:
        graph: A serialised ONNX model without its weights; input "image" (batch, channel,
            *spatial) with the plan's shape, output "logits" (batch, output, *spatial).
        sampled: For a network with sparse deformable layers, the graph from "image" to what they
            sample, "sampled.0" and so on; `graph` then has the further inputs "samples.0" and so
            on, the layers' results (`leanseg.modelfile.manifest.SamplingLayer`).
    """

    graph: bytes
    sampled: bytes | None = None


@dataclass(frozen=True)
class ModelFile:
    """A model in memory: what it is, its weights by parameter name, and the exported network."""

    manifest: Manifest
    weights: Mapping[str, NDArray[Any]]
    path: Path | None = None
    exported: Exported | None = None

    def without_weights(self) -> ModelFile:
        """What is worth keeping in memory once an engine has taken the weights."""
        return replace(self, weights={}, exported=None)

    def members(self) -> list[ModelFile]:
        """The single networks of an ensemble; the file itself where it holds one.

        Raises:
            ModelFileError: If the weights of a member are missing.
        """
        if self.manifest.members == 1:
            return [self]
        single = self.manifest.model_copy(update={"members": 1})
        found = []
        for number in range(self.manifest.members):
            prefix = f"{number}/"
            weights = {
                name.removeprefix(prefix): array
                for name, array in self.weights.items()
                if name.startswith(prefix)
            }
            if not weights:
                msg = f"{self.path}: lacks the weights of network {number}; make the file again"
                raise ModelFileError(msg)
            found.append(replace(self, manifest=single, weights=weights))
        return found


def ensemble_weights(members: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """The weights of several networks of one kind as one file holds them."""
    if len(members) == 1:
        return dict(members[0])
    return {
        f"{number}/{name}": array
        for number, weights in enumerate(members)
        for name, array in weights.items()
    }


def weights_sha256(weights: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 of the weights as a safetensors file, independent of the mapping's order."""
    return hashlib.sha256(_serialise(weights)).hexdigest()


def write_model(
    path: Path,
    manifest: Manifest,
    weights: Mapping[str, NDArray[Any]],
    exported: Exported | None = None,
) -> str:
    """Write a model file, atomically.

    Args:
        path: Destination; replaced only once the new file is complete.
        manifest: Its `weights_sha256` is filled in here.
        weights: Arrays by parameter name, BatchNorm statistics included.
        exported: The exported network; without it PyTorch alone can run the model.

    Returns:
        The SHA-256 of the weights.

    Raises:
        LeansegError: If the folder cannot be written to or the disk is full.
    """
    blob = _serialise(weights)
    digest = hashlib.sha256(blob).hexdigest()
    sealed = manifest.model_copy(update={"weights_sha256": digest})
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        text = sealed.model_dump_json(indent=2)
        archive.writestr(zipfile.ZipInfo(_MANIFEST, _DATE), text)
        archive.writestr(zipfile.ZipInfo(_WEIGHTS, _DATE), blob)
        for name, part in _parts(exported).items():
            # Mostly names and air: a tenth of the size.
            archive.writestr(zipfile.ZipInfo(name, _DATE), part, zipfile.ZIP_DEFLATED)
        archive.comment = _SEAL + b"0" * _DIGEST_LENGTH
    body = buffer.getvalue()[:-_DIGEST_LENGTH]
    seal = hashlib.sha256(body).hexdigest().encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as scratch:
        scratch.write_bytes(body + seal)
    return digest


def _parts(exported: Exported | None) -> dict[str, bytes]:
    if exported is None:
        return {}
    parts = {_GRAPH: exported.graph}
    if exported.sampled is not None:
        parts[_SAMPLED] = exported.sampled
    return parts


def _exported(archive: zipfile.ZipFile) -> Exported | None:
    names = set(archive.namelist())
    if _GRAPH not in names:
        return None
    for info in archive.infolist():
        # Graphs deflate to a tenth; what swells more was made to fill the memory.
        if info.file_size > _LARGEST_SWELL * info.compress_size + _SMALL_BYTES:
            msg = f"{info.filename} would swell to {info.file_size} bytes"
            raise zipfile.BadZipFile(msg)
    sampled = archive.read(_SAMPLED) if _SAMPLED in names else None
    return Exported(archive.read(_GRAPH), sampled)


def read_model(path: Path) -> ModelFile:
    """Read a model file and check that not a byte of it changed since it was written.

    Args:
        path: A file that `write_model` wrote.

    Returns:
        The manifest and the weights.

    Raises:
        ModelFileError: If the file is missing, not a model file, cut, altered, or made by a
            newer leanseg.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        msg = f"{path}: cannot be read ({reason}); give the path of a {SUFFIX} model file"
        raise ModelFileError(msg) from error
    _check_seal(path, content)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            manifest_text, blob = archive.read(_MANIFEST), archive.read(_WEIGHTS)
            exported = _exported(archive)
        manifest = Manifest.model_validate_json(manifest_text)
        weights = load(blob)
    except (zipfile.BadZipFile, zlib.error, KeyError, ValidationError, SafetensorError) as error:
        first = _reason(error)
        msg = (
            f"{path}: is sealed as a model file but this version of leanseg cannot read it "
            f"({first}); update leanseg or export the model again"
        )
        raise ModelFileError(msg) from error
    return ModelFile(manifest, weights, path, exported)


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        text = error.errors()[0]["msg"]
        return f"{where}: {text}" if where else text
    return str(error).splitlines()[0]


def _check_seal(path: Path, content: bytes) -> None:
    body, digest = content[:-_DIGEST_LENGTH], content[-_DIGEST_LENGTH:]
    if not content.startswith(b"PK\x03\x04"):
        msg = f"{path}: is not a leanseg model file; give the {SUFFIX} file that training wrote"
        raise ModelFileError(msg)
    if not body.endswith(_SEAL):
        msg = f"{path}: is cut off ({len(content)} bytes, no seal at its end); copy it again"
        raise ModelFileError(msg)
    if hashlib.sha256(body).hexdigest().encode() != digest:
        msg = f"{path}: was altered since it was written (its SHA-256 differs); copy it again"
        raise ModelFileError(msg)


def _serialise(weights: Mapping[str, NDArray[Any]]) -> bytes:
    ordered = {name: np.ascontiguousarray(weights[name]) for name in sorted(weights)}
    return bytes(save(ordered))
