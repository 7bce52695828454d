"""The published OBELISK checkpoints as model files, and what they reach on whole scans."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from leanseg.cli.main import run as run_command
from leanseg.datasets import load_case, open_dataset
from leanseg.errors import FileFormatError
from leanseg.evaluation import evaluate_masks
from leanseg.inference import load_model, make_engine
from leanseg.modelfile import read_model
from leanseg.training.obelisk import import_obelisk
from leanseg.volumes import read_volume

# Dice to reach with the box found in the scan itself.
BARS = {
    "abdomen_ircad01": {"liver": 0.90, "spleen": 0.85, "left kidney": 0.90},
    "abdomen_chaos03/chaos_ct_set3_dicom_png.zip": {"liver": 0.85},
    "abdomen_ircad17_half": {"liver": 0.85},
}
# Values in the reference label maps; lesions lie in the liver.
REFERENCE = {"liver": (1, 2), "spleen": (5,), "left kidney": (4,)}


@pytest.fixture(scope="module")
def weights(shared_data: Path) -> Path:
    folder = shared_data.parent / "reference" / "obelisk" / "weights"
    if not folder.is_dir():
        pytest.skip(f"the published checkpoints are not at {folder}")
    return folder


@pytest.fixture(scope="module")
def folds(weights: Path) -> list[Path]:
    return [weights / f"obeliskhybrid_tcia_fold{fold}.pth" for fold in (1, 2, 3, 4)]


@pytest.mark.slow  # the model file of one fold is tested below
def test_an_ensemble_holds_every_weight(tmp_path, folds):
    folds = folds[:2]
    made = import_obelisk(folds, tmp_path / "model.leanseg")
    assert made.plan.labels[5] == "liver"
    members = read_model(tmp_path / "model.leanseg").members
    for path, member in zip(folds, members, strict=True):
        published = torch.load(path, weights_only=True)
        expected = sum(
            value.numel() for key, value in published.items() if "num_batches" not in key
        )
        found = sum(v.size for key, v in member.weights.items() if "num_batches" not in key)
        assert found == expected


@pytest.fixture(scope="module")
def of_fold_1(folds, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("of_fold_1") / "model.leanseg"
    import_obelisk(folds[:1], path)
    return path


@pytest.mark.parametrize(
    "name",
    [
        "obeliskhybrid_tcia_fold1",
        pytest.param("obeliskhybrid_visceral_fold1", marks=pytest.mark.slow),
    ],
)
def test_a_model_file_gives_the_published_outputs(request, tmp_path, weights, name):
    if "tcia" in name:
        path = request.getfixturevalue("of_fold_1")
    else:
        path = tmp_path / "model.leanseg"
        import_obelisk([weights / f"{name}.pth"], path)
    made = read_model(path)
    assert made.members[0].exported.record.equal_labels >= 0.9999
    reference = weights.parent / "ircad01"
    if "tcia" in name:
        hounsfield = np.asarray(nib.load(reference / "input_144.nii.gz").dataobj)
    else:
        with np.load(reference / "input_visceral.npz") as stored:
            hounsfield = stored[stored.files[0]]
    scaling = made.plan.final.intensity.scaling
    batch = hounsfield.astype(np.float32)[None, None] / scaling.divide_by + scaling.add
    with np.load(reference / f"{name}.npz") as stored:
        expected = stored["labels"]
    # That PyTorch gives them is among the tests of networks.
    engine = make_engine(made, name="openvino", precision="f32")
    labels = engine.run(batch.astype(np.float32))[0].argmax(axis=0)
    assert (labels == expected).mean() >= 0.9999


def test_different_networks_make_no_ensemble(tmp_path, weights, folds):
    other = weights / "obelisk_visceral_fold1.pth"
    with pytest.raises(FileFormatError, match=r"obelisk_visceral_fold1\.pth holds obelisk, but"):
        import_obelisk([folds[0], other], tmp_path / "model.leanseg")
    assert not list(tmp_path.iterdir())


def test_what_is_no_checkpoint_is_refused(tmp_path, capsys):
    torch.save({"conv.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(SystemExit) as stopped:
        output = tmp_path / "model.leanseg"
        run_command(["import-weights", "obelisk", str(tmp_path / "other.pth"), "-o", str(output)])
    assert stopped.value.code == 2
    assert "other.pth" in capsys.readouterr().err
    assert not (tmp_path / "model.leanseg").exists()


def dice(model, shared_data: Path, scan: str) -> dict[str, float]:
    (case,) = open_dataset(shared_data / scan).cases
    image, reference = load_case(case)
    found = model.predict(image)
    names = BARS[scan]
    scores = evaluate_masks(
        found.array,
        reference.array,
        image.spacing_mm,
        {name: REFERENCE[name] for name in names},
        prediction_labels={name: model.labels[name] for name in names},
    )
    return {score.label: score.metrics["dice"] for score in scores}


def test_one_fold_finds_the_liver_of_a_whole_scan(of_fold_1, shared_data):
    model = load_model(of_fold_1)
    assert dice(model, shared_data, "abdomen_ircad01")["liver"] > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("scan", BARS)
def test_four_folds_reach_the_bars_on_whole_scans(tmp_path, folds, shared_data, scan):
    import_obelisk(folds, tmp_path / "model.leanseg")
    found = dice(load_model(tmp_path / "model.leanseg"), shared_data, scan)
    for name, bar in BARS[scan].items():
        assert found[name] >= bar, found


@pytest.mark.slow
def test_the_peers_scan_without_contrast(tmp_path, folds, shared_data):
    """Outside of what the networks were trained on; the liver is found all the same."""
    import_obelisk(folds, tmp_path / "model.leanseg")
    peer = shared_data / "totalsegmentator_peer"
    found = load_model(tmp_path / "model.leanseg").predict(peer / "example_ct.nii.gz")
    automatic = read_volume(peer / "example_seg_v1_full_104labels.nii.gz").array
    (score,) = evaluate_masks(
        found.array, automatic, found.spacing_mm, {"liver": 5}, prediction_labels={"liver": 6}
    )
    assert score.metrics["dice"] > 0.85
