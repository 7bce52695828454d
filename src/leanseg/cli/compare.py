"""`leanseg compare`: runs, scores and predictions of any tool against each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leanseg.cli.output import console, print_notes, print_table, progress

if TYPE_CHECKING:
    from leanseg.evaluation.comparison import Comparison, Group, Pair


def command(
    given: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN_OR_SCORES_OR_PREDICTIONS...",
            help="Runs, scores.json files, predicted label maps or folders of them.",
        ),
    ],
    references: Annotated[
        Path | None,
        typer.Option(help="For folders of predictions: a folder of label maps, or a dataset."),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(help="Labels of the references to score: liver=1,tumour=2+3 (+ merges)."),
    ] = None,
    prediction_labels: Annotated[
        str | None,
        typer.Option(
            help="Their values in predictions, if these differ and the files do not name them."
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="Metrics, as scores.json names them (repeat, or separate by commas). "
            "[default: dice]"
        ),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(help="Test equivalence: a difference that would not matter, such as 0.01."),
    ] = None,
    strata: Annotated[
        str | None,
        typer.Option(help="Also compare within groups by volume, slices, thickness or size."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder for compare.json and compare.csv; of several metrics compare-METRIC.",
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            help="HTML file: the first metric with plots, curves and scans to scroll through."
        ),
    ] = None,
    panels: Annotated[
        Path | None,
        typer.Option(
            help="Picture (.png, .svg): methods side by side in the best, median and worst case."
        ),
    ] = None,
    workers: Annotated[int, typer.Option(help="Cases that are scored at the same time.")] = 0,
) -> None:
    """Compare methods case by case, with intervals and tests: which is better?

    Cases and labels are matched by name; what some method lacks is named and left out. One method
    alone, or one case, has values and no tests.
    """
    from leanseg.cli.compare_inputs import Inputs
    from leanseg.errors import LeansegError, require_package
    from leanseg.evaluation import compare, parse_labels
    from leanseg.evaluation.pairing import reasons
    from leanseg.evaluation.strata import OF_SCANS
    from leanseg.files import require_outputs

    require_package("statsmodels", "leanseg compare", "leanseg[statistics]")
    inputs = Inputs(
        references=references,
        labels=None if labels is None else parse_labels(labels),
        prediction_labels=None if prediction_labels is None else parse_labels(prediction_labels),
        n_workers=workers,
    )
    metrics = [name.strip() for part in metric or ["dice"] for name in part.split(",")]
    if margin is not None and len(metrics) > 1:
        raise LeansegError(
            f"the margin {margin:g} cannot be one of {', '.join(metrics)} alike; give one --metric"
        )
    stems = [f"compare-{name}" for name in metrics] if len(metrics) > 1 else ["compare"]
    names = [f"{stem}.{suffix}" for stem in stems for suffix in ("json", "csv")]
    written = [] if output is None else [output / name for name in names]
    require_outputs(written, given, new_folders=True)
    require_outputs([each for each in (report, panels) if each is not None], given)
    if panels is not None:
        from leanseg.reports.panels import require_panels

        require_panels(panels)
    scores = inputs.read(given)
    if panels is not None and not inputs.masks:
        raise LeansegError(
            f"{panels}: scores alone have no masks to show; give runs or folders of predictions"
        )
    scans = inputs.scans(scores) if strata in OF_SCANS else {}
    each = [compare(scores, name, margin=margin, strata=strata, scans=scans) for name in metrics]
    left_out = (f"left out: {reason}" for found in each for reason in reasons(found.left_out))
    print_notes([*inputs.notes, *dict.fromkeys(left_out)])
    _print_single_cases(each)
    for found in each:
        for group in found.groups:
            if len(group.cases) > 1:
                _print_group(found, group)
    if any(pair.t_p is not None for found in each for g in found.groups for pair in g.pairs):
        console().print(
            "[] are 95 % bootstrap intervals; p-values are corrected by Holm over all pairs and "
            "labels. A method is called better where the probability of a false win and the "
            "corrected p of the t-test are at most 5 %. compare.json (--output) holds every "
            "definition.",
            style="dim",
        )
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        for found, as_json, as_csv in zip(each, written[::2], written[1::2], strict=True):
            found.to_json(as_json)
            found.to_csv(as_csv)
            typer.echo(f"wrote {as_json} and {as_csv}")
    found = each[0]
    read_case = inputs.reader(found.labels)
    if panels is not None and read_case is not None:
        from leanseg.reports.comparison_report import read_shown_cases
        from leanseg.reports.panels import write_panels

        cases, captions = read_shown_cases(found, scores, read_case)
        write_panels(panels, cases, found.labels, captions)
        typer.echo(f"wrote {panels}")
    if report is not None:
        from leanseg.reports.comparison_report import comparison_report

        with progress() as display:
            display.begin("reading scans and drawing the report", None)
            comparison_report(
                scores,
                found,
                report,
                title=" · ".join(scores),
                read_case=read_case,
                runs={name: [run] for name, run in inputs.runs.items()},
                notes=inputs.notes,
            )
        typer.echo(f"wrote {report}")


def _print_single_cases(each: Sequence[Comparison]) -> None:
    """The values of what has one case: there is nothing to test."""
    rows = [
        {
            "label": group.label if group.stratum is None else f"{group.label}, {group.stratum}",
            "case": group.cases[0],
            "metric": found.metric,
            **{method.name: _number(method.mean) for method in group.methods},
            **{_title(pair): _number(pair.mean_difference) for pair in group.pairs},
        }
        for found in each
        for group in found.groups
        if len(group.cases) == 1
    ]
    if rows:
        title = "One case has no interval and no test, and no method is called better."
        print_table(rows, left=("label", "case", "metric"), title=title)


def _print_group(found: Comparison, group: Group) -> None:
    where = group.label if group.stratum is None else f"{group.label}, {group.stratum}"
    methods = [
        {
            "method": each.name,
            "mean ± SD": f"{_number(each.mean)} ± {_number(each.sd)}",
            "median": _number(each.median),
            "worst tenth": _number(each.worst_tenth),
            "mean rank": f"{each.mean_rank:.2f}",
            "first in": "-" if each.first_share is None else f"{each.first_share:.0%}",
        }
        for each in group.methods
    ]
    title = f"{where}: {found.metric}, {len(group.cases)} cases"
    print_table(methods, left=("method",), title=title)
    if group.pairs:
        print_table([_means(pair, found) for pair in group.pairs], left=("pair", "conclusion"))
        print_table([_spread(pair) for pair in group.pairs], left=("spread",))


def _means(pair: Pair, found: Comparison) -> dict[str, str]:
    row = {
        "pair": _title(pair),
        "difference": f"{_number(pair.mean_difference)} {_interval(pair.interval)}",
        "d_z": _number(pair.cohens_d_z, 2),
        "rank r": _number(pair.rank_biserial, 2),
        "p Wilcoxon": _p(pair.wilcoxon_p_holm),
        "p t-test": _p(pair.t_p_holm),
        "P(false win)": _p(pair.false_win),
    }
    if found.margin is not None:
        row[f"p |difference| ≥ {found.margin:g}"] = _p(pair.equivalence_p_holm)
    return {**row, "conclusion": ", ".join(found.conclusions(pair))}


def _spread(pair: Pair) -> dict[str, str]:
    tail = f"{_number(pair.worst_tenth_difference)} {_interval(pair.worst_tenth_interval)}"
    return {
        "spread": _title(pair),
        "ratio of SDs": _number(pair.sd_ratio, 2),
        "p Pitman-Morgan": _p(pair.pitman_morgan_p_holm),
        "difference of the worst tenths": tail,
    }


def _title(pair: Pair) -> str:
    return f"{pair.second} - {pair.first}"


def _interval(ends: Sequence[float] | None) -> str:
    return "" if ends is None else f"[{_number(ends[0])}, {_number(ends[1])}]"


def _number(value: float | None, n_digits: int = 4) -> str:
    if value is None:
        return "-"
    return f"{value:.{n_digits}f}" if abs(value) < 10 else f"{value:.4g}"


def _p(value: float | None) -> str:
    if value is None:
        return "-"
    return "<0.001" if value < 0.001 else f"{value:.3f}"
