"""The written dataset, read back with nibabel and as any Decathlon dataset."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leanseg.cli.phantom import _diameter
from leanseg.datasets import load_case, open_dataset
from leanseg.datasets.phantom import LABELS, PhantomOptions, make_phantom, phantom
from leanseg.datasets.phantom.dataset import _spread
from leanseg.errors import LeansegError, RecipeError

OPTIONS: dict = {"size": 64, "slices": 20}


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    return phantom(tmp_path_factory.mktemp("phantom") / "set", 3, seed=11, **OPTIONS).root


def test_files_hold_what_make_phantom_makes(written):
    for index in range(3):
        image, label = make_phantom(np.random.default_rng([11, index]), PhantomOptions(**OPTIONS))
        stored = nib.load(written / f"imagesTr/phantom_{index:04d}.nii.gz")
        marked = nib.load(written / f"labelsTr/phantom_{index:04d}.nii.gz")
        assert stored.get_data_dtype() == np.int16
        assert marked.get_data_dtype() == np.uint8
        np.testing.assert_array_equal(np.asarray(stored.dataobj), image.array)
        np.testing.assert_array_equal(np.asarray(marked.dataobj), label.array)
        np.testing.assert_allclose(stored.affine, image.affine, atol=1e-3)
        assert "".join(nib.aff2axcodes(stored.affine)) == image.orientation


def test_it_opens_as_a_decathlon_dataset(written):
    dataset = open_dataset(written)
    assert dataset.layout == "decathlon"
    assert len(dataset.cases) == 3
    assert dict(dataset.labels) == LABELS
    image, label = load_case(dataset.cases[2], dataset)
    assert label is not None
    assert image.shape == label.shape


def test_cases_do_not_depend_on_their_number(written, tmp_path):
    alone = hashes(phantom(tmp_path / "one", 1, seed=11, **OPTIONS).root)
    expected = hashes(written)
    for name in ("imagesTr/phantom_0000.nii.gz", "labelsTr/phantom_0000.nii.gz"):
        assert alone[name] == expected[name]
    assert expected["imagesTr/phantom_0000.nii.gz"] != expected["imagesTr/phantom_0001.nii.gz"]


def test_the_same_dataset_is_left_alone_and_another_refused(written):
    before = {file: file.stat().st_mtime_ns for file in written.rglob("*")}
    names: list[str] = []
    assert phantom(written, 3, seed=11, **OPTIONS, on_case=names.append).root == written
    assert names == []
    for cases, seed, options in ((3, 12, OPTIONS), (2, 11, OPTIONS), (3, 11, {})):
        with pytest.raises(LeansegError, match="set: already holds something"):
            phantom(written, cases, seed=seed, **options)
    assert {file: file.stat().st_mtime_ns for file in written.rglob("*")} == before


def test_foreign_folder_or_file_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(LeansegError, match="already holds something"):
        phantom(tmp_path, 1, **OPTIONS)
    with pytest.raises(LeansegError, match="already holds something"):
        phantom(tmp_path / "notes.txt", 1, **OPTIONS)
    with pytest.raises(LeansegError, match="cannot be written"):
        phantom(tmp_path / "notes.txt" / "set", 1, **OPTIONS)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_damaged_copy_is_not_taken_for_the_dataset(tmp_path):
    folder = phantom(tmp_path / "set", 1, **OPTIONS).root
    (folder / "labelsTr/phantom_0000.nii.gz").unlink()
    with pytest.raises(LeansegError, match="already holds something"):
        phantom(folder, 1, **OPTIONS)


def test_empty_folder_is_filled(tmp_path):
    (tmp_path / "set").mkdir()
    phantom(tmp_path / "set", 1, **OPTIONS)
    listing = json.loads((tmp_path / "set/dataset.json").read_text())
    assert listing["numTraining"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["set"]


def test_interrupted_writing_leaves_nothing(tmp_path):
    def stop(name: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        phantom(tmp_path / "set", 2, **OPTIONS, on_case=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("cases", "seed", "sentence"), [(0, 0, "cases is 0"), (1, -1, "seed is -1")]
)
def test_numbers_out_of_range_are_named(tmp_path, cases, seed, sentence):
    with pytest.raises(RecipeError, match=sentence):
        phantom(tmp_path / "set", cases, seed=seed)
    assert list(tmp_path.iterdir()) == []


def test_command_writes_and_names_the_folder(tmp_path, capsys):
    from leanseg.cli.main import run

    with pytest.raises(SystemExit) as done:
        run(["phantom", str(tmp_path / "set"), "--cases", "1", "--size", "64", "--slices", "20"])
    assert done.value.code == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "set")
    assert len(open_dataset(tmp_path / "set").cases) == 1


def test_tumours_are_spread_over_a_range(tmp_path):
    """Five cases, one in each fifth; the diameters against voxels counted with nibabel."""
    phantom(tmp_path / "set", 5, seed=3, tumour_mm=(5.0, 40.0), size=96, slices=60)
    told = json.loads((tmp_path / "set/tumours.json").read_text())
    asked = np.array([each["asked_mm"] for each in told.values()])
    assert sorted((asked - 5) // 7) == [0, 1, 2, 3, 4]
    dataset = open_dataset(tmp_path / "set")
    assert list(told) == [case.name for case in dataset]
    for case in dataset:
        label = nib.load(tmp_path / f"set/labelsTr/{case.name}.nii.gz")
        voxels = np.count_nonzero(np.asarray(label.dataobj) == LABELS["pancreatic_tumour"])
        volume = voxels * np.prod(label.header.get_zooms())
        measured = told[case.name]["measured_mm"]
        assert 4 / 3 * np.pi * (measured / 2) ** 3 == pytest.approx(volume, rel=0.01)
        assert measured == pytest.approx(told[case.name]["asked_mm"], rel=0.25)
    # Neither the other cases nor a second look changes anything.
    before = hashes(tmp_path / "set")
    phantom(tmp_path / "set", 5, seed=3, tumour_mm=(5.0, 40.0), size=96, slices=60)
    alone = hashes(phantom(tmp_path / "one", 1, seed=3, tumour_mm=(5, 40), size=96, slices=60).root)
    for name in ("imagesTr/phantom_0000.nii.gz", "labelsTr/phantom_0000.nii.gz"):
        assert alone[name] == before[name] == hashes(tmp_path / "set")[name]


@given(st.integers(1, 60), st.integers(0, 2**32), st.floats(5, 39), st.floats(0.5, 35))
def test_every_part_of_a_range_has_tumours(n_cases, seed, low, width):
    """Whatever the number of cases: no gap is three times as wide as if they were equidistant."""
    ends = (low, min(low + width, 40.0))
    found = np.array(_spread(ends, n_cases, seed))
    assert ((found >= ends[0] - 0.01) & (found <= ends[1] + 0.01)).all()
    gaps = np.diff(np.sort([ends[0], *found, ends[1]]))
    assert gaps.max() <= 3 * (ends[1] - ends[0]) / (n_cases + 1) + 0.02


@pytest.mark.parametrize("ends", [(0, 40), (5, 41), (20, 10), (5.0, float("nan"))])
def test_range_of_tumours_is_checked(tmp_path, ends):
    with pytest.raises(RecipeError, match=r"is the range .*choose two values from 5 to 40"):
        phantom(tmp_path / "set", 2, tumour_mm=ends)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "expected"), [("20", 20.0), ("0", 0.0), ("5-40", (5, 40)), ("5.5-8", (5.5, 8))]
)
def test_command_takes_a_diameter_or_a_range(text, expected):
    assert _diameter(text) == expected


@pytest.mark.parametrize("text", ["", "large", "5-", "5-10-20", "-5"])
def test_command_refuses_what_is_neither(text):
    with pytest.raises(RecipeError, match=r"--tumour is .*, such as 5-40"):
        _diameter(text)


def test_command_says_what_is_wrong(tmp_path, capsys):
    from leanseg.cli.main import run

    with pytest.raises(SystemExit) as done:
        run(["phantom", str(tmp_path / "set"), "--size", "9"])
    assert done.value.code == 2
    assert "phantom option size is 9; choose a value from 64 to 512" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
