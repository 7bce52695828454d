"""Inference: a streaming path from scan to label map, with interchangeable engines."""

from leanseg.inference.engines import ENGINES, Engine, make_engine
from leanseg.inference.model import Model, load_model
from leanseg.inference.predictor import Prediction, Predictor, StageSeconds

__all__ = [
    "ENGINES",
    "Engine",
    "Model",
    "Prediction",
    "Predictor",
    "StageSeconds",
    "load_model",
    "make_engine",
]
