"""Checks of who is who: the same scan under two names, the same patient in several cases."""

from __future__ import annotations

from collections.abc import Iterator

from leanseg.datasets.audit.dicom import PATIENT_PREFIX
from leanseg.datasets.audit.facts import Survey
from leanseg.datasets.audit.findings import Finding

# So many cases, and more than half of all, with one PatientID are not of one patient.
FEWEST_FOR_PLACEHOLDER = 3
_SHOWN = 5


def duplicates(survey: Survey) -> Iterator[Finding]:
    """Scans with the same voxels, also where one is mirrored or turned."""
    for names, is_exact in _same_scans(survey):
        how = "the same scan" if is_exact else "the same scan, but mirrored or turned"
        message = f"{_listed(names)} are {how}"
        yield Finding(names[0], "duplicate-scan", "warning", message, {"cases": names})


def same_patients(survey: Survey) -> Iterator[Finding]:
    """Patients with several cases, where no splits were given that could be checked."""
    groups = _patients(survey)
    if survey.splits or not groups:
        return
    n_cases = sum(len(names) for names in groups)
    shown = "; ".join(_listed(names) for names in groups[:_SHOWN])
    more = f"; and {len(groups) - _SHOWN} more" if len(groups) > _SHOWN else ""
    patients = "1 patient has" if len(groups) == 1 else f"{len(groups)} patients have"
    message = f"{patients} {n_cases} cases ({shown}{more})"
    yield Finding(None, "same-patient", "warning", message, {"groups": groups})


def split_leaks(survey: Survey) -> Iterator[Finding]:
    """Patients, and copies of a scan, on both sides of one of the given splits."""
    groups = [(names, "are of one patient") for names in _patients(survey)]
    groups += [(names, "are the same scan") for names, _ in _same_scans(survey)]
    for number, split in enumerate(survey.splits):
        for names, why in groups:
            train = [name for name in names if name in split.train]
            validation = [name for name in names if name in split.validation]
            if train and validation:
                message = (
                    f"split {number} trains on {_listed(train)} and validates on "
                    f"{_listed(validation)}, which {why}"
                )
                details = {"split": number, "train": train, "validation": validation}
                yield Finding(validation[0], "split-leak", "error", message, details)


def _patients(survey: Survey) -> list[list[str]]:
    """Names of the cases of each patient that has several.

    A DICOM patient who is most of the dataset is what an anonymiser wrote into every header.
    """
    groups: dict[str, list[str]] = {}
    for case in survey.cases:
        if case.patient:
            groups.setdefault(case.patient, []).append(case.name)
    most = max(FEWEST_FOR_PLACEHOLDER - 1, len(survey.cases) // 2)
    return [
        names
        for patient, names in groups.items()
        if len(names) > 1 and not (patient.startswith(PATIENT_PREFIX) and len(names) > most)
    ]


def _same_scans(survey: Survey) -> list[tuple[list[str], bool]]:
    """Names of cases with the same voxels, and whether they lie the same way too.

    A scan of one value has no content to compare.
    """
    groups: dict[str, list[tuple[str, str | None]]] = {}
    for case in survey.cases:
        if case.mirror_digest and any(channel.low < channel.high for channel in case.channels):
            groups.setdefault(case.mirror_digest, []).append((case.name, case.digest))
    return [
        ([name for name, _ in members], len({digest for _, digest in members}) == 1)
        for members in groups.values()
        if len(members) > 1
    ]


def _listed(names: list[str]) -> str:
    shown = names[:_SHOWN]
    if len(names) > _SHOWN:
        return f"{', '.join(shown)} and {len(names) - _SHOWN} more"
    return " and ".join(", ".join(shown).rsplit(", ", 1)) if len(shown) > 1 else shown[0]
