"""Checks of label maps: values, emptiness, and what the cases do not annotate."""

from __future__ import annotations

from collections.abc import Iterator

from leanseg.datasets.check.facts import CaseFacts, Survey
from leanseg.datasets.check.findings import Found, case_check, dataset_check
from leanseg.datasets.labels import is_ignore
from leanseg.datasets.load import looks_like_scan


@case_check("label-not-whole")
def not_whole(case: CaseFacts, survey: Survey) -> Iterator[Found]:
    """Label maps with fractions, negative numbers, NaN, or numbers past 65535."""
    for grid in case.label_grids:
        if grid.n_odd:
            message = f"{grid.path}: {grid.n_odd} voxels hold no label, such as {grid.odd}"
            yield Found(message, {"voxels": grid.n_odd})


@case_check("label-is-scan")
def grey_values(case: CaseFacts, survey: Survey) -> Iterator[Found]:
    """More values than a label map has: a scan in its place."""
    n_values, n_named = len(case.labels), len(survey.labels) if survey.declared else 0
    if looks_like_scan(n_values, n_named):
        message = f"{case.label_grids[0].path}: holds {n_values} different values"
        yield Found(message, {"values": n_values})


@case_check("label-overlap")
def overlaps(case: CaseFacts, survey: Survey) -> Iterator[Found]:
    """Voxels that two labels claim, neither of which lies within the other."""
    for grid in case.label_grids:
        for upper, lower, n in grid.contested:
            both = f"{survey.name_of(lower)} and {survey.name_of(upper)}"
            message = f"{grid.path}: {n} voxels of {case.name} are both {both}"
            yield Found(message, {"labels": [lower, upper], "voxels": n})


@case_check("label-undeclared")
def undeclared(case: CaseFacts, survey: Survey) -> Iterator[Found]:
    """Values that the dataset does not declare."""
    known = survey.labels.values()
    others = {label.value: label.voxels for label in case.labels if label.value not in known}
    if others and survey.declared:
        listed = ", ".join(f"{value} ({n} voxels)" for value, n in others.items())
        declared = ", ".join(f"{value} {name}" for name, value in survey.labels.items())
        message = f"{case.label_grids[0].path}: holds {listed}; declared are {declared}"
        yield Found(message, {str(value): n for value, n in others.items()})


@dataset_check("labels-missing")
def no_labels(survey: Survey) -> Iterator[Found]:
    """Datasets without a single label map."""
    if survey.cases and not any(case.has_labels for case in survey.cases):
        yield Found("none of the cases has a label map")


@case_check("label-ignored")
def unlisted(case: CaseFacts, survey: Survey) -> Iterator[Found]:
    """Values in a label part that its own list leaves out: they become background."""
    for grid in case.label_grids:
        if grid.unlisted:
            listed = ", ".join(map(str, grid.unlisted))
            message = f"{grid.path}: holds {listed}, which no label is named for"
            yield Found(f"{message}: taken for background", {"values": grid.unlisted})


@case_check("label-contradicts")
def held_but_unannotated(case: CaseFacts, survey: Survey) -> Iterator[Found]:
    """Labels in the map of a case that is said not to annotate them."""
    held = {survey.name_of(label.value) for label in case.labels}
    names = [name for name in survey.organs if name in held and not case.annotates(name)]
    if names:
        message = f"{case.label_grids[0].path}: holds {', '.join(names)}"
        yield Found(f"{message}, which the case is said not to annotate", {"labels": names})


@case_check("label-empty")
def empty(case: CaseFacts, survey: Survey) -> Iterator[Found]:
    """Label maps that were read and hold nothing but background, or ignored voxels."""
    odd = any(grid.n_odd for grid in case.label_grids)
    held = [label for label in case.labels if not is_ignore(survey.name_of(label.value))]
    if case.label_grids and not held and not odd and not case.failures:
        yield Found(f"{case.label_grids[0].path}: holds nothing but background")


@dataset_check("label-absent")
def absent(survey: Survey) -> Iterator[Found]:
    """Declared labels that no case holds; says how many annotate it."""
    if not any(case.label_grids for case in survey.cases):
        return
    held = {label.value for case in survey.cases for label in case.labels}
    for name, value in survey.organs.items():
        if value not in held:
            n = sum(case.annotates(name) for case in survey.cases)
            message = f"label {value} {name} is declared, {n} case(s) annotate it and none holds it"
            yield Found(message, {"label": name})


@case_check("label-none")
def unlabelled(case: CaseFacts, survey: Survey) -> Iterator[Found]:
    """Cases without labels among others that have some."""
    if not case.has_labels and any(other.has_labels for other in survey.cases):
        yield Found(f"{case.name} has no label map")


@case_check("label-unannotated")
def unannotated(case: CaseFacts, survey: Survey) -> Iterator[Found]:
    """Labels of the dataset that a labelled case leaves unannotated."""
    names = [name for name in survey.organs if not case.annotates(name)]
    if case.has_labels and names:
        yield Found(f"{case.name} does not annotate {', '.join(names)}", {"labels": names})
