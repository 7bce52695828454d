"""The page as a whole: self-contained, complete, safe against names, honest about gaps."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from hand_made_cascade import cascade_plan, write_cascade
from html_reader import Page
from leanseg.cli.main import run as leanseg
from leanseg.evaluation import read_scores
from leanseg.modelfile import (
    LabelReliability,
    Provenance,
    ReliabilityBins,
    ReviewRecord,
    read_model,
    write_model,
)
from leanseg.plan import HounsfieldWindow, LinearScaling, Plan, QuantileWindow
from leanseg.reports.plots import CURVES, learning_curve
from leanseg.reports.run_folder import read_run_folder
from leanseg.reports.run_report import report, shown_cases
from plans import patches, slices, whole


def page_of(run: Path) -> tuple[Page, str]:
    path = report(run)
    assert path == run / "report.html"
    text = path.read_text(encoding="utf-8")
    return Page(text), text


def test_nothing_is_fetched_and_cases_are_shown_from_two_sides(make_run) -> None:
    """The best, the median and the worst; their largest slice is the most wrong one too."""
    page, text = page_of(make_run())
    page.assert_self_contained()
    for url in re.findall(r"url\(([^)]*)\)", text):
        assert url.strip("'\"").startswith(("#", "data:")), url
    assert "@import" not in text
    pictures = [v for tag, name, v in page.attributes if tag == "img" and name == "src"]
    assert sum(picture.startswith("data:image/png;base64,") for picture in pictures) == 6
    assert page.words.count("coronal, y") == page.words.count("axial, z") == 3
    for title in ("Best", "Median", "Worst"):
        assert title in page.words


def test_every_score_of_every_case_is_on_the_page(make_run) -> None:
    run = make_run(labels=("organ", "tumour"), n_folds=2)
    content = json.loads((run / "data.json").read_text()) | {"ignored_values": [9]}
    (run / "data.json").write_text(json.dumps(content))
    page, _ = page_of(run)
    assert "Ignored (in the files)9\n" in page.words
    for fold in (0, 1):
        scores = read_scores(run / f"fold_{fold}" / "test" / "scores.json")
        for score in scores.cases:
            assert score.case in page.words
            assert f"{score.metrics['dice']:.3f}" in page.words
    for words in ("organ", "tumour", "401,666", "Hausdorff", "0123abcd"):
        assert words in page.words


def test_the_reliability_of_a_calibrated_model(make_run) -> None:
    run = make_run()
    path = write_cascade(run / "fold_0" / "model.leanseg", cascade_plan())
    page, _ = page_of(run)
    assert "calibrated on" not in page.words

    def bins(n_right: int) -> ReliabilityBins:
        """100 voxels at 0.25 of which 25 have the label, and 100 at 0.95."""
        counts = {5: (100, 25.0, 25), 19: (100, 95.0, n_right)}
        n, probability, positive = zip(
            *(counts.get(k, (0, 0.0, 0)) for k in range(20)), strict=True
        )
        return ReliabilityBins(n=n, probability=probability, positive=positive)

    record = ReviewRecord(
        data_name="unseen scans",
        data_fingerprint="0",
        seed=0,
        n_known=4,
        scan={},
        labels={},
        reliability={"<organ>": LabelReliability(before=bins(75), after=bins(90))},
    )
    model = read_model(path)
    calibrated = replace(model, provenance=Provenance(review=record))
    write_model(run / "fold_0" / "calibrated.leanseg", calibrated)
    page, text = page_of(run)
    page.assert_self_contained()
    assert "fold_0/calibrated.leanseg, calibrated on unseen scans" in page.words
    # 20 and 5 voxels in 200.
    for error in ("0.1000", "0.0250"):
        assert error in page.words
    assert "Reliability of &lt;organ&gt;" in text


@pytest.mark.parametrize(
    ("n_cases", "expected"),
    [
        (0, {}),
        (1, {"The only case": 0}),
        (2, {"Best": 0, "Worst": 1}),
        (3, {"Best": 0, "Median": 1, "Worst": 2}),
    ],
)
def test_the_shown_cases(make_run, n_cases: int, expected: dict[str, int]) -> None:
    """The fixture's predictions get worse from case to case."""
    folder = make_run()
    path = folder / "fold_0" / "test" / "scores.json"
    content = json.loads(path.read_text())
    content["cases"] = content["cases"][:n_cases]
    path.write_text(json.dumps(content))
    shown = shown_cases(read_run_folder(folder))
    assert {one.title: one.name for one in shown} == {
        title: f"case_{2 * place}" for title, place in expected.items()
    }
    assert sorted((one.dice for one in shown), reverse=True) == [one.dice for one in shown]


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (
            slices((64, 48), window=HounsfieldWindow(low=-100, high=200), neighbours=2),
            ("64 × 48 × the scan’s own", "64 × 48 with 2 slices on either side", "−100 to 200 HU"),
        ),
        (
            patches((32, 32, 16), spacing_mm=(1.5, 1.5, 2.5), window=QuantileWindow()),
            ("1.5 mm × 1.5 mm × 2.5 mm", "32 × 32 × 16", "quantiles 0.0 to 0.995", "whole scan"),
        ),
        (
            whole((24, 24, 24), around="abdomen", scaling=LinearScaling(), largest_component=True),
            (
                "the abdomen",
                "around what stage “scout” found",
                "divided by 1024.0",
                "largest component of each label",
                "above 0.5",
            ),
        ),
        (
            slices((64, 48), ("a", "b", "c"), largest_component=["c", "b"]),
            ("largest component of b, c", "the likeliest"),
        ),
    ],
)
def test_the_plan_is_told_in_words(make_run, plan: Plan, expected: tuple[str, ...]) -> None:
    run = make_run(labels=plan.labels)
    shutil.rmtree(run / "fold_0")
    (run / "plan.json").write_text(plan.model_dump_json())
    page, _ = page_of(run)
    words = " ".join(page.words.split())
    assert [one for one in expected if one not in words] == []


