"""The exported network of a model file, as engines read it."""

from __future__ import annotations

from collections.abc import Sequence

from leanseg.errors import ModelFileError
from leanseg.modelfile import ModelFile, with_weights


def exported_bytes(model: ModelFile) -> bytes:
    """The ONNX model from the image to the logits, weights included.

    Raises:
        ModelFileError: If the file holds no exported network.
    """
    if model.exported is None:
        msg = (
            f"{model.path}: holds no exported network; run 'leanseg export {model.path}' where "
            "PyTorch is installed, or choose --engine torch"
        )
        raise ModelFileError(msg)
    return with_weights(model.exported.graph, model.weights)


def first_part_bytes(model: ModelFile) -> bytes:
    """The ONNX model from the image to what sparse deformable layers read, weights included.

    Raises:
        ModelFileError: If the file lacks it.
    """
    if model.exported is None or model.exported.sampled is None:
        raise damaged(model, "it lacks its first part")
    return with_weights(model.exported.sampled, model.weights)


def planned_shape(model: ModelFile, input_shape: Sequence[int] | None = None) -> tuple[int, ...]:
    """Shape (1, channel, *spatial) of one input: as given, else as the plan says."""
    if input_shape is not None:
        return (1, *input_shape[1:])
    plan = model.manifest.plan
    return (1, *plan.input_shape(plan.final))


def damaged(model: ModelFile, error: object) -> ModelFileError:
    """What to say of an exported network that an engine does not take."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[-1] if lines else "no reason given"
    return ModelFileError(
        f"{model.path}: its exported network cannot be used ({reason}); export the model again "
        "with 'leanseg export', or choose --engine torch"
    )
