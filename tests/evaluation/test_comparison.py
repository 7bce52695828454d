"""Methods against each other: what is paired, corrected, called better, and left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from leanseg.errors import LeansegError
from leanseg.evaluation import METRIC_NAMES, LabelScore, Scan, Scores, compare
from leanseg.evaluation.comparison import COMPARISON_DEFINITIONS, Method, Pair

multitest = pytest.importorskip("statsmodels.stats.multitest", reason="needs leanseg[statistics]")


def scores(values, label="liver", metric="dice", cases=None, volumes=None, undefined=()):
    names = cases or [f"case {n:02d}" for n in range(len(values))]
    entries = [
        LabelScore(
            label,
            {
                **dict.fromkeys(METRIC_NAMES),
                metric: None if name in undefined else float(value),
                "reference_ml": None if volumes is None else float(volumes[n]),
            },
            case=name,
        )
        for n, (name, value) in enumerate(zip(names, values, strict=True))
    ]
    return Scores({label: (1,)}, tuple(entries), {})


def both(*parts):
    """The scores of several labels together."""
    labels = {name: values for part in parts for name, values in part.labels.items()}
    return Scores(labels, tuple(case for part in parts for case in part.cases), {})


@pytest.fixture(scope="module")
def drawn():
    rng = np.random.default_rng(2)
    base = rng.uniform(0.6, 0.8, 24)
    return base, base + rng.normal(0.03, 0.03, 24), base + rng.normal(0, 0.03, 24)


def test_paired_by_the_names_of_the_cases(drawn):
    first, second, _ = drawn
    names = [f"case {n:02d}" for n in range(24)]
    found = compare({"a": scores(first), "b": scores(second[::-1], cases=names[::-1])})[
        "liver"
    ].pairs[0]
    assert found.mean_difference == pytest.approx(second.mean() - first.mean())
    assert found.t_p == pytest.approx(scipy.stats.ttest_rel(first, second).pvalue)
    assert (found.first, found.second, found.better) == ("a", "b", "b")


def test_holm_is_over_all_pairs_and_labels(drawn):
    a, b, c = drawn
    methods = {
        name: both(scores(x), scores(y, "spleen"))
        for name, x, y in (("a", a, b), ("b", b, c), ("c", c, a))
    }
    found = compare(methods, margin=0.02)
    pairs = [pair for group in found.groups for pair in group.pairs]
    assert len(pairs) == 6
    for test in ("wilcoxon_p", "t_p", "equivalence_p", "pitman_morgan_p"):
        expected = multitest.multipletests([getattr(p, test) for p in pairs], method="holm")[1]
        assert [getattr(p, f"{test}_holm") for p in pairs] == pytest.approx(expected)
    for pair in pairs:
        assert (pair.better is not None) == (pair.false_win <= 0.05 and pair.t_p_holm <= 0.05)
        assert pair.equivalent == (pair.equivalence_p_holm <= 0.05)


def test_nothing_is_better_that_is_not_sure():
    """Half of the t-test's p, 0.04, would be a claim made beforehand."""
    d = np.array([1.0, -1] * 10)
    t = scipy.stats.t.isf(0.04, 19)
    d = d / d.std(ddof=1) * 0.01
    d += t * 0.01 / np.sqrt(20)
    first = np.linspace(0.5, 0.7, 20)
    pair = compare({"a": scores(first), "b": scores(first + d)})["liver"].pairs[0]
    assert pair.false_win == pytest.approx(0.04)
    assert pair.t_p_holm == pytest.approx(0.08)
    assert pair.better is None


@pytest.mark.parametrize(
    ("metric", "better", "worst_tenth"),
    [("dice", "b", 0.05), ("hausdorff_mm", "a", 1.85), ("volume_difference_ml", "a", 1.85)],
)
def test_what_is_good_is_the_metric_s(metric, better, worst_tenth):
    first = np.arange(20) / 10
    second = first + np.linspace(0.2, 0.4, 20)
    if metric == "volume_difference_ml":
        second = -second  # Its size alone counts.
    group = compare({"a": scores(first, metric=metric), "b": scores(second, metric=metric)}, metric)
    a, b = group["liver"].methods
    assert group["liver"].pairs[0].better == better
    assert a.worst_tenth == pytest.approx(worst_tenth)
    best = a if better == "a" else b
    assert (best.mean_rank, best.first_share) == (1, 1)


def test_undefined_values_and_absent_cases_are_named(drawn):
    first, second, _ = drawn
    ours = scores(first, undefined=("case 03", "case 05"))
    theirs = scores(second[:-1])
    found = compare({"ours": ours, "theirs": theirs})
    assert found.left_out == {
        "cases that theirs lacks": ("case 23",),
        "liver: cases in which dice is undefined for ours": ("case 03", "case 05"),
    }
    assert len(found["liver"].cases) == 21
    kept = np.delete(second - first, [3, 5, 23])
    assert found["liver"].pairs[0].mean_difference == pytest.approx(kept.mean())


def test_labels_in_another_spelling(drawn):
    first, second, _ = drawn
    found = compare({"a": scores(first, "left kidney"), "b": scores(second, "kidney_left")})
    assert [group.label for group in found.groups] == ["left kidney"]


def test_a_case_of_several_folds_has_its_mean(drawn):
    first, second, _ = drawn
    twice = both(scores(first), scores(first + 0.1))
    found = compare({"a": twice, "b": scores(second)})["liver"]
    assert len(found.cases) == 24
    assert found.methods[0].mean == pytest.approx(first.mean() + 0.05)


