"""How sure a network is of its labels, added up while it runs."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from leanseg.inference.stage_run import Floats
from leanseg.plan import Stage

# Below, probabilities are those of background, of which there is much.
_LEAST: Final = 0.05


class Confidence:
    """The Dice that probabilities themselves expect, in the network's frame.

    Were they calibrated, a label map with the mask M would have about the Dice
    2 * sum of p in M / (voxels of M + sum of p). It is a feature for `leanseg review`, which knows
    from labelled scans what Dice comes with it.

    Args:
        stage: The stage that answers.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        # By first plane, so that the order in which threads come does not matter.
        self._sums: dict[int, NDArray[np.float64]] = {}

    def add(self, start: int, planes: Floats) -> None:
        """Planes (plane, output, i, j) of the frame, of which `start` is the first."""
        stage = self._stage
        sums = np.zeros((len(stage.labels), 3))
        if stage.is_sigmoid:
            for own, region in zip(sums, np.moveaxis(planes, 1, 0), strict=True):
                p = region[region > _LEAST]
                inside = p[p > np.float32(stage.threshold)]
                own[:] = inside.sum(dtype=np.float64), len(inside), p.sum(dtype=np.float64)
        else:
            doubtful = planes[:, 0] < 1 - _LEAST
            found = np.moveaxis(planes, 1, 0)[:, doubtful]
            highest = found.argmax(axis=0)
            for number, own in enumerate(sums, start=1):
                p = found[number]
                inside = p[highest == number]
                both = inside.sum(dtype=np.float64), p[p > _LEAST].sum(dtype=np.float64)
                own[:] = both[0], len(inside), both[1]
        self._sums[start] = sums

    @property
    def by_label(self) -> dict[str, float | None]:
        """Of each label; None where no voxel has it."""
        n = len(self._stage.labels)
        sums = sum((self._sums[k] for k in sorted(self._sums)), np.zeros((n, 3)))
        return {
            name: round(2 * inside / (voxels + total), 6) if voxels else None
            for name, (inside, voxels, total) in zip(self._stage.labels, sums, strict=True)
        }
