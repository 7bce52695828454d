"""leanseg: compact networks that segment organs and tumours in CT and MR volumes.

What `__all__` names is public; everything else may change.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    __version__: str
    from leanseg import augmentation, losses, networks
    from leanseg.benchmarking.run import benchmark
    from leanseg.datasets import Case, Dataset, convert, open_dataset, split
    from leanseg.datasets.check import check
    from leanseg.datasets.phantom import phantom
    from leanseg.errors import LeansegError
    from leanseg.evaluation import Scores, compare, evaluate
    from leanseg.inference import Model, load_model
    from leanseg.inference.sliding import sliding_window
    from leanseg.plan import Axis, Frame, Intensity, Patch, Plan, Stage
    from leanseg.reports import report
    from leanseg.training import Recipe, Run, import_weights, package, resume, train
    from leanseg.volumes import Volume, crop, paste, read, reorient, resample, write

# Where the names are loaded from when they are first used, so that `import leanseg` costs nothing.
_HOMES = {
    "leanseg.volumes": ("Volume", "read", "write", "reorient", "resample", "crop", "paste"),
    "leanseg.datasets": ("Dataset", "Case", "open_dataset", "split", "convert"),
    "leanseg.datasets.check": ("check",),
    "leanseg.datasets.phantom": ("phantom",),
    "leanseg.plan": ("Axis", "Frame", "Patch", "Intensity", "Stage", "Plan"),
    "leanseg.training": ("Recipe", "train", "resume", "Run", "package", "import_weights"),
    "leanseg.inference": ("Model", "load_model"),
    "leanseg.inference.sliding": ("sliding_window",),
    "leanseg.evaluation": ("evaluate", "Scores", "compare"),
    "leanseg.benchmarking.run": ("benchmark",),
    "leanseg.reports": ("report",),
    "leanseg.errors": ("LeansegError",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
_MODULES = ("networks", "losses", "augmentation")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"leanseg.{name}")
    if name in _HOME_OF:
        return getattr(import_module(_HOME_OF[name]), name)
    if name == "__version__":
        return _version()
    raise AttributeError(f"module 'leanseg' has no attribute {name!r}")


def _version() -> str:
    """Version of the distribution; "0+unknown" of source files that are not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("leanseg")
    except PackageNotFoundError:
        return "0+unknown"


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
