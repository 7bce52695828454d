"""A model in one file: stages, plan, provenance; no pickle, and a hash checked at load."""

from leanseg.modelfile.container import SUFFIX, is_model_file, read_model, write_model
from leanseg.modelfile.ensemble import join_members
from leanseg.modelfile.graph import with_weights
from leanseg.modelfile.manifest import (
    ExportRecord,
    LabelGate,
    LabelReliability,
    NetworkSpec,
    Provenance,
    ReliabilityBins,
    ReviewRecord,
    RobustnessRecord,
    SamplingLayer,
    UsualRange,
)
from leanseg.modelfile.model import Exported, Member, ModelFile
from leanseg.modelfile.names import find_model, model_folder
from leanseg.modelfile.stack import join_stack, stage_names

__all__ = [
    "SUFFIX",
    "ExportRecord",
    "Exported",
    "LabelGate",
    "LabelReliability",
    "Member",
    "ModelFile",
    "NetworkSpec",
    "Provenance",
    "ReliabilityBins",
    "ReviewRecord",
    "RobustnessRecord",
    "SamplingLayer",
    "UsualRange",
    "find_model",
    "is_model_file",
    "join_members",
    "join_stack",
    "model_folder",
    "read_model",
    "stage_names",
    "with_weights",
    "write_model",
]
