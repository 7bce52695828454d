"""The exported network: an ONNX graph whose weights lie elsewhere in the model file.

A model file holds every weight once, in `weights.safetensors`; the graph names them. Before an
engine reads the graph, the weights are put back as the initializers that ONNX calls them. That
takes no protobuf library: of a message that is given in two parts, every reader makes one, and
repeated fields are joined. So the weights are appended as a second part of the graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Field numbers and types of onnx.proto (ONNX IR 3 and later).
_MODEL_GRAPH = 7
_GRAPH_INITIALIZER = 5
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_DATA = 1, 2, 8, 9
_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "bool": 9, "float16": 10}
_VARINT, _LENGTH_DELIMITED = 0, 2
_Part = bytes | memoryview

INPUT, OUTPUT = "image", "logits"


def with_weights(graph: bytes, weights: Mapping[str, NDArray[Any]]) -> bytes:
    """An ONNX model with its weights, as ONNX Runtime and OpenVINO read it.

    Args:
        graph: The serialised model, in which the initializers of these names are missing.
        weights: Arrays by name; such as the graph does not use do no harm.

    Returns:
        The serialised model.

    Raises:
        KeyError: If an array is of a type that networks do not use.
    """
    tensors = (_tensor(name, array) for name, array in weights.items())
    initializers = [part for each in tensors for part in _delimited(_GRAPH_INITIALIZER, each)]
    return b"".join([graph, *_delimited(_MODEL_GRAPH, initializers)])


def _tensor(name: str, array: NDArray[Any]) -> list[_Part]:
    """A TensorProto."""
    data = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    return [
        *(_key(_TENSOR_DIMS, _VARINT) + _varint(length) for length in array.shape),
        _key(_TENSOR_TYPE, _VARINT) + _varint(_TYPES[array.dtype.name]),
        *_delimited(_TENSOR_NAME, [name.encode()]),
        *_delimited(_TENSOR_DATA, [data.reshape(-1).view(np.uint8).data]),
    ]


def _delimited(field: int, parts: Sequence[_Part]) -> list[_Part]:
    """A field of bytes, which are not copied."""
    n_bytes = sum(memoryview(part).nbytes for part in parts)
    return [_key(field, _LENGTH_DELIMITED), _varint(n_bytes), *parts]


def _key(field: int, kind: int) -> bytes:
    return _varint(field << 3 | kind)


def _varint(number: int) -> bytes:
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)
