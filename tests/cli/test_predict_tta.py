"""`leanseg predict --tta` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import leanseg as package
from leanseg.inference.engines.tta import AugmentingEngine
from leanseg.inference.model import Model
from leanseg.modelfile import Manifest, read_model, write_model
from leanseg.volumes import read_volume


def predict(model: Path, scan: Path, output: Path, *options: object) -> list[object]:
    return ["predict", model, scan, "--output", output, "--precision", "f32", *options]


def test_the_cost_is_told_and_recorded(leanseg, model: Path, make_scan, tmp_path: Path) -> None:
    scan = make_scan(tmp_path / "ct.nii.gz")
    outcome = leanseg(*predict(model, scan, tmp_path / "out", "--tta", "flips,shifts"))
    assert outcome.status == 0, outcome.err
    cost = "8 passes of the network per slice (1 plain, 3 flips, 4 shifts: about 8 times the time)"
    assert cost in outcome.out.splitlines()
    entry = json.loads((tmp_path / "out" / "predictions.json").read_text())["cases"]["ct"]
    assert (entry["tta"], entry["passes"]) == ("flips,shifts", 8)


def test_without_it_nothing_is_said(leanseg, model: Path, make_scan, tmp_path: Path) -> None:
    scan = make_scan(tmp_path / "ct.nii.gz")
    outcome = leanseg(*predict(model, scan, tmp_path / "out"))
    assert "passes" not in outcome.out
    entry = json.loads((tmp_path / "out" / "predictions.json").read_text())["cases"]["ct"]
    assert (entry["tta"], entry["passes"]) == ("none", 1)


def test_an_ensemble_tells_its_cost(leanseg, model: Path, make_scan, tmp_path: Path) -> None:
    file = read_model(model)
    weights = {f"{n}/{name}": array for n in range(3) for name, array in file.weights.items()}
    manifest = Manifest.model_validate({**file.manifest.model_dump(), "members": 3})
    write_model(tmp_path / "three.leanseg", manifest, weights)
    scan = make_scan(tmp_path / "ct.nii.gz")
    outcome = leanseg(*predict(tmp_path / "three.leanseg", scan, tmp_path / "out"))
    assert outcome.status == 0, outcome.err
    assert "3 passes of the network per slice (3 networks: about 3 times the time)" in outcome.out
    more = leanseg(*predict(tmp_path / "three.leanseg", scan, tmp_path / "more", "--tta", "flips"))
    assert "12 passes of the network per slice (3 networks, each 1 plain, 3 flips" in more.out


def test_is_not_the_same_result(leanseg, model: Path, make_scan, tmp_path: Path) -> None:
    scan = make_scan(tmp_path / "ct.nii.gz")
    out = tmp_path / "out"
    assert leanseg(*predict(model, scan, out, "--tta", "flips")).status == 0
    again = leanseg(*predict(model, scan, out, "--tta", "flips"))
    assert "skipped" in again.out
    for options in ((), ("--tta", "shifts")):
        refused = leanseg(*predict(model, scan, out, *options))
        assert refused.status == 2
        assert "is there already, but not from this model" in refused.err
        assert "--overwrite" in refused.err


def test_records_of_before_count_as_without(
    leanseg, model: Path, make_scan, tmp_path: Path
) -> None:
    scan = make_scan(tmp_path / "ct.nii.gz")
    out = tmp_path / "out"
    leanseg(*predict(model, scan, out))
    record = json.loads((out / "predictions.json").read_text())
    del record["cases"]["ct"]["tta"]
    (out / "predictions.json").write_text(json.dumps(record))
    assert "skipped" in leanseg(*predict(model, scan, out)).out
    assert leanseg(*predict(model, scan, out, "--tta", "flips")).status == 2


def test_the_mask_is_that_of_the_mean(leanseg, model: Path, make_scan, tmp_path: Path) -> None:
    """Against the predictor's own views of the flipped network input, averaged here."""
    scan = make_scan(tmp_path / "ct.nii.gz")
    assert leanseg(*predict(model, scan, tmp_path / "out", "--tta", "flips")).status == 0
    found = read_volume(tmp_path / "out" / "ct.nii.gz").array
    plain = package.load_model(model, precision="f32")
    engine = plain.predictor.engine

    class Averaging:
        name, precision, device = engine.name, engine.precision, engine.device
        lanes, batch_size, passes, shape = 1, 1, 4, engine.shape

        def run(self, batch: np.ndarray) -> np.ndarray:
            views = [(), (2,), (3,), (2, 3)]
            looks = [np.flip(engine.run(np.flip(batch, axes).copy()), axes) for axes in views]
            return np.mean(looks, axis=0, dtype=np.float64).astype(np.float32)

    expected = Model(plain.file, Averaging()).predict(scan).array
    # The mean of a voxel may fall on either side of a half in its last digit.
    assert (found != expected).mean() < 1e-3
    assert (found != plain.predict(scan).array).any()


def test_a_flipped_slice_gives_the_flipped_answer(model: Path, make_scan, tmp_path: Path) -> None:
    """With all flips averaged the network has no left and right any more."""
    volume = read_volume(make_scan(tmp_path / "ct.nii.gz"))
    loaded = package.load_model(model, precision="f32", tta="flips")
    assert loaded.tta == "flips"
    engine = loaded.predictor.engine
    assert isinstance(engine, AugmentingEngine)
    batch = ScanSlices(volume, loaded.plan).read(0, 2)
    straight, mirrored = engine.run(batch), engine.run(batch[..., ::-1].copy())
    np.testing.assert_allclose(mirrored[..., ::-1], straight, atol=1e-6)
    alone = engine.scout()
    assert np.abs(alone.run(batch[..., ::-1].copy())[..., ::-1] - alone.run(batch)).max() > 1e-3


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("flip", "'flip' is not known (did you mean 'flips'?); choose none, or one or several of"),
        ("none,shifts", "is none and some at once"),
        ("", "'' is not known"),
    ],
)
def test_names_that_are_none(leanseg, model, make_scan, tmp_path: Path, given, said) -> None:
    scan = make_scan(tmp_path / "ct.nii.gz")
    outcome = leanseg(*predict(model, scan, tmp_path / "out", "--tta", given))
    assert outcome.status == 2
    assert said in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "out").exists()
