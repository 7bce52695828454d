"""The public names: what there is, what it costs to import, and the example of each."""

from __future__ import annotations

import doctest
import importlib.metadata
import inspect
import shutil
import subprocess
import sys
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest
import torch

import leanseg
from leanseg.networks.obelisk_import import LAYOUTS
from obelisk_checkpoint import checkpoint

VERSION = str(Path(leanseg.__file__).parent / "version.py")

NAMES = [name for name in leanseg.__all__ if not name.startswith("__")]
RECIPE = """
name: tiny
data: {labels: {liver: [1]}}
network: {name: combiner, options: {base_filters: 4}}
plan: {frame: {axes: [32, 32, null]}}
phases: [{epochs: 1, steps_per_epoch: 2, batch_size: 2}]
training: {precision: "32"}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the examples find in their working folder."""
    place = tmp_path_factory.mktemp("examples")
    data = leanseg.phantom(place / "phantoms", 4, size=64, slices=20)
    shutil.copy(place / "phantoms/imagesTr/phantom_0000.nii.gz", place / "scan.nii.gz")
    (place / "tiny.yaml").write_text(RECIPE)
    run = leanseg.train(data, place / "tiny.yaml", output=place / "runs/tiny")
    shutil.copy(run.model_files[0], place / "model.leanseg")
    tcia = next(layout for layout in LAYOUTS if layout.network == "obelisk-hybrid-tcia")
    state, _ = checkpoint(tcia, classes=9)
    torch.save(state, place / "obeliskhybrid_tcia_fold1.pth")
    return place


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_a_public_name_runs(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    if name == "compare":
        pytest.importorskip("statsmodels", reason="needs leanseg[statistics]")
    if name == "import_weights":
        # Without the exporter the file is for PyTorch: exporting this network takes long, and is
        # tested where it belongs.
        monkeypatch.setitem(sys.modules, "onnxscript", None)
    text = inspect.getdoc(getattr(leanseg, name))
    assert "Example:" in text
    given = {"leanseg": leanseg, "np": np, "torch": torch}
    example = doctest.DocTestParser().get_doctest(text, given, name, None, 0)
    assert example.examples
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    found = doctest.DocTestRunner(optionflags=flags).run(example)
    assert found.failed == 0, capsys.readouterr().out


def test_every_public_name_is_there() -> None:
    assert len(NAMES) == len(set(NAMES)) == 38
    assert set(NAMES) <= set(dir(leanseg))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = leanseg.nonsense


def test_the_version_is_that_of_the_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", {"leanseg": "1.2.3"}.__getitem__)
    assert run_path(VERSION)["__version__"] == "1.2.3"


def test_source_files_that_are_not_installed_have_no_version(monkeypatch) -> None:
    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    assert run_path(VERSION)["__version__"] == "0+unknown"


def test_the_version_is_public() -> None:
    assert leanseg.__version__ == importlib.metadata.version("leanseg")


def test_the_import_costs_nothing() -> None:
    code = "import leanseg, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"numpy", "torch", "nibabel", "pydantic", "rich", "typer"}


def test_arrays_are_trained_on_and_a_run_of_them_is_resumed(tmp_path: Path) -> None:
    """The arrays are stored in the run, which does not depend on the notebook any more."""
    rng = np.random.default_rng(0)
    cases = []
    for number in range(6):
        label = np.zeros((40, 40, 6), np.uint8)
        label[10 + number : 30, 12:28, 1:5] = 1
        scan = (rng.normal(0, 30, label.shape) + 100 * label).astype(np.float32)
        affine = np.diag([-1.5, -1.5, 3.0, 1.0])
        patient = {"patient": str(number // 2)}
        cases.append(leanseg.Case((scan, affine), (label, affine), metadata=patient))
    data = leanseg.Dataset(cases, labels={"liver": 1}, channels=["CT"], name="arrays")
    (tmp_path / "tiny.yaml").write_text(f"{RECIPE}packaging: {{export: false}}\n")
    run = leanseg.train(data, tmp_path / "tiny.yaml", output=tmp_path / "run")
    parts = sorted(vars(run.splits[0]).values())
    assert parts == [(f"case_{n:03d}", f"case_{n + 1:03d}") for n in (0, 2, 4)]
    again = leanseg.resume(tmp_path / "run")
    assert again.data.fingerprint == run.data.fingerprint
    stored = again.data.case("case_002")
    np.testing.assert_array_equal(stored.image.array, data[2].image.array)
    np.testing.assert_array_equal(stored.label.array, data[2].label.array)
    mask = run.model.predict(data[0].image)
    assert mask.shape == (40, 40, 6)


@pytest.mark.parametrize("outputs", [1, 2, 3])
def test_a_sliding_window_gives_each_outputs_probability(outputs: int) -> None:
    """A module that looks at its own voxel alone has the same answer whatever the patches."""
    rng = np.random.default_rng(0)
    scan = leanseg.Volume(rng.normal(size=(20, 17, 9)).astype(np.float32), np.eye(4))
    module = torch.nn.Conv3d(1, outputs, 1)
    frame = leanseg.Frame(orientation="RAS", axes=(None, None, None))
    found = leanseg.sliding_window(module, scan, frame, leanseg.Patch(8, 8, 4)).array
    with torch.inference_mode():
        logits = module(torch.from_numpy(scan.array)[None, None])[0]
    expected = logits.sigmoid() if outputs == 1 else logits.softmax(dim=0)
    np.testing.assert_allclose(found, expected.permute(1, 2, 3, 0), atol=1e-5)
