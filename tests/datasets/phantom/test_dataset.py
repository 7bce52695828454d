"""The written dataset, read back with nibabel and as any Decathlon dataset."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from leanseg.datasets import load_case, open_dataset
from leanseg.datasets.phantom import LABELS, PhantomOptions, make_phantom, phantom
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


def test_command_says_what_is_wrong(tmp_path, capsys):
    from leanseg.cli.main import run

    with pytest.raises(SystemExit) as done:
        run(["phantom", str(tmp_path / "set"), "--size", "9"])
    assert done.value.code == 2
    assert "phantom option size is 9; choose a value from 64 to 512" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
