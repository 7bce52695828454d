"""The budget of a planned training, as its user says it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from leanseg.errors import RecipeError
from leanseg.inference.memory import parse_bytes

_MINUTES: Final = 30.0
# Minutes of a fold, and whether all folds are trained.
QUALITIES: Final[dict[str, tuple[float, bool]]] = {
    "fast": (10.0, False),
    "balanced": (60.0, False),
    "best": (60.0, True),
}


@dataclass(frozen=True)
class Budget:
    """What a training may take; one of the first three is given.

    Attributes:
        minutes: By the clock, of each fold, with reading and packaging.
        cpu_minutes: Of the processor, of each fold's training alone.
        steps: Of each fold: then nothing that is planned depends on a clock.
        memory_bytes: The most; None for what the machine has.
        cross_validate: Whether to train folds, so that each case tests once.
    """

    minutes: float | None = None
    cpu_minutes: float | None = None
    steps: int | None = None
    memory_bytes: int | None = None
    cross_validate: bool = False


def budget_of(
    minutes: float | None = None,
    cpu_minutes: float | None = None,
    steps: int | None = None,
    quality: str | None = None,
    memory: str | None = None,
) -> Budget:
    """The budget that a user asks for; half an hour where nothing is said.

    Raises:
        RecipeError: If one is no amount, or several say how long.
    """
    lengths = {"--minutes": minutes, "--cpu-minutes": cpu_minutes, "--steps": steps}
    given = [name for name, value in lengths.items() if value is not None]
    if len(given) > 1:
        raise RecipeError(f"{' and '.join(given)} both say how long to train; give one")
    for name in given:
        value = lengths[name] or 0
        if not 0 < value < math.inf:
            raise RecipeError(f"{name} is {value:g}; give a number above zero")
    if quality is not None and quality not in QUALITIES:
        raise RecipeError(f"there is no quality {quality!r}; choose {', '.join(QUALITIES)}")
    usual, cross_validate = QUALITIES.get(quality or "", (_MINUTES, False))
    return Budget(
        minutes=minutes if given else usual,
        cpu_minutes=cpu_minutes,
        steps=steps,
        memory_bytes=None if memory is None else parse_bytes(memory),
        cross_validate=cross_validate,
    )
