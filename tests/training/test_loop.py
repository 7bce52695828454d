"""The loop's decisions: clipping, decay of the rate, the best epoch, the end."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from leanseg.training.validation import ValidationScores
from rich.console import Console

from leanseg.frames import CasePreparer
from leanseg.progress import Display
from leanseg.training import load_recipe, loop, start_run
from leanseg.training.loop import FoldTrainer


@pytest.fixture
def make_trainer(tiny_dataset: Path, tmp_path: Path):
    """A trainer on the tiny dataset with some settings of the training section."""

    def make(**settings: object) -> FoldTrainer:
        chosen = {"steps_per_epoch": 1, "batch_size": 2, "threads": 1, "precision": "'32'"}
        overrides = [f"training.{key}={value}" for key, value in {**chosen, **settings}.items()]
        recipe = load_recipe("monet-ct", [*overrides, "plan.frame.axes=[24, 24, null]"])
        run = start_run(recipe, tiny_dataset, tmp_path / "run")
        preparer = CasePreparer(run.plan, run.data.label_values, None, run.cache)
        fold = tmp_path / "run" / "fold_0"
        fold.mkdir()
        cases, monitored = (
            [preparer.prepare(run.data.case(name)) for name in names]
            for names in (run.splits[0].train, run.splits[0].monitor)
        )
        display = Display(Console(file=io.StringIO()))
        return FoldTrainer(fold, run.recipe, run.plan, cases, monitored, display)

    return make


def scripted(monkeypatch: pytest.MonkeyPatch, scores: list[tuple[float, float]]) -> None:
    """Validation that answers (loss, Dice) from a list, the last one for ever."""
    remaining = list(scores)

    def answer(*_: object) -> ValidationScores:
        loss, dice = remaining.pop(0) if len(remaining) > 1 else remaining[0]
        return ValidationScores(loss, dice, {"ball": dice, "core": None})

    monkeypatch.setattr(loop, "validate", answer)


def rows_of(trainer: FoldTrainer) -> list[dict[str, float]]:
    lines = (trainer._folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("limit", [None, 1e-3])
def test_gradients_are_clipped_to_the_norm(make_trainer, monkeypatch, limit) -> None:
    scripted(monkeypatch, [(0.5, 0.5)])
    trainer = make_trainer(epochs=3, gradient_clip_norm="null" if limit is None else limit)
    norms: list[float] = []

    def note(optimiser: torch.optim.Optimizer, *_: object) -> None:
        gradients = [p.grad for group in optimiser.param_groups for p in group["params"]]
        norms.append(torch.cat([g.flatten() for g in gradients]).norm().item())

    trainer._optimiser.register_step_pre_hook(note)
    trainer.fit()
    assert len(norms) == 3
    if limit is None:
        assert min(norms) > 1e-2
    else:
        assert norms == pytest.approx([limit] * 3, rel=1e-3)


def test_the_rate_decays_on_a_plateau_of_the_loss(make_trainer, monkeypatch) -> None:
    scripted(monkeypatch, [(0.9, 0.1), (0.8, 0.1), (0.8, 0.1)])
    trainer = make_trainer(epochs=9, learning_rate=1e-3, plateau_patience=2, plateau_factor=0.1)
    trainer.fit()
    rates = [row["learning_rate"] for row in rows_of(trainer)]
    # The loss is best in epoch 2; 3 and 4 are patience, after 5 the rate falls, again after 8.
    assert rates == pytest.approx([1e-3] * 5 + [1e-4] * 3 + [1e-5])


def test_it_stops_early_and_keeps_the_best_weights(make_trainer, monkeypatch) -> None:
    scripted(monkeypatch, [(0.9, 0.1), (0.8, 0.6), (0.7, 0.3)])
    trainer = make_trainer(epochs=50, early_stopping_patience=3)
    kept: dict[int, torch.Tensor] = {}
    close = trainer._close_epoch

    def closing():
        row = close()
        kept[row["epoch"]] = trainer.network.state_dict()["head.0.weight"].clone()
        return row

    monkeypatch.setattr(trainer, "_close_epoch", closing)
    state = trainer.fit()
    assert (state.epoch, state.best_epoch, state.best_dice) == (5, 2, 0.6)
    assert state.stopped_because == "early stopping"
    assert torch.equal(state.best_network["head.0.weight"], kept[2])
    assert not torch.equal(state.best_network["head.0.weight"], kept[5])
    assert [row["best"] for row in rows_of(trainer)] == [True, True, False, False, False]


def test_a_processor_budget_ends_the_training(make_trainer, monkeypatch) -> None:
    scripted(monkeypatch, [(0.9, 0.1)])
    state = make_trainer(epochs=10_000, early_stopping_patience=10_000, cpu_budget_s=1.0).fit()
    assert state.stopped_because == "processor budget"
    assert state.cpu_s >= 0.9


def test_the_tensorboard_file_has_the_scalars(make_trainer, monkeypatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    scripted(monkeypatch, [(0.9, 0.1), (0.8, 0.6)])
    trainer = make_trainer(epochs=2)
    trainer.fit()
    events = EventAccumulator(str(trainer._folder / "tensorboard")).Reload()
    assert [(e.step, round(e.value, 5)) for e in events.Scalars("val_dice")] == [(1, 0.1), (2, 0.6)]
    assert "val_dice/ball" in events.Tags()["scalars"]
    assert "val_dice/core" not in events.Tags()["scalars"]
