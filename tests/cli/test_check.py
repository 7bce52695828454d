"""`leanseg check` from the user's side: what it prints, what it writes, how it exits."""

from __future__ import annotations

import importlib.util
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

_SPEC = importlib.util.spec_from_file_location(
    "audit_writer", Path(__file__).resolve().parents[1] / "datasets/check/conftest.py"
)
audit_writer = importlib.util.module_from_spec(_SPEC)
sys.modules["audit_writer"] = audit_writer
_SPEC.loader.exec_module(audit_writer)


@pytest.fixture
def toy(tmp_path):
    return audit_writer.Writer(tmp_path / "toy")


def test_a_healthy_dataset_exits_0(leanseg, toy):
    toy.write()
    done = leanseg("check", toy.folder)
    assert done.status == 0
    assert done.out.splitlines()[-1] == "Toy: 6 cases, nothing wrong."
    rows = [line.split() for line in done.out.splitlines()]
    assert ["liver", "1", "6", "6"] in [row[:4] for row in rows]


def test_warnings_exit_0(leanseg, toy):
    toy["c"].image = np.clip(toy["c"].image + 1000, 0, 255).astype(np.int16)
    toy.write()
    done = leanseg("check", toy.folder)
    assert done.status == 0
    assert done.out.splitlines()[-1].endswith("1 warning; training may start.")
    assert "  c: CT of c runs from 0 to 255: scaled to 0..255" in done.out


def test_errors_exit_1_and_come_first(leanseg, toy):
    toy["b"].label = None
    toy["c"].image = np.clip(toy["c"].image + 1000, 0, 255).astype(np.int16)
    toy["d"].label_affine[0, 3] += 4
    toy.write()
    done = leanseg("check", toy.folder)
    assert done.status == 1
    places = [done.out.index(f"{severity}: ") for severity in ("error", "warning", "note")]
    assert places == sorted(places)
    # One line each, paths told from the dataset on.
    assert "  d: labelsTr/d.nii.gz: the same voxel lies up to 4 mm from the scan's, " in done.out
    assert "training may not start" in done.out.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["{tmp}/absent"], "this folder does not exist"),
        (["{toy}", "--layout", "none"], "unknown dataset layout 'none'"),
        (["{toy}", "--json", "{toy}"], "is a folder; give the name of a file"),
        (["{toy}", "--html", "{tmp}/no/check.html"], "cannot be written"),
        (["{toy}", "--fix", "{toy}/fixed"], "lies in the dataset itself"),
        (["{toy}", "--fix", "{tmp}"], "already holds something"),
        (["{toy}", "--splits", "{tmp}/none.json"], "none.json: cannot be read"),
        (["{toy}", "--workers", "-2"], "workers is -2"),
    ],
)
def test_what_cannot_be_checked_exits_2_with_one_sentence(
    leanseg, toy, tmp_path, arguments, sentence
):
    toy.write()
    done = leanseg("check", *(a.format(toy=toy.folder, tmp=tmp_path) for a in arguments))
    assert done.status == 2
    assert sentence in done.err
    assert "Traceback" not in done.err
    assert done.err.splitlines()[-1].startswith("leanseg: ")
    assert done.out == ""


def test_splits_are_checked(leanseg, toy, tmp_path):
    toy["f"].image = toy["c"].image.copy()
    toy.write()
    splits = tmp_path / "splits.json"
    listed = {"train": list("abc"), "monitor": ["d"], "test": list("ef")}
    splits.write_text(json.dumps([listed]))
    assert leanseg("check", toy.folder).status == 0
    done = leanseg("check", toy.folder, "--splits", splits)
    assert done.status == 1
    assert "split 0 trains on c and tests on f, which are the same scan" in done.out


def test_files_are_written(leanseg, toy, tmp_path):
    toy["d"].label_affine[0, 3] += 4
    toy.write()
    page, content = tmp_path / "check.html", tmp_path / "check.json"
    done = leanseg("check", toy.folder, "--json", content, "--html", page, "--workers", 2)
    assert done.status == 1
    assert f"wrote {page}" in done.out
    assert json.loads(content.read_text())["may_train"] is False
    assert page.read_text().count("<figure") == 6


def test_fix_exits_by_what_is_left(leanseg, toy, tmp_path):
    toy["d"].label_affine[0, 3] += 4
    toy.write()
    done = leanseg("check", toy.folder, "--fix", tmp_path / "copy")
    assert done.status == 0
    assert f"fixed copy: {tmp_path / 'copy'}" in done.out
    assert re.search(r"labels kept by resampling:\n  d: '?\d+\.\d%", done.out)
    assert leanseg("check", tmp_path / "copy").status == 0
    toy["e"].label[0, 0, 0] = 99
    toy.write()
    done = leanseg("check", toy.folder, "--fix", tmp_path / "again")
    assert done.status == 1
    assert re.search(r"not fixed:\n- .?e: labelsTr/e.nii.gz: holds 99", done.out)


def test_many_findings_of_a_kind_are_cut_short(leanseg, toy):
    for n in range(20):
        patient = audit_writer.make_patient(100 + n)
        patient.label_affine[0, 3] += 4
        toy.patients[f"z{n:02d}"] = patient
    toy["a"].label = toy["b"].label = None
    toy.write()
    out = leanseg("check", toy.folder).out
    assert out.count("the same voxel lies") == 8
    assert "and 12 more;" in out
    assert "note: case without labels (2)" in out
    assert "  a, b\n" in out


def on_terminal(columns: int, *arguments: object) -> str:
    """What the command prints on a terminal of so many columns, without its colours."""
    main, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "leanseg.cli.main", *map(str, arguments)],
        stdout=terminal,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "COLUMNS": str(columns), "TERM": "xterm"},
    )
    os.close(terminal)
    shown = b""
    while True:
        try:
            chunk = os.read(main, 65536)
        except OSError:  # how Linux says that the other end is closed
            break
        if not chunk:
            break
        shown += chunk
    process.wait()
    os.close(main)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode()).replace("\r\n", "\n")


@pytest.mark.parametrize("columns", [60, 140])
def test_what_is_printed_fits_the_terminal(toy, columns):
    toy["d"].label_affine[0, 3] += 4
    toy["e"].label[0, 0, 0] = 99
    toy.patients["a_very_long_name_[red]of_a_case_that_goes_on_and_on"] = audit_writer.make_patient(
        9
    )
    toy["a_very_long_name_[red]of_a_case_that_goes_on_and_on"].label_affine[2, 3] += 9
    toy.write()
    shown = on_terminal(columns, "check", toy.folder)
    lines = shown[: shown.index("training may not start")].splitlines()[:-1]
    assert max(len(line.rstrip()) for line in lines) <= columns
    words = " ".join(shown.split())
    assert "label value annotated held median ml" in words
    assert "error: labels outside the declared set" in words
    assert "[red]" in words
