"""The report: one HTML file that needs nothing else and asks nothing of the network."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from leanseg import __version__
from leanseg.errors import RecipeError
from leanseg.reports.markup import Markup, tag
from leanseg.reports.overview import (
    curves_section,
    data_section,
    fact_tiles,
    origin_section,
    speed_section,
)
from leanseg.reports.pictures import pictures_section
from leanseg.reports.references import middle_dice
from leanseg.reports.run import Run, read_run
from leanseg.reports.score_tables import (
    MiddleBaseline,
    headline_tiles,
    middle_section,
    scores_section,
)
from leanseg.reports.style import SCRIPT, STYLE
from leanseg.volumes.atomic import written_whole

_CONTENTS = (
    ("scores", "Scores"),
    ("middle", "More than the middle?"),
    ("pictures", "Pictures"),
    ("curves", "Learning curves"),
    ("data", "Data and plan"),
    ("speed", "Speed"),
    ("origin", "Environment and recipe"),
)


def write_report(folder: str | Path, output: str | Path | None = None) -> Path:
    """Write the report of a run; a run in progress is reported as far as it has come.

    Args:
        folder: The run's folder.
        output: The HTML file; None writes `report.html` into the run's folder.

    Returns:
        The file's path.

    Raises:
        DatasetError: If the folder is not a run.
        FileFormatError: If one of the run's files is damaged.
        RecipeError: If `output` is a folder.
        LeansegError: If the file cannot be written.
    """
    run = read_run(Path(folder))
    path = run.folder / "report.html" if output is None else Path(output).expanduser()
    if path.is_dir():
        msg = f"{path}: is a folder; give --output the name of a file, such as report.html"
        raise RecipeError(msg)
    page = report_page(run)
    with written_whole(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def report_page(run: Run) -> str:
    """The report as HTML."""
    dice, problem = middle_dice(run)
    middle = MiddleBaseline(dice, problem)
    sections = {
        "scores": scores_section(run, middle),
        "middle": middle_section(run, middle),
        "pictures": pictures_section(run, middle),
        "curves": curves_section(run),
        "data": data_section(run),
        "speed": speed_section(run),
        "origin": origin_section(run),
    }
    links = [tag("a", title, href=f"#{key}") for key, title in _CONTENTS if sections[key]]
    body = tag(
        "body",
        tag(
            "header",
            tag("p", "leanseg report", class_="kind"),
            tag("h1", run.name),
            tag("div", *headline_tiles(run), class_="tiles headlines"),
            tag("div", *fact_tiles(run), class_="tiles"),
            _missing(run),
            tag("nav", *links, aria_label="Contents"),
        ),
        tag("main", *sections.values()),
        tag("footer", tag("p", f"Made by leanseg {__version__}.")),
        tag("script", Markup(SCRIPT)),
    )
    return document(f"{run.name} · leanseg report", body)


def document(title: str, body: Markup, style: str = "") -> str:
    """A whole page that fetches nothing, with the reports' style sheet and script.

    Args:
        title: For the window.
        body: The body element; its only script may be `SCRIPT`.
        style: CSS of this page alone, after the common one.
    """
    return f'<!DOCTYPE html>\n<html lang="en">\n{_head(title, style)}\n{body}\n</html>\n'


def _head(title: str, style: str) -> Markup:
    # The browser itself holds the page to its promise: nothing is fetched, no other script runs.
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Markup(STYLE + style)),
    )


def _missing(run: Run) -> Markup:
    if not run.missing:
        return Markup()
    return tag(
        "div",
        tag("strong", "Not everything is there (yet)."),
        tag("ul", *(tag("li", sentence) for sentence in run.missing)),
        class_="note",
    )
