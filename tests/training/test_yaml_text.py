"""YAML of recipes: the values of JSON, against PyYAML's own where the two agree."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from leanseg.errors import RecipeError
from leanseg.training.yaml_text import read_yaml, write_yaml

NUMBERS = st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False)
# Control characters and further kinds of line breaks are no text to YAML.
TEXTS = (st.text() | st.text("-+0123456789.eE:_", max_size=8)).filter(str.isprintable)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_what_is_written_is_read_back(value):
    assert read_yaml(write_yaml(value), "it") == value


@given(VALUES)
def test_json_is_read_as_json(value):
    text = json.dumps(value, ensure_ascii=False)
    assert read_yaml(text, "it") == json.loads(text)


@given(st.text(alphabet="[]{}:,-&*!|>'\"%@`#?~ \n\t01eE.+_xnult\0é", max_size=30) | st.text())
def test_any_text_is_read_or_refused_in_a_sentence(text):
    try:
        read_yaml(text, "it")
    except RecipeError as error:
        assert str(error).startswith("it: is not valid YAML")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2001-99-99", "2001-99-99"),
        ("2001-01-01", "2001-01-01"),
        ("1:30", "1:30"),
        ("010", "010"),
        ("0x1F", "0x1F"),
        ("1_000", "1_000"),
        (".nan", ".nan"),
        ("-.inf", "-.inf"),
        ("1e-3", 1e-3),
        ("-.5", -0.5),
        ("1.", 1.0),
        ("0", 0),
        ("+7", 7),
        ("=", "="),
        ("<<", "<<"),
        ("", None),
    ],
)
def test_scalars(text, expected):
    found = read_yaml(text, "it")
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize("text", ["yes", "off", "true", "~", "null", "[a, 'b', \"c\"]", "|\n  x"])
def test_the_rest_is_as_ever(text):
    assert read_yaml(text, "it") == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\na: 2", "line 2, column 1 .*'a' is given twice"),
        ("{null: 1, ~: 2}", "given twice"),
        ("a: &x 1\nb: *x", r"line 2, column 4 .*alias"),
        ("&a [*a]", "alias"),
        ("[" * 3000, "nested more than"),
        ("9" * 5000, "too large"),
        ("9" * 19, "too large"),
        ("1e999", "too large"),
        ("!!bool abc", "a value cannot be parsed"),
        ("!!int abc", "a value cannot be parsed"),
        ("!!float .nan", "a value cannot be parsed"),
        ("!!timestamp 2001-99-99", "could not determine"),
        ("!!python/name:os.system ''", "could not determine"),
        ("!!binary YQ==", "could not determine"),
        ("!!set {a}", "could not determine"),
        ("{[a]: 1}", "unhashable"),
        ("a:\t- 1", "line 1"),
        ("\0", "special characters"),
        (r'"\ud800"', "surrogates"),
        ("a\n---\nb", "another document"),
        ("[unclosed", "line 1"),
    ],
)
def test_mistakes(text, said):
    with pytest.raises(RecipeError, match=f"^it: is not valid YAML.*{said}.*; correct that line$"):
        read_yaml(text, "it")
