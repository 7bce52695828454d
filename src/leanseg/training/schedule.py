"""How the learning rate goes: torch's own schedules, as a factor of the optimiser's rate.

A schedule driven by the share of a phase that is behind goes through torch's curve of so many
steps, whether the phase ends by epochs, steps or minutes.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import nn

from leanseg.errors import RecipeError
from leanseg.registry import check_names, check_value, option_types
from leanseg.training.recipe import Phase

# Our names for torch's classes.
SCHEDULES: Final[dict[str, str]] = {
    "constant": "ConstantLR",
    "plateau": "ReduceLROnPlateau",
    "exponential": "ExponentialLR",
    "polynomial": "PolynomialLR",
    "cosine": "CosineAnnealingLR",
    "one-cycle": "OneCycleLR",
}
# Points of the curve of a schedule that the share drives.
_POINTS = 1000
# The smallest improvement that counts, for the plateau and for early stopping.
MIN_DELTA = 1e-4
# What differs from torch: paper 001's rate falls tenfold; polynomials are nnU-Net's; the rate of
# a constant schedule is constant from the first step.
_DEFAULTS: Final[dict[str, dict[str, Any]]] = {
    "constant": {"factor": 1.0},
    "plateau": {"factor": 0.1, "patience": 1, "threshold": MIN_DELTA, "threshold_mode": "abs"},
    "exponential": {"gamma": 0.99},
    "polynomial": {"power": 0.9},
    "one-cycle": {"max_lr": 1.0},
}
# What follows from the phase.
_LENGTHS: Final[dict[str, str]] = {
    "polynomial": "total_iters",
    "cosine": "T_max",
    "one-cycle": "total_steps",
}


class Schedule:
    """The factor of the learning rate in a phase.

    Args:
        phase: Whose schedule it is.
        n_epochs: That the phase has at most, for schedules that epochs drive.

    Raises:
        RecipeError: If torch's schedule has no such option, or does not take its value.
    """

    def __init__(self, phase: Phase, n_epochs: int | None) -> None:
        self._section = phase.schedule
        self._phase = phase.name
        name = self._section.name
        factory = getattr(torch.optim.lr_scheduler, SCHEDULES[name])
        settled = {"optimizer", "last_epoch", _LENGTHS.get(name, "")}
        types = option_types(factory)
        check_names("schedule", name, set(types) - settled, self._section.options)
        for option, value in self._section.options.items():
            check_value("schedule", name, option, types[option], value)
        points = n_epochs if self._section.is_by_epochs else _POINTS
        if points is None and name in _LENGTHS:
            raise RecipeError(
                f"phase {phase.name!r}: schedule {name!r} goes by epochs, but 'epochs' is not "
                "given; give it, or make schedule.by 'share'"
            )
        self._last = points if name in _LENGTHS else None
        self._scheduler = self._made(factory)
        self._curve = [self._rate]

    def _made(self, factory: Any) -> Any:
        """Torch's scheduler, around an optimiser of rate 1."""
        name = self._section.name
        options = {**_DEFAULTS.get(name, {}), **self._section.options}
        if self._last is not None:
            # One-cycle has no value behind its last step.
            options[_LENGTHS[name]] = self._last + (name == "one-cycle")
        optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        try:
            return factory(optimiser, **options)
        except Exception as error:  # whatever torch says of options
            reason = str(error).partition("\n")[0]
            msg = f"phase {self._phase!r}: schedule {name!r} does not take its options ({reason})"
            raise RecipeError(msg) from error

    @property
    def _rate(self) -> float:
        return float(self._scheduler.optimizer.param_groups[0]["lr"])

    def _after(self, steps: int) -> float:
        """The factor after so many of torch's steps."""
        if self._last is not None:
            steps = min(steps, self._last)
        while len(self._curve) <= steps:
            self._scheduler.optimizer.step()
            self._scheduler.step()
            self._curve.append(self._rate)
        return self._curve[steps]

    def factor(self, epoch: int, share: float) -> float:
        """Of the optimiser's rate.

        Args:
            epoch: Complete epochs of the phase.
            share: Of the phase that is behind, 0 to 1.
        """
        warmup = self._section.warmup
        rising = min(share / warmup, 1.0) if warmup else 1.0
        if self._section.name == "plateau":
            return rising * self._rate
        if self._section.is_by_epochs:
            return rising * self._after(epoch)
        # Behind the warm-up the whole curve is gone through.
        place = max(share - warmup, 0.0) / (1 - warmup) * _POINTS
        before = min(int(place), _POINTS - 1)
        low, high = self._after(before), self._after(before + 1)
        return rising * (low + (high - low) * (place - before))

    def observe(self, loss: float) -> None:
        """A monitored loss, at an epoch's end; only a plateau cares."""
        if self._section.name == "plateau":
            self._scheduler.step(loss)

    def state_dict(self) -> dict[str, Any]:
        """What it has to remember."""
        if self._section.name != "plateau":
            return {}
        return {**self._scheduler.state_dict(), "rate": self._rate}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        if self._section.name == "plateau":
            kept = dict(state)
            self._scheduler.optimizer.param_groups[0]["lr"] = kept.pop("rate")
            self._scheduler.load_state_dict(kept)
