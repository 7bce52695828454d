"""What the headers of a DICOM series tell an audit besides its voxels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from leanseg.datasets.sources import VolumeSource
from leanseg.volumes import is_volume_path

# Before a fingerprint of a patient out of a DICOM header; the identifier itself is never kept.
PATIENT_PREFIX = "DICOM "


@dataclass(frozen=True)
class SeriesFacts:
    """What is known of a series.

    Attributes:
        notes: Sentences, without identifiers.
        patient: A fingerprint that cases of one patient share; None where headers name nobody.
    """

    notes: tuple[str, ...] = ()
    patient: str | None = None


def series_facts(source: VolumeSource) -> SeriesFacts:
    """Facts of the series that a source reads; nothing where it is no DICOM.

    Raises:
        LeansegError: If there is no such series, or the DICOM packages are not installed.
    """
    if source.reader != "volume" or is_volume_path(source.path):
        return SeriesFacts()
    from leanseg.volumes.dicom import choose_series, find_series, is_dicom

    if not is_dicom(source.path):
        return SeriesFacts()
    options = source.options
    inventory = find_series(source.path)
    series = choose_series(inventory, options.get("series"), options.get("modality"))
    notes = list(series.notes)
    if series.missing:
        shown = ", ".join(series.missing[:3]) + (", ..." if len(series.missing) > 3 else "")
        notes.append(f"{len(series.missing)} slices are missing and were interpolated ({shown})")
    if inventory.skipped:
        notes.append(f"{len(inventory.skipped)} files beside it are no images")
    patient = None
    if series.patient:
        digest = hashlib.blake2b(series.patient.encode(), digest_size=8).hexdigest()
        patient = PATIENT_PREFIX + digest
    return SeriesFacts(tuple(notes), patient)
