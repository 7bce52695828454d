"""Precision "auto": fast enough, close enough, measured once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from leanseg.inference.engines import choice
from leanseg.inference.engines.choice import Trial, best, choose_precision
from leanseg.modelfile import Exported, Manifest, ModelFile, NetworkSpec
from leanseg.preprocessing import Plan

OPTIONS = {"lanes": None, "allow_imports": False}


class Fake:
    """An engine whose reduced precision moves every `every`th voxel across the threshold."""

    every = 20_000
    made: list[str] = []  # noqa: RUF012

    def __init__(self, model, precision, threads, *, lanes, allow_imports) -> None:
        self.precision = precision
        self.made.append(precision)

    @classmethod
    def precisions(cls, model) -> tuple[str, ...]:
        return ("f32", "bf16")

    @classmethod
    def version(cls) -> str:
        return "1"

    def run(self, batch: np.ndarray) -> np.ndarray:
        found = batch.copy()
        if self.precision == "bf16":
            found.reshape(-1)[:: self.every] = 1 - found.reshape(-1)[:: self.every]
        return found


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setattr(choice, "_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(Fake, "made", [])
    return tmp_path / "cache"


@pytest.fixture
def clock(monkeypatch) -> dict[str, float]:
    """A clock by which each run of a precision takes its seconds."""
    seconds = {"f32": 1.0, "bf16": 0.5}
    now = 0.0
    run = Fake.run

    def timed(self: Fake, batch: np.ndarray) -> np.ndarray:
        nonlocal now
        now += seconds[self.precision]
        return run(self, batch)

    monkeypatch.setattr(Fake, "run", timed)
    monkeypatch.setattr(choice.time, "perf_counter", lambda: now)
    return seconds


def model(reference: bool = True) -> ModelFile:
    image = np.random.default_rng(0).random((1, 1, 200, 200), dtype=np.float32)
    manifest = Manifest(
        network=NetworkSpec(name="monet", in_channels=1, out_channels=1),
        plan=Plan(labels=("a",), slice_shape=(200, 200)),
    )
    return ModelFile(manifest, {}, None, Exported(b"graph", image if reference else None))


def chosen(file: ModelFile, threads: int | None = 2) -> str:
    return choose_precision(file, "fake", Fake, threads, OPTIONS).precision


@pytest.mark.parametrize(
    ("changed", "seconds", "expected"),
    [
        (0.0, 0.5, "bf16"),
        (1e-4, 0.5, "bf16"),
        (1.01e-4, 0.5, "f32"),
        (0.0, 0.95, "f32"),
        (0.0, 2.0, "f32"),
        (None, 0.5, "f32"),
    ],
)
def test_close_enough_and_clearly_faster(changed, seconds, expected) -> None:
    assert best({"f32": Trial(1.0, 0.0), "bf16": Trial(seconds, changed)}) == expected


def test_the_fastest_of_the_good_ones() -> None:
    trials = {
        "f32": Trial(1.0, 0.0),
        "bf16": Trial(0.5, 5e-5),
        "f16": Trial(0.4, 1e-5),
        "int8": Trial(0.1, 1e-2),
    }
    assert best(trials) == "f16"


def test_labels_are_compared_on_the_reference_input(clock, monkeypatch) -> None:
    # 2 of 40,000 voxels, then 5 of them.
    assert chosen(model()) == "bf16"
    monkeypatch.setattr(Fake, "every", 8_000)
    other = replace(model(), exported=replace(model().exported, graph=b"another"))
    assert chosen(other) == "f32"


def test_a_reference_without_any_label_proves_nothing(clock) -> None:
    dark = replace(model().exported, reference=np.full((1, 1, 200, 200), 0.1, np.float32))
    assert chosen(replace(model(), exported=dark)) == "f32"


def test_it_says_why(clock, monkeypatch) -> None:
    choice = choose_precision(model(), "fake", Fake, 2, OPTIONS)
    said = "on the reference input bf16 takes 50 % of f32's time and changes 0.5 of 10,000 labels"
    assert choice.why == said
    monkeypatch.setattr(Fake, "every", 8_000)
    other = replace(model(), exported=replace(model().exported, graph=b"another"))
    choice = choose_precision(other, "fake", Fake, 2, OPTIONS)
    assert choice.why == said.replace("0.5 of", "1.2 of") + "; up to 1 is allowed"
    choice = choose_precision(model(reference=False), "fake", Fake, 2, OPTIONS)
    assert "no reference input" in choice.why


def test_without_a_reference_nothing_is_risked(clock) -> None:
    assert chosen(model(reference=False)) == "f32"
    assert Fake.made == []


def test_measured_once_per_model_machine_and_threads(clock, folder: Path, monkeypatch) -> None:
    assert chosen(model()) == "bf16"
    assert Fake.made == ["f32", "bf16"]
    clock["bf16"] = 2.0
    assert chosen(model()) == "bf16"
    assert len(Fake.made) == 2
    assert chosen(model(), threads=1) == "f32"
    assert len(Fake.made) == 4
    (weights,) = ({"w": np.ones(3, np.float32)},)
    chosen(replace(model(), weights=weights))
    assert len(Fake.made) == 6
    monkeypatch.setattr(choice, "_processor", lambda: "another machine")
    chosen(model())
    assert len(Fake.made) == 8
    assert len(list(folder.iterdir())) == 4


@pytest.mark.parametrize("content", ["", "{", "[]", '{"f32": 3}', '{"f32": {"seconds": 1}}', "{}"])
def test_a_damaged_note_is_measured_anew(clock, folder: Path, content: str) -> None:
    chosen(model())
    (note,) = folder.iterdir()
    note.write_text(content)
    assert chosen(model()) == "bf16"
    assert json.loads(note.read_text())["bf16"]["changed"] == pytest.approx(2 / 40_000)


def test_a_home_that_cannot_be_written_to(clock, folder: Path) -> None:
    folder.write_text("a file where the folder would be")
    assert chosen(model()) == "bf16"
    assert chosen(model()) == "bf16"
