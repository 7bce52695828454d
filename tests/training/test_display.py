"""What a person reads while training runs."""

from __future__ import annotations

import io

import pytest
from leanseg.training.display import Display, duration
from rich.console import Console

from leanseg.training import display

ROW = {
    "epoch": 3,
    "train_loss": 0.41,
    "val_loss": 0.5,
    "val_dice_per_label": {"liver": 0.9123, "[red]x": None},
    "best": True,
    "images_per_s": 9.24,
    "learning_rate": 5e-4,
    "elapsed_s": 725.0,
}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (89, "89 s"), (90, "2 min"), (725, "12 min"), (3600, "1 h 00 min")],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_log_gets_plain_lines_and_few_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(display.time, "monotonic", lambda: now)
    out = io.StringIO()
    with Display(Console(file=out, width=300)) as shown:
        shown.begin("epoch 1/9", 100)
        for step in range(100):
            now += 1
            shown.advance("epoch 1/9", step, 100, "loss 0.5")
        shown.epoch(ROW)
    lines = out.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines[:3]] == [
        "epoch 1/9: 30/100",
        "epoch 1/9: 61/100",
        "epoch 1/9: 92/100",
    ]
    assert "whole-case Dice liver 0.912, [red]x - (best so far)" in lines[3]
    assert "12 min so far" in lines[3]
    assert "\x1b" not in out.getvalue()


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
