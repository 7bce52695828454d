"""A model from a file: `leanseg.load_model(path).predict(volume)`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import leanseg
from leanseg.errors import (
    FileFormatError,
    GeometryError,
    LeansegError,
    ModelFileError,
    RecipeError,
)
from leanseg.modelfile import read_model
from leanseg.networks import build
from leanseg.volumes import Volume

AFFINE = np.diag([0.7, 0.8, 2.0, 1.0])


def test_prediction_is_what_the_network_says(rng, model_file: Path) -> None:
    """Against paper 000's protocol written out: clip, scale, resize, network, resize, threshold."""
    array = rng.normal(50, 200, size=(40, 44, 6)).astype(np.int16)
    model = leanseg.load_model(model_file, precision="f32")
    found = model.predict(Volume(array, AFFINE)).array
    # RAS as stored, LPS for the network: the first two axes are reversed.
    seen = array[::-1, ::-1].astype(np.float32).clip(-150, 200)
    seen = (seen - seen.min()) / (seen.max() - seen.min())
    network = build("monet", base_filters=4).eval()
    weights = read_model(model_file).members[0].weights
    network.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in weights.items()})
    options = {"mode": "bilinear", "antialias": True}
    with torch.no_grad():
        stack = torch.from_numpy(seen.transpose(2, 0, 1)[:, None].copy())
        small = torch.nn.functional.interpolate(stack, (32, 32), **options)
        large = torch.nn.functional.interpolate(network(small).sigmoid(), (40, 44), **options)
    probability = large.numpy()[:, 0].transpose(1, 2, 0)[::-1, ::-1]
    clear = np.abs(probability - 0.5) > 1e-4
    assert clear.mean() > 0.99
    assert 0.02 < found.mean() < 0.98
    np.testing.assert_array_equal(found[clear], (probability > 0.5)[clear])


def test_from_a_path_or_a_volume(rng, model_file: Path, tmp_path: Path) -> None:
    array = rng.normal(50, 200, size=(20, 24, 5)).astype(np.int16)
    path = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(array, AFFINE), path)
    model = leanseg.load_model(str(model_file), precision="f32")
    expected = model.predict(Volume(array, AFFINE)).array
    for scan in (path, str(path), leanseg.read(path)):
        np.testing.assert_array_equal(model.predict(scan).array, expected)
    assert model.labels == {"organ": 1}
    assert model.plan.final.network_shape == (32, 32)
    assert model.file.members[0].network.name == "monet"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_that_are_no_numbers(rng, model_file: Path, value: float) -> None:
    array = rng.random((8, 8, 4), dtype=np.float32)
    array[3, 3, 3] = value
    model = leanseg.load_model(model_file, precision="f32")
    with pytest.raises(LeansegError, match=r"1 NaN or infinite of 256 voxels"):
        model.predict(Volume(array, AFFINE))


def test_files_that_are_not_there(model_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"absent\.leanseg: cannot be read"):
        leanseg.load_model(tmp_path / "absent.leanseg")
    with pytest.raises(FileFormatError, match="there is no such file"):
        leanseg.load_model(model_file, precision="f32").predict(tmp_path / "absent.nii.gz")


def test_voxels_in_an_array_with_their_affine(rng, model_file: Path) -> None:
    array = rng.normal(50, 200, size=(20, 24, 5)).astype(np.int16)
    model = leanseg.load_model(model_file, precision="f32")
    for turned in (AFFINE, AFFINE @ np.diag([-1, 1, 1, 1])):
        found = model.predict(array, turned)
        expected = model.predict(Volume(array, turned))
        np.testing.assert_array_equal(found.array, expected.array)
        np.testing.assert_array_equal(found.affine, turned)
    channels = np.stack([array, np.zeros_like(array)], axis=-1)
    again = model.predict(channels, turned, channel_indices=(0,))
    np.testing.assert_array_equal(again.array, expected.array)


def test_affines_too_few_and_too_many(rng, model_file: Path) -> None:
    array = rng.normal(50, 200, size=(8, 8, 3)).astype(np.int16)
    model = leanseg.load_model(model_file, precision="f32")
    with pytest.raises(GeometryError, match="need an affine"):
        model.predict(array)
    with pytest.raises(GeometryError, match="has its own"):
        model.predict(Volume(array, AFFINE), AFFINE)
    with pytest.raises(GeometryError, match="not a finite 4 x 4 matrix"):
        model.predict(array, np.eye(3))
    with pytest.raises(LeansegError, match="type bool are not grey values"):
        model.predict(array > 0, AFFINE)


def test_loading_in_the_background(rng, model_file: Path, tmp_path: Path) -> None:
    array = rng.normal(50, 200, size=(20, 24, 5)).astype(np.int16)
    model = leanseg.load_model(model_file, precision="f32", in_background=True)
    expected = leanseg.load_model(model_file, precision="f32").predict(array, AFFINE)
    assert model.plan.final.network_shape == (32, 32)
    np.testing.assert_array_equal(model.predict(array, AFFINE).array, expected.array)
    # What is known at once is said at once; the rest where the model is used.
    with pytest.raises(RecipeError, match="'tpu' is not known"):
        leanseg.load_model(model_file, engine="tpu", in_background=True)
    failing = leanseg.load_model(model_file, engine="openvino", in_background=True)
    for _ in range(2):
        with pytest.raises(ModelFileError, match="holds no exported network"):
            failing.predict(array, AFFINE)


def test_calls_from_several_threads_take_turns(rng, model_file: Path) -> None:
    array = rng.normal(50, 200, size=(20, 24, 5)).astype(np.int16)
    model = leanseg.load_model(model_file, precision="f32")
    expected = model.predict(array, AFFINE).array
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: model.predict(array, AFFINE).array, range(8)):
            np.testing.assert_array_equal(found, expected)
