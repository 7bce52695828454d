"""Reports: a run or the check of a dataset as one HTML file, and studies of a network."""

from leanseg.reports.run_report import report

__all__ = ["report"]
