__all__ = [  # noqa: RUF022  by subject
    "Volume", "read", "write", "reorient", "resample", "crop", "paste",
    "Dataset", "Case", "open_dataset", "split", "check", "convert", "phantom",
    "Axis", "Frame", "Patch", "Intensity", "Stage", "Plan",
    "networks", "losses", "augmentation",
    "Recipe", "train", "resume", "Run",
    "Model", "load_model", "sliding_window", "package", "import_weights",
    "evaluate", "Scores", "compare", "benchmark", "report",
    "LeansegError", "__version__",
]  # fmt: skip

from . import augmentation, losses, networks
from .benchmarking.run import benchmark
from .datasets import Case, Dataset, convert, open_dataset, split
from .datasets.check import check
from .datasets.phantom import phantom
from .errors import LeansegError
from .evaluation import Scores, compare, evaluate
from .inference import Model, load_model
from .inference.sliding import sliding_window
from .plan import Axis, Frame, Intensity, Patch, Plan, Stage
from .reports.run_report import report
from .training import Recipe, Run, import_weights, package, resume, train
from .version import __version__
from .volumes import Volume, crop, paste, read, reorient, resample, write
