"""What a recipe says of headers and classes: kept in the run, refused before one is made."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from leanseg.datasets import open_dataset
from leanseg.errors import RecipeError
from leanseg.training import load_recipe, open_run
from leanseg.training.run import start_run


def test_the_choice_of_a_form_is_kept_in_the_run(tiny_dataset, tiny_recipe, tmp_path, capsys):
    recipe = load_recipe(tiny_recipe, ["data.geometry=qform"])
    run = start_run(recipe, open_dataset(tiny_dataset), tmp_path / "run")
    for data in (run.data, open_run(tmp_path / "run").data):
        for case in data.cases:
            assert [source.options for source in case.sources] == [{"geometry": "qform"}] * 2
    with pytest.raises(RecipeError, match=r"data\.geometry"):
        load_recipe(tiny_recipe, ["data.geometry=best"])


@pytest.mark.parametrize("labels", ["{a: [3, 1], b: [1, 2]}", "{a: ball, b: [Ball]}"])
def test_a_value_belongs_to_one_class(tiny_dataset, tiny_recipe, tmp_path: Path, labels: str):
    recipe = load_recipe(tiny_recipe, [f"data.labels={labels}"])
    with pytest.raises(RecipeError, match=r"'data.labels' the value 1 belongs to both 'a' and 'b'"):
        start_run(recipe, tiny_dataset, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("check", [True, False])
def test_a_header_that_contradicts_itself_is_said(
    tiny_dataset, tiny_recipe, tmp_path, capsys, check
):
    data = Path(shutil.copytree(tiny_dataset, tmp_path / "data"))
    for path in (data / "imagesTr/ball_00.nii.gz", data / "labelsTr/ball_00.nii.gz"):
        image = nib.load(path)
        image.set_qform(image.affine, 1)
        # Mirrored, as after a conversion that took one form and kept the other.
        image.set_sform(image.affine @ np.diag([-1, 1, 1, 1]), 1)
        nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), None, image.header), path)
    start_run(load_recipe(tiny_recipe), data, tmp_path / "run", check=check)
    said = capsys.readouterr().out
    assert "ball_00.nii.gz: its sform and qform place voxels up to 69 mm apart" in said
    assert "the sform counts (and 1 more of the kind)" in said
