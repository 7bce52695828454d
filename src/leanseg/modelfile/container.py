"""The one-file model: a zip of `manifest.json` and, for every network, weights and graphs.

Any zip tool lists it and no reader of it executes anything. The archive's comment ends in the
SHA-256 of every byte before that digest, so a file that was cut or altered anywhere is refused.

The seal tells damage, not intent: anybody can seal anything. So what an entry unpacks to is bounded
before one is read, and weights are compared with their own SHA-256 in the manifest.

In the folder STAGE/NUMBER of a network lie `weights.safetensors`, uncompressed; `network.onnx`,
the graph alone, whose weights are those (`leanseg.modelfile.graph`); and `sampled.onnx`, the first
part of a network whose sparse deformable layers lie between two graphs.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors.numpy import load, save

from leanseg.errors import ModelFileError
from leanseg.files import first_mistake, require_file, shortened, written_whole
from leanseg.modelfile.manifest import Manifest, MemberRecord
from leanseg.modelfile.model import Exported, Member, ModelFile

SUFFIX = ".leanseg"
_MANIFEST = "manifest.json"
_WEIGHTS = "weights.safetensors"
_GRAPH = "network.onnx"
_SAMPLED = "sampled.onnx"
_LARGEST_SWELL = 50
_SMALL_BYTES = 1 << 20
_LARGEST_MANIFEST_BYTES = 1 << 24
# How a zip file begins, and the name of the first of its entries.
_MAGIC = b"PK\x03\x04"
_FIRST = slice(30, 30 + len(_MANIFEST))
_SEAL = b"leanseg sha256:"
_DIGEST_LENGTH = 64
# Zip's own earliest date: the same model gives the same bytes at any time.
_DATE = (1980, 1, 1, 0, 0, 0)


def write_model(path: Path, model: ModelFile) -> ModelFile:
    """Write a model file, atomically.

    Args:
        path: Destination; replaced only once the new file is complete.
        model: The model; its path and SHA-256 play no part.

    Returns:
        The model with both filled in.

    Raises:
        LeansegError: If the folder cannot be written to or the disk is full.
    """
    content, digest = _packed(model)
    with written_whole(path, in_new_folder=True) as scratch:
        scratch.write_bytes(content)
    return replace(model, path=path, weights_sha256=digest)


def _packed(model: ModelFile) -> tuple[bytes, str]:
    """The bytes of a model file, and the SHA-256 of its weights."""
    entries: dict[str, tuple[bytes, int]] = {}
    digest = hashlib.sha256()
    for stage, members in model.stages.items():
        for number, member in enumerate(members):
            blob = _serialised(member.weights)
            digest.update(blob)
            entries[f"{stage}/{number}/{_WEIGHTS}"] = blob, zipfile.ZIP_STORED
            for name, graph in _graphs(member).items():
                # Mostly names and air: a tenth of the size.
                entries[f"{stage}/{number}/{name}"] = graph, zipfile.ZIP_DEFLATED
    manifest = replace(model, weights_sha256=digest.hexdigest()).manifest.model_dump_json(indent=2)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(_MANIFEST, _DATE), manifest)
        for name, (content, method) in entries.items():
            archive.writestr(zipfile.ZipInfo(name, _DATE), content, method)
        archive.comment = _SEAL + b"0" * _DIGEST_LENGTH
    body = buffer.getvalue()[:-_DIGEST_LENGTH]
    return body + hashlib.sha256(body).hexdigest().encode(), digest.hexdigest()


def _graphs(member: Member) -> dict[str, bytes]:
    if member.exported is None:
        return {}
    graphs = {_GRAPH: member.exported.graph, _SAMPLED: member.exported.sampled}
    return {name: graph for name, graph in graphs.items() if graph is not None}


def _serialised(weights: Mapping[str, NDArray[Any]]) -> bytes:
    ordered = {name: np.ascontiguousarray(weights[name]) for name in sorted(weights)}
    return bytes(save(ordered))


def read_model(path: Path) -> ModelFile:
    """Read a model file and check that not a byte of it changed since it was written.

    Args:
        path: A file that `write_model` wrote.

    Returns:
        The model; its weights are views of the file's bytes.

    Raises:
        ModelFileError: If the file is missing, not a model file, cut, altered, or made by a
            newer leanseg.
    """
    try:
        # What is no model file may have no end.
        content = path.read_bytes() if is_model_file(path) else b""
    except OSError as error:
        reason = error.strerror or str(error)
        msg = f"{path}: cannot be read ({reason}); give the path of a {SUFFIX} model file"
        if path.name == str(path) and not path.suffix:
            msg += f", or fetch a model of that name: leanseg models get {path}"
        raise ModelFileError(msg) from error
    _check_seal(path, content)
    try:
        return _unpacked(path, content)
    # zipfile and the decompressors raise whatever they like at a sealed file that is none of ours.
    except Exception as error:
        raise ModelFileError(
            f"{path}: is sealed as a model file but this version of leanseg cannot read it "
            f"({_reason(error)}); update leanseg or export the model again"
        ) from error


def is_model_file(path: Path) -> bool:
    """Whether a file begins as a model file does.

    Raises:
        OSError: If it cannot be read.
    """
    with require_file(path).open("rb") as file:
        head = file.read(_FIRST.stop)
    return head.startswith(_MAGIC) and head[_FIRST] == _MANIFEST.encode()


def _unpacked(path: Path, content: bytes) -> ModelFile:
    digest = hashlib.sha256()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        _check_entries(archive, len(content))
        manifest = Manifest.model_validate_json(archive.read(_MANIFEST))

        def member(folder: str, record: MemberRecord) -> Member:
            blob = archive.read(f"{folder}/{_WEIGHTS}")
            digest.update(blob)
            exported = None
            if record.export is not None:
                sampled = archive.read(f"{folder}/{_SAMPLED}") if record.export.sampling else None
                exported = Exported(archive.read(f"{folder}/{_GRAPH}"), record.export, sampled)
            return Member(record.network, load(blob), exported, path)

        stages = {
            name: tuple(member(f"{name}/{number}", each) for number, each in enumerate(records))
            for name, records in manifest.stages.items()
        }
    if digest.hexdigest() != manifest.weights_sha256:
        raise ValueError("its weights are not those whose SHA-256 its manifest records")
    return ModelFile(manifest.plan, stages, manifest.provenance, path, manifest.weights_sha256)


def _check_entries(archive: zipfile.ZipFile, n_bytes: int) -> None:
    """Graphs deflate to a tenth; what swells more was made to fill the memory.

    All entries together count, since several may share the same bytes of the file.
    """
    entries = archive.infolist()
    swollen = sum(entry.file_size for entry in entries)
    if swollen > _LARGEST_SWELL * n_bytes + _SMALL_BYTES:
        raise ValueError(f"its entries would swell to {swollen} bytes")
    if archive.getinfo(_MANIFEST).file_size > _LARGEST_MANIFEST_BYTES:
        raise ValueError(f"its {_MANIFEST} is larger than {_LARGEST_MANIFEST_BYTES} bytes")
    if len(set(archive.namelist())) < len(entries):
        raise ValueError("two of its entries have the same name")
    if {entry.compress_type for entry in entries} - {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise ValueError("its entries are packed in a way that leanseg does not use")


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return first_mistake(error)
    return shortened(str(*error.args[:1]) or type(error).__name__, 300)[1:-1]


def _check_seal(path: Path, content: bytes) -> None:
    body, digest = content[:-_DIGEST_LENGTH], content[-_DIGEST_LENGTH:]
    if not content:
        msg = f"{path}: is not a leanseg model file; give the {SUFFIX} file that training wrote"
        raise ModelFileError(msg)
    if not body.endswith(_SEAL):
        msg = f"{path}: is cut off ({len(content)} bytes, no seal at its end); copy it again"
        raise ModelFileError(msg)
    if hashlib.sha256(body).hexdigest().encode() != digest:
        msg = f"{path}: was altered since it was written (its SHA-256 differs); copy it again"
        raise ModelFileError(msg)
