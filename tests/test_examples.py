"""The scripts in examples/: in seconds on phantoms, and in full in the slow tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import leanseg
from leanseg.networks.registry import build_trusted

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture(autouse=True)
def examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))


def run(script: str, *arguments: object, status: int = 0) -> str:
    command = [sys.executable, str(EXAMPLES / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    return done.stdout if status == 0 else done.stderr


def test_a_network_of_ones_own() -> None:
    """Training and export, which take longest, are among the slow ones."""
    import own_network

    recipe = leanseg.Recipe.model_validate(own_network.RECIPE)
    named = recipe.network
    network = build_trusted(named.name, in_channels=1, out_channels=1, **named.options)
    assert network(torch.zeros(2, 1, 96, 96)).shape == (2, 1, 96, 96)


def test_two_networks_are_compared(tmp_path: Path) -> None:
    pytest.importorskip("statsmodels", reason="needs leanseg[statistics]")
    import hippocampus

    found = hippocampus.main(None, tmp_path, {"steps": 2}, n_cases=4, n_folds=2)
    assert [each.name for each in found["liver"].methods] == ["monet", "unet-16"]
    assert len(found["liver"].cases) == 4


def test_a_missing_model_is_one_sentence(tmp_path: Path) -> None:
    said = run("obelisk_dicom.py", "predict", tmp_path / "no.leanseg", ".", tmp_path, status=2)
    assert said.startswith("leanseg: ")
    assert said.count("\n") == 1


@pytest.mark.slow
def test_a_network_of_ones_own_learns(tmp_path: Path) -> None:
    import own_network

    assert own_network.main(tmp_path, steps=300) > 0.5


@pytest.mark.slow
@pytest.mark.shared_data
def test_hippocampi_are_compared(tmp_path: Path, shared_data: Path) -> None:
    pytest.importorskip("statsmodels", reason="needs leanseg[statistics]")
    import hippocampus

    source = shared_data / "Task04_Hippocampus"
    found = hippocampus.main(source, tmp_path, {"cpu_minutes": 0.5}, n_cases=30)
    assert min(method.mean for group in found.groups for method in group.methods) > 0.4


@pytest.mark.slow
@pytest.mark.shared_data
def test_a_published_ensemble_labels_a_dicom_study(tmp_path: Path, shared_data: Path) -> None:
    """Dice of the liver against CHAOS's annotation, read back from the DICOM SEG by highdicom."""
    highdicom = pytest.importorskip("highdicom", reason="needs leanseg[dicom]")
    weights = shared_data.parent / "reference/obelisk/weights"
    if not weights.is_dir():
        pytest.skip(f"the published weights are not at {weights}")
    model = tmp_path / "obelisk.leanseg"
    run("obelisk_dicom.py", "import", weights, model)
    chaos = shared_data / "abdomen_chaos03"
    study = chaos / "chaos_ct_set3_dicom_png.zip"
    written = run("obelisk_dicom.py", "predict", model, study, tmp_path / "masks").splitlines()[-1]
    seg = highdicom.seg.segread(written)
    (liver,) = seg.get_segment_numbers(segment_label="liver")
    volume = seg.get_volume(segment_numbers=[liver], combine_segments=True)
    mask = leanseg.Volume(
        np.asarray(volume.array != 0, np.uint8), np.diag([-1.0, -1, 1, 1]) @ volume.affine
    )
    truth = leanseg.read(chaos / "liver_gt.nii.gz")
    mask = leanseg.resample(mask, truth, interpolation="nearest")
    assert leanseg.evaluate(mask, truth, {"liver": 1})["liver"].dice > 0.9
