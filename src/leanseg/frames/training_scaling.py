"""Mean and standard deviation of windowed training volumes, from which a fold's plan scales."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from leanseg.datasets import Case
from leanseg.frames.cache import ArrayCache
from leanseg.frames.intensity import windowed_moments
from leanseg.frames.view import ScanView
from leanseg.plan import LinearScaling, Plan

# A standard deviation below this share of the mean is rounding: the voxels have one value.
_ROUNDING = 1e-9


def with_training_scaling(
    plan: Plan,
    cases: Sequence[Case],
    channel_indices: Sequence[int] | None,
    cache: ArrayCache,
    on_case: Callable[[str], None] = lambda name: None,
) -> Plan:
    """A plan whose last stage scales by the mean and standard deviation of some volumes.

    All voxels of the windowed volumes count alike, in their own resolution (paper 002,
    "Preprocessing and Augmentation"). Where they have one value, it becomes 0.

    Args:
        plan: Of which the last stage is to scale so.
        cases: The volumes, at least one.
        channel_indices: Which channels of the files are the plan's; None for all.
        cache: Where each volume's numbers are kept.
        on_case: Called with the name of each case that is looked at.

    Returns:
        The plan with numbers: one pair, or of several channels one each.

    Raises:
        DatasetError: If a scan cannot be read, or lacks the plan's channels.
    """
    found = []
    for case in cases:
        found.append(_moments(plan, case, channel_indices, cache))
        on_case(case.name)
    scalings = tuple(_pooled(channel) for channel in np.stack(found, axis=1))
    stage = plan.final
    intensity = stage.intensity.model_copy(
        update={"scaling": scalings if scalings[1:] else scalings[0]}
    )
    settled = stage.model_copy(update={"intensity": intensity})
    return plan.model_copy(update={"stages": (*plan.stages[:-1], settled)})


def _moments(
    plan: Plan, case: Case, channel_indices: Sequence[int] | None, cache: ArrayCache
) -> NDArray[np.float64]:
    """Voxels, mean and variance of each windowed channel of a case, (channel, 3)."""
    codes, window = plan.final.frame.orientation, plan.final.intensity.window
    description = {
        "moments": 1,
        "files": [source.sha256() for source in case.images],
        "orientation": codes,
        "window": window.model_dump(mode="json"),
        "channels": None if channel_indices is None else list(channel_indices),
    }
    key = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()

    def make() -> dict[str, NDArray[np.float64]]:
        view = ScanView(case.image, codes, plan.channels, channel_indices)
        return {"moments": np.array([windowed_moments(c, window) for c in view.channels])}

    return np.array(cache.get(key, make)["moments"])


def _pooled(moments: NDArray[np.float64]) -> LinearScaling:
    """The scaling by the voxels of several volumes together, from (volume, 3)."""
    voxels, means, variances = moments.T
    mean = float(np.average(means, weights=voxels))
    sd = float(np.sqrt(np.average(variances + (means - mean) ** 2, weights=voxels)))
    spread = sd if sd > _ROUNDING * max(abs(mean), _ROUNDING) else 1.0
    return LinearScaling(divide_by=spread, add=-mean / spread)
