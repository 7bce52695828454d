"""The one-file model: weights, plan, labels and provenance; no pickle, a hash checked at load."""

from leanseg.modelfile.container import (
    SUFFIX,
    ModelFile,
    ensemble_weights,
    read_model,
    weights_sha256,
    write_model,
)
from leanseg.modelfile.manifest import Manifest, NetworkSpec, Provenance

__all__ = [
    "SUFFIX",
    "Manifest",
    "ModelFile",
    "NetworkSpec",
    "Provenance",
    "ensemble_weights",
    "read_model",
    "weights_sha256",
    "write_model",
]
