"""HTML by small functions: everything is escaped unless it is markup already."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Iterable, Sequence

_VOID_TAGS = frozenset({"img", "meta", "br", "hr", "col"})
MISSING = "–"


class Markup(str):
    """Text that is HTML already; a plain `str` is escaped wherever it is put."""

    __slots__ = ()


def escape(value: object) -> Markup:
    """`value` as HTML text: unchanged if it is `Markup`, escaped otherwise."""
    if isinstance(value, Markup):
        return value
    return Markup(html.escape(str(value), quote=True))


def join(parts: Iterable[object], separator: str = "") -> Markup:
    """The parts, each escaped unless markup, one after another."""
    return Markup(html.escape(separator).join(escape(part) for part in parts))


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """An element.

    Args:
        name: The element's name.
        children: Text or markup inside.
        attributes: `class_` becomes `class`, `data_value` becomes `data-value`; None and False
            are left out, True is written without a value.
    """
    written = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        written.append(key if value is True else f'{key}="{html.escape(str(value), quote=True)}"')
    opening = " ".join(written)
    if name in _VOID_TAGS:
        return Markup(f"<{opening}>")
    return Markup(f"<{opening}>{join(children)}</{name}>")


def number(value: float | None, digits: int = 0) -> str:
    """A number with a true minus sign and thousands separators, or a dash for undefined."""
    if value is None or not math.isfinite(value):
        return MISSING
    written = f"{value:,.{digits}f}"
    if written.startswith("-") and not written.strip("-0.,"):
        written = written[1:]
    return written.replace("-", "\N{MINUS SIGN}")


def size(n_bytes: float) -> str:
    """A file size in the largest decimal unit that leaves at least one."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= factor:
            return f"{n_bytes / factor:.2f} {unit}"
    return f"{n_bytes:.0f} bytes"


def duration(seconds: float | None) -> str:
    """A time span in the units that a reader would use."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def cell(value: float | None, digits: int = 0) -> Markup:
    """A table cell with a number; its full value goes along for sorting and for copying."""
    if value is None or not math.isfinite(value):
        return tag("td", MISSING, class_="n undefined", title="undefined")
    return tag("td", number(value, digits), class_="n", data_value=repr(value))


def text_cell(value: object) -> Markup:
    """A table cell with text, aligned left."""
    return tag("td", value)


def row_head(value: object) -> Markup:
    """The cell that names its row."""
    return tag("th", value, scope="row")


def table(
    head: Sequence[object],
    rows: Iterable[Sequence[Markup]],
    *,
    caption: str,
    n_text_columns: int = 1,
    sortable: bool = False,
) -> Markup:
    """A table in a box of its own that scrolls sideways on narrow screens.

    Args:
        head: Column titles.
        rows: Cells made by `cell`, `text_cell` and `row_head`.
        caption: What the table shows.
        n_text_columns: The first so many columns hold text; the others hold numbers.
        sortable: Whether a click on a column title sorts by that column.
    """
    titles = []
    for column, title in enumerate(head):
        inside = tag("button", title, type="button") if sortable else title
        css = "n" if column >= n_text_columns else None
        titles.append(tag("th", inside, scope="col", class_=css))
    body = [tag("tr", *row) for row in rows]
    inner = tag(
        "table",
        tag("caption", caption),
        tag("thead", tag("tr", *titles)),
        tag("tbody", *body),
        class_="sortable" if sortable else None,
    )
    # The box must be reachable by keyboard, or its hidden columns are not.
    return tag("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption)


def definitions(pairs: Iterable[tuple[object, object]]) -> Markup:
    """A list of names with their values."""
    return tag(
        "dl",
        *(tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs),
    )


def details(summary: str, *children: object) -> Markup:
    """A part that is closed until the reader opens it."""
    return tag("details", tag("summary", summary), *children)


def section(title: str, identifier: str, *children: object) -> Markup:
    """A titled part of the page."""
    heading = tag("h2", title, id=f"{identifier}-title")
    return tag("section", heading, *children, id=identifier, aria_labelledby=f"{identifier}-title")


def note(*children: object) -> Markup:
    """A remark that the reader should not overlook, such as a missing piece."""
    return tag("p", *children, class_="note")


def embedded_image(data: bytes, media_type: str, description: str) -> Markup:
    """An image that lies inside the page.

    Args:
        data: The file's bytes.
        media_type: Such as "image/png".
        description: What the picture shows, for those who cannot see it.
    """
    encoded = base64.b64encode(data).decode("ascii")
    return tag("img", src=f"data:{media_type};base64,{encoded}", alt=description)
