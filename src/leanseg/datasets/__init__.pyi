from .case import Case, Dataset, load_case
from .conversion import convert
from .labels import find_label, is_ignore, without_ignore
from .layouts import LAYOUTS, open_dataset
from .merge import merge_datasets
from .phantom import PhantomOptions, make_phantom
from .readers import read_source
from .sources import LabelPart, VolumeSource
from .split_files import Split, read_splits, write_splits
from .splits import draw_monitor, split, split_cases

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
