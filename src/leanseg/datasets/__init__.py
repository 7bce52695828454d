"""Datasets: cases on disk in the layouts that people have, splits, and a synthetic phantom."""

from leanseg.datasets.case import Case, Dataset, LabelPart, Source
from leanseg.datasets.layouts import LAYOUTS, open_dataset
from leanseg.datasets.load import load_case
from leanseg.datasets.phantom import PhantomOptions, make_phantom, write_phantom_dataset
from leanseg.datasets.readers import READERS, read_source
from leanseg.datasets.splits import Split, k_folds, random_split, read_splits, write_splits

__all__ = [
    "LAYOUTS",
    "READERS",
    "Case",
    "Dataset",
    "LabelPart",
    "PhantomOptions",
    "Source",
    "Split",
    "k_folds",
    "load_case",
    "make_phantom",
    "open_dataset",
    "random_split",
    "read_source",
    "read_splits",
    "write_phantom_dataset",
    "write_splits",
]
