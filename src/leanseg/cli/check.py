"""`leanseg check`: what is wrong with a dataset, and whether training may start."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leanseg.errors import LeansegError

if TYPE_CHECKING:
    from rich.console import Console

    from leanseg.datasets.audit import Audit, Finding
    from leanseg.datasets.audit.fix import FixReport

# Findings of one kind that the terminal shows; the files hold all.
_SHOWN_OF_A_KIND = 8
_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}


def command(
    data: Annotated[Path, typer.Argument(help="The dataset's folder or zip file.")],
    layout: Annotated[
        str | None, typer.Option(help="Its layout, where it is not recognised.")
    ] = None,
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
    splits: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Check these splits for leaks, too.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes; 0 works in this one.")] = 0,
    show_identifiers: Annotated[
        bool, typer.Option("--show-identifiers", help="Name patients in the JSON and HTML.")
    ] = False,
) -> None:
    """Say what is wrong with a dataset: files, grids, labels, grey values, sides, duplicates.

    Exit status 0: training may start (there may be warnings). 1: there are errors.
    2: the dataset could not be checked.
    """
    from leanseg.datasets import open_dataset, read_splits
    from leanseg.datasets.audit import audit
    from leanseg.datasets.audit.fix import check_target, write_fixed_copy

    dataset = open_dataset(data, layout)
    for option, path in (("--json", json_file), ("--html", html)):
        if path is not None:
            _require_writable(option, path)
    if fix is not None:
        check_target(dataset, fix)
    listed = None
    if splits is not None:
        listed = read_splits(splits, [case.name for case in dataset.cases])
    with _progress("checked", len(dataset.cases)) as on_case:
        result = audit(
            dataset, workers=workers, thumbnails=html is not None, on_case=on_case, splits=listed
        )
    _print(result)
    if json_file is not None:
        result.to_json(json_file, show_identifiers=show_identifiers)
        print(f"wrote {json_file}")
    if html is not None:
        from leanseg.reports.check_page import write_check_page

        write_check_page(result, html, show_identifiers=show_identifiers)
        print(f"wrote {html}")
    may_train = result.may_train
    if fix is not None:
        with _progress("copied", len(dataset.cases)) as on_case:
            report = write_fixed_copy(dataset, result, fix, on_case=on_case)
        _print_fix(report, result)
        may_train = report.may_train
    if not may_train:
        raise typer.Exit(1)


def _require_writable(option: str, path: Path) -> None:
    """Say so before the scans are read, not after."""
    if path.is_dir():
        msg = f"{path}: is a folder; give {option} the name of a file"
        raise LeansegError(msg)
    if not path.absolute().parent.is_dir():
        msg = f"{path}: its folder does not exist; make it first"
        raise LeansegError(msg)


@contextmanager
def _progress(verb: str, n_cases: int) -> Iterator[Callable[[str], None]]:
    """A bar on a terminal, a line per case in a log; both on stderr."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        done = 0

        def log(name: str) -> None:
            nonlocal done
            done += 1
            print(f"{verb} {name} ({done} of {n_cases})", file=sys.stderr, flush=True)

        yield log
        return
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("reading", total=n_cases)
        yield lambda name: progress.update(task, advance=1, description=f"{verb} {escape(name)}")


def _print(result: Audit) -> None:
    from rich.console import Console

    console = Console()
    groups = _by_kind(result)
    if console.is_terminal:
        _print_tables(console, result, groups)
    else:
        _print_lines(result, groups)
    print(result.summary())


def _by_kind(result: Audit) -> list[list[Finding]]:
    """The findings in groups of one kind and severity, the worst first."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in result.findings:
        groups.setdefault((finding.severity, finding.kind), []).append(finding)
    return list(groups.values())


def _rows(result: Audit, group: list[Finding]) -> list[tuple[str, str]]:
    """Case and message for each finding of a group, as many as a terminal should show.

    Notes are for the record: their cases are only named.
    """
    if group[0].severity == "note" and len(group) > 1:
        names = list(dict.fromkeys(finding.case or "dataset" for finding in group))
        shown = ", ".join(names[:_SHOWN_OF_A_KIND])
        n_more = len(names) - _SHOWN_OF_A_KIND
        return [("", f"{shown} and {n_more} more" if n_more > 0 else shown)]
    rows = [
        (finding.case or "dataset", result.shortened(finding.message))
        for finding in group[:_SHOWN_OF_A_KIND]
    ]
    if len(group) > _SHOWN_OF_A_KIND:
        n_more = len(group) - _SHOWN_OF_A_KIND
        rows.append(("", f"and {n_more} more like these; --json or --html FILE lists all"))
    return rows


def _heading(group: list[Finding]) -> str:
    count = f" ({len(group)})" if len(group) > 1 else ""
    return f"{group[0].severity}: {group[0].title}{count}"


def _print_lines(result: Audit, groups: list[list[Finding]]) -> None:
    """For logs: a line for each finding, however long."""
    print(f"{result.name}: {len(result.cases)} cases, layout {result.layout}")
    for use in result.label_uses():
        of_all = f"{use.annotated} of {len(result.cases)}"
        print(f"label {use.value} {use.name}: annotated in {of_all} cases, held by {use.held}")
    for group in groups:
        print(f"{_heading(group)}; {group[0].advice}")
        for case, message in _rows(result, group):
            print(f"  {case}: {message}" if case else f"  {message}")


def _print_tables(console: Console, result: Audit, groups: list[list[Finding]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    title = escape(f"{result.name}, {len(result.cases)} cases, layout {result.layout}")
    if result.label_uses():
        labels = Table(title=title, title_justify="left")
        labels.add_column("Label", overflow="fold")
        for heading in ("Value", "Annotated", "Held", "Median ml"):
            labels.add_column(heading, justify="right")
        for use in result.label_uses():
            middle = "-" if use.median_ml is None else f"{use.median_ml:.1f}"
            numbers = (use.value, use.annotated, use.held, middle)
            labels.add_row(escape(use.name), *(str(number) for number in numbers))
        console.print(labels)
    if not groups:
        return
    table = Table(title="Findings", title_justify="left")
    table.add_column("Case", overflow="fold", max_width=20)
    table.add_column("What was found, and what to do", overflow="fold", ratio=1)
    for group in groups:
        style = _STYLES[group[0].severity]
        table.add_section()
        table.add_row("", f"[{style}]{_heading(group)}[/]")
        for case, message in _rows(result, group):
            table.add_row(escape(case), escape(message))
        table.add_row("", f"[italic]→ {escape(group[0].advice)}[/]")
    console.print(table, highlight=False)


def _print_fix(report: FixReport, result: Audit) -> None:
    """What the copy holds, and what it could not mend."""
    resampled = [case for case in report.cases if case.resampled]
    left_out = [case for case in report.cases if case.problem is not None]
    n_copied = len(report.cases) - len(left_out)
    print(f"wrote {report.folder}: {n_copied} cases, {len(resampled)} with resampled labels")
    for case in resampled:
        if case.kept < 0.95:
            print(f"warning: {case.name}: only {case.kept:.0%} of its labels lie within the scan")
    for case in left_out:
        print(f"left out: {case.name}: {result.shortened(case.problem or '')}")
    missing = {case.name for case in left_out}
    for finding in report.unfixed:
        if finding.case not in missing:
            message = result.shortened(finding.message)
            print(f"not fixed: {finding.case or 'dataset'}: {message}")
    if report.may_train:
        print(f"training may start on the copy: leanseg train ... --data {report.folder}")
