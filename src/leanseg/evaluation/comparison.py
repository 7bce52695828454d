"""Methods against each other by their scores of the same cases: `comparison.csv` defines all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from leanseg.errors import LeansegError, require_package
from leanseg.evaluation.masks import LabelScore
from leanseg.evaluation.metrics import METRIC_NAMES, METRICS
from leanseg.evaluation.paired import (
    Paired,
    holm,
    mean_ranks,
    paired_tests,
    resample,
    worst_tenth,
)
from leanseg.evaluation.pairing import pair_scores
from leanseg.evaluation.scores import Scores
from leanseg.evaluation.strata import Scan, strata_of
from leanseg.files import packaged_rows, write_csv, write_json

COMPARISON_DEFINITIONS: dict[str, str] = {
    row["name"]: row["definition"] for row in packaged_rows("leanseg.evaluation", "comparison.csv")
}
# Of a claim, that it is false; and of tests.
LEVEL = 0.05
_TESTS = ("wilcoxon_p", "t_p", "equivalence_p", "pitman_morgan_p")
_INTERVALS = ("interval", "worst_tenth_interval")


@dataclass(frozen=True)
class Method:
    """One method's values of a metric; `COMPARISON_DEFINITIONS` says what each number is.

    One case has no `sd`; neither one case nor one method has a `first_share`.
    """

    name: str
    mean: float
    sd: float | None
    median: float
    worst_tenth: float
    mean_rank: float
    first_share: float | None


@dataclass(frozen=True, kw_only=True)
class Pair(Paired):
    """Two methods against each other; `COMPARISON_DEFINITIONS` says what each number is.

    Attributes:
        first: Name of a method.
        second: Name of another; differences are second minus first.
        better: The one that is shown to be better; None where none is.
        equivalent: Whether they are shown to differ by less than the margin; None without one.
    """

    first: str
    second: str
    worst_tenth_difference: float
    worst_tenth_interval: tuple[float, float] | None = None
    wilcoxon_p_holm: float | None = None
    t_p_holm: float | None = None
    equivalence_p_holm: float | None = None
    pitman_morgan_p_holm: float | None = None
    better: str | None = None
    equivalent: bool | None = None


@dataclass(frozen=True)
class Group:
    """All methods over the same cases of a label.

    Attributes:
        label: Its name.
        stratum: Which of its cases; None for all.
        cases: Their names, sorted.
        methods: In the given order.
        pairs: Every two of them, in that order.
    """

    label: str
    stratum: str | None
    cases: tuple[str, ...]
    methods: tuple[Method, ...]
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class Comparison:
    """Methods against each other.

    Attributes:
        metric: One of `METRIC_NAMES`.
        margin: Difference below which methods are equivalent; None where none was stated.
        strata: What cases were grouped by; None if they were not.
        groups: Of each label all cases, then its strata.
        left_out: Why labels or cases are left out, to their names.
    """

    metric: str
    margin: float | None
    strata: str | None
    groups: tuple[Group, ...]
    left_out: Mapping[str, tuple[str, ...]]

    def __getitem__(self, label: str) -> Group:
        """A label's group of all cases."""
        return next(g for g in self.groups if g.label == label and g.stratum is None)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that are compared."""
        return tuple(dict.fromkeys(group.label for group in self.groups))

    def conclusions(self, pair: Pair) -> list[str]:
        """What is shown of two methods, in words."""
        if pair.false_win is None:
            return ["one case, not tested"]
        found = [] if pair.better is None else [f"{pair.better} better"]
        if pair.equivalent:
            found.append(f"equivalent within {self.margin:g}")
        return found or ["not told apart"]

    def to_json(self, path: str | Path) -> None:
        """Write everything with all definitions, whole or not at all.

        Raises:
            LeansegError: If the file cannot be written.
        """
        metric = METRICS[METRIC_NAMES.index(self.metric)]
        definitions = {self.metric: metric.definition} | COMPARISON_DEFINITIONS
        head = {"format": "leanseg-comparison", "version": 1, "definitions": definitions}
        write_json(Path(path), head | asdict(self))

    def to_csv(self, path: str | Path) -> None:
        """Write one line for each pair of each group; of a method alone one for each group.

        Raises:
            LeansegError: If the file cannot be written.
        """
        rows = list(self._rows())
        write_csv(path, list(rows[0]), rows)

    def _rows(self) -> Iterator[dict[str, Any]]:
        for group in self.groups:
            methods = {method.name: asdict(method) for method in group.methods}
            head = {"label": group.label, "stratum": group.stratum, "n": len(group.cases)}
            for pair in group.pairs or (None,):
                names = [group.methods[0].name] if pair is None else [pair.first, pair.second]
                named = dict(zip(("first", "second"), names, strict=False))
                row = head | named
                for which, name in named.items():
                    row |= {f"{which}_{key}": v for key, v in methods[name].items()}
                    del row[f"{which}_name"]
                for key, value in ({} if pair is None else asdict(pair)).items():
                    if key in _INTERVALS:
                        row[f"{key}_low"], row[f"{key}_high"] = value or (None, None)
                    else:
                        row[key] = value
                yield row


def compare(
    scores: Mapping[str, Scores],
    metric: str = "dice",
    *,
    margin: float | None = None,
    strata: str | None = None,
    scans: Mapping[str, Scan] | None = None,
) -> Comparison:
    """Compare methods case by case (paired), label by label.

    One method alone, or one case, has values and no tests.

    Args:
        scores: Name of each method to its scores. A case that was scored several
            times, in several folds, has the mean of its values. Labels and cases are matched by
            name; those that not all have are left out.
        metric: One of `METRIC_NAMES` of which some values are better than others.
        margin: Tests equivalence: a difference in the metric's unit that would not matter.
        strata: Also groups the cases by "volume", "slices", "thickness" or "size".
        scans: Case name to its scan, for "slices" and "thickness".

    Returns:
        All numbers, as `COMPARISON_DEFINITIONS` says.

    Raises:
        MissingDependencyError: If statsmodels is not installed.
        LeansegError: If the metric is not known, there is nothing to compare, or scores were
            made with other settings or references.

    Example:
        >>> ours = leanseg.evaluate("phantoms/labelsTr", "phantoms")
        >>> found = leanseg.compare({"ours": ours, "theirs": ours}, margin=0.01)["liver"]
        >>> len(found.cases), found.methods[0].mean, found.pairs[0].t_p
        (4, 1.0, 1.0)
        >>> found.pairs[0].better, found.pairs[0].equivalent
        (None, True)
    """
    require_package("statsmodels", "comparing methods", "leanseg[statistics]")
    if margin is not None and not 0 < margin < float("inf"):
        raise LeansegError(f"the margin is {margin}; give a difference above 0, such as 0.01")
    labels, left_out = pair_scores(scores, metric)
    names, groups = list(scores), []
    for label, entries in labels.items():
        groups.append(_group(label, None, entries, names, metric, margin))
        if strata is None:
            continue
        # Every method has the same references.
        places = strata_of([found[0] for found in entries.values()], strata, scans or {})
        for stratum, cases in places.items():
            inside = {case: entries[case] for case in cases}
            if len(inside) < 2:
                left_out[f"{label}, {stratum}: fewer than two cases"] = tuple(inside)
            else:
                groups.append(_group(label, stratum, inside, names, metric, margin))
    return Comparison(metric, margin, strata, tuple(_corrected(groups)), left_out)


def _group(
    label: str,
    stratum: str | None,
    entries: Mapping[str, Sequence[LabelScore]],
    names: Sequence[str],
    metric: str,
    margin: float | None,
) -> Group:
    values = np.array(
        [[score.metrics[metric] for score in found] for found in entries.values()], dtype=np.float64
    ).T
    better = METRICS[METRIC_NAMES.index(metric)].better
    if better == "near zero":
        values = np.abs(values)
    sign = 1 if better == "higher" else -1
    n_methods, n_cases = values.shape
    drawn = resample(sign * values)
    worst, ranks = sign * worst_tenth(sign * values), mean_ranks(sign * values)
    methods = [
        Method(
            name=name,
            mean=float(values[n].mean()),
            sd=float(values[n].std(ddof=1)) if n_cases > 1 else None,
            median=float(np.median(values[n])),
            worst_tenth=float(worst[n]),
            mean_rank=float(ranks[n]),
            first_share=float(drawn.first_share[n]) if min(n_methods, n_cases) > 1 else None,
        )
        for n, name in enumerate(names)
    ]
    pairs = []
    for a, b in combinations(range(len(names)), 2):
        tests = paired_tests(values[a], values[b], margin)
        apart = sign * (drawn.worst_tenth[:, b] - drawn.worst_tenth[:, a])
        low, high = np.quantile(apart, [0.025, 0.975])
        ahead = names[b] if sign * tests.mean_difference > 0 else names[a]
        pair = Pair(
            **vars(tests),
            first=names[a],
            second=names[b],
            worst_tenth_difference=float(worst[b] - worst[a]),
            worst_tenth_interval=(float(low), float(high)) if n_cases > 1 else None,
            # Until it is known how many others there are.
            better=ahead if tests.false_win is not None and tests.false_win <= LEVEL else None,
        )
        pairs.append(pair)
    return Group(label, stratum, tuple(entries), tuple(methods), tuple(pairs))


def _corrected(groups: Sequence[Group]) -> Iterator[Group]:
    """The groups with p-values corrected for all pairs of their family, and what follows."""
    corrected: dict[tuple[int, int], dict[str, float | None]] = {}
    for in_strata in (False, True):
        family = [
            (g, p)
            for g, group in enumerate(groups)
            for p in range(len(group.pairs))
            if (group.stratum is not None) == in_strata
        ]
        for test in _TESTS:
            found = holm([getattr(groups[g].pairs[p], test) for g, p in family])
            for place, value in zip(family, found, strict=True):
                corrected.setdefault(place, {})[f"{test}_holm"] = value
    for g, group in enumerate(groups):
        pairs = []
        for p, pair in enumerate(group.pairs):
            of_pair = corrected[g, p]
            t_p, equivalence_p = of_pair["t_p_holm"], of_pair["equivalence_p_holm"]
            is_sure = t_p is not None and t_p <= LEVEL
            changes: dict[str, Any] = {
                **of_pair,
                "better": pair.better if is_sure else None,
                "equivalent": None if equivalence_p is None else equivalence_p <= LEVEL,
            }
            pairs.append(replace(pair, **changes))
        yield replace(group, pairs=tuple(pairs))
