"""A benchmark's record, printed and as CSV."""

from __future__ import annotations

import csv
from io import StringIO

import pytest
from rich.console import Console

from leanseg.benchmarking.tables import as_csv, report, share


def printed(record: dict, width: int) -> list[str]:
    console = Console(width=width, file=StringIO(), highlight=False)
    for part in report(record):
        console.print(part)
    return console.file.getvalue().splitlines()


def line_of(lines: list[str], *words: str) -> list[str]:
    (found,) = [line for line in lines if all(word in line for word in words)]
    return found.split()


def test_the_tables(record):
    lines = printed(record, 500)
    row = line_of(lines, "openvino", "f32", "100 %")
    # Median, range, a slice of 150, process, start, peak, labels.
    assert row[2:] == ["2.00", "(1.00-9.00)", "13.3", "3.00", "0.50", "300", "100", "%"]
    assert "auto: openvino auto: bf16" in "\n".join(lines)
    assert line_of(lines, "m (monet)")[2:] == [
        "256x256",
        *("401,666", "403,556", "1.64", "4.76", "G"),
    ]
    row = line_of(lines, "3d_fullres", "openvino f32")
    assert row[-2:] == ["~200", "10.0"] and "~600" in row
    text = "\n".join(lines)
    assert "Abacus 9" in text and "a phantom, 512 x 512 x 150 voxels" in text
    assert "extrapolated from 3 of 112 tiles" in text and "8 passes each of 537 G" in text
    assert "random weights" in text


def test_each_reason_is_told_once(record):
    lines = printed(record, 500)
    assert [line for line in lines if line.startswith(("torch", "tpu"))] == [
        "torch f16: not available (no f16 in torch)",
        "torch int8: not available (no int8 in torch)",
        "tpu: not installed (pip install tpu)",
    ]
    assert "nnunet, 2d, mirroring: failed (it was killed)" in lines


def test_on_80_columns_no_row_is_cut(record):
    lines = printed(record, 80)
    assert max(map(len, lines)) <= 80
    assert line_of(lines, "openvino", "f32", "100 %")[-2:] == ["100", "%"]
    assert "…" not in "\n".join(lines)


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "100 %"), (0.99999999, "99.9999 %"), (0.5, "50.0000 %"), (None, "-")],
)
def test_only_equality_is_100(value, text):
    assert share(value) == text


def test_csv(record):
    rows = list(csv.DictReader(StringIO(as_csv(record))))
    assert len(rows) == len(record["results"]) + len(record["against"])
    first = rows[0]
    assert first["model"] == "m" and first["tool"] == "leanseg openvino"
    assert float(first["latency_s_median"]) == 2.0 and float(first["latency_s_max"]) == 9.0
    assert float(first["peak_memory_mb_median"]) == 300.0
    assert int(first["multiply_adds"]) == 4_758_437_888
    assert rows[2]["status"] == "not available" and rows[2]["latency_s_median"] == ""
    assert rows[-3]["tool"] == "nnunet" and float(rows[-3]["network_s_median"]) == 500.0
