"""How large a model file is, without making it."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from leanseg.modelfile.container import write_model
from leanseg.modelfile.manifest import Manifest

# Names of types in the safetensors format.
_TYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64", "bool": "BOOL"}
_HEADER_MULTIPLE = 8


def model_file_bytes(manifest: Manifest, weights: Mapping[str, tuple[str, tuple[int, ...]]]) -> int:
    """Size of the model file with this manifest and weights.

    Args:
        manifest: As it would be written.
        weights: Name -> numpy's name of the type, and shape.
    """
    # Entries lie uncompressed in the file: another weights entry changes its size by as much.
    stand_in = {"": np.zeros(0, dtype=np.float32)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "size"
        write_model(path, manifest, stand_in)
        around = path.stat().st_size - len(save(stand_in))
    return around + _safetensors_bytes(weights)


def _safetensors_bytes(weights: Mapping[str, tuple[str, tuple[int, ...]]]) -> int:
    """Length word, header in JSON padded to a multiple of 8, and the numbers."""
    header, offset = {}, 0
    # Wide types come first, then names in order; offsets tell where each begins and ends.
    widths = {name: np.dtype(kind).itemsize for name, (kind, _) in weights.items()}
    for name in sorted(weights, key=lambda name: (-widths[name], name)):
        kind, shape = weights[name]
        end = offset + widths[name] * math.prod(shape)
        # A single number is stored as an array of one.
        entry = {"dtype": _TYPES[kind], "shape": shape or (1,), "data_offsets": (offset, end)}
        header[name] = entry
        offset = end
    length = len(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode())
    return 8 + math.ceil(length / _HEADER_MULTIPLE) * _HEADER_MULTIPLE + offset
