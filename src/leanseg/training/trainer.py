"""Steps of training, without a folder: runs, studies and federated rounds are built on it."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel

from leanseg.augmentation import Augmentation, build_augmentation
from leanseg.errors import RecipeError
from leanseg.frames import PreparedCase
from leanseg.losses import build_loss
from leanseg.modelfile import read_model
from leanseg.networks.starting import take_fitting
from leanseg.plan import Plan
from leanseg.runtime import keep_large_blocks
from leanseg.training import joint, ranks
from leanseg.training.checkpoint import TrainingState, clone_tensors
from leanseg.training.loading import batches
from leanseg.training.optimisers import build_optimisers
from leanseg.training.pace import is_over, share_behind
from leanseg.training.recipe import Phase, Recipe
from leanseg.training.runtime import (
    build_network,
    choose_precision,
    fabric,
    memory_format,
    trial_run,
)
from leanseg.training.samplers.registry import build_sampler
from leanseg.training.schedule import Schedule
from leanseg.training.seeds import Role, derive_seed
from leanseg.training.tasks.base import Batch, Task, Term
from leanseg.training.tasks.registry import build_task
from leanseg.training.two_stages import trained_weights

# Batches that tell averaged weights their batch statistics.
_SETTLING = 16


class PhaseParts:
    """What a phase names, built.

    Args:
        phase: The phase.
        recipe: Of which it is.
        plan: The plan.
        cases: The training cases; none to check names and options alone.

    Raises:
        RecipeError: A name, option or value that is not known.

    Attributes:
        terms: Of its loss.
        steps_per_epoch: Steps that make an epoch.
    """

    def __init__(
        self, phase: Phase, recipe: Recipe, plan: Plan, cases: Sequence[PreparedCase]
    ) -> None:
        self.phase = phase
        seed = recipe.training.seed
        self.sampler = build_sampler(
            phase.sampler.name, cases, plan.final, seed, **phase.sampler.options
        )
        self.augmentations = [build_augmentation(a.name, **a.options) for a in phase.augmentation]
        self.terms = [
            Term(
                build_loss(term.name, **term.options),
                term.weight,
                None if term.outputs is None else tuple(term.outputs),
                term.part,
            )
            for term in phase.loss
        ]
        for term in self.terms:
            if cases and term.loss.wants_counts:
                term.loss.count(_voxels_of_classes(cases, len(plan.labels)))
        self.task: Task = build_task(phase.task.name, plan.final, self.terms, **phase.task.options)
        per_step = phase.batch_size * phase.accumulate
        # A pass takes each sample once; what is left of it belongs to the next.
        passes = max(self.sampler.n_samples // per_step, 1) if cases else 1
        self.steps_per_epoch = phase.steps_per_epoch or passes
        self.schedule = Schedule(phase, self.n_epochs)

    @property
    def n_epochs(self) -> int | None:
        """Epochs that it has at most; None where only the clock ends it."""
        ends = [self.phase.epochs] if self.phase.epochs else []
        if self.phase.steps:
            ends.append(-(-self.phase.steps // self.steps_per_epoch))
        return min(ends, default=None)

    @property
    def n_steps(self) -> int | None:
        """Steps that it has at most; None where only the clock ends it."""
        ends = [self.phase.steps] if self.phase.steps else []
        if self.phase.epochs:
            ends.append(self.phase.epochs * self.steps_per_epoch)
        return min(ends, default=None)

    def share(self, step: int, pace: Sequence[Sequence[int]]) -> float:
        """Share of the phase that is behind after some steps."""
        by_steps = step / self.n_steps if self.n_steps else 0.0
        return min(max(by_steps, share_behind(step, pace)), 1.0)

    def end(self, step: int, pace: Sequence[Sequence[int]]) -> str:
        """Why the phase is over after some steps; "" where it is not."""
        if self.n_steps is not None and step >= self.n_steps:
            return "all epochs done" if self.phase.epochs else "all steps done"
        if is_over(step, pace):
            return "time budget" if self.phase.minutes is not None else "processor budget"
        return ""


class Trainer:
    """Trains a network by a recipe, step by step.

    Args:
        recipe: What to do.
        plan: What the network sees.
        cases: The training cases, prepared.

    Raises:
        RecipeError: If what the recipe says cannot be done on this machine.

    Attributes:
        network: The network in training.
        parts: What the current phase is made of.
    """

    def __init__(self, recipe: Recipe, plan: Plan, cases: Sequence[PreparedCase]) -> None:
        self._recipe, self._plan, self._cases = recipe, plan, cases
        self._options = recipe.training
        keep_large_blocks()
        # Fabric announces its precision plugin; the display says what matters.
        for name in ("lightning.fabric", "lightning_fabric"):
            logging.getLogger(name).setLevel(logging.WARNING)
        if self._options.threads is not None:
            torch.set_num_threads(self._options.threads)
        ranks.join()
        self.device = fabric(self._options.device).device
        self.network = build_network(recipe, plan, generator=self._generator(Role.INITIALISATION))
        self._initial = clone_tensors(self.network.state_dict())
        self._format = memory_format(plan.final.is_3d)
        self.network.to(self.device)
        self.network.to(memory_format=self._format)  # type: ignore[call-overload]
        self._loaded: TrainingState | None = None
        # Of batches that come again and again, what is on the device.
        self._moved: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None
        self.parts = PhaseParts(recipe.phases[0], recipe, plan, cases)
        for phase in recipe.phases:
            ranks.require_even(phase.batch_size, ranks.n_ranks())

    def _generator(self, role: Role) -> torch.Generator:
        return torch.Generator().manual_seed(derive_seed(self._options.seed, role))

    def begin(self, fold_id: str = "", precision: str | None = None) -> TrainingState:
        """The state of a training that has not taken a step.

        Args:
            fold_id: Which run and fold it is of.
            precision: Of the layers; None for the recipe's, which may be measured.
        """
        self.network.load_state_dict(self._initial)
        told = start_from(self._recipe, self.network)
        copy_parts(self.network, self._recipe.phases[0])
        chosen = precision or ranks.agreed(self._precision())
        state = TrainingState(chosen, fold_id, ranks.n_ranks(), told)
        self._enter(state)
        self.take(state)
        return state

    def _precision(self) -> str:
        if self._options.precision != "auto":
            return self._options.precision
        if self.device.type == "cpu" and not trial_run(self._recipe, self._plan).right_in_bf16:
            return "32"
        generator = self._generator(Role.MEASUREMENT)
        shape = (
            self.parts.phase.batch_size // ranks.n_ranks(),
            *self._plan.input_shape(self._plan.final),
        )
        image = torch.rand(shape, generator=generator)
        classes = (image[:, 0] > 0.9).long()
        image = image.to(self.device).contiguous(memory_format=self._format)
        batch = Batch(image, classes.to(self.device), tuple(range(len(image))))
        torch.manual_seed(derive_seed(self._options.seed, Role.MEASUREMENT))
        return choose_precision(self.network, self.parts.task.loss, batch)

    def _enter(self, state: TrainingState) -> None:
        """Build what the state's phase is made of."""
        phase = self._recipe.phases[state.phase]
        self.parts = PhaseParts(phase, self._recipe, self._plan, self._cases)
        trained = trained_parameters(self.network, phase)
        self._fabric = fabric(self._options.device, state.precision)
        optimisers = build_optimisers(phase.optimiser.name, trained, phase.optimiser.options)
        self._optimisers = optimisers
        self._rates = [[group["lr"] for group in each.param_groups] for each in optimisers]
        joint.join_normalisation(self.network)
        self._module, *self._stepped = self._fabric.setup(self.network, *optimisers)
        for method in self.parts.task.methods:
            self._module.mark_forward_method(method)
        self._average: AveragedModel | None = None
        if phase.average is not None:
            self._average = AveragedModel(
                self.network, multi_avg_fn=_averaging(phase.average), use_buffers=True
            )
        self._loaded = state

    def load(self, state: TrainingState) -> None:
        """Take up a state, from wherever it comes.

        Raises:
            RuntimeError, ValueError, LookupError: If it is not of this network.
        """
        if state is self._loaded:
            return
        self.network.load_state_dict(state.network)
        self._enter(state)
        for optimiser, kept in zip(self._optimisers, state.optimisers, strict=True):
            # torch's shares the memory of what it is given, and of what it gives.
            optimiser.load_state_dict(copy.deepcopy(kept))
        self.parts.schedule.load_state_dict(state.schedule)
        if self._average is not None:
            self._average.load_state_dict(state.average)

    def take(self, state: TrainingState) -> TrainingState:
        """Put what network and optimisers hold now into the state."""
        state.network = clone_tensors(self.network.state_dict())
        state.optimisers = [copy.deepcopy(each.state_dict()) for each in self._optimisers]
        state.schedule = self.parts.schedule.state_dict()
        state.average = clone_tensors(self._average.state_dict()) if self._average else {}
        return state

    @property
    def candidate(self) -> nn.Module:
        """The network that is monitored and kept: the running average where there is one."""
        return self.network if self._average is None else self._average.module

    def settle(self, state: TrainingState) -> None:
        """Measure the batch statistics of averaged weights, which have none of their own.

        Those that came about in training are of other weights. Batches of the coming epoch, not
        augmented, tell the layers that the phase trains.
        """
        if self._average is None:
            return
        layers = [
            layer
            for layer in self._average.module.modules()
            if isinstance(layer, _BatchNorm) and _learns(layer) and layer.track_running_stats
        ]
        if not layers:
            return
        kept = [clone_tensors(layer.state_dict()) for layer in layers]
        momenta = [layer.momentum for layer in layers]
        self._average.eval()
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # the mean of all batches
            layer.train()
        parts, phase = self.parts, self.parts.phase
        # Looking is not training: what a task counts stays as it is.
        task = copy.copy(parts.task)
        samples = parts.sampler.epoch(state.epoch, _SETTLING, phase.batch_size)
        n_labels = len(self._plan.labels)
        with torch.no_grad(), self._fabric.autocast():
            for batch in batches(parts.sampler, samples, n_labels, self._options.workers):
                task.loss(self._average.module, self._ready(batch))
        for layer, own, momentum in zip(layers, kept, momenta, strict=True):
            if not layer.num_batches_tracked:  # no part of this phase's loss
                layer.load_state_dict(own)
            layer.momentum = momentum
        self._average.eval()

    def next_phase(self, state: TrainingState) -> None:
        """Begin the next phase, from the weights that the last one selected."""
        self.network.load_state_dict(state.best_network)
        state.phase += 1
        copy_parts(self.network, self._recipe.phases[state.phase])
        state.began = [state.epoch, state.step, state.elapsed_s, state.cpu_s]
        state.best_dice, state.best_loss = -1.0, math.inf
        state.best_epoch = state.looks_since_best = 0
        state.pace.append([])
        state.stopped_because = ""
        self._enter(state)
        self.take(state)

    def steps(self, state: TrainingState, n: int) -> TrainingState:
        """Train so many steps of the state's phase; epochs follow one another.

        Args:
            state: From `begin`, or of an earlier call; stays as it is.
            n: Steps.

        Returns:
            The state after them.

        Raises:
            RecipeError: If training diverged.
        """
        self.load(state)
        self._loaded = after = replace(state, pace=copy.deepcopy(state.pace), rows=[*state.rows])
        while after.step < state.step + n:
            for loss in islice(self.epoch(after), state.step + n - after.step):
                if not math.isfinite(loss):
                    self._loaded = None
                    raise RecipeError("training diverged (the loss is not finite); lower the rate")
            if after.step_in_epoch == self.parts.steps_per_epoch:
                self.close_epoch(after)
        return self.take(after)

    def close_epoch(self, state: TrainingState) -> None:
        """The next step begins another epoch."""
        state.epoch += 1
        state.step_in_epoch, state.loss_sum, state.epoch_seconds = 0, 0.0, 0.0

    def epoch(self, state: TrainingState) -> Iterator[float]:
        """Take the steps that the epoch still has; yields the loss of each."""
        parts, phase = self.parts, self.parts.phase
        n_batches = parts.steps_per_epoch * phase.accumulate
        samples = parts.sampler.epoch(state.epoch, n_batches, phase.batch_size)
        left = samples[state.step_in_epoch * phase.accumulate :]
        n_labels = len(self._plan.labels)
        found = batches(parts.sampler, left, n_labels, self._options.workers)
        self._module.train()
        for module in self.network.modules():
            # What a phase leaves alone keeps its running statistics, too.
            if not _learns(module):
                module.eval()
        for _ in range(state.step_in_epoch, parts.steps_per_epoch):
            loss = self._step(state, list(islice(found, phase.accumulate)))
            state.loss_sum += loss
            state.step += 1
            state.step_in_epoch += 1
            yield loss

    def _step(self, state: TrainingState, found: Sequence[Batch]) -> float:
        phase = self.parts.phase
        self._set_rate(state)
        # Dropout has no generator of its own to be given: torch's is set anew at every step.
        counters = (state.step, ranks.rank()) if ranks.rank() else (state.step,)
        torch.manual_seed(derive_seed(self._options.seed, Role.DROPOUT, *counters))
        total, augmentations = 0.0, self.parts.augmentations
        for batch in found:
            loss = self.parts.task.loss(self._module, self._ready(batch, augmentations)) / len(
                found
            )
            self._fabric.backward(loss)
            total += float(loss.detach())
        joint.sum_gradients(self.network.parameters())
        for optimiser in self._stepped if phase.clip_norm is not None else ():
            self._fabric.clip_gradients(
                self._module,
                optimiser,
                max_norm=phase.clip_norm,
                error_if_nonfinite=False,  # a gradient that is not finite is found by the weights
            )
        for optimiser in self._stepped:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        if self._average is not None:
            self._average.update_parameters(self.network)
        return total

    def _set_rate(self, state: TrainingState) -> None:
        share = self.parts.share(state.phase_step, state.pace[state.phase])
        factor = self.parts.schedule.factor(state.phase_epoch, share)
        for optimiser, rates in zip(self._optimisers, self._rates, strict=True):
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * factor

    @property
    def learning_rate(self) -> float:
        """Of the last step."""
        return float(self._optimisers[0].param_groups[0]["lr"])

    def _ready(self, batch: Batch, augmentations: Sequence[Augmentation] = ()) -> Batch:
        if self._moved is None or self._moved[0] is not batch.image:
            self._moved = batch.image, batch.image.to(self.device), batch.classes.to(self.device)
        _, image, classes = self._moved
        for augmentation in augmentations:
            parameters = augmentation.draw(batch.seeds)
            image, classes = augmentation.apply(image, classes, parameters)
        known = None if batch.annotated is None else batch.annotated.to(self.device)
        return Batch(image.contiguous(memory_format=self._format), classes, batch.seeds, known)


