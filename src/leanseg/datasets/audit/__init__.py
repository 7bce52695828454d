"""The audit of a dataset: what is wrong with its files, grids, labels, grey values and sides."""

from leanseg.datasets.audit.facts import CaseFacts, ChannelFacts, GridFacts, LabelFacts, Thumbnail
from leanseg.datasets.audit.findings import KINDS, SEVERITIES, Finding, Kind
from leanseg.datasets.audit.registry import CHECKS
from leanseg.datasets.audit.result import Audit, LabelUse
from leanseg.datasets.audit.run import audit

__all__ = [
    "CHECKS",
    "KINDS",
    "SEVERITIES",
    "Audit",
    "CaseFacts",
    "ChannelFacts",
    "Finding",
    "GridFacts",
    "Kind",
    "LabelFacts",
    "LabelUse",
    "Thumbnail",
    "audit",
]
