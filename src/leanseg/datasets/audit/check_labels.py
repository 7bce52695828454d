"""Checks of label maps: values, emptiness, and what the cases do not annotate."""

from __future__ import annotations

from collections.abc import Iterator

from leanseg.datasets.audit.facts import Survey
from leanseg.datasets.audit.findings import Finding


def not_whole(survey: Survey) -> Iterator[Finding]:
    """Label maps with fractions, negative numbers, NaN, or numbers past 65535."""
    for case in survey.cases:
        for path, voxels, example in case.odd_labels:
            message = f"{path}: {voxels} voxels hold no label, such as {example:g}"
            yield Finding(case.name, "label-not-whole", "error", message, {"voxels": voxels})


def undeclared(survey: Survey) -> Iterator[Finding]:
    """Values that the dataset does not declare."""
    if not survey.declared:
        return
    known = set(survey.labels.values())
    for case in survey.cases:
        others = {label.value: label.voxels for label in case.labels if label.value not in known}
        if others:
            listed = ", ".join(f"{value} ({n} voxels)" for value, n in others.items())
            declared = ", ".join(f"{value} {name}" for name, value in survey.labels.items())
            path = case.label_grids[0].path if case.label_grids else "the label map"
            message = f"{path}: holds {listed}; declared are {declared}"
            yield Finding(
                case.name,
                "label-undeclared",
                "error",
                message,
                {str(v): n for v, n in others.items()},
            )


def unlisted(survey: Survey) -> Iterator[Finding]:
    """Values in a label part that its own list leaves out: they become background."""
    for case in survey.cases:
        for path, values in case.unlisted:
            listed = ", ".join(str(value) for value in values)
            message = f"{path}: holds {listed}, which no label is named for: taken for background"
            yield Finding(case.name, "label-ignored", "warning", message, {"values": list(values)})


def empty_maps(survey: Survey) -> Iterator[Finding]:
    """Label maps that were read and hold nothing but background."""
    for case in survey.cases:
        if case.label_grids and not case.labels and not case.odd_labels and not case.failures:
            message = f"{case.label_grids[0].path}: holds nothing but background"
            yield Finding(case.name, "label-empty", "warning", message)


def absent(survey: Survey) -> Iterator[Finding]:
    """Declared labels that no case holds; says how many annotate it."""
    if not any(case.label_grids for case in survey.cases):
        return
    held = {label.value for case in survey.cases for label in case.labels}
    for name, value in survey.labels.items():
        if value not in held:
            n = sum(case.annotates(name) for case in survey.cases)
            message = f"label {value} {name} is declared, {n} case(s) annotate it and none holds it"
            yield Finding(None, "label-absent", "warning", message, {"label": name})


def unlabelled(survey: Survey) -> Iterator[Finding]:
    """Cases without labels; an error where that is all of them."""
    if not survey.cases:
        return
    if not any(case.has_labels for case in survey.cases):
        yield Finding(None, "labels-missing", "error", "none of the cases has a label map")
        return
    for case in survey.cases:
        if not case.has_labels:
            yield Finding(case.name, "label-none", "note", f"{case.name} has no label map")


def unannotated(survey: Survey) -> Iterator[Finding]:
    """Labels of the dataset that a labelled case leaves unannotated."""
    for case in survey.cases:
        names = [name for name in survey.labels if not case.annotates(name)]
        if case.has_labels and names:
            message = f"{case.name} does not annotate {', '.join(names)}"
            yield Finding(case.name, "label-unannotated", "note", message, {"labels": names})


def held_but_unannotated(survey: Survey) -> Iterator[Finding]:
    """Labels in the map of a case that is said not to annotate them."""
    for case in survey.cases:
        held = {label.value for label in case.labels}
        names = [n for n, v in survey.labels.items() if v in held and not case.annotates(n)]
        if names:
            message = (
                f"{case.label_grids[0].path}: holds {', '.join(names)}, "
                "which the case is said not to annotate"
            )
            yield Finding(case.name, "label-contradicts", "warning", message, {"labels": names})
