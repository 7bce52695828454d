"""The check of a dataset: what is wrong with its files, grids, labels, grey values and sides."""

from leanseg.datasets.check.findings import KINDS, SEVERITIES, Finding
from leanseg.datasets.check.result import CheckResult
from leanseg.datasets.check.run import check

__all__ = ["KINDS", "SEVERITIES", "CheckResult", "Finding", "check"]
