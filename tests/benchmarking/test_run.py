"""What becomes of the figures of the child processes; `tests/cli/test_benchmark.py` runs some."""

from __future__ import annotations

import numpy as np
import pytest

from leanseg.benchmarking.run import Measurement, Run, _compare, _why, benchmark
from leanseg.errors import LeansegError, RecipeError
from leanseg.volumes import Volume, write_mask


def test_spread():
    runs = [Run(0.5, 2.0, latency, 1.0, 100.0) for latency in (3.0, 1.0, 2.5)]
    assert Measurement("m", "torch", "f32", runs).spread("latency_s") == (2.5, 1.0, 3.0)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"engines": ["abacus"]}, "'abacus'"),
        ({"precisions": ["f8"]}, "'f8'"),
        ({"repeats": 0}, "repeats is 0"),
        ({"threads": 0}, "threads is 0"),
        ({"threads": 4096}, "this process may use"),
    ],
)
def test_bad_options(options, named):
    with pytest.raises(RecipeError, match=named):
        benchmark("no.leanseg", **options)


def test_a_model_that_is_not_there():
    with pytest.raises(LeansegError, match=r"no\.leanseg"):
        benchmark("no.leanseg")


def ran(folder, engine, precision, n_different):
    array = np.zeros((4, 5, 6), np.uint8)
    array.reshape(-1)[:n_different] = 1
    path = folder / f"{engine}-{precision}.nii.gz"
    write_mask(path, array, Volume(array, np.eye(4)))
    return Measurement("m", engine, precision), path


def test_agreement_is_with_pytorch_in_float32(tmp_path):
    pairs = [ran(tmp_path, *each) for each in (("a", "f32", 6), ("a", "bf16", 3))]
    _compare(pairs)
    assert [each.equal_voxels for each, _ in pairs] == [1, 1 - 3 / 120]
    assert {each.reference for each, _ in pairs} == {"a f32"}
    pairs.append(ran(tmp_path, "torch", "f32", 0))
    _compare(pairs)
    assert [each.equal_voxels for each, _ in pairs] == [1 - 6 / 120, 1 - 3 / 120, 1]
    assert {each.reference for each, _ in pairs} == {"torch f32"}


def test_without_float32_there_is_no_agreement(tmp_path):
    pair = ran(tmp_path, "a", "bf16", 0)
    _compare([pair])
    assert pair[0].equal_voxels is None and not pair[0].reference


@pytest.mark.parametrize(
    ("status", "errors", "told"),
    [
        (-9, "", "memory"),
        (1, "Traceback\n  KeyError: 'lost'\n\n", r"status 1 \(KeyError: 'lost'\)"),
        (3, "\n", "nothing was said"),
    ],
)
def test_why_a_process_ended(status, errors, told):
    import re

    assert re.search(told, _why(status, errors))
    assert len(_why(1, "x" * 5000)) < 400
