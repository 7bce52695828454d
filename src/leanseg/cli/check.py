"""`leanseg check`: what is wrong with a dataset, and whether training may start."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leanseg.cli import options
from leanseg.cli.output import console, print_facts, print_table, progress
from leanseg.errors import LeansegError, told

if TYPE_CHECKING:
    from leanseg.datasets.check import CheckResult, Finding
    from leanseg.datasets.check.fix import FixReport

# Findings of one kind that are printed; the files hold all.
_SHOWN_OF_A_KIND = 8
_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}


def command(
    data: options.Data,
    layout: options.Layout = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write everything as JSON.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with a picture of each case.")
    ] = None,
    fix: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Write a copy with every label map in the grid of its scan; "
            "exit status and advice are then about the copy.",
        ),
    ] = None,
    take_header: Annotated[
        bool,
        typer.Option(
            "--take-header",
            help="With --fix: label maps of their scan's shape, but another grid, keep their "
            "voxels and take the scan's header, instead of being resampled.",
        ),
    ] = False,
    geometry: options.Geometry = "auto",
    splits: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also check these splits for leaks.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Scans that are read at the same time.")] = 1,
    show_identifiers: options.ShowIdentifiers = False,
) -> None:
    """Find problems in a dataset: files, grids, labels, grey values, sides, duplicates.

    Exit status 0: training may start (there may be warnings). 1: there are errors.
    2: the dataset could not be checked.
    """
    from leanseg.datasets import open_dataset, read_splits
    from leanseg.datasets.check import check
    from leanseg.datasets.check.fix import check_target, write_fixed_copy
    from leanseg.files import require_outputs

    dataset = open_dataset(data, layout).read_as(geometry)
    # Said before the scans are read, not after.
    if take_header and fix is None:
        raise LeansegError("--take-header says how --fix repairs label maps; give --fix FOLDER too")
    listings = (path for path in (data, splits) if path is not None and path.is_file())
    require_outputs([json_file, html], chain(dataset.files(), listings))
    if fix is not None:
        check_target(dataset, fix)
    listed = read_splits(splits, [case.name for case in dataset]) if splits else None
    with progress() as display:
        on_case = display.count("checking", len(dataset))
        result = check(
            dataset, workers=workers, thumbnails=html is not None, on_case=on_case, splits=listed
        )
    _print(result)
    if json_file is not None:
        result.to_json(json_file, show_identifiers=show_identifiers)
        typer.echo(f"wrote {json_file}")
    if html is not None:
        from leanseg.reports.check_page import write_check_page

        write_check_page(result, html, show_identifiers=show_identifiers)
        typer.echo(f"wrote {html}")
    may_train = result.may_train
    if fix is not None:
        with progress() as display:
            on_case = display.count("copying", len(dataset))
            report = write_fixed_copy(
                dataset, result, fix, take_header=take_header, on_case=on_case
            )
        _print_fix(report, result, take_header=take_header)
        may_train = report.may_train
    if not may_train:
        raise typer.Exit(1)


def _print(result: CheckResult) -> None:
    from rich.padding import Padding
    from rich.text import Text

    out = console()
    out.print(f"{result.name}: {len(result.cases)} cases, layout {result.layout}")
    uses = result.label_uses()
    if uses:
        rows = [
            {
                "label": use.name,
                "value": str(use.value),
                "annotated": str(use.annotated),
                "held": str(use.held),
                "median ml": "-" if use.median_ml is None else f"{use.median_ml:.1f}",
            }
            for use in uses
        ]
        print_table(rows, left=("label",))
    by_kind: dict[str, list[Finding]] = {}
    for finding in result.findings:
        by_kind.setdefault(finding.kind, []).append(finding)
    for group in by_kind.values():
        first, count = group[0], f" ({len(group)})" if len(group) > 1 else ""
        out.print(f"{first.severity}: {first.title}{count}", style=_STYLES[first.severity])
        advice = Text(f"→ {first.advice}", style="italic")
        for line in (*map(Text, map(told, _lines(result, group))), advice):
            out.print(Padding(line, (0, 0, 0, 2), expand=False))
    out.print(result.summary())


def _lines(result: CheckResult, group: list[Finding]) -> list[str]:
    """Case and message of each finding of a kind, as many as somebody would read.

    Notes are for the record: their cases are only named.
    """
    n_more = max(0, len(group) - _SHOWN_OF_A_KIND)
    shown = [(f.case or "dataset", result.shortened(f.message)) for f in group[:_SHOWN_OF_A_KIND]]
    if group[0].severity == "note" and len(group) > 1:
        names = ", ".join(dict.fromkeys(case for case, _ in shown))
        return [f"{names} and {n_more} more" if n_more else names]
    lines = [f"{case}: {message}" for case, message in shown]
    return [*lines, f"and {n_more} more; --json or --html FILE lists all"] if n_more else lines


def _print_fix(report: FixReport, result: CheckResult, *, take_header: bool) -> None:
    """What the copy holds, and what it could not mend."""
    unfixed = [each for each in report.unfixed if each.case not in report.left_out]
    heading = "labels kept" if take_header else "labels kept by resampling"
    facts = {
        "fixed copy": str(report.folder),
        "cases": report.n_cases,
        heading: {case: f"{kept:.1%}" for case, kept in report.kept.items()},
        "left out": {case: result.shortened(why) for case, why in report.left_out.items()},
        "not fixed": [
            f"{each.case or 'dataset'}: {result.shortened(each.message)}" for each in unfixed
        ],
    }
    print_facts({name: fact for name, fact in facts.items() if fact}, lists_inline=False)
    if report.may_train:
        typer.echo(f"training may start on the copy: leanseg train ... --data {report.folder}")
