"""The one-file model: weights, plan, labels and provenance; no pickle, a hash checked at load."""

from leanseg.modelfile.container import (
    SUFFIX,
    Exported,
    ModelFile,
    ensemble_weights,
    read_model,
    weights_sha256,
    write_model,
)
from leanseg.modelfile.graph import with_weights
from leanseg.modelfile.manifest import (
    ExportRecord,
    Manifest,
    NetworkSpec,
    Provenance,
    SamplingLayer,
)

__all__ = [
    "SUFFIX",
    "ExportRecord",
    "Exported",
    "Manifest",
    "ModelFile",
    "NetworkSpec",
    "Provenance",
    "SamplingLayer",
    "ensemble_weights",
    "read_model",
    "weights_sha256",
    "with_weights",
    "write_model",
]
