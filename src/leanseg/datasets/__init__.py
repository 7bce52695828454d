"""Datasets: cases of files or arrays, the layouts that people have, splits, a synthetic phantom."""

from leanseg.datasets.case import Case, Dataset, load_case
from leanseg.datasets.convert import convert
from leanseg.datasets.labels import find_label, is_ignore, without_ignore
from leanseg.datasets.layouts import LAYOUTS, open_dataset
from leanseg.datasets.merge import merge_datasets
from leanseg.datasets.phantom import PhantomOptions, make_phantom
from leanseg.datasets.readers import read_source
from leanseg.datasets.sources import LabelPart, VolumeSource
from leanseg.datasets.split_files import Split, read_splits, write_splits
from leanseg.datasets.splits import draw_monitor, split, split_cases

__all__ = [
    "LAYOUTS",
    "Case",
    "Dataset",
    "LabelPart",
    "PhantomOptions",
    "Split",
    "VolumeSource",
    "convert",
    "draw_monitor",
    "find_label",
    "is_ignore",
    "load_case",
    "make_phantom",
    "merge_datasets",
    "open_dataset",
    "read_source",
    "read_splits",
    "split",
    "split_cases",
    "without_ignore",
    "write_splits",
]
