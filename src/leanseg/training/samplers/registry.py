"""Samplers by name. A new one is one file here and one line in `SAMPLERS`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from leanseg.frames import PreparedCase
from leanseg.plan import Stage
from leanseg.registry import make
from leanseg.training.samplers.base import Sampler

# Name -> "module:factory".
SAMPLERS: Final[dict[str, str]] = {
    "slices": "leanseg.training.samplers.slices:Slices",
    "patches": "leanseg.training.samplers.patches:Patches",
    "slice-subset": "leanseg.training.samplers.slice_subset:SliceSubset",
    "volumes": "leanseg.training.samplers.volumes:Volumes",
}


def build_sampler(
    name: str, cases: Sequence[PreparedCase], stage: Stage, seed: int, **options: Any
) -> Sampler:
    """Build a sampler.

    Args:
        name: One of `SAMPLERS`, or an import path.
        cases: The training cases; none to check name and options alone.
        stage: Whose frame and patch they are in.
        seed: The run's seed.
        **options: The sampler's own.

    Raises:
        RecipeError: A name, option or value that is not known, or a patch that is not for it.
    """
    given = {"cases": cases, "stage": stage, "seed": seed}
    sampler: Sampler = make("sampler", SAMPLERS, name, given | options, tuple(given))
    return sampler
