"""Pages: one HTML file that needs nothing else and asks nothing of the network."""

from __future__ import annotations

import base64
import hashlib
import io
import math
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from leanseg import __version__
from leanseg.evaluation.metrics import Metric
from leanseg.progress import duration

if TYPE_CHECKING:
    from jinja2 import Environment
    from matplotlib.figure import Figure

MISSING = "–"


def render(template: str, scripts: Sequence[str] = (), **content: Any) -> str:
    """Fill a template.

    Args:
        template: Name of a file in `templates`. Whatever is put into it is escaped.
        scripts: Run after the page's own, which sorts tables; they are not escaped.
        content: What the template asks for.
    """
    from markupsafe import Markup

    environment = _environment()
    run = [template_text("sort.js"), *scripts]
    # The browser holds the page to its promise: nothing is fetched, no other script runs.
    allowed = " ".join(f"'sha256-{_digest(script)}'" for script in run)
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}"
    content |= {"content_policy": policy, "scripts": [Markup(script) for script in run]}
    return environment.get_template(template).render(content) + "\n"


def template_text(name: str) -> str:
    """A file of `templates` that has nothing to fill in."""
    return _environment().get_template(name).render()


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("leanseg.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (number, file_size, duration, heading, digits)
    environment.filters |= {each.__name__: each for each in filters}
    environment.globals |= {"MISSING": MISSING, "version": __version__}
    return environment


def number(value: float | None, digits: int = 0) -> str:
    """A number with a true minus sign and thousands separators, or a dash for undefined."""
    if value is None or not math.isfinite(value):
        return MISSING
    # Adding 0 takes the sign from what is rounded to zero.
    return f"{round(value, digits) + 0:,.{digits}f}".replace("-", "\N{MINUS SIGN}")


def heading(metric: Metric) -> str:
    """A metric's title with its unit."""
    return f"{metric.title} [{metric.unit}]" if metric.unit else metric.title


def digits(metric: Metric) -> int:
    """Digits behind the point with which a metric is shown."""
    # Specificity is close to 1 and needs more.
    return 5 if metric.name == "specificity" else {"mm": 2, "ml": 1, "%": 1}.get(metric.unit, 3)


def file_size(n_bytes: float) -> str:
    """A file size in the largest decimal unit that leaves at least one."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= factor:
            return f"{n_bytes / factor:.2f} {unit}"
    return f"{n_bytes:.0f} bytes"


def png_address(data: bytes) -> str:
    """A PNG file as the address of an image, so that it lies inside the page."""
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def svg_address(figure: Figure) -> str:
    """A figure as the address of an image; the same figure gives the same bytes."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "leanseg", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"
