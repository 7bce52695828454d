"""Scores of several methods side by side: the labels and cases that all of them have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from leanseg.datasets import find_label
from leanseg.errors import LeansegError
from leanseg.evaluation.masks import LabelScore
from leanseg.evaluation.metrics import METRIC_NAMES, METRICS
from leanseg.evaluation.scores import Scores

LeftOut = dict[str, tuple[str, ...]]
# Settings, and the metrics that they change.
_OF_SURFACES = ("hausdorff_mm", "hausdorff95_mm", "assd_mm", "surface_dice")
_CHANGES = {
    "surface_tolerance_mm": ("surface_dice",),
    "one_empty_distance": _OF_SURFACES,
    "scan_border": _OF_SURFACES,
    "empty": METRIC_NAMES,
}
# Share by which two volumes of one reference may differ: files keep them in float64.
_SAME_VOLUME = 1e-6
_SHOWN = 5


def pair_scores(
    scores: Mapping[str, Scores], metric: str
) -> tuple[dict[str, dict[str, list[LabelScore]]], LeftOut]:
    """The cases of each label in which all methods have a metric.

    Args:
        scores: Name of each method to its scores.
        metric: One of `METRIC_NAMES`.

    Returns:
        Label, as the first method spells it, to case, sorted, to its score by each method; and
        why labels or cases are left out, to their names.

    Raises:
        LeansegError: As `compare`, which says what is taken.
    """
    _require_sense(scores, metric)
    left_out: LeftOut = {}
    labels: dict[str, dict[str, list[LabelScore]]] = {}
    lacking: list[str] = []
    nowhere: LeftOut = {}
    names_of = _common_labels(scores, left_out)
    shared = _shared_cases(scores, left_out)
    for label, names in names_of.items():
        found, of_label = _common_cases(scores, names, metric, label, shared)
        if found:
            labels[label] = found
            left_out |= of_label
        else:
            lacking.append(label)
            nowhere |= of_label
    if not labels:
        where = f"that {_listed(scores)} all have" if len(scores) > 1 else f"of {_listed(scores)}"
        why = "; ".join(reasons(left_out | nowhere))
        raise LeansegError(
            f"no label has {metric} in a case {where} ({why}); compare scores of the same cases"
        )
    if lacking:
        # One sentence for all: a scan does not show most of a hundred organs.
        left_out[f"labels without {metric} in any common case"] = tuple(lacking)
    return labels, left_out


def _require_sense(scores: Mapping[str, Scores], metric: str) -> None:
    if metric not in METRIC_NAMES:
        msg = f"metric {metric!r} is not known; choose one of {', '.join(METRIC_NAMES)}"
        raise LeansegError(msg)
    if not METRICS[METRIC_NAMES.index(metric)].better:
        msg = f"{metric} describes a mask, and no value is better than another; choose a metric"
        raise LeansegError(f"{msg} such as dice")
    if not scores:
        raise LeansegError("there are no scores to compare; give those of one method or more")
    for setting, changed in _CHANGES.items():
        known = {
            n: each.settings[setting] for n, each in scores.items() if setting in each.settings
        }
        first = next(iter(known), "")
        other = next((name for name in known if known[name] != known[first]), None)
        if other is not None and metric in changed:
            raise LeansegError(
                f"{metric} was computed with {setting} {known[first]} for {first} and "
                f"{known[other]} for {other}; score both with the same settings"
            )


def _common_labels(scores: Mapping[str, Scores], left_out: LeftOut) -> dict[str, list[str]]:
    """Each label that all methods have, as the first one spells it, to its name in each."""
    for name, each in scores.items():
        if not each.cases:
            raise LeansegError(f"{name} has no scores yet; score its predictions first")
    common: dict[str, list[str]] = {}
    for label in next(iter(scores.values())).labels:
        found = [find_label(label, each.labels) for each in scores.values()]
        if None not in found:
            common[label] = [str(name) for name in found]
    if not common:
        known = "; ".join(f"{name} has {', '.join(each.labels)}" for name, each in scores.items())
        raise LeansegError(f"no label is common to all ({known}); name labels alike, or --labels")
    for (name, each), taken in zip(scores.items(), zip(*common.values(), strict=True), strict=True):
        if alone := tuple(label for label in each.labels if label not in taken):
            left_out[f"labels of {name} that others lack"] = alone
    return common


def _shared_cases(scores: Mapping[str, Scores], left_out: LeftOut) -> set[str]:
    having = {name: {score.case for score in each.cases} for name, each in scores.items()}
    shared = set.intersection(*having.values())
    if not shared:
        such = ", ".join(f"{min(cases)!r} in {name}" for name, cases in having.items())
        raise LeansegError(
            f"no case is common to {_listed(scores)} (they have such as {such}); cases are "
            "matched by name, so compare scores of the same cases"
        )
    for name, cases in having.items():
        if absent := sorted(set().union(*having.values()) - cases):
            left_out[f"cases that {name} lacks"] = tuple(absent)
    return shared


def _common_cases(
    scores: Mapping[str, Scores],
    names: Sequence[str],
    metric: str,
    label: str,
    shared: set[str],
) -> tuple[dict[str, list[LabelScore]], LeftOut]:
    """Each case in which all define a label's metric, sorted, to its score by each method.

    Also why cases are left out.
    """
    left_out: LeftOut = {}
    tables = {
        method: _by_case(each.of_label(name))
        for (method, each), name in zip(scores.items(), names, strict=True)
    }
    # By name, so that nothing drawn at random depends on the order of cases.
    everywhere = sorted(set.intersection(*map(set, tables.values())))
    somewhere = sorted(shared & set().union(*tables.values()))
    for method, table in tables.items():
        if absent := tuple(case for case in somewhere if case not in table):
            left_out[f"{label}: cases that {method} does not score"] = absent
        undefined = tuple(case for case in everywhere if table[case].metrics[metric] is None)
        if undefined:
            left_out[f"{label}: cases in which {metric} is undefined for {method}"] = undefined
    entries = {case: [table[case] for table in tables.values()] for case in everywhere}
    for case, found in entries.items():
        volumes = [score.metrics["reference_ml"] for score in found]
        for method, volume in zip(scores, volumes, strict=True):
            # Scores of another reference are scores of another task.
            if volume is None or volumes[0] is None:
                continue
            if abs(volume - volumes[0]) > _SAME_VOLUME * max(volume, volumes[0]):
                raise LeansegError(
                    f"the references of {label!r} differ: case {case!r} has {volumes[0]:.6g} ml "
                    f"for {next(iter(scores))} and {volume:.6g} ml for {method}; score both "
                    "against the same references"
                )
    defined = {
        case: found
        for case, found in entries.items()
        if all(score.metrics[metric] is not None for score in found)
    }
    return defined, left_out


def _by_case(scores: Sequence[LabelScore]) -> dict[str, LabelScore]:
    """Case to its score, or to the mean of those of several folds."""
    by_case: dict[str, list[LabelScore]] = {}
    for score in scores:
        by_case.setdefault(score.case, []).append(score)
    return {
        case: found[0] if len(found) == 1 else replace(found[0], metrics=_means(found))
        for case, found in by_case.items()
    }


def _means(scores: Sequence[LabelScore]) -> dict[str, float | None]:
    columns = {name: [score.metrics[name] for score in scores] for name in METRIC_NAMES}
    return {
        name: None if None in values else float(np.mean(np.array(values, dtype=np.float64)))
        for name, values in columns.items()
    }


def _listed(scores: Mapping[str, Scores]) -> str:
    names = list(scores)
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def reasons(left_out: Mapping[str, Sequence[str]]) -> list[str]:
    """What is left out, a sentence for each reason, with as many names as somebody would read."""
    told = []
    for reason, names in left_out.items():
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        told.append(f"{reason}: {', '.join(names[:_SHOWN])}{more}")
    return told
