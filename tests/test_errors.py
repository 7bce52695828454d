"""What is told stays on one line, and names zip files by what the user calls them."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leanseg.errors import DatasetError, LeansegError, told


@given(st.text(st.characters(codec=None)))
def test_every_text_is_told_on_one_printable_line(text: str) -> None:
    line = told(text)
    assert len(line.splitlines()) <= 1
    assert not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 for c in line)
    line.encode("utf-8")
    assert told(line) == line
    error = DatasetError(text)
    assert str(error) == line
    assert str(pickle.loads(pickle.dumps(error))) == line


@pytest.mark.parametrize("text", ["Müller, Österreich", "肝臓\u3000右葉", "foie gauche", "كبد"])
def test_every_script_is_told_as_it_is(text: str) -> None:
    assert told(text) == text


def test_a_sentence_is_no_page() -> None:
    for name in ("x", "\n"):
        line = str(LeansegError(f"a.json: label {name * 5000} is none; correct the file"))
        assert len(line) <= 1500
        assert line.startswith("a.json: label ")
        assert line.endswith(" is none; correct the file")
