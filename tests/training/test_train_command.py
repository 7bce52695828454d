"""`leanseg train` as its user meets it: mistakes, interrupts, exit statuses."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import forked
from leanseg.cli.main import run


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one sentence on stderr of a command that exits with 2."""
    with pytest.raises(SystemExit) as caught:
        run(["train", *arguments])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("leanseg: ")
    assert len(error.splitlines()) == 1
    return error


def test_mistakes_exit_with_2(
    capsys: pytest.CaptureFixture[str], tiny_dataset: Path, tmp_path: Path
) -> None:
    output = str(tmp_path / "run")
    data = ["--data", str(tiny_dataset), "--output", output]
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("name: mine\nphases:\n- epohcs: 3\n")
    message = refused(capsys, str(recipe), *data)
    assert "mine.yaml: key 'phases.0.epohcs' is not known (did you mean 'epochs'?)" in message
    assert "give --data FOLDER (or --resume RUN)" in refused(capsys, "monet-ct")
    assert "give --data FOLDER (or --resume RUN)" in refused(capsys)
    assert "is neither a recipe file" in refused(capsys, "monnet", *data)
    assert "--resume takes only the run" in refused(capsys, "monet-ct", "--resume", output)
    assert "budget are in the run" in refused(capsys, "--resume", output, "--minutes", "9")
    assert "give it with --resume RUN" in refused(capsys, "monet-ct", *data, "--finish")
    best = ("--quality", "best")
    assert "leave out the recipe (monet-ct)" in refused(capsys, "monet-ct", *data, *best)
    assert "'phases.0.minutes'" in refused(capsys, "monet-ct", *data, "--minutes", "0")
    assert "is not a run" in refused(capsys, "--resume", str(tmp_path))
    empty = tmp_path / "empty"
    empty.mkdir()
    assert str(empty) in refused(capsys, "monet-ct", "--data", str(empty), "--output", output)
    assert not Path(output).exists()


@pytest.mark.usefixtures("undrawn")
def test_folds_by_size_are_told(make_tiny_dataset, tiny_recipe, tmp_path, capsys) -> None:
    """How many slices each fold tests on: when the split is made, and in the report."""
    from leanseg.reports.run_report import report

    data = make_tiny_dataset(tmp_path / "data", n_cases=2, slices=7)
    for number, slices in enumerate((12, 9)):
        more = make_tiny_dataset(tmp_path / str(number), n_cases=2, slices=slices)
        for kind in ("imagesTr", "labelsTr"):
            for path in (more / kind).iterdir():
                path.rename(data / kind / f"{slices}_{path.name}")
    listing = json.loads((data / "dataset.json").read_text())
    listing["training"] = [
        {"image": f"./imagesTr/{path.name}", "label": f"./labelsTr/{path.name}"}
        for path in sorted((data / "imagesTr").iterdir())
    ]
    (data / "dataset.json").write_text(json.dumps(listing))
    output = tmp_path / "run"
    options = ("split={kind: contiguous, n_folds: 3}", "training.folds=[2]", "phases.0.epochs=1")
    given = [each for option in options for each in ("--set", option)]
    with pytest.raises(SystemExit) as ended:
        run(["train", str(tiny_recipe), "--data", str(data), "--output", str(output), *given])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    told = [line for line in lines if " tests on " in line]
    assert told == [
        "fold 0 tests on 2 case(s) of 7 slices",
        "fold 1 tests on 2 case(s) of 9 slices",
        "fold 2 tests on 2 case(s) of 12 slices",
    ]
    assert "Fold 2, test: 2 cases of 12 slices" in report(output).read_text()


def test_bad_cases_exit_with_2(
    capsys: pytest.CaptureFixture[str], tiny_dataset: Path, tmp_path: Path
) -> None:
    """Damage in the data itself: found while the cases are prepared, named by its file."""
    settings = ("plan.frame.axes=[24, 24, null]", "training.precision='32'")
    quick = ["--threads", "1", *(part for text in settings for part in ("--set", text))]

    def broken(name: str) -> tuple[Path, list[str]]:
        data = tmp_path / name
        shutil.copytree(tiny_dataset, data)
        return data, [*quick, "--data", str(data), "--output", str(tmp_path / f"run-{name}")]

    data, options = broken("shapes")
    label = data / "labelsTr" / "ball_02.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((24, 24, 8), np.uint8), np.diag([1.5, -1.5, 3, 1])), label)
    message = refused(capsys, "monet-ct", *options)
    assert "ball_02" in message
    assert "24 x 24 x 8" in message

    data, options = broken("nan")
    image = data / "imagesTr" / "ball_03.nii.gz"
    loaded = nib.load(image)
    voxels = loaded.get_fdata(dtype=np.float32)
    voxels[3, 4, 5] = np.nan
    nib.save(nib.Nifti1Image(voxels, loaded.affine), image)
    message = refused(capsys, "monet-ct", *options)
    assert "ball_03.nii.gz" in message
    assert "1 NaN voxel" in message

    data, options = broken("missing")
    description = json.loads((data / "dataset.json").read_text())
    description["training"].append({"image": "./imagesTr/no.nii.gz", "label": "./labelsTr/no.nii"})
    (data / "dataset.json").write_text(json.dumps(description))
    assert "no.nii.gz" in refused(capsys, "monet-ct", *options)

    data, options = broken("cut")
    image = data / "imagesTr" / "ball_01.nii.gz"
    image.write_bytes(image.read_bytes()[:2000])
    assert "ball_01.nii.gz" in refused(capsys, "monet-ct", *options)


def test_an_interrupt_says_how_to_go_on_and_the_run_goes_on(
    tiny_dataset: Path, tmp_path: Path, capsys
) -> None:
    folder = tmp_path / "run"
    settings = [
        "plan.frame.axes=[24, 24, null]",
        "training.precision='32'",
        "phases.0.steps_per_epoch=4",
        "training.checkpoint_interval_s=0",
        "phases.0.epochs=900",
        "phases.0.patience=900",
        "network.options.base_filters=4",
        "packaging.export=false",
    ]
    options = [part for text in settings for part in ("--set", text)]
    command = ["train", "monet-ct", "--data", str(tiny_dataset), "--output", str(folder)]
    said = tmp_path / "said"
    process = forked.start(lambda: run([*command, *options, "--threads", "1"]), said)
    metrics = folder / "fold_0" / "metrics.jsonl"
    forked.wait_for(metrics, process)
    os.kill(process, signal.SIGINT)
    assert forked.ended(process) == 130, said.read_text()
    told = said.read_text()
    assert f"continue with: leanseg train --resume {folder}\n" in told
    assert f"or make a model of it: leanseg train --resume {folder} --finish\n" in told
    assert "Traceback" not in told
    assert not list(folder.rglob(".writing-*"))
    # Two more epochs are enough to see it go on.
    recipe = folder / "recipe.yaml"
    done = len(metrics.read_text().splitlines())
    recipe.write_text(recipe.read_text().replace("epochs: 900", f"epochs: {done + 1}"))
    with pytest.raises(SystemExit) as ended:
        run(["train", "--resume", str(folder)])
    assert not ended.value.code
    assert "resuming at epoch" in capsys.readouterr().out
    assert (folder / "fold_0" / "model.leanseg").is_file()
