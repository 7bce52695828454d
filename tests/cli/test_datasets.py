"""`leanseg datasets`: a table, one dataset; nothing heavy imported, nothing downloaded."""

from __future__ import annotations

import subprocess
import sys

import pytest

from leanseg.cli.main import run
from leanseg.datasets.catalogue import public_datasets


def output(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        run(["datasets", *arguments])
    assert caught.value.code == 0
    return capsys.readouterr().out


def test_table_has_every_dataset_on_one_line(capsys):
    lines = output(capsys).splitlines()
    assert len(lines) == len(public_datasets()) + 1
    for line, dataset in zip(lines[1:], public_datasets(), strict=True):
        for shown in (dataset.name, dataset.licence, dataset.layout, dataset.home, dataset.cases):
            assert shown in line


def test_one_dataset(capsys):
    text = output(capsys, "nih-pancreas")
    assert "TCIA_pancreas_labels-02-05-2017/label0001.nii.gz" in text
    assert "CC BY 3.0" in text
    assert "25 and 70" in text


def test_unknown_name(capsys):
    with pytest.raises(SystemExit) as caught:
        run(["datasets", "nothing"])
    assert caught.value.code == 2
    assert "no public dataset is called 'nothing'" in capsys.readouterr().err


def test_nothing_heavy_is_imported():
    code = (
        "import sys\n"
        "from leanseg.cli.main import run\n"
        "try:\n    run(['datasets', 'chaos'])\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('torch', 'pydicom', 'SimpleITK') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
