"""What an audit can find: the kinds, what each means, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Kind:
    """A kind of finding.

    Attributes:
        title: A few words for tables.
        advice: What to do, as a sentence.
    """

    title: str
    advice: str


KINDS: dict[str, Kind] = {
    "file-unreadable": Kind("file cannot be read", "Copy or export the named files again."),
    "geometry-invalid": Kind(
        "no valid grid", "Repair the header, or export the scan again with its geometry."
    ),
    "spacing-zero": Kind(
        "spacing of 0", "Write the true voxel spacing into the header, or export again."
    ),
    "channels-missing": Kind(
        "wrong number of channels", "Add the missing channels, or correct the list of channels."
    ),
    "channel-grid-differs": Kind(
        "channels on different grids", "Resample the channels of the case to one grid."
    ),
    "grid-differs": Kind(
        "label on another grid than its scan",
        "Run leanseg check DATA --fix FOLDER for a copy with the labels in the grid of the scans, "
        "and look at its pictures.",
    ),
    "label-not-whole": Kind(
        "labels that are not whole numbers",
        "Export the label map with nearest-neighbour interpolation.",
    ),
    "label-undeclared": Kind(
        "labels outside the declared set",
        "Declare the values among the dataset's labels, or correct the label maps.",
    ),
    "labels-missing": Kind(
        "no case has labels", "Add label maps; without any there is nothing to train on."
    ),
    "voxels-not-finite": Kind(
        "NaN or infinite voxels", "Replace them by the background value (air in CT is -1024)."
    ),
    "voxels-constant": Kind(
        "every voxel has the same value", "Export the scan again, it shows nothing."
    ),
    "split-leak": Kind(
        "one patient on both sides of a split", "Split by patient, so that scores mean something."
    ),
    "flip-left-right": Kind(
        "left and right may be swapped",
        "Look at the picture: mend the scan's header, or swap the names of the labels.",
    ),
    "flip-up-down": Kind(
        "may be upside down", "Look at the picture and mend the header of scan and labels."
    ),
    "intensity-not-hu": Kind(
        "grey values are not Hounsfield units",
        "Export in Hounsfield units, or do not call the channel CT and normalise by percentiles.",
    ),
    "duplicate-scan": Kind(
        "the same scan twice", "Keep one of each, or keep them on one side of every split."
    ),
    "same-patient": Kind(
        "several cases of one patient", "Split by patient: all cases of one on the same side."
    ),
    "label-ignored": Kind(
        "values taken for background",
        "Name them among the labels of the case, if they are no background.",
    ),
    "label-contradicts": Kind(
        "label in a case that does not annotate it",
        "Say that the case annotates it, or remove it from the label map.",
    ),
    "label-empty": Kind(
        "label map without any label", "Keep it if the patient is healthy; else label it."
    ),
    "label-absent": Kind(
        "declared label that no case holds", "Remove it from the labels, or add cases with it."
    ),
    "spacing-outlier": Kind(
        "spacing unlike the other cases", "Check the spacing in the header against the scanner's."
    ),
    "size-outlier": Kind(
        "field of view unlike the other cases", "Check that it shows the same body region."
    ),
    "spacing-implausible": Kind(
        "spacing that no scanner has", "Check the unit: the spacing must be in millimetres."
    ),
    "anisotropy": Kind(
        "slices far thicker than pixels", "Prefer a 2-D network, or leave the case out."
    ),
    "one-slice": Kind("a single slice", "Check that the whole scan was exported."),
    "intensity-padding": Kind(
        "padding below air", "Nothing: windows treat it as air. Percentiles would see it."
    ),
    "orientation-mixed": Kind(
        "several storage orientations", "Nothing: every scan is turned to one orientation."
    ),
    "label-turned": Kind(
        "label stored in another orientation", "Nothing: it is turned onto its scan, exactly."
    ),
    "label-none": Kind("case without labels", "Nothing: it takes no part in training."),
    "label-unannotated": Kind(
        "labels that the case does not annotate",
        "Nothing: they are unknown in this case and are never counted as background.",
    ),
    "dicom-note": Kind("found in the DICOM series", "Read it; nothing may be needed."),
}


@dataclass(frozen=True)
class Finding:
    """Something that the audit found.

    Attributes:
        case: The case's name; None for a finding about the dataset.
        kind: One of `KINDS`.
        severity: "error" stops training, "warning" should be looked at, "note" is for the record.
        message: One sentence: which file, which value.
        details: The numbers, as values that JSON has. No identifiers out of a DICOM header.
    """

    case: str | None
    kind: str
    severity: Severity
    message: str
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise KeyError(self.kind)

    @property
    def title(self) -> str:
        """The kind in a few words."""
        return KINDS[self.kind].title

    @property
    def advice(self) -> str:
        """What to do about findings of this kind."""
        return KINDS[self.kind].advice

    def rank(self) -> tuple[int, int, str]:
        """Sorts the worst first, then by kind, then by case."""
        kinds = list(KINDS)
        return SEVERITIES.index(self.severity), kinds.index(self.kind), self.case or ""

    def to_json(self) -> dict[str, Any]:
        """As values that JSON has."""
        return {
            "case": self.case,
            "kind": self.kind,
            "severity": self.severity,
            "message": self.message,
            "advice": self.advice,
            "details": dict(self.details),
        }
