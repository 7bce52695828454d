"""Datasets: cases on disk in the layouts that people have, splits, and a synthetic phantom."""

from leanseg.datasets.case import Case, Dataset

__all__ = ["Case", "Dataset"]
