"""Checks of who is who: the same scan under two names, the same patient in several cases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from leanseg.datasets.check.facts import Survey
from leanseg.datasets.check.findings import Found, dataset_check
from leanseg.datasets.check.reading import PATIENT_PREFIX

# So many cases, and more than half of all, with one PatientID are not of one patient.
FEWEST_FOR_PLACEHOLDER = 3
_SHOWN = 5
_USES = {"train": "trains on", "monitor": "monitors", "test": "tests on"}


@dataset_check("split-leak")
def split_leaks(survey: Survey) -> Iterator[Found]:
    """Patients, and copies of a scan, in two or three parts of one of the given splits."""
    groups = [(names, "are of one patient") for names in _patients(survey)]
    groups += [(names, "are the same scan") for names, _ in _same_scans(survey)]
    for number, split in enumerate(survey.splits):
        for names, why in groups:
            found = {
                part: [name for name in names if name in listed]
                for part, listed in asdict(split).items()
            }
            found = {part: listed for part, listed in found.items() if listed}
            if len(found) > 1:
                uses = [f"{_USES[part]} {_listed(listed)}" for part, listed in found.items()]
                yield Found(
                    f"split {number} {_joined(uses)}, which {why}",
                    {"split": number, **found},
                    list(found.values())[-1][0],
                )


@dataset_check("duplicate-scan")
def duplicates(survey: Survey) -> Iterator[Found]:
    """Scans with the same voxels, also where one is mirrored or turned."""
    for names, is_exact in _same_scans(survey):
        how = "the same scan" if is_exact else "the same scan, but mirrored or turned"
        yield Found(f"{_listed(names)} are {how}", {"cases": names}, names[0])


@dataset_check("same-patient")
def same_patients(survey: Survey) -> Iterator[Found]:
    """Patients with several cases, where no splits were given that could be checked."""
    groups = _patients(survey)
    if survey.splits or not groups:
        return
    shown = "; ".join(_listed(names) for names in groups[:_SHOWN])
    more = f"; and {len(groups) - _SHOWN} more" if len(groups) > _SHOWN else ""
    patients = "1 patient has" if len(groups) == 1 else f"{len(groups)} patients have"
    message = f"{patients} {sum(map(len, groups))} cases ({shown}{more})"
    yield Found(message, {"groups": groups})


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
    groups: dict[tuple[str, ...], dict[str, tuple[str, ...]]] = {}
    for case in survey.cases:
        if case.n_channels and any(channel.low < channel.high for channel in case.channels):
            mirrored = tuple(channel.mirror_digest for channel in case.channels)
            exact = tuple(channel.digest for channel in case.channels)
            groups.setdefault(mirrored, {})[case.name] = exact
    return [
        (list(members), len(set(members.values())) == 1)
        for members in groups.values()
        if len(members) > 1
    ]


def _listed(names: Sequence[str]) -> str:
    if len(names) > _SHOWN:
        return f"{', '.join(names[:_SHOWN])} and {len(names) - _SHOWN} more"
    return _joined(names)


def _joined(words: Sequence[str]) -> str:
    return " and ".join(", ".join(words).rsplit(", ", 1))
