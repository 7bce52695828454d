"""The check of a dataset: what is wrong with its files, grids, labels, grey values and sides."""

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
]
