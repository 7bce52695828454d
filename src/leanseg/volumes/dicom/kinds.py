"""What a DICOM file is: a slice of a scan, a localizer, a screenshot, contours, ..."""

from __future__ import annotations

from leanseg.volumes.dicom.files import ImageFile
from leanseg.volumes.dicom.frames import Frame
from leanseg.volumes.dicom.values import integer, items, text, texts

VOLUME = "volume"
LOCALIZER = "localizer"
SECONDARY_CAPTURE = "secondary capture"

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_BY_CLASS = {
    f"{_STORAGE}66.4": "segmentation",
    f"{_STORAGE}66.7": "segmentation",
    f"{_STORAGE}481.2": "radiotherapy dose",
    f"{_STORAGE}481.3": "contours",
    f"{_STORAGE}481.5": "radiotherapy plan",
    f"{_STORAGE}30": "parametric map",
}
_CAPTURES = frozenset(("7", "7.1", "7.2", "7.3", "7.4"))
_BY_MODALITY = {
    "SEG": "segmentation",
    "RTSTRUCT": "contours",
    "RTDOSE": "radiotherapy dose",
    "RTPLAN": "radiotherapy plan",
    "SR": "report",
    "KO": "report",
    "PR": "presentation state",
    "REG": "registration",
    "DOC": "report",
}

# Why a series of some kind is no scan, to follow "is a ...".
REFUSALS = {
    LOCALIZER: "an overview picture to plan the scan on, not the scan",
    SECONDARY_CAPTURE: "a screenshot or scanned picture whose pixels have no place in the body",
    "segmentation": "labels on a scan, not a scan",
    "contours": "structures drawn on a scan, not a scan",
    "colour image": "pixels are colours, not measured values",
    "mosaic": "all slices of a volume lie side by side in one image; convert it with dcm2niix",
    "projection": "its images have no position in the body",
    "single slice": "one slice alone is no volume; give the folder with all of them",
    "no image": "it has no pixels",
}


def kind_of(file: ImageFile, frames: tuple[Frame, ...]) -> str:
    """The kind of a file, `VOLUME` for slices of a scan."""
    header = file.header
    by_class = _BY_CLASS.get(text(header, "SOPClassUID"))
    by_modality = _BY_MODALITY.get(text(header, "Modality").upper())
    if by_class or by_modality:
        return by_class or by_modality or ""
    if not file.has_pixels and not integer(header, "Rows"):
        return "no image"
    if text(header, "SOPClassUID").removeprefix(_STORAGE) in _CAPTURES:
        return SECONDARY_CAPTURE
    if (integer(header, "SamplesPerPixel") or 1) != 1:
        return "colour image"
    if "MOSAIC" in texts(header, "ImageType"):
        return "mosaic"
    if frames[0].localizer:
        return LOCALIZER
    placed = any(frame.position or frame.axes for frame in frames)
    enhanced = bool(items(header, "PerFrameFunctionalGroupsSequence"))
    return VOLUME if placed or enhanced else "projection"
