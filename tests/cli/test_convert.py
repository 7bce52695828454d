"""`leanseg convert` as users call it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import yaml

import layout_samples as samples
from leanseg.datasets import open_dataset


def test_summary(leanseg, tmp_path: Path) -> None:
    samples.visceral(tmp_path / "in")
    outcome = leanseg("convert", tmp_path / "in", "--to", "nnunet", "-o", tmp_path / "out")
    assert outcome.status == 0
    facts = yaml.safe_load(outcome.out)
    assert (facts["converted_from"], facts["layout"]) == ("visceral", "nnunet")
    assert (facts["n_cases"], facts["n_copied"], facts["n_written"]) == (2, 2, 2)
    assert facts["renumbered"] == {"liver": 1, "spleen": 2}
    assert not {"renamed", "losses"} & set(facts)
    assert "Dataset042_Liver" in outcome.err
    assert open_dataset(tmp_path / "out").layout == "nnunet"


def test_loss_is_an_error_or_a_line(leanseg, tmp_path: Path) -> None:
    samples.visceral(tmp_path / "in")
    next((tmp_path / "in/Segmentations").glob("*_86_*")).unlink()
    arguments = ["convert", tmp_path / "in", "--to", "decathlon", "-o", tmp_path / "out"]
    outcome = leanseg(*arguments)
    assert outcome.status == 2
    assert "convert to 'plain'" in outcome.err.splitlines()[-1]
    assert not (tmp_path / "out").exists()
    outcome = leanseg(*arguments, "--allow-loss")
    assert outcome.status == 0
    assert len(yaml.safe_load(outcome.out)["losses"]) == 1


def test_a_killed_conversion_leaves_nothing(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).integers(-1000, 1000, (128, 128, 64)).astype(np.int16)
    for n in range(40):
        path = tmp_path / f"in/images/{n}.nii"
        if n == 0:
            samples.save(path, volume)
        else:
            os.link(tmp_path / "in/images/0.nii", path)
    arguments = ["convert", str(tmp_path / "in"), "--to", "plain", "-o", str(tmp_path / "out")]
    process = subprocess.Popen([sys.executable, "-m", "leanseg.cli.main", *arguments])
    for _ in range(600):
        if list(tmp_path.glob(".writing-*/**/*.nii.gz")):
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
