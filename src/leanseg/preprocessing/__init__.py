"""Preprocessing: from a scan to what the network sees, by a plan; numpy only."""

from leanseg.preprocessing.plan import Plan

__all__ = ["Plan"]
