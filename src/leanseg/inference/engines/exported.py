"""The exported network, as engines read it."""

from __future__ import annotations

from leanseg.errors import ModelFileError
from leanseg.modelfile import Member, with_weights


def exported_bytes(member: Member) -> bytes:
    """The ONNX model from the image to the logits, weights included.

    Raises:
        ModelFileError: If the file holds no exported network.
    """
    if member.exported is None:
        msg = (
            f"{member.path}: holds no exported network; run 'leanseg export {member.path}' where "
            "PyTorch is installed, or choose --engine torch"
        )
        raise ModelFileError(msg)
    return with_weights(member.exported.graph, member.weights)


def first_part_bytes(member: Member) -> bytes:
    """The ONNX model from the image to what sparse deformable layers read, weights included.

    Raises:
        ModelFileError: If the file lacks it.
    """
    if member.exported is None or member.exported.sampled is None:
        raise damaged(member, "it lacks its first part")
    return with_weights(member.exported.sampled, member.weights)


def damaged(member: Member, error: object) -> ModelFileError:
    """What to say of an exported network that an engine does not take."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[-1] if lines else "no reason given"
    return ModelFileError(
        f"{member.path}: its exported network cannot be used ({reason}); export the model again "
        "with 'leanseg export', or choose --engine torch"
    )
