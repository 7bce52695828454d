"""Patterns of paths, on folders made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from leanseg.datasets.layouts.patterns import find
from leanseg.errors import DatasetError

FILES = (
    *("imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz", "imagesTr/b.c_0000.NII"),
    *("imagesTr/d.png", "imagesTr/._a_0000.nii.gz", "__MACOSX/a_0000.nii.gz"),
    *("x/y/z/a.mha", "x/a.mha", "Case/ct.nrrd"),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for file in FILES:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    (tmp_path / "x/y/loop").symlink_to(tmp_path / "x")
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("imagesTr/<case>_<channel:\\d{4}>{volume}", FILES[:3]),
        ("imagesTr/*", FILES[:4]),
        ("*_0000.nii.gz", ()),
        ("**/a{volume}", ("x/a.mha", "x/y/z/a.mha")),
        ("case/CT{volume}", ("Case/ct.nrrd",)),
        ("x/*/", ("x/y",)),
        ("<one:x|y>/", ("x",)),
    ],
)
def test_files_and_folders(folder: Path, pattern: str, found: tuple[str, ...]) -> None:
    assert {str(f.path.relative_to(folder)) for f in find(folder, pattern)} == set(found)


def test_fields_order_and_the_folder_itself(folder: Path) -> None:
    found = find(folder, "imagesTr/<case>_<channel:\\d{4}>{volume}", "imagesTr/a*")
    assert [tuple(f.fields.values()) for f in found] == [
        ("a", "0000"),
        ("a", "0001"),
        ("b.c", "0000"),
    ]
    assert [f.path for f in find(folder, "")] == [folder]


def test_a_folder_that_is_none(folder: Path) -> None:
    with pytest.raises(DatasetError, match="cannot be opened"):
        find(folder / "nothing", "*")
