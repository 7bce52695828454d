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
            help="Two or more: runs, scores.json files, folders of predicted label maps.",
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
            help="Their values in predictions, where these differ and no dataset.json or record "
            "lies beside them."
        ),
    ] = None,
    metric: Annotated[str, typer.Option(help="The metric, as scores.json names it.")] = "dice",
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
        typer.Option("--output", "-o", help="Folder for compare.json and compare.csv."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="HTML file: all of it with plots, curves and scans to scroll through."),
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

    Cases and labels are matched by name; what not all have is named and left out.
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
    written = [] if output is None else [output / "compare.json", output / "compare.csv"]
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
    found = compare(scores, metric, margin=margin, strata=strata, scans=scans)
    print_notes([*inputs.notes, *(f"left out: {reason}" for reason in reasons(found.left_out))])
    for group in found.groups:
        _print_group(found, group)
    console().print(
        "[] are 95 % bootstrap intervals; p-values are corrected by Holm over all pairs and labels."
        " A method is called better where the probability of a false win and the corrected p of "
        "the t-test are at most 5 %. compare.json (--output) holds every definition.",
        style="dim",
    )
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        found.to_json(written[0])
        found.to_csv(written[1])
        typer.echo(f"wrote {written[0]} and {written[1]}")
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


def _print_group(found: Comparison, group: Group) -> None:
    where = group.label if group.stratum is None else f"{group.label}, {group.stratum}"
    methods = [
        {
            "method": each.name,
            "mean ± SD": f"{_number(each.mean)} ± {_number(each.sd)}",
            "median": _number(each.median),
            "worst tenth": _number(each.worst_tenth),
            "mean rank": f"{each.mean_rank:.2f}",
            "first in": f"{each.first_share:.0%}",
        }
        for each in group.methods
    ]
    title = f"{where}: {found.metric}, {len(group.cases)} cases"
    print_table(methods, left=("method",), title=title)
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


def _interval(ends: Sequence[float]) -> str:
    return f"[{_number(ends[0])}, {_number(ends[1])}]"


def _number(value: float | None, n_digits: int = 4) -> str:
    if value is None:
        return "-"
    return f"{value:.{n_digits}f}" if abs(value) < 10 else f"{value:.4g}"


def _p(value: float | None) -> str:
    if value is None:
        return "-"
    return "<0.001" if value < 0.001 else f"{value:.3f}"
