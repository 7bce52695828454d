"""A benchmark as text."""

from __future__ import annotations

import pytest

from leanseg.benchmarking.facts import ModelFacts
from leanseg.benchmarking.run import Benchmark, Measurement, Run
from leanseg.cli.benchmark_tables import print_benchmark, share
from leanseg.machine import Machine

MODEL = ModelFacts(
    "m", "m.leanseg", "monet", 1, 1, 401_666, 403_556, 1_638_916, (256, 256), 4_758_437_888
)
MACHINE = Machine("Abacus 9", 2, ("avx512_bf16",), 24_000_000_000, "Linux", {"python": "3"}, 0.25)


@pytest.fixture
def printed(capsys):
    """What is printed of measurements, line by line."""

    def lines(*measurements: Measurement) -> list[str]:
        done = Benchmark(MACHINE, "folder/ct.nii.gz", (512, 512, 150), 2, (MODEL,), measurements)
        print_benchmark(done)
        return [line.rstrip() for line in capsys.readouterr().out.splitlines()]

    return lines


def test_rows(printed):
    runs = [Run(0.5, process, process - 1, 1.0, 300.0) for process in (3.0, 2.0, 10.0)]
    lines = printed(Measurement("m.leanseg", "openvino", "f32", runs, "", 0.99999999, "torch f32"))
    assert lines[0].startswith("ct.nii.gz, 512 x 512 x 150 voxels; 2 threads")
    assert "Abacus 9, 2 cores (avx512_bf16), 24 GB of memory" in lines[1]
    model = next(line for line in lines if line.startswith("m (monet)"))
    assert model.split()[2:] == ["256x256", "401,666", "403,556", "1.64", "4.76", "G"]
    row = next(line for line in lines if line.startswith("openvino"))
    expected = ["f32", "2.00", "(1.00-9.00)", "13.3", "3.00", "0.50", "300", "99.9999", "%"]
    assert row.split()[1:] == expected
    assert lines[-1].endswith("share of voxels as in torch f32.")


def test_what_could_not_run_is_told_once(printed):
    run = Run(0.5, 3.0, 2.0, 1.0, 300.0)
    lines = printed(
        Measurement("m.leanseg", "torch", "f32", [run]),
        Measurement("m.leanseg", "tpu", "f32", message="install tpu"),
        Measurement("m.leanseg", "tpu", "int8", message="install tpu"),
    )
    assert "tpu f32, int8: not measured (install tpu)" in lines


@pytest.mark.parametrize(
    ("value", "text"), [(1.0, "100 %"), (1 - 1e-9, "99.9999 %"), (0.5, "50.0000 %"), (None, "-")]
)
def test_all_voxels_are_all_voxels(value, text):
    assert share(value) == text
