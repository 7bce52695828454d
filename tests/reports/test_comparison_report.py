"""The page of a comparison: its numbers, its pictures, and where voxels end up."""

from __future__ import annotations

import base64
import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy.ndimage import center_of_mass

from html_reader import Page
from leanseg.cli.main import run as run_command
from leanseg.errors import LeansegError
from leanseg.evaluation import compare, read_scores
from leanseg.reports import viewer
from leanseg.reports.case_maps import CaseMaps, Masks, case_reader
from leanseg.reports.comparison_report import comparison_report
from leanseg.reports.panels import method_panels
from leanseg.reports.plots import bland_altman
from leanseg.reports.run_folder import read_run_folder
from leanseg.reports.run_report import report
from leanseg.reports.viewer import viewer_content
from leanseg.volumes import Volume

pytest.importorskip("statsmodels", reason="needs leanseg[statistics]")


@pytest.fixture
def runs(make_run: Callable[..., Path]) -> tuple[Path, Path]:
    """A run, and the same with other scores."""
    first = make_run(labels=("organ", "tumour"))
    second = first.with_name("other")
    shutil.copytree(first, second)
    path = second / "fold_0/test/scores.json"
    content = json.loads(path.read_text())
    for n, case in enumerate(content["cases"]):
        case["metrics"]["dice"] -= 0.01 * (n + 1)
    path.write_text(json.dumps(content))
    return first, second


def test_two_runs_on_one_page(runs, tmp_path: Path) -> None:
    path = report(runs, tmp_path / "both.html")
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    page.assert_self_contained()
    words = " ".join(page.words.split())
    found = compare({run.name: read_run_folder(run).scores for run in runs})
    for group in found.groups:
        (pair,) = group.pairs
        for value in (pair.mean_difference, *pair.interval):
            assert f"{value:.3f}".replace("-", "−") in words
        assert f"probability of a false win {pair.false_win:.3f}" in words
        assert all(f"{each.mean:.3f}" in words for each in group.methods)
    for name in ("Best", "Median", "Worst", "401,666", "0123abcd", "First in", "Bland-Altman"):
        assert name in words
    with pytest.raises(LeansegError, match="name --output"):
        report(runs)


def test_scores_alone(runs, tmp_path: Path) -> None:
    """A page without pictures, curves and cards; names cannot smuggle markup in."""
    evil = "<script>alert(1)</script>"
    files = [run / "fold_0/test/scores.json" for run in runs]
    scores = dict(zip((evil, "b"), map(read_scores, files), strict=True))
    path = comparison_report(scores, compare(scores), tmp_path / "a.html", notes=["Mind this."])
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    page.assert_self_contained()
    assert "<script>alert" not in text
    assert evil in page.words
    assert "Mind this." in page.words
    assert "no masks, so there is nothing to show" in page.words
    assert "Learning curves" not in page.words


def test_the_commands(runs, tmp_path: Path, capsys) -> None:
    """A run beside a folder of predictions whose labels have other values."""
    first, second = runs
    masks = tmp_path / "masks"
    masks.mkdir()
    for file in (second / "fold_0/test/predictions").iterdir():
        image = nibabel.load(file)
        values = np.array([0, 7, 3], np.uint8)[np.asarray(image.dataobj)]
        nibabel.save(nibabel.Nifti1Image(values, image.affine), masks / file.name)
    (masks / "dataset.json").write_text('{"labels": {"background": 0, "tumour": 3, "organ": 7}}')
    references = tmp_path / "references"
    references.mkdir()
    for file in (first.parent / "data").glob("*_label.nii.gz"):
        shutil.copy(file, references / file.name.replace("_label", ""))
    given = [first, masks, "--references", references, "--labels", "organ=1,tumour=2"]
    written = ["--report", tmp_path / "page.html", "--panels", tmp_path / "side.svg"]
    with pytest.raises(SystemExit) as caught:
        run_command(["compare", *map(str, [*given, *written])])
    assert not caught.value.code
    assert "not told apart" in " ".join(Page((tmp_path / "page.html").read_text()).words.split())
    assert (tmp_path / "side.svg").read_text().startswith("<?xml")
    scores = [run / "fold_0/test/scores.json" for run in runs]
    for wrong, said in (
        ([*runs, "--panels", tmp_path / "side.jpeg"], ".png or .svg"),
        ([*scores, "--panels", tmp_path / "no.png"], "no masks to show"),
    ):
        with pytest.raises(SystemExit) as caught:
            run_command(["compare", *map(str, wrong)])
        assert caught.value.code == 2
        assert said in capsys.readouterr().err
    assert not list(tmp_path.glob("no.png"))


def test_labels_are_numbered_alike(make_run) -> None:
    """Masks with values of their own, in the order of the page's labels."""
    run = read_run_folder(make_run(labels=("organ", "tumour")))
    files = Masks.of_runs([run])
    swapped = Masks(files.files, {"Organ": (2,), "tumour": (1,)})
    read = case_reader(["tumour", "organ"], {"as it is": files, "swapped": swapped}, [run])
    maps = read("case_0")
    as_it_is, other = maps.predictions["as it is"], maps.predictions["swapped"]
    np.testing.assert_array_equal(np.array([0, 2, 1])[as_it_is], other)
    with pytest.raises(LeansegError, match="is not known"):
        read("nobody")


