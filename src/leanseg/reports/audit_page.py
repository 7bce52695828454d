"""The audit of a dataset as one HTML file, with a picture of every case."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from leanseg import __version__
from leanseg.datasets.check import KINDS, SEVERITIES, CaseFacts, CheckResult, Finding
from leanseg.errors import RecipeError
from leanseg.reports.audit_pictures import anchor, pictures_section
from leanseg.reports.markup import (
    MISSING,
    Markup,
    cell,
    definitions,
    number,
    row_head,
    section,
    table,
    tag,
    text_cell,
)
from leanseg.reports.overview import tile
from leanseg.reports.page import document
from leanseg.reports.plots import INK, MUTED, SERIES_COLOURS, as_svg, new_figure
from leanseg.reports.style import SCRIPT
from leanseg.volumes.atomic import written_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CONTENTS = (
    ("findings", "Findings"),
    ("labels", "Labels"),
    ("spread", "Spacing and size"),
    ("pictures", "Pictures"),
    ("cases", "Cases"),
)
# With more labels than this, a table of their volumes would be wider than any screen.
_MOST_VOLUME_COLUMNS = 8

STYLE = """
.badge {
  display: inline-block; padding: 0 .5rem; border-radius: 3px; font-size: .8rem; font-weight: 600;
}
.badge.of-error { background: #b3261e; color: #fff; }
.badge.of-warning { background: #ffd98a; color: #4a3200; }
.badge.of-note { background: #e1e7eb; color: #37424a; }
.tile.headline.stop { background: #fbe9e7; }
.tile.headline.stop strong { color: #b3261e; }
td.wrap { white-space: normal; overflow-wrap: anywhere; min-width: 16rem; }
.thumbnails {
  display: grid; gap: 1.25rem 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(12rem, 100%), 1fr));
}
.thumbnails figcaption { overflow-wrap: anywhere; }
.thumbnails figcaption strong { color: var(--ink); font-weight: 600; }
.screen.none { color: #aab4bb; align-items: center; justify-content: center; font-size: .9rem; }
"""


def write_audit_page(
    audit: CheckResult, path: str | Path, *, show_identifiers: bool = False
) -> Path:
    """Write an audit as HTML, atomically.

    Args:
        audit: With thumbnails, or the pictures are missing.
        path: The file.
        show_identifiers: Whether to name patients.

    Raises:
        RecipeError: If the path is a folder.
        LeansegError: If the file cannot be written.
    """
    path = Path(path)
    if path.is_dir():
        msg = f"{path}: is a folder; give --html the name of a file, such as check.html"
        raise RecipeError(msg)
    page = audit_page(audit, show_identifiers=show_identifiers)
    with written_whole(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def audit_page(audit: CheckResult, *, show_identifiers: bool = False) -> str:
    """The audit as HTML."""
    sections = {
        "findings": _findings_section(audit),
        "labels": _labels_section(audit),
        "spread": _spread_section(audit),
        "pictures": pictures_section(audit),
        "cases": _cases_section(audit, show_identifiers),
    }
    links = [tag("a", title, href=f"#{key}") for key, title in _CONTENTS if sections[key]]
    body = tag(
        "body",
        tag(
            "header",
            tag("p", "leanseg check", class_="kind"),
            tag("h1", audit.name),
            tag("div", _verdict(audit), class_="tiles headlines"),
            tag("div", *_tiles(audit), class_="tiles"),
            tag("nav", *links, aria_label="Contents"),
        ),
        tag("main", *sections.values()),
        tag("footer", tag("p", f"Made by leanseg {__version__}.")),
        tag("script", Markup(SCRIPT)),
    )
    return document(f"{audit.name} · leanseg check", body, STYLE)


def _verdict(audit: CheckResult) -> Markup:
    found = [f"{n} {severity}{'' if n == 1 else 's'}" for severity, n in audit.counts().items()]
    verdict = "Training may start" if audit.may_train else "Training may not start yet"
    css = "tile headline" if audit.may_train else "tile headline stop"
    return tag(
        "div",
        tag("span", "Verdict", class_="what"),
        tag("strong", verdict),
        tag("span", ", ".join(found), class_="more"),
        class_=css,
    )


def _tiles(audit: CheckResult) -> list[Markup]:
    labelled = sum(case.has_labels for case in audit.cases)
    channels = audit.survey.channels
    return [
        tile("Cases", number(len(audit.cases)), f"{labelled} with labels"),
        tile("Channels", number(len(channels)), ", ".join(channels)),
        tile("Labels", number(len(audit.survey.labels)), ", ".join(audit.survey.labels)),
        tile("Layout", audit.layout, str(audit.root)),
    ]


def _badge(severity: str) -> Markup:
    return tag("span", severity, class_=f"badge of-{severity}")


def _findings_section(audit: CheckResult) -> Markup:
    if not audit.findings:
        return section("Findings", "findings", tag("p", "Nothing was found."))
    counts = Counter((finding.severity, finding.kind) for finding in audit.findings)
    ordered = sorted(counts, key=lambda key: (SEVERITIES.index(key[0]), list(KINDS).index(key[1])))
    rows = [
        [
            text_cell(_badge(severity)),
            text_cell(KINDS[kind].title),
            tag("td", KINDS[kind].advice, class_="wrap"),
            cell(counts[severity, kind]),
        ]
        for severity, kind in ordered
    ]
    kinds = table(
        ("", "What", "What to do", "How often"), rows, caption="By kind", n_text_columns=3
    )
    every = table(
        ("", "Case", "What", "Which and where"),
        [_finding_row(finding, audit) for finding in audit.findings],
        caption="Every finding, the worst first",
        n_text_columns=4,
        sortable=True,
    )
    return section("Findings", "findings", kinds, every)


def _finding_row(finding: Finding, audit: CheckResult) -> list[Markup]:
    # The number sorts by severity; the word alone would sort by the alphabet.
    rank = SEVERITIES.index(finding.severity)
    case: object = MISSING
    if finding.case is not None:
        case = tag("a", finding.case, href=f"#{anchor(finding.case)}")
    return [
        tag("td", _badge(finding.severity), data_value=str(rank)),
        text_cell(case),
        text_cell(finding.title),
        tag("td", audit.shortened(finding.message), class_="wrap"),
    ]


def _labels_section(audit: CheckResult) -> Markup:
    uses = audit.label_uses()
    if not uses:
        return Markup()
    rows = [
        [
            row_head(use.name),
            cell(use.value),
            cell(use.annotated),
            cell(use.held),
            cell(use.median_ml, 1),
        ]
        for use in uses
    ]
    head = ("Label", "Value", "Cases that annotate it", "Cases that hold it", "Median (ml)")
    text = tag(
        "p",
        "A label that a case does not annotate is unknown there, never background.",
        class_="fine",
    )
    return section("Labels", "labels", table(head, rows, caption="Labels and cases"), text)


def _spread_section(audit: CheckResult) -> Markup:
    grids = [case.image for case in audit.cases if case.image is not None]
    if not grids:
        return Markup()
    in_ras = [grid.in_ras() for grid in grids]
    spacing = np.array([spacing_mm for _, spacing_mm in in_ras])
    size = np.array([shape for shape, _ in in_ras]) * spacing
    figures = []
    for values, title in ((spacing, "Spacing (mm)"), (size, "Field of view (mm)")):
        description = f"{title} of every case along the three axes of the body"
        figures.append(as_svg(_strips(values, title), description))
    orientations = Counter(grid.orientation for grid in grids)
    facts = [
        ("Storage orientation", ", ".join(f"{n} {code}" for code, n in orientations.most_common())),
        ("Voxel types", ", ".join(dict.fromkeys(grid.dtype for grid in grids))),
        ("Median spacing", _axes_text(np.median(spacing, axis=0), 2) + " mm"),
        ("Median field of view", _axes_text(np.median(size, axis=0), 0) + " mm"),
    ]
    return section(
        "Spacing and size",
        "spread",
        definitions(facts),
        tag("div", *figures, class_="plots"),
        tag("p", "Every point is a case. Bars are medians.", class_="fine"),
    )


def _axes_text(values: Sequence[float], digits: int) -> str:
    return " × ".join(number(float(value), digits) for value in values)


def _strips(values: np.ndarray[tuple[int, int], np.dtype[np.float64]], title: str) -> Figure:
    """One strip of points for each axis of the body."""
    figure, axes = new_figure(4.6, 2.9)
    # Neighbours in value step aside in turn, so that points hide each other less.
    aside = 0.22 * np.array([(0.0, -1.0, 1.0, -0.5, 0.5)[n % 5] for n in range(len(values))])
    for axis in range(3):
        column = np.sort(values[:, axis])
        axes.plot(axis + aside, column, "o", color=SERIES_COLOURS[0], markersize=4, alpha=0.55)
        middle = float(np.median(column))
        axes.plot([axis - 0.32, axis + 0.32], [middle] * 2, color=INK, linewidth=1.8)
    axes.set_xticks(range(3), ["left-right", "back-front", "feet-head"])
    axes.set_xlim(-0.6, 2.6)
    axes.set_ylim(0, float(values.max()) * 1.12)
    axes.set_title(title, fontsize=10, loc="left", color=MUTED)
    return figure


def _cases_section(audit: CheckResult, show_identifiers: bool) -> Markup:
    names = list(audit.survey.labels)
    if len(names) > _MOST_VOLUME_COLUMNS:
        names = []
    head = ["Case", "Shape", "Spacing (mm)", "Orientation", "Voxels"]
    if show_identifiers:
        head.append("Patient")
    n_text = len(head)
    head += ["1 %", "50 %", "99 %", *(f"{name} (ml)" for name in names), "Findings"]
    rows = []
    for case in audit.cases:
        row = _case_cells(case)
        if show_identifiers:
            row.append(text_cell(case.patient or MISSING))
        first = case.channels[0] if case.channels else None
        row += [cell(getattr(first, key, None), 0) for key in ("p1", "p50", "p99")]
        held = {label.value: label.volume_ml for label in case.labels}
        for name in names:
            value = held.get(audit.survey.labels[name], 0.0)
            row.append(cell(value if case.annotates(name) else None, 1))
        row.append(cell(len(audit.of_case(case.name))))
        rows.append(row)
    shown = table(head, rows, caption="Every case", n_text_columns=n_text, sortable=True)
    text = "Grey values are percentiles of the first channel. A dash is unknown or unannotated."
    return section("Cases", "cases", shown, tag("p", text, class_="fine"))


def _case_cells(case: CaseFacts) -> list[Markup]:
    if case.image is None:
        return [row_head(case.name), *(text_cell(MISSING) for _ in range(4))]
    return [
        row_head(case.name),
        text_cell(" × ".join(number(n) for n in case.image.shape)),
        text_cell(_axes_text(case.image.spacing_mm, 2)),
        text_cell(case.image.orientation),
        text_cell(case.image.dtype),
    ]
