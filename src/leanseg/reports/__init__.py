"""Reports: a run as one HTML file, and slices with contours for other pages."""

from leanseg.reports.overlay import SliceView, choose_slices, overlay_figure
from leanseg.reports.page import write_report
from leanseg.reports.prior import CentrePrior, centre_prior

__all__ = [
    "CentrePrior",
    "SliceView",
    "centre_prior",
    "choose_slices",
    "overlay_figure",
    "write_report",
]