def _voxels_of_classes(cases: Sequence[PreparedCase], n_labels: int) -> torch.Tensor:
    """Of all training cases together, background first, (n_labels + 1,); ignored ones left out."""
    counts = np.zeros(n_labels + 1, dtype=np.int64)
    for case in cases:
        counts += np.bincount(case.classes.ravel(), minlength=n_labels + 2)[: n_labels + 1]
    return torch.from_numpy(counts)


def start_from(recipe: Recipe, network: nn.Module) -> str:
    """Take the weights of the recipe's `init` that fit, and say which did not.

    Raises:
        LeansegError: If the file cannot be read, or nothing fits.
    """
    if recipe.init is None:
        return ""
    model = read_model(Path(recipe.init))
    name, weights = trained_weights(model)
    fitted = take_fitting(network, weights, path=Path(recipe.init), held=name)
    return fitted.told()


def copy_parts(network: nn.Module, phase: Phase) -> None:
    """Let parts of the network begin with the weights of others, as the phase says.

    Raises:
        RecipeError: If a part is not there, or nothing of it fits.
    """
    parts = dict(network.named_modules())
    for target, source in phase.copies.items():
        for part in (target, source):
            if part not in parts:
                raise RecipeError(
                    f"phase {phase.name!r}: 'copies' names {part!r}, which is no part of the "
                    f"network; its parts are {', '.join(dict(network.named_children()))}"
                )
        own, other = parts[target].state_dict(), parts[source].state_dict()
        fitting = {
            name: values
            for name, values in other.items()
            if name in own and own[name].shape == values.shape
        }
        if not fitting:
            raise RecipeError(
                f"phase {phase.name!r}: nothing of {source!r} fits {target!r}; leave it out of "
                "'copies'"
            )
        parts[target].load_state_dict(fitting, strict=False)