def test_names_cannot_smuggle_markup_in(make_run) -> None:
    evil = "<script>alert(1)</script>&\"'"
    run = make_run(labels=(evil,), prefix="case")
    (run / "recipe.yaml").write_text(f"name: {json.dumps(evil)}\n", encoding="utf-8")
    page, text = page_of(run)
    assert "<script>alert(1)" not in text
    assert evil in page.words


def test_a_run_in_progress_says_what_is_missing(make_run) -> None:
    run = make_run()
    shutil.rmtree(run / "fold_0" / "test")
    (run / "fold_0" / "summary.json").unlink()
    page, _ = page_of(run)
    assert "no summary.json" in page.words
    assert "no scores yet" in page.words
    assert "Learning curves" in page.words


@pytest.mark.usefixtures("undrawn")
def test_missing_scans_leave_the_scores(make_run) -> None:
    """The archive may have moved: the report still tells the scores, and what it cannot show."""
    run = make_run()
    shutil.rmtree(run.parent / "data")
    page, _ = page_of(run)
    assert "case_0" in page.words
    assert "Dice" in page.words


@pytest.mark.usefixtures("undrawn")
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


@pytest.mark.usefixtures("undrawn")
def test_epochs_without_a_look_at_the_monitor_cases(make_run) -> None:
    """The line goes from look to look, and the kept epoch may be one without."""
    folder = make_run()
    path = folder / "fold_0" / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in (rows[0], rows[2], rows[3]):
        del row["monitor_loss"], row["monitor_dice"]
        row["best"] = False
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (fold,) = read_run_folder(folder).folds
    for curve, drawn in ((CURVES[0], [4, 1]), (CURVES[1], [1])):
        figure = learning_curve([fold], curve, "epoch")
        lines = figure.axes[0].lines[: len(drawn)]
        assert [len(line.get_xdata()) for line in lines] == drawn
    summary = json.loads((folder / "fold_0" / "summary.json").read_text())
    for kept, said in (
        (2, "the ring marks the one whose weights are kept, epoch 2 with a Dice of 0.600"),
        (4, "the ring marks the one whose weights are kept, epoch 4 after"),
    ):
        changed = json.dumps({**summary, "best_epoch": kept})
        (folder / "fold_0" / "summary.json").write_text(changed)
        page, _ = page_of(folder)
        assert said in " ".join(page.words.split())
        assert read_run_folder(folder).folds[0].best_epoch == kept - 1
