"""The training loop of one fold."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from leanseg.augmentation import build_augmentation
from leanseg.errors import LeansegError, RecipeError
from leanseg.frames import PreparedCase
from leanseg.inference.engines.torch_engine import TorchEngine
from leanseg.inference.pipeline import Pipeline
from leanseg.losses import build_loss
from leanseg.plan import Plan
from leanseg.progress import Display, duration
from leanseg.runtime import keep_large_blocks
from leanseg.training.checkpoint import TrainingState, clone_tensors, load_state, save_state
from leanseg.training.loading import Batch, batches
from leanseg.training.metrics import MetricsLog
from leanseg.training.recipe import Recipe
from leanseg.training.runtime import build_network, choose_precision, fabric
from leanseg.training.samplers.slices import SliceSampler, TrainingSlices
from leanseg.training.seeds import Role, derive_seed
from leanseg.training.validation import ValidationScores, validate

STATE_FILE = "state.pt"
# The smallest improvement that counts for the plateau and for early stopping.
_MIN_DELTA = 1e-4
_VALIDATION_BATCH = 4


class FoldTrainer:
    """Trains one fold; continues from the state in its folder if there is one.

    Args:
        folder: The fold's folder.
        recipe: The resolved recipe.
        plan: The plan.
        training_cases: Cases to learn from.
        validation_cases: Whole cases that choose the best epoch.
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
        validation_cases: Sequence[PreparedCase],
        display: Display,
        fold_id: str = "",
    ) -> None:
        self._folder = folder
        self._fold_id = fold_id
        self._options = recipe.training
        self._plan = plan
        self._stage = plan.final
        self._input_shape = plan.input_shape(plan.final)
        rule, neighbours = recipe.training.slices, self._stage.patch.neighbours
        self._cases = [TrainingSlices(case, rule, neighbours) for case in training_cases]
        self._validation_cases = validation_cases
        self._display = display
        keep_large_blocks()
        # Fabric announces its precision plugin; the display says what matters.
        for name in ("lightning.fabric", "lightning_fabric"):
            logging.getLogger(name).setLevel(logging.WARNING)
        if self._options.threads is not None:
            torch.set_num_threads(self._options.threads)
        self._sampler = SliceSampler(
            self._cases, self._options.seed, self._options.foreground_fraction
        )
        self._steps_per_epoch = self._options.steps_per_epoch or max(
            self._sampler.n_slices // self._options.batch_size, 1
        )
        self._loss = build_loss(recipe.loss.name, **recipe.loss.options)
        self._augmentations = [build_augmentation(a.name, **a.options) for a in recipe.augmentation]
        generator = self._generator(Role.INITIALISATION)
        self.network = build_network(recipe, plan, generator=generator)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._setup()

    def _generator(self, role: Role) -> torch.Generator:
        return torch.Generator().manual_seed(derive_seed(self._options.seed, role))

    def _setup(self) -> None:
        """Restore the state or start one, and hand network and optimiser to Fabric."""
        path = self._folder / STATE_FILE
        restored = load_state(path, self._fold_id) if path.exists() else None
        device = fabric(self._options.device).device
        self.network.to(device)
        rate = self._options.learning_rate
        self.state = restored or TrainingState(self._precision(device), self._fold_id, rate)
        self._fabric = fabric(self._options.device, self.state.precision)
        optimiser = torch.optim.NAdam(
            self.network.parameters(),
            lr=rate,
            eps=1e-7,
            momentum_decay=4e-3,
        )
        self._scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimiser,
            factor=self._options.plateau_factor,
            patience=self._options.plateau_patience,
            threshold=_MIN_DELTA,
            threshold_mode="abs",
        )
        self._optimiser = optimiser
        self._module, self._fabric_optimiser = self._fabric.setup(self.network, optimiser)
        if restored is not None:
            self._restore(path, rate)
        else:
            # The measured precision has to survive a kill before the first checkpoint.
            self._save()

    def _restore(self, path: Path, rate: float) -> None:
        """Take weights, optimiser and scheduler from the state; the rate where it was edited.

        Raises:
            LeansegError: If they are not of this network.
        """
        try:
            self.network.load_state_dict(self.state.network)
            self._optimiser.load_state_dict(self.state.optimiser)
            self._scheduler.load_state_dict(self.state.scheduler)
        except (RuntimeError, ValueError, LookupError) as error:
            raise LeansegError(
                f"{path}: does not fit the network of the recipe in this version of leanseg; "
                "delete it to train this fold from the start"
            ) from error
        if rate != self.state.learning_rate:
            self.state.learning_rate = rate
            for group in self._optimiser.param_groups:
                group["lr"] = rate

    def _precision(self, device: torch.device) -> str:
        if self._options.precision != "auto":
            return self._options.precision
        self._display.say("measuring whether bf16 is faster than float32 here")
        generator = self._generator(Role.MEASUREMENT)
        image = torch.rand((self._options.batch_size, *self._input_shape), generator=generator)
        classes = (image[:, 0] > 0.9).long()
        image = image.contiguous(memory_format=torch.channels_last)
        torch.manual_seed(derive_seed(self._options.seed, Role.MEASUREMENT))
        return choose_precision(self.network, self._loss, image.to(device), classes.to(device))

    def fit(self) -> TrainingState:
        """Train to the end; returns the final state.

        Raises:
            RecipeError: If training diverged; the last state that was written stays.
        """
        state = self.state
        log = MetricsLog(self._folder, state.rows)
        self._ticked = time.monotonic(), time.process_time()
        if state.epoch or state.step:
            self._display.say(f"resuming at epoch {state.epoch + 1}, step {state.step}")
        try:
            while not state.stopped_because:
                self._train_epoch()
                row = self._close_epoch()
                log.epoch(row)
                state.rows.append(row)
                self._display.say(_told(row))
                self._save()
        finally:
            log.close()
        self._display.say(f"training ended: {state.stopped_because}")
        return state

    def _tick(self) -> tuple[float, float]:
        """Seconds since the last call, by the clock and of the processor; the state sums them."""
        now = time.monotonic(), time.process_time()
        seconds, cpu_seconds = now[0] - self._ticked[0], now[1] - self._ticked[1]
        self._ticked = now
        self.state.elapsed_s += seconds
        self.state.cpu_s += cpu_seconds
        return seconds, cpu_seconds

    def _train_epoch(self) -> None:
        state, options = self.state, self._options
        samples = self._sampler.epoch(state.epoch, self._steps_per_epoch * options.batch_size)
        what = f"epoch {state.epoch + 1}/{options.epochs}"
        self._display.begin(what, self._steps_per_epoch)
        self._module.train()
        saved = time.monotonic()
        # Writing the last epoch's state is not part of this one.
        self._tick()
        for batch in batches(
            self._cases, samples, options.batch_size, options.workers, state.step_in_epoch
        ):
            loss = self._step(batch)
            self._require(math.isfinite(loss), "the training loss")
            state.loss_sum += loss
            state.step += 1
            state.step_in_epoch += 1
            state.epoch_seconds += self._tick()[0]
            self._show(what)
            state.stopped_because = self._spent_budget()
            if state.stopped_because:
                return
            due = time.monotonic() - saved >= options.checkpoint_interval_s
            if due and state.step_in_epoch < self._steps_per_epoch:
                self._save()
                saved = time.monotonic()

    def _step(self, batch: Batch) -> float:
        state, options = self.state, self._options
        image, classes = batch.image, batch.classes
        for augmentation in self._augmentations:
            parameters = augmentation.draw(batch.augmentation_seeds)
            image, classes = augmentation.apply(image, classes, parameters)
        image = image.contiguous(memory_format=torch.channels_last)
        # Dropout has no generator of its own to be given: torch's is set anew at every step.
        torch.manual_seed(derive_seed(options.seed, Role.DROPOUT, state.step))
        device = self._fabric.device
        # Only where something is unannotated does the loss have to know of it.
        known = {} if batch.annotated is None else {"annotated": batch.annotated.to(device)}
        loss = self._loss(self._module(image.to(device)), classes.to(device), **known)
        self._fabric.backward(loss)
        if options.gradient_clip_norm is not None:
            self._fabric.clip_gradients(
                self._module,
                self._fabric_optimiser,
                max_norm=options.gradient_clip_norm,
                error_if_nonfinite=False,  # a gradient that is not finite is found by the weights
            )
        self._fabric_optimiser.step()
        self._fabric_optimiser.zero_grad(set_to_none=True)
        return float(loss.detach())

    def _show(self, what: str) -> None:
        state = self.state
        done = state.step_in_epoch
        rate = done * self._options.batch_size / max(state.epoch_seconds, 1e-9)
        seconds = self._seconds_left()
        end = time.strftime("%H:%M", time.localtime(time.time() + seconds))
        left = f"at most {duration(seconds)} left, until {end}"
        detail = f"loss {state.loss_sum / done:.4f}, {rate:.1f} images/s, {left}"
        self._display.advance(what, done, self._steps_per_epoch, detail)

    def _seconds_left(self) -> float:
        """Wall-clock seconds to the last epoch's end or to the end of a budget."""
        state = self.state
        done = state.step_in_epoch / self._steps_per_epoch
        per_epoch = state.epoch_seconds / done + state.validation_seconds
        epochs = self._options.epochs - state.epoch - done
        budgets = (left + state.validation_seconds for left in self._budgets().values())
        return max(min([epochs * per_epoch, *budgets]), 0.0)

    def _budgets(self) -> dict[str, float]:
        """Budgets, and the wall-clock seconds left of each if one validation is still to come."""
        state, options = self.state, self._options
        left = {}
        if options.time_budget_s is not None:
            spent = state.elapsed_s + state.validation_seconds
            left["time budget"] = options.time_budget_s - spent
        if options.cpu_budget_s is not None:
            cores = max(state.cpu_s, 1e-9) / max(state.elapsed_s, 1e-9)
            spent = state.cpu_s + state.validation_cpu_s
            left["processor budget"] = (options.cpu_budget_s - spent) / cores
        return left

    def _spent_budget(self) -> str:
        """Which budget has only the time for one validation left; "" for none."""
        return next((name for name, left in self._budgets().items() if left <= 0), "")

    def _close_epoch(self) -> dict[str, Any]:
        """Validate, decay the rate, keep the best weights, decide whether to stop."""
        state, options = self.state, self._options
        self._tick()
        self._require(self._take().is_finite, "a weight")
        scores = self._validate()
        self._require(math.isfinite(scores.loss), "the validation loss")
        state.validation_seconds, state.validation_cpu_s = self._tick()
        state.epoch += 1
        better = scores.dice > state.best_dice + _MIN_DELTA or not state.best_network
        if better:
            state.best_dice, state.best_epoch = scores.dice, state.epoch
            state.best_network = clone_tensors(self.network.state_dict())
        row = {
            "epoch": state.epoch,
            "step": state.step,
            "train_loss": state.loss_sum / max(state.step_in_epoch, 1),
            "val_loss": scores.loss,
            "val_dice": scores.dice,
            "val_dice_per_label": scores.dice_per_label,
            "learning_rate": self._optimiser.param_groups[0]["lr"],
            "images_per_s": state.step_in_epoch * options.batch_size / state.epoch_seconds,
            "seconds": state.epoch_seconds + state.validation_seconds,
            "elapsed_s": state.elapsed_s,
            "cpu_s": state.cpu_s,
            "best": better,
        }
        self._scheduler.step(scores.loss)
        state.step_in_epoch, state.loss_sum, state.epoch_seconds = 0, 0.0, 0.0
        if not state.stopped_because:
            if state.epoch >= options.epochs:
                state.stopped_because = "all epochs done"
            elif state.epoch - state.best_epoch >= options.early_stopping_patience:
                state.stopped_because = "early stopping"
            else:
                state.stopped_because = self._spent_budget()
        return row

    def _validate(self) -> ValidationScores:
        shape = (_VALIDATION_BATCH, *self._input_shape)
        engine = TorchEngine(self.network, shape, precision=self.state.engine_precision)
        pipeline = Pipeline(self._plan, {self._stage.name: engine})
        scores = validate(pipeline, self._validation_cases)
        self.network.train()
        return scores

    def _take(self) -> TrainingState:
        """The state, with what the network and its optimiser hold now."""
        state = self.state
        state.network = clone_tensors(self.network.state_dict())
        state.optimiser = self._optimiser.state_dict()
        state.scheduler = self._scheduler.state_dict()
        return state

    def _save(self) -> None:
        """Write the state, or nothing if training has diverged."""
        self._require(self._take().is_finite, "a weight")
        save_state(self._folder / STATE_FILE, self.state)

    def _require(self, finite: bool, what: str) -> None:
        """End where something is infinite or no number: nothing comes of it any more.

        Raises:
            RecipeError: With the epoch, and what to change.
        """
        if not finite:
            raise RecipeError(
                f"{self._folder}: training diverged in epoch {self.state.epoch + 1} ({what} is not "
                "finite any more); lower training.learning_rate or training.gradient_clip_norm in "
                "the run's recipe.yaml and go on from the last good state with --resume, or start "
                "anew; `leanseg check` tells of scans that are to blame"
            )


def _told(row: dict[str, Any]) -> str:
    """The result of an epoch as a line."""
    labels = ", ".join(
        f"{name} {value:.3f}" if value is not None else f"{name} -"
        for name, value in row["val_dice_per_label"].items()
    )
    best = " (best so far)" if row["best"] else ""
    return (
        f"epoch {row['epoch']:3d}: train loss {row['train_loss']:.4f}, validation loss "
        f"{row['val_loss']:.4f}, whole-case Dice {labels}{best}; "
        f"{row['images_per_s']:.1f} images/s, rate {row['learning_rate']:.1e}, "
        f"{duration(row['elapsed_s'])} so far"
    )