def test_strata(drawn):
    first, second, _ = drawn
    volumes = np.arange(24) + 1.0
    methods = {"a": scores(first, volumes=volumes), "b": scores(second, volumes=volumes)}
    found = compare(methods, strata="volume")
    assert [(g.stratum, len(g.cases)) for g in found.groups] == [
        (None, 24), ("1-8 ml", 8), ("9-16 ml", 8), ("17-24 ml", 8),
    ]  # fmt: skip
    alone = compare({n: replace(s, cases=s.cases[:8]) for n, s in methods.items()})["liver"]
    assert found.groups[1].methods == alone.methods
    assert found.groups[1].pairs[0].t_p == alone.pairs[0].t_p
    family = [group.pairs[0].t_p for group in found.groups[1:]]
    expected = multitest.multipletests(family, method="holm")[1]
    assert [g.pairs[0].t_p_holm for g in found.groups[1:]] == pytest.approx(expected)
    assert found["liver"].pairs[0].t_p_holm == found["liver"].pairs[0].t_p
    # Spheres of 0.5, 0.6 and 24 ml have diameters of 9.8, 10.5 and 35.8 mm.
    volumes[:3] = 0.5, 0.6, 0.6
    methods = {"a": scores(first, volumes=volumes), "b": scores(second, volumes=volumes)}
    found = compare(methods, strata="size")
    names = [(g.stratum, len(g.cases)) for g in found.groups[1:]]
    assert names == [("10-20 mm", 3), ("20-30 mm", 10), (">=30 mm", 10)]
    assert found.left_out == {"liver, <10 mm: fewer than two cases": ("case 00",)}
    scans = {f"case {n:02d}": Scan(50, 2.5 if n < 20 else 5) for n in range(24)}
    found = compare(methods, strata="thickness", scans=scans)
    assert [(g.stratum, len(g.cases)) for g in found.groups[1:]] == [("2.5 mm", 20), ("5 mm", 4)]
    with pytest.raises(LeansegError, match="scan of case 'case 00'"):
        compare(methods, strata="slices")


def test_every_number_is_defined():
    names = {*Method.__dataclass_fields__, *Pair.__dataclass_fields__}
    names -= {"name", "first", "second"} | {name for name in names if name.endswith("_holm")}
    assert names <= set(COMPARISON_DEFINITIONS)


def test_one_case_and_one_method(drawn):
    first, second, _ = drawn
    found = compare({"a": scores(first[:1]), "b": scores(second[:1])}, margin=0.1)["liver"]
    assert [(each.mean, each.sd) for each in found.methods] == [(first[0], None), (second[0], None)]
    (pair,) = found.pairs
    assert pair.mean_difference == pytest.approx(second[0] - first[0])
    kept = ("mean_difference", "first", "second", "worst_tenth_difference")
    assert not [key for key, value in vars(pair).items() if value is not None and key not in kept]
    alone = compare({"a": scores(first)})["liver"]
    assert alone.methods[0].sd == pytest.approx(np.std(first, ddof=1))
    assert (alone.methods[0].first_share, alone.pairs) == (None, ())
    # Beside labels of several cases, those of one leave the family of tests as it is.
    lone = both(scores(first), scores(first[:1], "spleen"))
    other = both(scores(second), scores(second[:1], "spleen"))
    found = compare({"a": lone, "b": other})
    assert found["liver"].pairs[0].t_p_holm == found["liver"].pairs[0].t_p
    assert found["spleen"].pairs[0].t_p_holm is None


def test_what_cannot_be_compared(drawn):
    first, second, _ = drawn
    a, b = scores(first), scores(second)
    with pytest.raises(LeansegError, match="'dise' is not known"):
        compare({"a": a, "b": b}, "dise")
    with pytest.raises(LeansegError, match="there are no scores to compare"):
        compare({})
    with pytest.raises(LeansegError, match="no label is common"):
        compare({"a": a, "b": scores(second, "spleen")})
    with pytest.raises(LeansegError, match="no label has dice in a case that a and b all have"):
        compare({"a": a, "b": scores(second, undefined=[f"case {n:02d}" for n in range(24)])})
    with pytest.raises(LeansegError, match="computed with empty"):
        compare({"a": replace(a, settings={"empty": "perfect"}),
                 "b": replace(b, settings={"empty": "undefined"})})  # fmt: skip


@settings(max_examples=5, deadline=None)
@given(st.permutations(range(24)), st.permutations("abc"))
def test_the_order_of_cases_and_methods_plays_no_part(drawn, cases, methods):
    known = dict(zip("abc", map(scores, drawn), strict=True))
    shuffled = {
        name: replace(known[name], cases=tuple(known[name].cases[n] for n in cases))
        for name in methods
    }
    expected, found = compare(known)["liver"], compare(shuffled)["liver"]
    by_name = {method.name: method for method in found.methods}
    for method in expected.methods:
        other = by_name[method.name]
        assert other.mean == method.mean and other.first_share == method.first_share
    pairs = {frozenset((p.first, p.second)): p for p in found.pairs}
    for pair in expected.pairs:
        other = pairs[frozenset((pair.first, pair.second))]
        sign = 1 if other.first == pair.first else -1
        assert other.better == pair.better
        assert other.t_p_holm == pytest.approx(pair.t_p_holm)
        assert other.wilcoxon_p_holm == pytest.approx(pair.wilcoxon_p_holm)
        assert other.mean_difference == pytest.approx(sign * pair.mean_difference)
        ends = sorted(sign * end for end in other.interval)
        assert ends == pytest.approx(pair.interval, abs=1e-3)
