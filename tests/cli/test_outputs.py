"""No command writes over what it reads, or starts before it knows that it can write."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import forked
import leanseg as package
from leanseg.cli.main import run
from leanseg.errors import LeansegError
from leanseg.files import require_outputs
from leanseg.networks.obelisk_import import LAYOUTS
from obelisk_checkpoint import checkpoint

TRAIN = (
    *("--set", "plan.frame.axes=[64, 64, null]", "--set", "training.precision='32'"),
    *("--set", "phases.0.epochs=1", "--set", "phases.0.steps_per_epoch=1", "--threads", "1"),
    *("--set", "packaging.export=false", "--set", "network.options.base_filters=4"),
)


@pytest.fixture(scope="module")
def original(tmp_path_factory, model: Path) -> Path:
    """What every command could read, in one folder."""
    folder = tmp_path_factory.mktemp("original")
    package.phantom(folder / "data", 3, size=64, slices=20)
    shutil.make_archive(str(folder / "data"), "zip", folder / "data")
    shutil.copy(model, folder / "m.leanseg")
    shutil.copy(model, folder / "n.leanseg")
    layout = next(each for each in LAYOUTS if each.network == "obelisk-hybrid-tcia")
    torch.save(checkpoint(layout, classes=9)[0], folder / "o.pth")
    shutil.copy(folder / "data/imagesTr/phantom_0000.nii.gz", folder / "ct.nii.gz")
    package.write(folder / "ct.mhd", package.read(folder / "ct.nii.gz"))
    return folder


@pytest.fixture
def there(original: Path, tmp_path: Path, monkeypatch) -> Path:
    folder = tmp_path / "there"
    shutil.copytree(original, folder)
    monkeypatch.chdir(folder)
    return folder


def state(folder: Path) -> dict[str, str]:
    """Every file and what it holds, hidden ones too."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


SCAN = "data/imagesTr/phantom_0000.nii.gz"
OVER_INPUTS = {
    "a folder's own scans": "predict m.leanseg data/imagesTr -o data/imagesTr --overwrite",
    "one scan": f"predict m.leanseg {SCAN} -o data/imagesTr --overwrite",
    "by a detour": f"predict m.leanseg {SCAN} -o data/../data/imagesTr --overwrite",
    "through a linked folder": "predict m.leanseg data/imagesTr -o linked --overwrite",
    "a linked scan": "predict m.leanseg symbolic/ct.nii.gz -o . --overwrite",
    "over a link to it": f"predict m.leanseg {SCAN} -o over --overwrite",
    "a hard link": f"predict m.leanseg {SCAN} -o hard --overwrite",
    "probabilities": "predict m.leanseg ct.nii.gz ct.probabilities.nii.gz -o . --overwrite "
    "--save-probabilities",
    "scores": "evaluate ct.nii.gz ct.nii.gz -o scores",
    "benchmark: model": "benchmark m.leanseg --json m.leanseg",
    "benchmark: scan": "benchmark m.leanseg --scan ct.nii.gz --json ct.nii.gz",
    "benchmark: voxels": "benchmark m.leanseg --scan ct.mhd --json ct.raw",
    "ensemble": "ensemble m.leanseg n.leanseg -o n.leanseg",
    "export": "export m.leanseg -o n.leanseg --onnx m.leanseg",
    "export: twice": "export m.leanseg -o x.leanseg --onnx x.leanseg",
    "import-weights": "import-weights obelisk o.pth -o o.pth",
    "activations": "activations m.leanseg linked-scan/activations.json -o linked-scan",
    "check: listing": "check data --json data/dataset.json",
    "check: scan": f"check data --html {SCAN}",
    "check: label": "check data --json data/labelsTr/phantom_0001.nii.gz",
    "check: zip": "check data.zip --json data.zip",
    "check: twice": "check data --json x --html x",
    "convert": "convert data --to plain -o data",
    "convert: zip": "convert data.zip --to plain -o data.zip",
    "phantom": "phantom data --cases 3",
    "train": "train monet-ct --data data -o data",
}


@pytest.mark.parametrize("words", OVER_INPUTS.values(), ids=OVER_INPUTS)
def test_nothing_that_is_read_is_written(leanseg, there: Path, words: str) -> None:
    Path("linked").symlink_to("data/imagesTr")
    for folder in ("symbolic", "over", "hard", "scores", "linked-scan"):
        Path(folder).mkdir()
    Path("symbolic/ct.nii.gz").symlink_to("../ct.nii.gz")
    Path("over/phantom_0000.nii.gz").symlink_to(f"../{SCAN}")
    os.link(SCAN, "hard/phantom_0000.nii.gz")
    shutil.copy("ct.nii.gz", "ct.probabilities.nii.gz")
    os.link("ct.nii.gz", "scores/scores.json")
    os.link("ct.nii.gz", "linked-scan/activations.json")
    before = state(there)
    outcome = leanseg(*words.split())
    outcome.assert_refused()
    assert state(there) == before


def test_a_report_over_its_run(leanseg, there: Path, monkeypatch) -> None:
    assert leanseg("train", "monet-ct", "--data", "data", "-o", "run", *TRAIN).status == 0
    before = state(there)
    for output in ("run/recipe.yaml", "run/fold_0/model.leanseg", SCAN, "run"):
        leanseg("report", "run", "-o", output).assert_refused()
        assert state(there) == before
    # A report of its own may be replaced, as often as somebody wants.
    monkeypatch.setattr("leanseg.reports.run_report.report_page", lambda run: "drawn elsewhere")
    for _ in range(2):
        assert leanseg("report", "run").status == 0