def test_bland_altman_by_hand(runs) -> None:
    """The bias and the limits of agreement."""
    scores = read_run_folder(runs[0]).scores.of_label("organ")
    volumes = np.array([[s.metrics["reference_ml"], s.metrics["prediction_ml"]] for s in scores])
    volumes[:, 1] += [0.1, 0.4, -0.2]
    for score, (_, predicted) in zip(scores, volumes, strict=True):
        score.metrics["prediction_ml"] = predicted
    figure = bland_altman({"a": scores}, "organ")
    assert figure is not None
    points, _, bias, low, high = figure.axes[0].lines
    np.testing.assert_allclose(points.get_ydata(), volumes[:, 1] - volumes[:, 0])
    np.testing.assert_allclose(points.get_xdata(), volumes.mean(1))
    # Differences 0.1, 0.4, -0.2 have the mean 0.1 and the SD 0.3.
    ends = [line.get_ydata()[0] for line in (bias, low, high)]
    np.testing.assert_allclose(ends, [0.1, 0.1 - 0.588, 0.1 + 0.588])


@pytest.mark.parametrize(
    ("shape", "spacing", "most"),
    [((24, 20, 12), (1.0, 1.5, 4.0), 1_000_000), ((40, 41, 30), (0.5, 0.5, 2.0), 9_000)],
)
def test_what_the_viewer_shows_lies_where_it_was(shape, spacing, most, monkeypatch) -> None:
    """Finer or coarser, turned and cut: centres in the world are those of the files' voxels."""
    monkeypatch.setattr(viewer, "MOST_VOXELS", most)
    monkeypatch.setattr(viewer, "_niivue_script", lambda: "there")
    # First axis to the back, second to the left.
    affine = np.array(
        [[0, -spacing[1], 0, 50], [-spacing[0], 0, 0, 9], [0, 0, spacing[2], -7], [0, 0, 0, 1.0]]
    )
    labels = np.zeros(shape, np.uint8)
    labels[8:20, 6:16, 4:10] = 1
    scan = Volume(np.where(labels, 80.0, 10.0).astype(np.float32), affine)
    mask = Volume(labels, affine)
    maps = CaseMaps.of("a <b>", scan, mask, {"m": mask}, window=(0.0, 100.0))
    text = viewer_content(maps, ["organ"])
    assert text is not None and "<" not in text
    content = json.loads(text)
    images = [
        nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(each)))
        for each in (content["scan"], content["reference"], content["masks"][0])
    ]
    expected = affine[:3] @ [*center_of_mass(labels), 1]
    for image in images:
        assert image.shape == images[0].shape
        assert np.prod(image.shape) <= most
        assert nibabel.aff2axcodes(image.affine) == ("R", "A", "S")
        np.testing.assert_allclose(image.affine, images[0].affine)
    grey, reference, outline = (np.asarray(image.dataobj) for image in images)
    found = images[1].affine[:3] @ [*center_of_mass(reference), 1]
    np.testing.assert_allclose(
        found, expected, atol=np.linalg.norm(images[1].header.get_zooms()) / 2
    )
    assert grey[reference > 0].max() == 204  # 80 of 100
    assert 0 < outline.astype(bool).sum() < reference.astype(bool).sum()
    assert not (outline.astype(bool) & ~reference.astype(bool)).any()
    assert reference[tuple(content["start"])] == 1


def test_panels_have_a_row_for_each_case_and_a_column_for_each_method(make_run) -> None:
    run = read_run_folder(make_run())
    files = Masks.of_runs([run])
    fewer = Masks({k: v for k, v in files.files.items() if k != "case_2"}, files.values)
    read = case_reader(["organ"], {"one": files, "$two$": fewer}, [run])
    cases = [read("case_0"), read("case_2")]
    figure = method_panels(cases, ["organ"], {("case_0", "one"): "Dice 0.9"})
    assert [axes.get_title() for axes in figure.axes] == ["one", "$two$", "", ""]
    texts = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert "case_0" in texts[0] and "Dice 0.9" in texts[0]
    assert texts[3] == ["no mask"]
    # Reference and prediction, in their colours.
    assert len(figure.axes[0].collections) == 2


def test_a_long_name_stays_above_its_panel(make_run) -> None:
    run = read_run_folder(make_run())
    name = "Attention-U-Net-64-Task101_SarcomaCT-fold0-seed1"
    figure = method_panels(
        [case_reader(["organ"], {name: Masks.of_runs([run])}, [run])("case_0")], ["organ"]
    )
    figure.canvas.draw()
    (axes,) = figure.axes
    assert axes.get_title().replace("\n", "") == name
    assert axes.title.get_window_extent().width <= figure.bbox.width
