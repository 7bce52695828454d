"""The check of a dataset: what is wrong with its files, grids, labels, grey values and sides."""

# Importing a module of checks registers them, in the order in which findings are told.
from leanseg.datasets.check import (  # noqa: I001
    check_files,
    check_geometry,
    check_labels,
    check_intensity,
    check_identity,
    check_anatomy,
)
from leanseg.datasets.check.facts import (
    CaseFacts,
    ChannelFacts,
    GridFacts,
    LabelFacts,
    Survey,
    Thumbnail,
)
from leanseg.datasets.check.findings import KINDS, SEVERITIES, Finding, Kind
from leanseg.datasets.check.result import CheckResult, LabelUse
from leanseg.datasets.check.run import check

__all__ = [
    "KINDS",
    "SEVERITIES",
    "CaseFacts",
    "ChannelFacts",
    "CheckResult",
    "Finding",
    "GridFacts",
    "Kind",
    "LabelFacts",
    "LabelUse",
    "Survey",
    "Thumbnail",
    "check",
    "check_anatomy",
    "check_files",
    "check_geometry",
    "check_identity",
    "check_intensity",
    "check_labels",
]
