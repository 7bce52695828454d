"""What commands print: tables and lines on standard output, progress on standard error."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from leanseg.errors import told
from leanseg.progress import Display

if TYPE_CHECKING:
    from rich.box import Box
    from rich.console import Console

_LOG_WIDTH = 10_000
_SHOWN_NOTES = 8


def console() -> Console:
    """Standard output. A log has no width: there nothing is cut or folded."""
    from rich.console import Console

    made = Console(highlight=False, markup=False)
    if not made.is_terminal:
        made.width = _LOG_WIDTH
    return made


def progress() -> Display:
    """How far a command is, on standard error."""
    from rich.console import Console

    return Display(Console(stderr=True))


def print_table(
    rows: Sequence[Mapping[str, str]],
    *,
    left: Collection[str] = (),
    title: str | None = None,
    box: Box | None = None,
) -> None:
    """Print a table.

    Args:
        rows: Heading to cell, the same headings in every row.
        left: Columns of words, which are folded where a terminal is narrow; those of numbers
            stand at the right and are not.
        title: Stands above it.
        box: What it is drawn with.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box, pad_edge=box is not None, title=title, title_justify="left")
    for heading in rows[0] if rows else ():
        is_left = heading in left
        table.add_column(
            Text(heading),
            justify="left" if is_left else "right",
            no_wrap=not is_left,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(Text(told(cell)) for cell in row.values()))
    console().print(table)


def print_facts(facts: Mapping[str, Any], *, lists_inline: bool = True) -> None:
    """Print what is known of something, as YAML; lists without further parts take one line."""
    import yaml

    text = yaml.safe_dump(
        _told(dict(facts)),
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=None if lists_inline else False,
        width=console().width,
    )
    typer.echo(text, nl=False)


def _told(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_told(key): _told(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_told(part) for part in value]
    return told(value) if isinstance(value, str) else value


def listed_labels(labels: Mapping[str, int | Sequence[int]]) -> str:
    """Names with their values, as many as somebody would read."""
    told = [
        f"{name}={value if isinstance(value, int) else '+'.join(map(str, value))}"
        for name, value in labels.items()
    ]
    more = [f"and {len(told) - _SHOWN_NOTES} more"] if len(told) > _SHOWN_NOTES else []
    return ", ".join([*told[:_SHOWN_NOTES], *more])


def print_notes(notes: Sequence[str]) -> None:
    """Print what is to be said of files that were read, as much as somebody would read."""
    for note in notes[:_SHOWN_NOTES]:
        console().print(f"note: {told(note)}", style="yellow", soft_wrap=True)
    if len(notes) > _SHOWN_NOTES:
        typer.echo(f"note: and {len(notes) - _SHOWN_NOTES} more of the kind")
