"""Preprocessing: from a scan to what the network sees, by a plan; numpy only."""

from leanseg.preprocessing.cache import ArrayCache, cache_key, case_sha256
from leanseg.preprocessing.cases import CasePreparer, TrainingCase, WholeCase
from leanseg.preprocessing.intensity import IntensityTransform, fit_intensity
from leanseg.preprocessing.plan import (
    HounsfieldWindow,
    LabelCentredSlices,
    LinearScaling,
    NoWindow,
    Plan,
    PlanSettings,
    Postprocessing,
    QuantileWindow,
    Window,
)
from leanseg.preprocessing.slices import (
    ScanSlices,
    SliceSource,
    class_lookup,
    class_map,
    resize_classes,
    training_range,
    training_slices,
)

__all__ = [
    "ArrayCache",
    "CasePreparer",
    "HounsfieldWindow",
    "IntensityTransform",
    "LabelCentredSlices",
    "LinearScaling",
    "NoWindow",
    "Plan",
    "PlanSettings",
    "Postprocessing",
    "QuantileWindow",
    "ScanSlices",
    "SliceSource",
    "TrainingCase",
    "WholeCase",
    "Window",
    "cache_key",
    "case_sha256",
    "class_lookup",
    "class_map",
    "fit_intensity",
    "resize_classes",
    "training_range",
    "training_slices",
]
