"""The page as a whole: self-contained, complete, safe against names, honest about gaps."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

from leanseg.cli.main import run as leanseg
from leanseg.evaluation import read_scores
from leanseg.reports import write_report

VOID = {"meta", "img", "br", "hr", "input", "link", "path", "use", "rect", "circle", "line"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; complains about tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.words = ""
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words += data


def page_of(run: Path) -> tuple[Page, str]:
    path = write_report(run)
    assert path == run / "report.html"
    text = path.read_text(encoding="utf-8")
    return Page(text), text


def test_nothing_is_fetched_from_anywhere(make_run) -> None:
    page, text = page_of(make_run())
    for tag, name, value in page.attributes:
        if name in ("src", "href", "srcset", "data", "action", "poster", "xlink:href"):
            assert value.startswith(("#", "data:")), (tag, name, value)
    assert page.tags["link"] == page.tags["iframe"] == 0
    for url in re.findall(r"url\(([^)]*)\)", text):
        assert url.strip("'\"").startswith(("#", "data:")), url
    assert "@import" not in text


def test_every_score_of_every_case_is_on_the_page(make_run) -> None:
    run = make_run(labels=("organ", "tumour"), n_folds=2)
    page, _ = page_of(run)
    for fold in (0, 1):
        scores = read_scores(run / f"fold_{fold}" / "validation" / "scores.json")
        for score in scores.cases:
            assert score.case in page.words
            assert f"{score.metrics['dice']:.3f}" in page.words
    for words in ("organ", "tumour", "401,666", "Hausdorff", "0123abcd"):
        assert words in page.words


def test_best_median_and_worst_are_shown_from_two_sides(make_run) -> None:
    """In these cases the largest slice is the most wrong one too, and comes once."""
    page, _ = page_of(make_run())
    pictures = [v for tag, name, v in page.attributes if tag == "img" and name == "src"]
    assert sum(picture.startswith("data:image/png;base64,") for picture in pictures) == 6
    assert page.words.count("coronal, y") == page.words.count("axial, z") == 3
    for title in ("Best", "Median", "Worst"):
        assert title in page.words


def test_names_cannot_smuggle_markup_in(make_run) -> None:
    evil = "<script>alert(1)</script>&\"'"
    run = make_run(labels=(evil,), prefix="case")
    (run / "recipe.yaml").write_text(f"name: {json.dumps(evil)}\n", encoding="utf-8")
    page, text = page_of(run)
    assert "<script>alert(1)" not in text
    assert evil in page.words


def test_a_run_in_progress_says_what_is_missing(make_run) -> None:
    run = make_run()
    shutil.rmtree(run / "fold_0" / "validation")
    (run / "fold_0" / "summary.json").unlink()
    page, _ = page_of(run)
    assert "no summary.json" in page.words
    assert "no scores yet" in page.words
    assert "Learning curves" in page.words


def test_missing_scans_leave_the_scores(make_run) -> None:
    """The archive may have moved: the report still tells the scores, and what it cannot show."""
    run = make_run()
    shutil.rmtree(run.parent / "data")
    page, _ = page_of(run)
    assert "case_0" in page.words
    assert "Dice" in page.words


def test_the_command_names_the_report(make_run, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run()
    target = run.parent / "else where.html"
    with pytest.raises(SystemExit) as caught:
        leanseg(["report", str(run), "--output", str(target)])
    assert caught.value.code == 0
    assert capsys.readouterr().out.strip().endswith(str(target))
    assert target.is_file()


def test_another_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        leanseg(["report", str(tmp_path)])
    assert caught.value.code == 2
    assert str(tmp_path) in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
