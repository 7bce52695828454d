"""`leanseg show`: samples of a recipe as a picture."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.image import imread

import leanseg as package

SMALL = ("--set", "plan.frame.axes=[32, 32, null]", "--set", "data.labels={liver: [1]}")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("show") / "data"
    package.phantom(folder, 2, size=64, slices=20)
    return folder


def test_a_picture(leanseg, data: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = leanseg("show", "monet-ct", data, *SMALL, "--samples", "1")
    assert outcome.status == 0, outcome.err
    assert outcome.out == "samples.png is written\n"
    assert imread("samples.png").shape[1] > 1000
    assert leanseg("show", "monet-ct", data, *SMALL, "--samples", "1", "-o", "a.png").status == 0
    assert Path("a.png").read_bytes() == Path("samples.png").read_bytes()
    other = leanseg(
        "show", "monet-ct", data, *SMALL, "--samples", "1", "--seed", "7", "-o", "b.png"
    )
    assert other.status == 0
    assert Path("b.png").read_bytes() != Path("a.png").read_bytes()


def test_refused(leanseg, data: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())

    def refused(*words: object) -> None:
        (*given, said) = words
        leanseg("show", *given).assert_refused(str(said))

    refused("monet-cd", data, "did you mean 'monet-ct'?")
    refused("monet-ct", tmp_path / "nothing", "this folder does not exist")
    refused("monet-ct", data, "-o", "x.jpg", "x.jpg: give a name that ends in .png or .html")
    refused("monet-ct", data, "--set", "data.labels={x: [77]}", "no case has a voxel of x")
    refused(
        *("monet-ct", data, "--set", "phases.0.augmentation=[{name: cita}]"),
        "augmentation 'cita' is not known (did you mean 'ctia'?)",
    )
    refused(
        *("nnunet-2d-patches", data, "--set", "plan.frame.axes=[32, 32, null]"),
        "a patch of 192 voxels is larger than the frame",
    )
    assert set(tmp_path.iterdir()) == before
    # A recipe and data have to be given.
    assert leanseg("show").status == 2
    assert leanseg("show", "monet-ct").status == 2


def test_what_is_read_is_not_written(leanseg, data: Path, tmp_path: Path, monkeypatch) -> None:
    scan = next((data / "imagesTr").iterdir())
    link = tmp_path / "scan.png"
    link.hardlink_to(scan)
    before = scan.read_bytes()
    leanseg("show", "monet-ct", data, *SMALL, "-o", link).assert_refused(str(link))
    assert scan.read_bytes() == before
