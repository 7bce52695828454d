"""Names with line breaks and commands for terminals, and files in zip files, in every command."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from leanseg.datasets import Case, Dataset
from leanseg.errors import DatasetError

ODD = [
    "line\nbreak",
    "line\u2028separator",
    "red\x1b[31m",
    "back\rover",
    "no\udcfftext",
    "tab\tbed",
]
EVIL = set("\n\r\x1b\t\u2028\udcff") - {"\n"}


def assert_plain(text: str, *, lines: int | None = None) -> None:
    assert not EVIL & set(text)
    assert lines is None or text.count("\n") == lines


@pytest.fixture
def scans(make_scan, tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    good = make_scan(folder / "good.nii").read_bytes()
    for name in ODD:
        (folder / f"{name}.nii").write_bytes(good)
    (folder / "broken\nfile.nii").write_bytes(b"x")
    (folder / "crash.mha").write_text(
        "NDims = -1\nDimSize = 1\nElementType = MET_CHAR\nElementDataFile = LOCAL\n"
    )
    return folder


def test_predict_info_and_check(leanseg, model, scans: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    predicted = leanseg("predict", model, scans, "-o", output)
    assert predicted.status == 1
    # A line for each case, and one more for each that failed, or whose grid is said to be sheared.
    assert_plain(predicted.out, lines=1 + len(ODD) + 3 + 2 + 1 + len(ODD) + 1)
    assert_plain(predicted.err, lines=len(ODD) + 3)
    assert len(list(output.glob("*.nii.gz"))) == len(ODD) + 1
    assert not any(EVIL & set(path.name) or "\n" in path.name for path in output.iterdir())
    info = leanseg("info", scans)
    assert_plain(info.out)
    assert "line\\nbreak" in info.out
    assert len(json.loads(leanseg("info", scans, "--json").out)["cases"]) == len(ODD) + 3
    assert_plain(leanseg("check", scans).out)
    for name in ODD:
        assert_plain(leanseg("info", scans / f"{name}.nii").out)
        leanseg("info", scans / f"{name}.absent").assert_refused(".absent: cannot be read")


def test_evaluate(leanseg, make_scan, tmp_path: Path) -> None:
    mask = make_scan(tmp_path / "a" / "x.nii", np.ones((4, 4, 4), np.uint8)).read_bytes()
    for name in ODD:
        (tmp_path / "a" / f"{name}.nii").write_bytes(mask)
    done = leanseg("evaluate", tmp_path / "a", tmp_path / "a", "--per-case", "-o", tmp_path / "o")
    assert done.status == 0
    assert_plain(done.out)
    table = (tmp_path / "o" / "scores.csv").read_text()
    assert len(list(csv.reader(table.splitlines()))) == len(ODD) + 2


@pytest.mark.parametrize("name", [*ODD, "a/b", "../../up"])
def test_names_of_cases_and_labels(name: str) -> None:
    """A case's name names its files; a label's is the same in every file of a dataset."""
    volume = (np.zeros((2, 2, 2), np.uint8), np.eye(4))
    if "/" in name:
        with pytest.raises(DatasetError, match="cannot be called"):
            Dataset([Case(volume, name=name)])
    else:
        assert Dataset([Case(volume, name=name)])[0].name.isprintable()
        with pytest.raises(DatasetError, match="cannot be called"):
            Dataset([Case(volume, volume, name="a")], {name: 1})


@pytest.fixture
def zipped(scans: Path, tmp_path: Path) -> Path:
    """A zip file, and one in which that lies."""
    (scans / "bad.nii").write_bytes(b"x")
    with zipfile.ZipFile(tmp_path / "scans.zip", "w") as archive:
        for name in ("good.nii", "bad.nii", "crash.mha"):
            archive.write(scans / name, name)
        archive.writestr("series/a.dcm", bytes(128) + b"DICM" + b"junk" * 50)
        archive.writestr("inner.nii/slice.dcm", bytes(128) + b"DICM" + b"junk" * 50)
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.write(tmp_path / "scans.zip", "in/scans.zip")
        archive.writestr("damaged.zip", b"PK\x03\x04")
    with zipfile.ZipFile(tmp_path / "listed.zip", "w") as archive:
        archive.writestr("dataset.csv", "image;label\ngood.nii;absent.nii\n")
        archive.write(scans / "good.nii", "good.nii")
    return tmp_path


@pytest.mark.parametrize(
    ("inside", "said"),
    [
        ("scans.zip/bad.nii", "scans.zip/bad.nii: not a NIfTI"),
        ("scans.zip/crash.mha", "scans.zip/crash.mha: cannot be read"),
        ("scans.zip/absent.nii", "scans.zip/absent.nii: there is no such file"),
        ("scans.zip/series", "scans.zip/series"),
        ("scans.zip/series/a.dcm", "scans.zip/series/a.dcm"),
        ("outer.zip/in/scans.zip/bad.nii", "outer.zip/in/scans.zip/bad.nii: not a NIfTI"),
        ("outer.zip/damaged.zip", "outer.zip/damaged.zip: the zip file is damaged"),
        ("listed.zip", "listed.zip/dataset.csv: line 2 names"),
    ],
)
def test_what_lies_in_a_zip_file_is_named_through_it(leanseg, model, zipped, inside, said) -> None:
    for command in (["info"], ["predict", model], ["evaluate"], ["check"]):
        more = {"predict": ["-o", zipped / "out"], "evaluate": [zipped / inside]}
        outcome = leanseg(*command, zipped / inside, *more.get(command[0], []))
        assert outcome.status == 2
        assert "leanseg-" not in outcome.err + outcome.out
        if command[0] in ("info", "predict"):
            outcome.assert_refused(f"{zipped}/{said}")


@pytest.mark.parametrize("name", ["two words", "Müller, Jörg", r"back\slash", "100 % [new] {a}"])
def test_names_that_people_give(leanseg, model, make_scan, tmp_path: Path, name: str) -> None:
    """Spaces, umlauts and backslashes, which Windows takes for folders."""
    folder = tmp_path / name
    scan, masks = make_scan(folder / f"{name}.nii.gz"), folder / "masks"
    predicted = leanseg("predict", model, scan, "-o", masks)
    assert predicted.status == 0, predicted.err
    assert (masks / scan.name).is_file()
    pair = (masks / scan.name, masks / scan.name)
    scored = leanseg("evaluate", *pair, "--labels", "organ=1", "-o", folder / "scores")
    assert scored.status == 0, scored.err
    told = json.loads((folder / "scores/scores.json").read_text(encoding="utf-8"))
    assert [case["case"] for case in told["cases"]] == [scan.name.removesuffix(".nii.gz")]
    assert json.loads(leanseg("info", scan, "--json").out)["shape"] == [20, 18, 7]
    assert leanseg("check", folder, "--json", folder / "check.json").status in (0, 1)
    assert name in json.loads((folder / "check.json").read_text(encoding="utf-8"))["root"]
