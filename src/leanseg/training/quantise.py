"""An int8 copy of an exported network, by ONNX Runtime's static quantisation."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import MissingDependencyError
from leanseg.modelfile import ModelFile, with_weights
from leanseg.modelfile.graph import INPUT
from leanseg.training.export import ExportError, compare


def with_int8(model: ModelFile, calibration: NDArray[np.float32] | None = None) -> ModelFile:
    """The model with an int8 copy of its exported network.

    Weights per channel, activations over the range that the calibration input causes. How many
    labels this changes is measured and noted in the manifest; precision "auto" never picks it
    where that is more than 1 in 10,000.

    Args:
        model: With its exported network.
        calibration: Network input (n, channel, *spatial) that causes the usual range of
            activations; None takes the model's reference input.

    Raises:
        ExportError: If the model has no exported network or nothing to calibrate with, is an
            ensemble, or ONNX Runtime cannot quantise it.
        MissingDependencyError: If ONNX Runtime is not installed.
    """
    exported = model.exported
    if exported is None or model.manifest.export is None or model.manifest.members > 1:
        msg = f"{model.path}: only a single exported network can be quantised; export it first"
        raise ExportError(msg)
    image = exported.reference if calibration is None else calibration
    if image is None:
        msg = (
            f"{model.path}: holds no reference input to calibrate int8 with; give one with "
            "--reference SCAN"
        )
        raise ExportError(msg)
    # Counters are no part of the graph, and the library would list them one by one.
    weights = {name: array for name, array in model.weights.items() if array.dtype.kind == "f"}
    quantised = _quantised(with_weights(exported.graph, weights), image, model.path)
    trial = replace(model, exported=replace(exported, int8=quantised))
    share = compare(trial, image, "int8").equal_labels
    record = model.manifest.export.model_copy(update={"int8_equal_labels": share})
    return replace(trial, manifest=model.manifest.model_copy(update={"export": record}))


def _quantised(content: bytes, image: NDArray[np.float32], path: Path | None) -> bytes:
    try:
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        msg = (
            f"int8 needs the package {error.name}; install it with: "
            "pip install 'leanseg[onnx,train]'"
        )
        raise MissingDependencyError(msg) from error
    level = logging.getLogger().level
    # Its advice is meant for whoever calls its own command line.
    logging.getLogger().setLevel(logging.ERROR)
    try:
        with tempfile.TemporaryDirectory() as folder:
            given, ready, result = (Path(folder) / f"{n}.onnx" for n in range(3))
            given.write_bytes(content)
            # Folds normalisation into convolutions, which then get one range of weights.
            quant_pre_process(str(given), str(ready), skip_symbolic_shape=True)
            quantize_static(
                str(ready),
                str(result),
                _Calibration(image),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv", "ConvTranspose"],
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
            return result.read_bytes()
    except (RuntimeError, ValueError) as error:
        first = str(error).splitlines()[0]
        msg = f"{path}: its network cannot be quantised ({first}); use another precision"
        raise ExportError(msg) from error
    finally:
        logging.getLogger().setLevel(level)


class _Calibration:
    """The interface by which ONNX Runtime asks for input, one at a time."""

    def __init__(self, image: NDArray[np.float32]) -> None:
        self._inputs: Iterator[dict[str, Any]] = iter(
            {INPUT: np.ascontiguousarray(image[n : n + 1])} for n in range(len(image))
        )

    def get_next(self) -> dict[str, Any] | None:
        return next(self._inputs, None)
