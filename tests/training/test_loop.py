"""The loop's decisions: clipping, decay of the rate, the best epoch, the end."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

import tiny_training
from leanseg.frames import CasePreparer
from leanseg.progress import Display
from leanseg.training import load_recipe, loop, start_run
from leanseg.training.loop import FoldTrainer
from leanseg.training.monitor import Scores


@pytest.fixture
def make_trainer(tiny_dataset: Path, tmp_path: Path):
    """A trainer on the tiny dataset with some settings of its one phase."""

    def make(**settings: object) -> FoldTrainer:
        chosen = {"steps_per_epoch": 1, "batch_size": 2, **settings}
        overrides = [f"phases.main.{key}={value}" for key, value in chosen.items()]
        overrides += ["training.threads=1", "training.precision=32"]
        overrides += ["network={name: combiner, options: {base_filters: 8}}"]
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


def scripted(monkeypatch: pytest.MonkeyPatch, scores: list[tuple[float, float]]) -> list[int]:
    """Looks that answer (loss, Dice) from a list, the last one for ever; how many there were."""
    remaining, looks = list(scores), []

    def answer(*_: object) -> Scores:
        looks.append(1)
        loss, dice = remaining.pop(0) if len(remaining) > 1 else remaining[0]
        return Scores(loss, dice, {"ball": dice, "core": None})

    monkeypatch.setattr(loop, "look", answer)
    return looks


def rows_of(trainer: FoldTrainer) -> list[dict[str, float]]:
    lines = (trainer._folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("limit", [None, 1e-3])
def test_gradients_are_clipped_to_the_norm(make_trainer, monkeypatch, limit) -> None:
    scripted(monkeypatch, [(0.5, 0.5)])
    trainer = make_trainer(epochs=3, clip_norm="null" if limit is None else limit)
    norms: list[float] = []

    def note(optimiser: torch.optim.Optimizer, *_: object) -> None:
        gradients = [p.grad for group in optimiser.param_groups for p in group["params"]]
        norms.append(torch.cat([g.flatten() for g in gradients]).norm().item())

    (optimiser,) = trainer._trainer._optimisers
    optimiser.register_step_pre_hook(note)
    trainer.fit()
    assert len(norms) == 3
    if limit is None:
        assert min(norms) > 1e-2
    else:
        assert norms == pytest.approx([limit] * 3, rel=1e-3)


@pytest.mark.parametrize(
    ("patience", "rates"),
    [
        # The loss is best in epoch 2. Paper 001: the second epoch without a better one reduces.
        (1, [1e-3] * 4 + [1e-4] * 2 + [1e-5] * 2 + [1e-6]),
        # Paper 000: more than two, so the third.
        (2, [1e-3] * 5 + [1e-4] * 3 + [1e-5]),
    ],
)
def test_the_rate_decays_on_a_plateau_of_the_loss(
    make_trainer, monkeypatch, patience, rates
) -> None:
    scripted(monkeypatch, [(0.9, 0.1), (0.8, 0.1), (0.8, 0.1)])
    schedule = f"{{name: plateau, options: {{patience: {patience}}}}}"
    options = "{lr: 1.0e-3}"
    trainer = make_trainer(epochs=9, schedule=schedule, **{"optimiser.options": options})
    trainer.fit()
    assert [row["learning_rate"] for row in rows_of(trainer)] == pytest.approx(rates)


def test_it_stops_early_and_keeps_the_best_weights(make_trainer, monkeypatch) -> None:
    scripted(monkeypatch, [(0.9, 0.1), (0.8, 0.6), (0.7, 0.3)])
    trainer = make_trainer(epochs=50, patience=3)
    kept: dict[int, torch.Tensor] = {}
    close = trainer._close_epoch

    def closing():
        row = close()
        kept[row["epoch"]] = trainer.network.state_dict()["head.weight"].clone()
        return row

    monkeypatch.setattr(trainer, "_close_epoch", closing)
    state = trainer.fit()
    assert (state.epoch, state.best_epoch, state.best_dice) == (5, 2, 0.6)
    assert state.stopped_because == "early stopping"
    assert torch.equal(state.best_network["head.weight"], kept[2])
    assert not torch.equal(state.best_network["head.weight"], kept[5])
    assert [row["best"] for row in rows_of(trainer)] == [True, True, False, False, False]


def test_it_stops_when_the_loss_has_converged(make_trainer, monkeypatch) -> None:
    """Algorithm 1 of paper 002, though the Dice still rises."""
    scripted(monkeypatch, [(0.9, 0.1), (0.5, 0.2), (0.6, 0.3), (0.55, 0.4), (0.49995, 0.5)])
    trainer = make_trainer(epochs=50, patience=3, judge="loss")
    state = trainer.fit()
    assert (state.epoch, state.best_epoch, state.best_dice, state.best_loss) == (5, 2, 0.2, 0.5)
    assert state.stopped_because == "early stopping"
    assert [row["best"] for row in rows_of(trainer)] == [True, True, False, False, False]


def test_the_next_phase_has_a_best_loss_of_its_own(tmp_path, monkeypatch) -> None:
    """Though it is higher than what the phase before came to."""
    scripted(monkeypatch, [(0.2, 0.1), (0.1, 0.1), (0.9, 0.1), (0.8, 0.1), (0.85, 0.1)])
    trainer, _ = tiny_training.fold(
        tmp_path / "fold",
        tiny_training.recipe({"judge": "loss"}, {"judge": "loss", "epochs": 3}),
    )
    state = trainer.fit()
    assert (state.best_epoch, state.best_loss) == (4, 0.8)


@pytest.mark.parametrize("judge", ["dice", "loss"])
def test_the_monitored_loss_is_the_phases_own_where_it_judges(tmp_path, judge: str) -> None:
    phase = {"judge": judge, "loss": [{"name": "cross-entropy", "weight": 7.0}], "epochs": 1}
    trainer, _ = tiny_training.fold(tmp_path / "fold", tiny_training.recipe(phase))
    trainer.fit()
    (row,) = rows_of(trainer)
    # Seven times a cross-entropy of three classes that is hardly learned.
    assert (row["monitor_loss"] > 1) is (judge == "loss")


def test_the_last_weights_are_kept_where_that_is_said(make_trainer, monkeypatch) -> None:
    """Though an earlier epoch was better, and patience over."""
    scripted(monkeypatch, [(0.9, 0.6), (0.8, 0.1)])
    trainer = make_trainer(epochs=4, patience=1, selection="last", schedule="{name: constant}")
    state = trainer.fit()
    assert (state.epoch, state.best_epoch) == (4, 4)
    assert state.stopped_because == "all epochs done"
    for name, tensor in trainer.network.state_dict().items():
        assert torch.equal(state.best_network[name], tensor), name


def test_looks_every_few_epochs_and_at_the_end(make_trainer, monkeypatch) -> None:
    looks = scripted(monkeypatch, [(0.9, 0.1)])
    trainer = make_trainer(epochs=5, monitor_every=2)
    trainer.fit()
    looked = ["monitor_dice" in row for row in rows_of(trainer)]
    assert looked == [False, True, False, True, True]
    assert len(looks) == 3


def test_the_end_by_steps(make_trainer, monkeypatch) -> None:
    """Within an epoch, which is looked at all the same."""
    scripted(monkeypatch, [(0.9, 0.1)])
    trainer = make_trainer(epochs="null", steps=5, steps_per_epoch=2)
    state = trainer.fit()
    assert (state.step, state.epoch, state.stopped_because) == (5, 3, "all steps done")
    assert ["monitor_dice" in row for row in rows_of(trainer)] == [True] * 3


def test_a_processor_budget_ends_the_training(make_trainer, monkeypatch) -> None:
    scripted(monkeypatch, [(0.9, 0.1)])
    trainer = make_trainer(epochs=10_000, patience=10_000, cpu_minutes=1 / 60)
    state = trainer.fit()
    assert state.stopped_because == "processor budget"
    # The pace is a forecast: it hits the second roughly.
    assert 0.5 < state.cpu_s < 2


def test_the_tensorboard_file_has_the_scalars(make_trainer, monkeypatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    scripted(monkeypatch, [(0.9, 0.1), (0.8, 0.6)])
    trainer = make_trainer(epochs=2)
    trainer.fit()
    events = EventAccumulator(str(trainer._folder / "tensorboard")).Reload()
    found = [(each.step, round(each.value, 5)) for each in events.Scalars("monitor_dice")]
    assert found == [(1, 0.1), (2, 0.6)]
    assert "monitor_dice/ball" in events.Tags()["scalars"]
    assert "monitor_dice/core" not in events.Tags()["scalars"]
