"""What a person reads while long work runs."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from leanseg import progress
from leanseg.progress import Display, duration


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (89, "89 s"), (90, "2 min"), (725, "12 min"), (3600, "1 h 00 min")],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_log_gets_plain_lines_and_few_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    out = io.StringIO()
    with Display(Console(file=out, width=300)) as shown:
        shown.begin("epoch 1/9", 100)
        for step in range(100):
            now += 1
            shown.advance("epoch 1/9", step, 100, "loss 0.5")
        shown.say("[red]x - (best so far)")
    lines = out.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines[:3]] == [
        "epoch 1/9: 30/100",
        "epoch 1/9: 61/100",
        "epoch 1/9: 92/100",
    ]
    assert lines[3] == "[red]x - (best so far)"
    assert "\x1b" not in out.getvalue()


def test_things_that_are_done_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    out = io.StringIO()
    with Display(Console(file=out, width=300)) as shown:
        on_case = shown.count("checking", 3)
        for name in ("a", "b [bold]", "c"):
            now += 20
            on_case(name)
    assert out.getvalue() == "checking: 2/3, b [bold]\n"


def test_a_terminal_gets_a_live_line() -> None:
    out = io.StringIO()
    console = Console(file=out, width=120, force_terminal=True)
    with Display(console) as shown:
        shown.begin("epoch 1/9", 4)
        shown.advance("epoch 1/9", 2, 4, "loss 0.5, at most 3 min left")
        shown.begin("scoring", 2)
        shown.advance("scoring", 1, 2, "case_7")
    text = out.getvalue()
    assert "scoring" in text
    assert "case_7" in text
