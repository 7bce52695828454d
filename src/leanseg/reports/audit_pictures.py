"""The pictures of an audit: a slice of every case with the outlines of its labels."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping

import numpy as np

from leanseg.datasets.check import SEVERITIES, CaseFacts, CheckResult, Thumbnail
from leanseg.reports.markup import Markup, embedded_image, join, number, section, tag
from leanseg.reports.overlay import (
    LABEL_COLOURS,
    REFERENCE_COLOUR,
    OverlayInput,
    SliceView,
    slice_figure,
)
from leanseg.volumes import Volume

_THUMBNAIL_PX = 240


def anchor(case: str) -> str:
    """The identifier of a case's picture in the page."""
    return "case-" + "".join(c if c.isalnum() else f"_{ord(c):x}_" for c in case)


def pictures_section(audit: CheckResult) -> Markup:
    """The pictures; nothing where the audit was made without."""
    if not any(case.thumbnail is not None for case in audit.cases):
        return Markup()
    names = list(audit.survey.labels)
    colours = [LABEL_COLOURS[n % len(LABEL_COLOURS)] for n in range(len(names))]
    if len(names) == 1:
        colours = [REFERENCE_COLOUR]
    swatches = (
        tag("span", tag("i", style=f"border-top: 3px solid {colour}"), name, class_="swatch")
        for name, colour in zip(names, colours, strict=True)
    )
    text = (
        "The axial slice through the middle of the labels, or of the scan where there are none. "
        "The patient’s right is at the left, the front is up. Labels are drawn where they lie in "
        "the world, also where their grid is not the scan’s."
    )
    figures = [_figure(case, audit) for case in audit.cases]
    return section(
        "Pictures",
        "pictures",
        tag("p", *swatches, class_="legend") if names else Markup(),
        tag("p", text, class_="fine"),
        tag("div", *figures, class_="thumbnails"),
    )


def _figure(case: CaseFacts, audit: CheckResult) -> Markup:
    findings = audit.of_case(case.name)
    counts = Counter(finding.severity for finding in findings)
    badges = join(
        (_badge_count(severity, counts[severity]) for severity in SEVERITIES if counts[severity]),
        " ",
    )
    caption = [tag("strong", case.name), " ", badges]
    if case.thumbnail is None:
        screen = tag("div", "no picture", class_="screen none")
    else:
        caption.append(tag("div", f"z = {number(case.thumbnail.z_mm, 1)} mm"))
        png = thumbnail_png(case.thumbnail, audit.survey.labels)
        screen = tag(
            "div", embedded_image(png, "image/png", f"{case.name}, axial slice"), class_="screen"
        )
    return tag("figure", screen, tag("figcaption", *caption), id=anchor(case.name))


def _badge_count(severity: str, count: int) -> Markup:
    plural = "" if count == 1 else "s"
    return tag("span", f"{count} {severity}{plural}", class_=f"badge of-{severity}")


def thumbnail_png(thumbnail: Thumbnail, labels: Mapping[str, int]) -> bytes:
    """A thumbnail as PNG, with the outlines of the labels."""
    height, width = thumbnail.pixel_mm
    # As a scan of one slice in the orientation LPS, which is what the overlay draws.
    affine = np.diag([-width, -height, 1.0, 1.0])
    image = Volume(thumbnail.grey.T[:, :, None], affine)
    reference = None if thumbnail.labels is None else thumbnail.labels.T[:, :, None]
    figure = slice_figure(
        OverlayInput(image, reference, None),
        SliceView("axial", 0),
        labels=labels or None,
        window=(0, 255),
        longest_side_px=_THUMBNAIL_PX,
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
