"""Datasets: cases on disk in the layouts that people have, splits, and a synthetic phantom."""

from leanseg.datasets.case import Case, Dataset, LabelPart, Source
from leanseg.datasets.layouts import LAYOUTS, open_dataset
from leanseg.datasets.load import load_case
from leanseg.datasets.merge import find_label, merge_datasets
from leanseg.datasets.phantom import PhantomOptions, make_phantom, write_phantom_dataset
from leanseg.datasets.readers import READERS, read_source
from leanseg.datasets.splits import (
    Split,
    contiguous_folds,
    k_folds,
    leave_one_out,
    random_split,
    read_splits,
    stratified_folds,
    write_splits,
)

__all__ = [
    "LAYOUTS",
    "READERS",
    "Case",
    "Dataset",
    "LabelPart",
    "PhantomOptions",
    "Source",
    "Split",
    "contiguous_folds",
    "find_label",
    "k_folds",
    "leave_one_out",
    "load_case",
    "make_phantom",
    "merge_datasets",
    "open_dataset",
    "random_split",
    "read_source",
    "read_splits",
    "stratified_folds",
    "write_phantom_dataset",
    "write_splits",
]
