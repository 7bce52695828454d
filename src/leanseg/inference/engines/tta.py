"""Test-time augmentation: the network looks several times, the probabilities are averaged.

Every view changes the input, and what the network makes of it is changed back. A shift moves some
pixels out of sight; these are averaged over the views that saw them. Several augmentations add
their views: they are not combined with one another, so that the cost stays a sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import RecipeError
from leanseg.inference.engines.base import Engine
from leanseg.registry import did_you_mean

NONE: Final = "none"
# Pixels of the network's input; small against an organ, past the stride of most networks.
_SHIFT = 4
# Batch and channel come before the spatial axes.
_FIRST_AXIS = 2

Batch = NDArray[np.float32]


@dataclass(frozen=True)
class Flip:
    """Mirrored along some spatial axes, numbered from 0; along none it is the plain view."""

    axes: tuple[int, ...] = ()

    def see(self, batch: Batch) -> Batch:
        """The mirrored batch."""
        return np.ascontiguousarray(self._mirrored(batch))

    def undo(self, probabilities: Batch) -> tuple[Batch, tuple[slice, ...]]:
        """Mirrored back, everywhere."""
        return self._mirrored(probabilities), (slice(None),) * probabilities.ndim

    def _mirrored(self, array: Batch) -> Batch:
        return np.flip(array, tuple(_FIRST_AXIS + axis for axis in self.axes))


@dataclass(frozen=True)
class Shift:
    """Moved by whole pixels along one spatial axis; the edge is repeated in the gap."""

    axis: int
    pixels: int

    def see(self, batch: Batch) -> Batch:
        """The moved batch."""
        axis = _FIRST_AXIS + self.axis
        n = batch.shape[axis]
        return np.take(batch, np.clip(np.arange(n) - self.pixels, 0, n - 1), axis)

    def undo(self, probabilities: Batch) -> tuple[Batch, tuple[slice, ...]]:
        """Moved back; without the pixels that were moved out of sight."""
        axis = _FIRST_AXIS + self.axis
        moved, n = abs(self.pixels), probabilities.shape[axis]
        first, last = slice(0, max(n - moved, 0)), slice(min(moved, n), n)
        seen, place = (last, first) if self.pixels > 0 else (first, last)
        return probabilities[_along(axis, seen)], _along(axis, place)


def _along(axis: int, part: slice) -> tuple[slice, ...]:
    return (*(slice(None),) * axis, part)


View = Flip | Shift


def flips(n_axes: int) -> list[View]:
    """Every combination of mirrored axes but none: 3 views of a slice, 7 of a volume."""
    return [Flip(axes) for n in range(1, n_axes + 1) for axes in combinations(range(n_axes), n)]


def shifts(n_axes: int) -> list[View]:
    """Both ways along every axis: 4 views of a slice, 6 of a volume."""
    return [Shift(axis, by) for axis in range(n_axes) for by in (_SHIFT, -_SHIFT)]


# Name -> the views besides the plain one, by the number of spatial axes.
AUGMENTATIONS: Final[dict[str, Callable[[int], list[View]]]] = {
    "flips": flips,
    "shifts": shifts,
}


def parse_tta(text: str) -> tuple[str, ...]:
    """The augmentations that a user names, in the registry's order.

    Args:
        text: "none", or names of `AUGMENTATIONS` with commas between: "flips,shifts".

    Raises:
        RecipeError: If a name is not known, or "none" stands among others.
    """
    named = [part.strip() for part in text.split(",")]
    if named == [NONE]:
        return ()
    unknown = [name for name in named if name not in AUGMENTATIONS and name != NONE]
    choices = f"choose {NONE}, or one or several of {', '.join(AUGMENTATIONS)} with commas between"
    if unknown:
        guess = did_you_mean(unknown, (NONE, *AUGMENTATIONS))
        raise RecipeError(f"test-time augmentation {unknown[0]!r} is not known{guess}; {choices}")
    if NONE in named:
        raise RecipeError(f"test-time augmentation {text!r} is none and some at once; {choices}")
    return tuple(name for name in AUGMENTATIONS if name in named)


class AugmentingEngine:
    """Runs an engine on every view and averages; thread-safe where that engine is.

    Args:
        engine: One network or an ensemble.
        names: From `parse_tta`.
        n_axes: Spatial axes of the network's input: 2 or 3.
        n_outputs: Output channels of the network.
        flippable: The spatial axes that may be mirrored; None for all.

    Attributes:
        tta: The augmentations as they are stored beside a result: "flips,shifts".
    """

    def __init__(
        self,
        engine: Engine,
        names: Sequence[str],
        n_axes: int,
        n_outputs: int = 1,
        flippable: Sequence[int] | None = None,
    ) -> None:
        self._engine, self._n_outputs = engine, n_outputs
        self.tta = ",".join(names) or NONE
        views = {
            name: [view for view in AUGMENTATIONS[name](n_axes) if _allowed(view, flippable)]
            for name in names
        }
        self._counts = {name: len(each) for name, each in views.items()}
        self._views: tuple[View, ...] = (
            Flip(),
            *(view for each in views.values() for view in each),
        )
        self.name, self.precision, self.device = engine.name, engine.precision, engine.device
        self.lanes, self.batch_size, self.shape = engine.lanes, engine.batch_size, engine.shape
        self.passes = len(self._views) * engine.passes

    def run(self, batch: Batch) -> Batch:
        """Mean probabilities (batch, output, *spatial) of all views."""
        total: Batch | None = None
        # How many views saw a pixel; the same for every image and output.
        count = np.zeros((1, 1, *batch.shape[_FIRST_AXIS:]), dtype=np.float32)
        # One view after another: no more than one further input and output is held.
        for view in self._views:
            seen, place = view.undo(self._engine.run(view.see(batch)))
            if total is None:
                total = np.zeros((*seen.shape[:_FIRST_AXIS], *count.shape[2:]), dtype=np.float32)
            total[place] += seen
            count[place] += 1
        assert total is not None  # the plain view is always there
        total /= count
        return total

    def memory_bytes(self) -> int:
        """The engine's; and for every lane a view of the input, the sum so far and its counts."""
        batch, channels, *spatial = self.shape
        further = 4 * batch * (channels + self._n_outputs + 1) * math.prod(spatial)
        return self._engine.memory_bytes() + self.lanes * further

    def release(self) -> None:
        """Give back the working memory of the engine."""
        self._engine.release()

    def scout(self) -> Engine:
        """The engine's own, without augmentation."""
        return self._engine.scout()

    def cost(self, unit: str = "slice") -> str:
        """What the augmentation costs, for the user.

        Args:
            unit: What one pass of the network sees: "slice" or "volume".
        """
        parts = ", ".join(["1 plain", *(f"{n} {name}" for name, n in self._counts.items())])
        networks = f"{self._engine.passes} networks, each " if self._engine.passes > 1 else ""
        return (
            f"{self.passes} passes of the network per {unit} ({networks}{parts}: "
            f"about {len(self._views)} times the time)"
        )


def _allowed(view: View, flippable: Sequence[int] | None) -> bool:
    return flippable is None or not isinstance(view, Flip) or set(view.axes) <= set(flippable)


def augmented(
    engine: Engine,
    tta: str,
    n_axes: int,
    n_outputs: int = 1,
    flippable: Sequence[int] | None = None,
) -> Engine:
    """The engine with what `tta` says around it; itself where that is "none".

    Raises:
        RecipeError: If `tta` is not known, or is flips of a network that allows none.
    """
    names = parse_tta(tta)
    if "flips" in names and flippable is not None and not flippable:
        raise RecipeError(
            "test-time augmentation 'flips' is not for this model, which was trained without "
            "mirroring; leave it out"
        )
    return AugmentingEngine(engine, names, n_axes, n_outputs, flippable) if names else engine
