"""Phases: what each trains, from which weights it starts, and how one ends."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from leanseg.errors import RecipeError
from leanseg.losses import build_loss
from leanseg.training import loop
from leanseg.training.checkpoint import TrainingState
from leanseg.training.finish import kept_recipe
from leanseg.training.loop import FoldTrainer
from leanseg.training.monitor import Scores
from leanseg.training.recipe import validate_recipe
from leanseg.training.trainer import Trainer
from leanseg.training.yaml_text import read_yaml
from tiny_training import PLAN, assert_same, cases, fold, recipe

HEAD = {"trains": ["network.head"], "epochs": 2}


def scripted(monkeypatch: pytest.MonkeyPatch, dice: list[float]) -> None:
    """Looks that find these, one after another."""
    left = list(dice)
    monkeypatch.setattr(loop, "look", lambda *_: Scores(0.5, left.pop(0), {"ball": 0.5}))


def noted(trainer: FoldTrainer, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """Weights at the end of every epoch, in a list that fills while it trains."""
    kept: list[dict[str, torch.Tensor]] = []
    close = trainer._close_epoch

    def closing():
        row = close()
        kept.append({k: v.clone() for k, v in trainer.network.state_dict().items()})
        return row

    monkeypatch.setattr(trainer, "_close_epoch", closing)
    return kept


def test_a_part_first_then_everything_from_the_selected_weights(tmp_path, monkeypatch) -> None:
    still = {"optimiser": {"name": "SGD", "options": {"lr": 0.0}}, "epochs": 1}
    made = recipe({**HEAD, "epochs": 3, "selection": "best"}, {**still, "name": "still"}, {})
    trainer, said = fold(tmp_path, made)
    begun = {k: v.clone() for k, v in trainer.network.state_dict().items()}
    kept = noted(trainer, monkeypatch)
    scripted(monkeypatch, [0.2, 0.7, 0.3, 0.1, 0.4, 0.3])
    state = trainer.fit()
    for weights in kept[:3]:
        assert torch.equal(weights["network.body.weight"], begun["network.body.weight"])
        assert not torch.equal(weights["network.head.weight"], begun["network.head.weight"])
    # The second phase moves nothing: it is where it started, at the best of the first.
    assert_same(kept[3], kept[1])
    assert not torch.equal(kept[4]["network.body.weight"], begun["network.body.weight"])
    # The last phase's own best counts, though an earlier one had a better.
    assert (state.phase, state.epoch, state.best_epoch, state.best_dice) == (2, 6, 5, 0.4)
    assert_same(state.best_network, kept[4])
    assert [row["phase"] for row in state.rows] == ["0"] * 3 + ["still"] + ["2"] * 2
    assert [row["epoch"] for row in state.rows] == [1, 2, 3, 4, 5, 6]
    assert "phase still" in said.getvalue()


def test_the_last_weights_of_a_phase_go_on(tmp_path, monkeypatch) -> None:
    still = {"optimiser": {"name": "SGD", "options": {"lr": 0.0}}, "epochs": 1}
    made = recipe({"selection": "last", "epochs": 2}, {**still, "selection": "last"})
    trainer, _ = fold(tmp_path, made)
    kept = noted(trainer, monkeypatch)
    scripted(monkeypatch, [0.9, 0.1, 0.5])
    state = trainer.fit()
    assert_same(kept[2], kept[1])
    assert_same(state.best_network, kept[2])
    assert state.best_epoch == 3


def test_patience_ends_a_phase_and_the_next_begins_anew(tmp_path, monkeypatch) -> None:
    phase = {"epochs": 9, "patience": 2}
    trainer, _ = fold(tmp_path, recipe(phase, phase))
    scripted(monkeypatch, [0.5, 0.4, 0.3, 0.2, 0.3, 0.3, 0.3, 0.3])
    state = trainer.fit()
    # Best in epochs 1 and 5; each phase ends two looks later.
    assert [row["phase"] for row in state.rows] == ["0"] * 3 + ["1"] * 4
    assert (state.best_epoch, state.stopped_because) == (5, "early stopping")
    assert [row["best"] for row in state.rows] == [True, False, False, True, True, False, False]


def test_patience_counts_looks_and_never_ends_what_keeps_the_last(tmp_path, monkeypatch) -> None:
    trainer, _ = fold(tmp_path / "a", recipe({"epochs": 20, "patience": 2, "monitor_every": 3}))
    scripted(monkeypatch, [0.5, 0.4, 0.3])
    assert trainer.fit().epoch == 9
    last = {"epochs": 5, "patience": 1, "selection": "last"}
    trainer, _ = fold(tmp_path / "b", recipe(last))
    scripted(monkeypatch, [0.5, 0.4, 0.3, 0.2, 0.1])
    assert trainer.fit().epoch == 5


PHASES = (
    {**HEAD, "schedule": {"name": "plateau"}, "steps_per_epoch": 3},
    {"average": 0.5, "epochs": 2, "steps_per_epoch": 3, "schedule": {"name": "cosine"}},
)


class Killed(BaseException):
    """As if the process had ended there."""


@pytest.mark.parametrize("network", ["monet", "own_parts:Plain"])
def test_resumed_at_any_step_and_across_the_border(tmp_path, monkeypatch, network) -> None:
    """Bit by bit the same, whatever was last written."""
    options = {"base_filters": 4} if network == "monet" else {}
    head = {"trains": ["head"]} if network == "monet" else {}
    made = recipe({**PHASES[0], **head}, PHASES[1], network=network, options=options)
    whole = fold(tmp_path / "whole", made)[0].fit()
    assert (whole.step, whole.phase) == (12, 1)
    step = Trainer._step
    save = loop.save_state
    for at in (8,) if network == "monet" else (1, 6, 7, 11):
        folder = tmp_path / str(at)

        def killing(self, state, found, at=at):
            if state.step == at:
                raise Killed
            return step(self, state, found)

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(Trainer, "_step", killing)
            fold(folder, made)[0].fit()
        state = fold(folder, made)[0].fit()
        assert_same(state.network, whole.network)
        assert_same(state.average, whole.average)
        assert_same(state.best_network, whole.best_network)
        times = ("seconds", "elapsed_s", "cpu_s", "samples_per_s")
        for ours, theirs in zip(state.rows, whole.rows, strict=True):
            assert {k: v for k, v in ours.items() if k not in times} == {
                k: v for k, v in theirs.items() if k not in times
            }

    def before_the_border(path: Path, state: TrainingState) -> None:
        """The first phase is done and written, the second has not begun."""
        save(path, state)
        if state.phase == 0 and state.stopped_because:
            raise Killed

    folder = tmp_path / "border"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop, "save_state", before_the_border)
        fold(folder, made)[0].fit()
    assert_same(fold(folder, made)[0].fit().best_network, whole.best_network)


def test_a_processor_budget_is_given_again_by_the_kept_recipe(tmp_path) -> None:
    """What the clock decided is kept; with it the same bits come, however long they take."""
    made = recipe(
        {"epochs": None, "cpu_minutes": 0.01, "schedule": {"name": "cosine", "warmup": 0.1}},
        {"epochs": None, "minutes": 0.01, "schedule": {"name": "polynomial"}, "selection": "last"},
    )
    trainer, _ = fold(tmp_path / "first", made)
    first = trainer.fit()
    kept = kept_recipe(made, 0, first)
    assert [bool(phase.pace) for phase in kept.phases] == [True, True]
    again = validate_recipe(read_yaml(kept.to_yaml(), "kept"), "kept")
    assert again == kept
    second = fold(tmp_path / "second", again)[0].fit()
    assert second.step == first.step
    assert_same(second.best_network, first.best_network)
    assert [row["learning_rate"] for row in second.rows] == [
        row["learning_rate"] for row in first.rows
    ]
    assert first.stopped_because == second.stopped_because == "time budget"


def test_looks_that_decide_nothing_take_a_twentieth_of_the_minutes(tmp_path, monkeypatch) -> None:
    """Steps of one second and looks of three a case: of two minutes there is room for two cases."""
    looked: list[int] = []

    def slow(_: object, monitored: list[object], *__: object) -> Scores:
        looked.append(len(monitored))
        return Scores(0.5, 0.5, {"ball": 0.5})

    def now() -> float:
        return trainer.state.step + 3.0 * sum(looked)

    kept = {name: getattr(time, name) for name in ("time", "localtime", "strftime")}
    clock = SimpleNamespace(monotonic=now, process_time=lambda: 0.0, **kept)
    monkeypatch.setattr(loop, "time", clock)
    monkeypatch.setattr(loop, "look", slow)
    budget = {"epochs": None, "minutes": 2.0, "monitor_every": 1000, "selection": "last"}
    trainer, said = fold(tmp_path, recipe(budget, budget), monitored=8)
    state = trainer.fit()
    assert looked == [1, 2, 2]
    # The first phase did not know of its look; the second leaves it time.
    assert [sum(row["phase"] == name for row in state.rows) for name in "01"] == [30, 29]
    assert 120 + 113 <= state.step <= 120 + 114
    assert "looking at 2 of 8 monitor cases" in said.getvalue()


def test_looks_that_choose_the_weights_see_all_cases(tmp_path, monkeypatch) -> None:
    looked: list[int] = []

    def slow(_: object, monitored: list[object], *__: object) -> Scores:
        looked.append(len(monitored))
        time.sleep(0.05)
        return Scores(0.5, 0.5, {"ball": 0.5})

    monkeypatch.setattr(loop, "look", slow)
    budget = {"epochs": None, "minutes": 0.005, "monitor_every": 1000, "selection": "best"}
    fold(tmp_path, recipe(budget), monitored=8)[0].fit()
    assert looked == [8]


def test_metrics_have_monitor_keys_where_there_was_a_look(tmp_path) -> None:
    trainer, _ = fold(tmp_path, recipe({"epochs": 3, "monitor_every": 2}))
    trainer.fit()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    keys = {"monitor_loss", "monitor_dice", "monitor_dice_per_label"}
    assert [keys <= set(row) for row in rows] == [False, True, True]
    assert not keys & set(rows[0])
    for row in rows:
        assert row["samples_per_s"] > 0
        assert row["phase"] == "0"


def test_the_last_word_of_a_divergence_is_the_phase(tmp_path, monkeypatch) -> None:
    """The sentence names the key of the phase that diverged."""
    broken = {"optimiser": {"name": "SGD", "options": {"lr": 1e30}}}
    trainer, _ = fold(tmp_path, recipe({"epochs": 1}, broken))
    with pytest.raises(RecipeError, match=r"phases\.1\.optimiser\.options\.lr"):
        trainer.fit()


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_whatever_the_clock_says_it_can_be_replayed(tmp_path, monkeypatch, seed) -> None:
    """Steps that take a second on average and sometimes many, or that grow ever quicker."""
    rng, ticks = np.random.default_rng(seed), [0.0]

    def tick() -> float:
        seconds = 5 / len(ticks) if seed is None else rng.exponential(1.0)
        ticks.append(ticks[-1] + seconds)
        return ticks[-1]

    clock = {"monotonic": tick, "process_time": tick}
    kept = {name: getattr(time, name) for name in ("time", "localtime", "strftime")}
    monkeypatch.setattr(loop, "time", SimpleNamespace(**clock, **kept))
    monkeypatch.setattr(loop, "look", lambda *_: Scores(0.5, 0.5, {"ball": 0.5}))
    budget = {"epochs": None, "minutes": 0.4, "augmentation": [], "patience": None}
    made = recipe({**budget, "schedule": {"name": "cosine"}})
    first = fold(tmp_path / "first", made)[0].fit()
    assert first.stopped_because == "time budget"
    second = fold(tmp_path / "second", kept_recipe(made, 0, first))[0].fit()
    assert (second.step, second.pace) == (first.step, first.pace)
    assert_same(second.network, first.network)


def test_a_part_that_is_left_alone_keeps_its_statistics() -> None:
    made = recipe({"trains": ["head"]}, network="monet", options={"base_filters": 4})
    trainer = Trainer(made, PLAN, cases())
    before = {name: each.clone() for name, each in trainer.network.state_dict().items()}
    trainer.steps(trainer.begin(), 2)
    moved = {
        name.partition(".")[0]
        for name, each in trainer.network.state_dict().items()
        if not torch.equal(each, before[name])
    }
    assert moved == {"head"}


def test_classes_are_weighed_by_their_counts_in_the_training_set() -> None:
    term = {"name": "cross-entropy", "options": {"class_weights": "training"}}
    prepared = cases()
    trainer = Trainer(recipe({"loss": [term]}), PLAN, prepared)
    (told,) = (each.loss for each in trainer.parts.task._terms)
    counts = np.sum([[(c.classes == n).sum() for n in range(3)] for c in prepared], axis=0)
    weights = 1 / np.sqrt(counts[1:])
    expected = [0.5, *(weights / weights.mean())]
    assert told.class_weights == pytest.approx(expected)
    with pytest.raises(RecipeError, match="'training' needs the counts of a training set"):
        build_loss(term["name"], **term["options"])(
            torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2).long()
        )
