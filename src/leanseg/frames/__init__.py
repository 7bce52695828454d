"""Frames: a scan as networks see it, from any place, for training and prediction alike."""

from leanseg.frames.cache import ArrayCache, case_sha256, cases_sha256
from leanseg.frames.cases import CasePreparer, PreparedCase
from leanseg.frames.classes import class_map, containment, ignored_class
from leanseg.frames.place import Place
from leanseg.frames.source import CachedSource, ScanSource, Source
from leanseg.frames.training_scaling import with_training_scaling
from leanseg.frames.view import Scan, ScanView

__all__ = [
    "ArrayCache",
    "CachedSource",
    "CasePreparer",
    "Place",
    "PreparedCase",
    "Scan",
    "ScanSource",
    "ScanView",
    "Source",
    "case_sha256",
    "cases_sha256",
    "class_map",
    "containment",
    "ignored_class",
    "with_training_scaling",
]
