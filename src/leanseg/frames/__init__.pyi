from .cache import ArrayCache, case_sha256, cases_sha256
from .cases import CasePreparer, PreparedCase
from .classes import class_map, containment, ignored_class
from .place import Place
from .source import CachedSource, ScanSource, Source
from .training_scaling import with_training_scaling
from .view import Scan, ScanView

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
