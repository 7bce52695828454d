"""Templates: whatever is put into them arrives as text; numbers are written for readers."""

from __future__ import annotations

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from html_reader import Page
from leanseg.reports.page import file_size, number, render

EMPTY = {"contents": [], "kind": "a kind"}


@given(st.text(st.characters(exclude_categories=("Cs", "Cc"))))
def test_any_text_arrives_as_that_text_and_as_nothing_else(text):
    page = Page(render("base.html.j2", title=text, **EMPTY))
    assert f"{text} · a kind" in page.words
    assert page.tags["h1"] == page.tags["title"] == page.tags["script"] == 1


def test_what_a_template_asks_for_must_be_given():
    with pytest.raises(jinja2.UndefinedError):
        render("base.html.j2", **EMPTY)


@pytest.mark.parametrize(
    ("value", "digits", "expected"),
    [
        (0.12345, 3, "0.123"),
        (-12.34, 1, "\N{MINUS SIGN}12.3"),
        (403556, 0, "403,556"),
        (-0.0001, 2, "0.00"),
        (None, 3, "–"),
        (float("nan"), 3, "–"),
        (float("inf"), 3, "–"),
    ],
)
def test_numbers_are_written_for_readers(value, digits, expected):
    assert number(value, digits) == expected


@pytest.mark.parametrize(
    ("n_bytes", "expected"), [(12, "12 bytes"), (1500, "1.50 kB"), (1_650_000, "1.65 MB")]
)
def test_file_sizes_have_units(n_bytes, expected):
    assert file_size(n_bytes) == expected