def test_what_may_be_replaced(leanseg, there: Path) -> None:
    for words in (
        "predict m.leanseg ct.nii.gz -o out",
        "predict m.leanseg ct.nii.gz -o out --overwrite",
        "evaluate out/ct.nii.gz out/ct.nii.gz --labels liver=1 -o out",
        "evaluate out/ct.nii.gz out/ct.nii.gz --labels liver=1 -o out",
        "check data --json data/check.json",
        "check data --json data/check.json",
    ):
        assert leanseg(*words.split()).status == 0


WRITING = (
    "predict m.leanseg ct.nii.gz -o {}",
    "evaluate ct.nii.gz ct.nii.gz -o {}",
    "robustness m.leanseg data -o {}",
    "benchmark m.leanseg --json {}",
    "check data --json {}",
    "check data --html {}",
    "check data --fix {}",
    "convert data --to plain -o {}",
    "phantom {} --cases 2",
    "ensemble m.leanseg n.leanseg -o {}",
    "export m.leanseg -o {}",
    "export m.leanseg --onnx {}",
    "import-weights obelisk o.pth -o {}",
    "activations m.leanseg ct.nii.gz -o {}",
    "train monet-ct --data data -o {}",
    "train monet-ct --data data -o fresh --cache {}",
    "report run -o {}",
    "show monet-ct data -o {}.png",
)
PLACES = ("ct.nii.gz/below", "/proc/nobody", "x" * 300, f"{'y' * 300}/deep/down", "dangling/x")


@pytest.mark.parametrize("place", PLACES, ids=("file", "proc", "long", "long-folder", "dangling"))
@pytest.mark.parametrize("words", WRITING)
def test_places_that_cannot_be_written(leanseg, there, monkeypatch, words: str, place: str) -> None:
    """Said in a sentence, before any work: what works hard is not even there."""
    Path("dangling").symlink_to("nowhere")
    if words.startswith("report"):
        monkeypatch.setattr("leanseg.reports.run_report.read_run_folder", lambda path: _Nothing())
    for work in (
        "leanseg.evaluation.evaluate_cases",
        "leanseg.benchmarking.run.benchmark",
        "leanseg.datasets.check.check",
        "leanseg.inference.model.Model.predict_timed",
        "leanseg.training.run._check_data",
        "leanseg.training.export.export_model",
        "leanseg.training.obelisk.read_obelisk_checkpoint",
        "leanseg.reports.activations.study_activations",
        "leanseg.reports.run_report.report_page",
        "leanseg.reports.samples.draw_samples",
    ):
        monkeypatch.setattr(work, _must_not)
    before = state(there)
    leanseg(*words.format(place).split()).assert_refused(place[:20])
    assert state(there) == before


class _Nothing:
    folder = Path("run")

    def files(self) -> list[Path]:
        return []


def _must_not(*arguments: object, **options: object) -> None:
    raise AssertionError("the place was not looked at first")


def test_letters_that_a_file_system_takes_for_alike(tmp_path: Path, monkeypatch) -> None:
    names = [tmp_path / name for name in ("Scan.nii.gz", "sCAN.nii.gz")]
    require_outputs(names)
    monkeypatch.setattr("leanseg.files._try_to_write", lambda place, paths: True)
    for other in ("sCAN.nii.gz", "Sca\u006e.nii.gz"):
        with pytest.raises(LeansegError, match="the same file"):
            require_outputs([names[0], tmp_path / "sub" / ".." / other])
    with pytest.raises(LeansegError, match="the same file"):
        require_outputs([tmp_path / "caf\u00e9", tmp_path / "cafe\u0301"])


def test_two_processes_on_one_run(leanseg, there: Path) -> None:
    long = ("--set", "phases.0.epochs=100", "--set", "phases.0.patience=100")
    start = ("train", "monet-ct", "--data", "data", "-o", "run")
    first = forked.start(lambda: run([*start, *TRAIN, *long]))
    try:
        forked.wait_for(Path("run/fold_0/metrics.jsonl"), first)
        for second in (("train", "--resume", "run"), start):
            refused = leanseg(*second)
            assert refused.status == 2
            assert refused.err.startswith("leanseg: run: ")
            assert refused.err.count("\n") == 1
    finally:
        os.kill(first, signal.SIGKILL)
        forked.ended(first)
    # A killed one holds nothing.
    recipe = there / "run/recipe.yaml"
    recipe.write_text(recipe.read_text().replace("epochs: 100", "epochs: 1"))
    again = leanseg("train", "--resume", "run")
    assert again.status == 0, again.err
    assert not list(there.rglob("*.lock"))


def test_processes_that_predict_into_one_folder(there: Path, exported: Path) -> None:
    """None loses the records of another."""
    for number in range(2):
        for name in "abcdef":
            Path(f"in{number}").mkdir(exist_ok=True)
            shutil.copy("ct.nii.gz", f"in{number}/{name}{number}.nii.gz")
    predict = [sys.executable, "-m", "leanseg.cli.main", "predict", exported]
    running = [
        subprocess.Popen([*predict, f"in{n}", "-o", "out"], stdout=subprocess.DEVNULL)
        for n in range(2)
    ]
    assert [each.wait(120) for each in running] == [0] * 2
    recorded = json.loads(Path("out/predictions.json").read_text())["cases"]
    assert len(recorded) == len(list(Path("out").glob("*.nii.gz"))) == 12