def trained_parameters(network: nn.Module, phase: Phase) -> list[nn.Parameter]:
    """The parameters that a phase trains; the others are frozen.

    Raises:
        RecipeError: If a name is none of the network's parts, or nothing would be trained.
    """
    named = dict(network.named_parameters())
    wanted = phase.trains
    for part in wanted or ():
        if not any(_is_in(name, part) for name in named):
            parts = ", ".join(dict.fromkeys(name.partition(".")[0] for name in named))
            raise RecipeError(
                f"phase {phase.name!r}: 'trains' names {part!r}, but the network has no such part "
                f"with weights; its parts are {parts}"
            )
    found = []
    for name, parameter in named.items():
        parameter.requires_grad_(wanted is None or any(_is_in(name, part) for part in wanted))
        if parameter.requires_grad:
            found.append(parameter)
    if not found:
        raise RecipeError(f"phase {phase.name!r}: trains nothing; the network has no weights")
    return found


def _learns(module: nn.Module) -> bool:
    """Whether a phase trains any of a module's weights, or it has none."""
    found = [each.requires_grad for each in module.parameters()]
    return any(found) or not found


def _is_in(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


def _averaging(decay: float) -> Any:
    """The update of a running average, which follows closely at first, while little is behind."""

    def update(averaged: Any, current: Any, n_averaged: Any) -> None:
        n = float(n_averaged)
        share = 1 - min(decay, (1 + n) / (10 + n))
        for own, other in zip(averaged, current, strict=True):
            # Counters are no weights.
            own.lerp_(other, share) if own.is_floating_point() else own.copy_(other)

    return update
