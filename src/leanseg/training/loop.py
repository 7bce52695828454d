"""The training of one fold: phases, the clock, looks at the monitor cases, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from leanseg.errors import LeansegError, RecipeError
from leanseg.frames import PreparedCase
from leanseg.inference.engines.torch_engine import TorchEngine
from leanseg.inference.pipeline import Pipeline
from leanseg.plan import Plan
from leanseg.progress import Display, duration
from leanseg.training import ranks
from leanseg.training.checkpoint import TrainingState, clone_tensors, load_state, save_state
from leanseg.training.metrics import MetricsLog
from leanseg.training.monitor import Scores, look
from leanseg.training.pace import is_due
from leanseg.training.recipe import Recipe
from leanseg.training.schedule import MIN_DELTA
from leanseg.training.trainer import Trainer

STATE_FILE = "state.pt"
BY_HAND = "finished by hand"
# Voxels that the network sees together when the monitor cases are looked at.
_MONITOR_VOXELS = 1 << 18
# Of a phase's minutes, what looks may take where nothing depends on them.
_LOOK_SHARE = 0.05


class FoldTrainer:
    """Trains one fold; continues from the state in its folder if there is one.

    Args:
        folder: The fold's folder.
        recipe: The resolved recipe.
        plan: The plan.
        training_cases: Cases to learn from.
        monitor_cases: Whole cases that choose the best epoch; there may be none.
        display: Tells the user.
        fold_id: Of the run and fold that a state must be of.

    Raises:
        RecipeError: If what the recipe says cannot be done on this machine.
        LeansegError: If the state in the folder is damaged, or of another run.
    """

    def __init__(
        self,
        folder: Path,
        recipe: Recipe,
        plan: Plan,
        training_cases: Sequence[PreparedCase],
        monitor_cases: Sequence[PreparedCase],
        display: Display,
        fold_id: str = "",
    ) -> None:
        self._folder, self._recipe, self._plan = folder, recipe, plan
        self._stage = plan.final
        self._monitor_cases, self._display = monitor_cases, display
        self._looks_fit = False
        self._trainer = Trainer(recipe, plan, training_cases)
        path = folder / STATE_FILE
        # Of several processes the first one reads it: a disk may show it to the others later.
        is_first = not ranks.rank()
        kept = ranks.agreed(load_state(path, fold_id) if is_first and path.exists() else None)
        if kept is not None:
            self.state = kept
            self._restore(path)
            if kept.processes != ranks.n_ranks():
                display.say(
                    f"{kept.processes} process(es) trained this fold and {ranks.n_ranks()} go on: "
                    "its weights will not be the same bits as without the interruption"
                )
                kept.processes = ranks.n_ranks()
            return
        if recipe.training.precision == "auto":
            display.say("measuring whether bf16 is faster than float32 here")
        self.state = self._trainer.begin(fold_id)
        if self.state.started_from:
            display.say(self.state.started_from)
        # The measured precision has to survive a kill before the first checkpoint.
        self._save()

    @property
    def network(self) -> nn.Module:
        """The network in training."""
        return self._trainer.network

    def _restore(self, path: Path) -> None:
        """Take up the state.

        Raises:
            LeansegError: If it is not of this network.
        """
        try:
            self._trainer.load(self.state)
        except (RuntimeError, ValueError, LookupError) as error:
            raise LeansegError(
                f"{path}: does not fit the network and the phases of the recipe in this version of "
                "leanseg; delete it to train this fold from the start"
            ) from error

    def fit(self, *, finish: bool = False) -> TrainingState:
        """Train to the end; returns the final state.

        Args:
            finish: The end is now.

        Raises:
            RecipeError: If training diverged; the last state that was written stays.
        """
        state = self.state
        log = MetricsLog(self._folder, state.rows) if ranks.rank() == 0 else None
        self._ticked = time.monotonic(), time.process_time()
        if state.epoch or state.step:
            self._display.say(f"resuming at epoch {state.epoch + 1}, step {state.step}")
        try:
            if finish:
                self._finish_now(log)
            while not self._is_done():
                self._train_epoch()
                row = self._close_epoch()
                state.rows.append(row)
                if log is not None:
                    log.epoch(row)
                self._display.say(_told(row))
                if said := self._trainer.parts.task.told():
                    self._display.say(said)
                self._save()
        finally:
            if log is not None:
                log.close()
        self._display.say(f"training ended: {state.stopped_because}")
        return state

    def _finish_now(self, log: MetricsLog | None) -> None:
        """End with the weights of this moment, of whichever phase.

        Raises:
            RecipeError: If nothing was trained.
        """
        state = self.state
        is_last = state.phase + 1 == len(self._recipe.phases)
        if state.stopped_because == BY_HAND or (state.stopped_because and is_last):
            return
        if not state.step:
            raise RecipeError(
                f"{self._folder}: no step of training was kept, so there is nothing to make a "
                "model of; continue with --resume"
            )
        state.stopped_because = BY_HAND
        state.pace[state.phase].append([state.phase_step, 0])
        if state.step_in_epoch or not state.best_network:
            state.rows.append(self._close_epoch())
            if log is not None:
                log.epoch(state.rows[-1])
        elif self._trainer.parts.phase.selection == "last":
            self._trainer.settle(state)
            state.best_network = clone_tensors(self._trainer.candidate.state_dict())
        self._save()

    def _is_done(self) -> bool:
        """Whether all phases are; where one is over the next begins."""
        state = self.state
        by_hand = state.stopped_because == BY_HAND
        if state.stopped_because and not by_hand and state.phase + 1 < len(self._recipe.phases):
            self._trainer.next_phase(state)
            self._display.say(f"phase {self._trainer.parts.phase.name}")
            self._save()
        return bool(state.stopped_because)

    def _tick(self) -> tuple[float, float]:
        """Seconds since the last call, by the clock and of the processor; the state sums them."""
        now = time.monotonic(), time.process_time()
        # Processes that train together work alike.
        seconds = now[0] - self._ticked[0]
        cpu_seconds = (now[1] - self._ticked[1]) * ranks.n_ranks()
        self._ticked = now
        self.state.elapsed_s += seconds
        self.state.cpu_s += cpu_seconds
        return seconds, cpu_seconds

    def _train_epoch(self) -> None:
        state, parts = self.state, self._trainer.parts
        n_epochs = parts.n_epochs
        whole = "" if n_epochs is None else f"/{state.epoch - state.phase_epoch + n_epochs}"
        what = f"epoch {state.epoch + 1}{whole}"
        self._display.begin(what, parts.steps_per_epoch)
        saved = time.monotonic()
        # Writing the last epoch's state is not part of this one.
        self._tick()
        for loss in self._trainer.epoch(state):
            self._require(math.isfinite(loss), "the training loss")
            state.epoch_seconds += self._tick()[0]
            self._ask_clock()
            self._show(what)
            state.stopped_because = parts.end(state.phase_step, state.pace[state.phase])
            if state.stopped_because:
                return
            due = time.monotonic() - saved >= self._recipe.training.checkpoint_interval_s
            if due and state.step_in_epoch < parts.steps_per_epoch:
                self._save()
                saved = time.monotonic()

    def _ask_clock(self, *, at_epochs_end: bool = False) -> None:
        """Where minutes are given: how many steps still fit, told now and then."""
        state, phase = self.state, self._trainer.parts.phase
        if phase.pace is not None:
            state.pace[state.phase] = [list(each) for each in phase.pace]
            return
        if phase.minutes is None and phase.cpu_minutes is None:
            return
        pace = state.pace[state.phase]
        step, left = state.phase_step, ranks.agreed(self._steps_left())
        if left == 0 or at_epochs_end or is_due(step, pace):
            if pace and pace[-1][0] == step:
                pace.pop()
            pace.append([step, left])

    def _steps_left(self) -> int:
        """Steps that still fit into the budgets, looks at the monitor cases counted."""
        state, parts = self.state, self._trainer.parts
        phase, steps = parts.phase, max(state.phase_step, 1)
        seconds, cpu_seconds = state.elapsed_s - state.began[2], state.cpu_s - state.began[3]
        looks = state.phase_epoch // phase.monitor_every
        between = parts.steps_per_epoch * phase.monitor_every
        fitting = []
        for minutes, spent, of_look in (
            (phase.minutes, seconds, state.monitor_seconds),
            (phase.cpu_minutes, cpu_seconds, state.monitor_cpu_s),
        ):
            if minutes is not None:
                of_step = max((spent - looks * of_look) / steps, 1e-9)
                # One look more comes at the very end.
                left = 60 * minutes - spent - of_look
                fitting.append(left / (of_step + of_look / between))
        return max(int(min(fitting)), 0)

    def _show(self, what: str) -> None:
        state, parts = self.state, self._trainer.parts
        done, n = state.step_in_epoch, parts.phase.batch_size * parts.phase.accumulate
        rate = done * n / max(state.epoch_seconds, 1e-9)
        share = parts.share(state.phase_step, state.pace[state.phase])
        seconds = (state.elapsed_s - state.began[2]) * (1 - share) / max(share, 1e-9)
        left = ""
        if share:
            end = time.strftime("%H:%M", time.localtime(time.time() + seconds))
            left = f", at most {duration(seconds)} left, until {end}"
        detail = f"loss {state.loss_sum / done:.4f}, {rate:.1f} samples/s{left}"
        self._display.advance(what, done, parts.steps_per_epoch, detail)

    def _close_epoch(self) -> dict[str, Any]:
        """Look at the monitor cases, keep the best weights, decide whether to stop."""
        state, parts = self.state, self._trainer.parts
        phase = parts.phase
        self._tick()
        self._require(self._trainer.take(state).is_finite, "a weight")
        row: dict[str, Any] = {
            "epoch": state.epoch + 1,
            "phase": phase.name,
            "step": state.step,
            "train_loss": state.loss_sum / max(state.step_in_epoch, 1),
            "learning_rate": self._trainer.learning_rate,
            "samples_per_s": state.step_in_epoch
            * phase.batch_size
            * phase.accumulate
            / max(state.epoch_seconds, 1e-9),
            "seconds": state.epoch_seconds,
            "best": False,
        }
        self._trainer.close_epoch(state)
        is_look = state.phase_epoch % phase.monitor_every == 0 or bool(state.stopped_because)
        if is_look:
            self._trainer.settle(state)
            scores = self._look() if self._monitor_cases else None
            self._require(scores is None or math.isfinite(scores.loss), "the monitored loss")
            state.monitor_seconds, state.monitor_cpu_s = self._tick()
            row["seconds"] += state.monitor_seconds
            if scores is not None:
                row |= self._judge(scores)
        if phase.selection == "last":
            state.best_network = clone_tensors(self._trainer.candidate.state_dict())
            state.best_epoch = state.epoch
        row |= {"elapsed_s": state.elapsed_s, "cpu_s": state.cpu_s}
        if not state.stopped_because:
            # An answer after the end would have a replay go on.
            self._ask_clock(at_epochs_end=True)
            state.stopped_because = parts.end(state.phase_step, state.pace[state.phase])
        waits = phase.patience if phase.selection == "best" else None
        if not state.stopped_because and waits is not None and state.looks_since_best >= waits:
            state.stopped_because = "early stopping"
        return row

    def _judge(self, scores: Scores) -> dict[str, Any]:
        """What a look says of the epoch; the better weights are kept."""
        state, phase = self.state, self._trainer.parts.phase
        self._trainer.parts.schedule.observe(scores.loss)
        gain = scores.dice - state.best_dice
        if phase.judge == "loss":
            gain = state.best_loss - scores.loss
        better = gain > MIN_DELTA or state.best_epoch == 0
        state.looks_since_best = 0 if better else state.looks_since_best + 1
        if better:
            state.best_dice, state.best_loss = scores.dice, scores.loss
            state.best_epoch = state.epoch
            if phase.selection == "best":
                state.best_network = clone_tensors(self._trainer.candidate.state_dict())
        return {
            "monitor_loss": scores.loss,
            "monitor_dice": scores.dice,
            "monitor_dice_per_label": scores.dice_per_label,
            "best": better,
        }

    def _look(self) -> Scores:
        per_sample = math.prod(self._stage.network_shape)
        batch = max(min(_MONITOR_VOXELS // per_sample, 4), 1)
        shape = (batch, *self._plan.input_shape(self._stage))
        engine = TorchEngine(
            self._trainer.candidate,
            shape,
            precision=self.state.engine_precision,
            activation=self._stage.activation,
        )
        pipeline = Pipeline(self._plan, {self._stage.name: engine})
        self._display.begin("looking at the monitor cases", 1)
        if not self._looks_fit:
            self._shorten_looks(pipeline)
        parts = self._trainer.parts
        terms = parts.terms if parts.phase.judge == "loss" else ()
        return look(pipeline, self._monitor_cases, terms)

    def _shorten_looks(self, pipeline: Pipeline) -> None:
        """Look at fewer cases where nothing depends on it and all would take too many minutes."""
        self._looks_fit = True
        phases = self._recipe.phases
        decide = any(each.selection == "best" or each.schedule.name == "plateau" for each in phases)
        if decide or all(each.minutes is each.cpu_minutes is None for each in phases):
            return
        state, parts = self.state, self._trainer.parts
        self._tick()
        look(pipeline, self._monitor_cases[:1])
        of_case = self._tick()
        spent = state.elapsed_s - state.began[2], state.cpu_s - state.began[3]
        epochs = max(state.phase_step / parts.steps_per_epoch / parts.phase.monitor_every, 1e-9)
        fitting = [float(len(self._monitor_cases))]
        for phase in phases:
            for clock, minutes in enumerate((phase.minutes, phase.cpu_minutes)):
                if minutes is not None:
                    n_looks = 1 + int(60 * minutes / (spent[clock] / epochs))
                    fitting.append(_LOOK_SHARE * 60 * minutes / n_looks / of_case[clock])
        n = ranks.agreed(max(int(min(fitting)), 1))
        if n < len(self._monitor_cases):
            self._display.say(
                f"looking at {n} of {len(self._monitor_cases)} monitor cases from here on: all of "
                f"them would take more than {_LOOK_SHARE:.0%} of the minutes"
            )
            self._monitor_cases = self._monitor_cases[:n]

    def _save(self) -> None:
        """Write the state, or nothing if training has diverged; the first process does.

        When it is due each process's clock would say for itself: nothing here waits for others.
        """
        if not ranks.rank():
            self._require(self._trainer.take(self.state).is_finite, "a weight")
            save_state(self._folder / STATE_FILE, self.state)

    def _require(self, finite: bool, what: str) -> None:
        """End where something is infinite or no number: nothing comes of it any more.

        Raises:
            RecipeError: With the epoch, and what to change.
        """
        if not finite:
            number = self.state.phase
            raise RecipeError(
                f"{self._folder}: training diverged in epoch {self.state.epoch + 1} ({what} is not "
                f"finite any more); lower phases.{number}.optimiser.options.lr or "
                f"phases.{number}.clip_norm in the run's recipe.yaml and go on from the last good "
                "state with --resume, or start again; `leanseg check` finds "
                "scans that may be the cause"
            )


def _told(row: dict[str, Any]) -> str:
    """The result of an epoch as a line."""
    monitored = ""
    if "monitor_loss" in row:
        labels = ", ".join(
            f"{name} {value:.3f}" if value is not None else f"{name} -"
            for name, value in row["monitor_dice_per_label"].items()
        )
        best = " (best so far)" if row["best"] else ""
        monitored = f", monitor loss {row['monitor_loss']:.4f}, whole-case Dice {labels}{best}"
    return (
        f"epoch {row['epoch']:3d}: train loss {row['train_loss']:.4f}{monitored}; "
        f"{row['samples_per_s']:.1f} samples/s, rate {row['learning_rate']:.1e}, "
        f"{duration(row['elapsed_s'])} so far"
    )
