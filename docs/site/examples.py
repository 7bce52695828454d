"""Docstrings say "Example:"; mkdocstrings shows code where they say "Examples:"."""

from __future__ import annotations

from typing import Any

from griffe import Extension, Object


class Examples(Extension):
    """Reads one as the other."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Called for every object of the package."""
        if obj.docstring:
            obj.docstring.value = obj.docstring.value.replace("Example:\n", "Examples:\n")
