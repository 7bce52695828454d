"""Inference: from scans to label maps, by one pipeline and interchangeable engines."""

from leanseg.inference.engines import ENGINES, Engine, make_engine
from leanseg.inference.model import Model, load_model
from leanseg.inference.pipeline import Pipeline, Prediction
from leanseg.inference.stage_run import Settings, StageSeconds

__all__ = [
    "ENGINES",
    "Engine",
    "Model",
    "Pipeline",
    "Prediction",
    "Settings",
    "StageSeconds",
    "load_model",
    "make_engine",
]
