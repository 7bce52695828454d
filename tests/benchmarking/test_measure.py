"""Turns, medians, agreement: what becomes of children's reports."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from leanseg.benchmarking import measure as module
from leanseg.benchmarking.measure import Outcome, Settings, candidates, equal_share, measure, spread
from leanseg.benchmarking.processes import ChildError, ChildRun
from leanseg.errors import LeansegError, RecipeError
from leanseg.inference.engines.base import ENGINES, PRECISIONS
from leanseg.volumes import Volume, write_mask

A, B = Path("a.leanseg"), Path("b.leanseg")


def test_spread():
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0}
    assert spread([4.0, 1.0])["median"] == 2.5


def test_candidates_are_everything_or_what_is_asked_for():
    every = candidates([A])
    assert len(every) == len(ENGINES) * (len(PRECISIONS) - 1)
    assert all("auto" not in (each.engine, each.precision) for each in every)
    some = candidates([A, B], ["torch", "torch"], ["f32", "auto"])
    assert [(each.model, each.engine, each.precision) for each in some] == [
        *((A, "torch", kind) for kind in ("f32", "auto")),
        *((B, "torch", kind) for kind in ("f32", "auto")),
    ]


@pytest.mark.parametrize(
    ("engines", "precisions", "named"),
    [(["onnx"], [], "'onnx'.*openvino"), ([], ["f64"], "'f64'.*bf16")],
)
def test_unknown_names_are_refused(engines, precisions, named):
    with pytest.raises(RecipeError, match=named):
        candidates([A], engines, precisions)


def test_repeats_must_be_positive():
    with pytest.raises(RecipeError, match="repeats is 0"):
        Settings(repeats=0)


def mask(path: Path, n_different: int = 0) -> Path:
    array = np.zeros((4, 5, 6), np.uint8)
    array.reshape(-1)[:n_different] = 1
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mask(path, array, Volume(array, np.eye(4)))
    return path


def test_equal_share(tmp_path):
    first, second = mask(tmp_path / "a.nii.gz"), mask(tmp_path / "b.nii.gz", 3)
    assert equal_share(first, first) == 1
    assert equal_share(first, second) == 1 - 3 / 120


def test_label_maps_of_different_shapes_cannot_be_compared(tmp_path):
    other = tmp_path / "c.nii.gz"
    write_mask(other, np.zeros((2, 2, 2), np.uint8), Volume(np.zeros((2, 2, 2)), np.eye(4)))
    with pytest.raises(LeansegError, match="shape"):
        equal_share(mask(tmp_path / "a.nii.gz"), other)


class Children:
    """Stands for child processes: torch differs from itself in bf16, the TPU is missing."""

    def __init__(self) -> None:
        self.jobs: list[tuple[str, str, str]] = []
        self.crash_at = -1

    def __call__(self, child: str, job: dict, *, threads: int) -> ChildRun:
        self.jobs.append((job["model"], job["engine"], job["precision"]))
        if len(self.jobs) - 1 == self.crash_at:
            msg = "its process ended with status 3 (boom)"
            raise ChildError(msg)
        if job["precision"] == "f16":
            return ChildRun(refusal=("RecipeError", "no f16 here"))
        if job["engine"] == "onnxruntime":
            return ChildRun(refusal=("MissingDependencyError", "pip install it"))
        n = len(self.jobs)
        file = mask(Path(job["output"]) / "s.nii.gz", 6 if job["precision"] == "bf16" else 0)
        events = {
            "loaded": {"engine": job["engine"], "precision": job["precision"]},
            "written": {"file": str(file), "peak_memory_mb": 100.0 + n, "stages": {"read": 0.1}},
        }
        at = {"loaded": 0.5, "first slices": 0.7, "written": 2.0}
        if job["warm"]:
            events["warm"] = {"seconds": float(n), "cpu_seconds": 2.0 * n, "stages": {}}
            at["warm"] = 5.0
        return ChildRun(events, at, 5.25)


@pytest.fixture
def children(monkeypatch) -> Children:
    stand_in = Children()
    monkeypatch.setattr(module, "run_child", stand_in)
    return stand_in


def test_candidates_take_turns_and_those_that_cannot_run_leave(children, tmp_path):
    outcomes = candidates([A], ["torch", "onnxruntime"], ["f32", "f16"])
    seen = []
    measure(
        outcomes,
        Path("scan"),
        Settings(repeats=2),
        tmp_path,
        lambda outcome, number: seen.append((outcome.engine, outcome.precision, number)),
        lambda number: seen.append(number),
    )
    assert [job[1:] for job in children.jobs] == [
        *(("torch", "f32"), ("torch", "f16"), ("onnxruntime", "f32"), ("onnxruntime", "f16")),
        ("torch", "f32"),
    ]
    assert [outcome.status for outcome in outcomes] == [
        *("measured", "not available", "not installed", "not available"),
    ]
    assert seen[4] == 0 and seen[-1] == 1 and ("torch", "f32", 1) in seen


def test_the_second_prediction_is_not_part_of_the_process(children, tmp_path):
    (outcome,) = outcomes = candidates([A], ["torch"], ["f32"])
    measure(outcomes, Path("scan"), Settings(repeats=3), tmp_path)
    facts = outcome.as_dict(n_slices=6)
    # 5.25 s in all, of which 3 went by between the file that was written and the end of the
    # second prediction.
    assert facts["whole_process_s"]["median"] == 2.25
    assert facts["latency_s"] == {"median": 2.0, "min": 1.0, "max": 3.0}
    assert facts["latency_cpu_s"]["median"] == 4.0
    assert facts["ms_per_slice"] == pytest.approx(1000 * 2 / 6)
    assert facts["peak_memory_mb"]["median"] == 102.0
    assert len(facts["runs"]) == 3


def test_agreement_is_with_pytorch_in_float32(children, tmp_path):
    outcomes = candidates([A, B], ["openvino"], ["f32", "bf16"])
    references = measure(outcomes, Path("scan"), Settings(repeats=1), tmp_path)
    assert [outcome.equal_voxels for outcome in outcomes] == [1, 0.95, 1, 0.95]
    assert {outcome.reference for outcome in outcomes} == {"torch f32"}
    assert set(references) == {A, B}
    # It was run for this alone, once for each model, and is no row of its own.
    assert children.jobs[-2:] == [(str(path), "torch", "f32") for path in (A, B)]
    assert len(outcomes) == 4


def test_without_pytorch_agreement_is_with_another_float32(children, tmp_path, monkeypatch):
    monkeypatch.setattr(type(ENGINES["torch"]), "is_installed", False)
    outcomes = candidates([A], ["openvino"], ["bf16", "f32"])
    measure(outcomes, Path("scan"), Settings(repeats=1), tmp_path)
    assert {outcome.reference for outcome in outcomes} == {"openvino f32"}
    (alone,) = candidates([A], ["openvino"], ["bf16"])
    assert measure([alone], Path("scan"), Settings(repeats=1), tmp_path / "b") == {}
    assert alone.equal_voxels is None and alone.reference == ""


def test_a_crash_ends_one_candidate_alone(children, tmp_path):
    children.crash_at = 0
    outcomes = candidates([A], ["openvino", "torch"], ["f32"])
    measure(outcomes, Path("scan"), Settings(repeats=1), tmp_path)
    assert [outcome.status for outcome in outcomes] == ["failed", "measured"]
    assert "boom" in outcomes[0].as_dict(1)["message"]


def test_what_was_not_measured_has_no_figures():
    facts = Outcome(A, "torch", "f16", "not available", "why").as_dict(10)
    assert facts["message"] == "why" and "latency_s" not in facts
