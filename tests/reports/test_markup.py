from __future__ import annotations

import html
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leanseg.reports.markup import Markup, cell, duration, escape, number, size, table, tag


class _Reader(HTMLParser):
    """What a browser would find: elements with attributes, and text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def _read(page: str) -> _Reader:
    reader = _Reader()
    reader.feed(page)
    reader.close()
    return reader


@given(st.text(st.characters(exclude_categories=("Cs", "Cc"))))
def test_any_text_arrives_as_that_text_and_as_nothing_else(text):
    reader = _read(tag("p", text, title=text))
    assert reader.elements == [("p", {"title": text})]
    assert reader.text == text


def test_markup_is_not_escaped_twice():
    assert tag("p", tag("b", "a & b")) == "<p><b>a &amp; b</b></p>"
    assert escape(Markup("<b>")) == "<b>"


def test_attributes_lose_their_underscores_and_empty_ones_vanish():
    written = tag("td", "x", class_="n", data_value=1.5, hidden=None, sortable=True, no=False)
    assert written == '<td class="n" data-value="1.5" sortable>x</td>'


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
    assert size(n_bytes) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(2.04, "2.0 s"), (119.6, "2 min 00 s"), (5040, "1 h 24 min"), (None, "–")],
)
def test_durations_have_units(seconds, expected):
    assert duration(seconds) == expected


def test_a_cell_carries_the_full_value_for_sorting():
    (name, attributes), *_ = _read(cell(1 / 3, 2)).elements
    assert name == "td"
    assert float(attributes["data-value"]) == 1 / 3


def test_an_undefined_cell_carries_no_value():
    (_, attributes), *_ = _read(cell(None, 2)).elements
    assert "data-value" not in attributes
    assert "undefined" in attributes["class"]


def test_table_headings_are_aligned_with_their_columns():
    page = table(("Case", "Dice"), [[tag("th", "a"), cell(0.5, 2)]], caption="x", sortable=True)
    headings = [attributes for name, attributes in _read(page).elements if name == "th"]
    assert [attributes.get("class") for attributes in headings[:2]] == [None, "n"]
    assert html.unescape(page).count("<button") == 2
