"""Cases in groups by what they are, so that methods can be compared within each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from leanseg.datasets import Case
from leanseg.datasets.splits import slices_of
from leanseg.errors import LeansegError
from leanseg.evaluation.lesions import DIAMETERS_MM
from leanseg.evaluation.masks import LabelScore

Strata = Literal["volume", "slices", "thickness", "size"]
STRATA: tuple[str, ...] = get_args(Strata)
OF_SCANS = ("slices", "thickness")
_UNITS = {"volume": "ml", "slices": "slices", "thickness": "mm", "size": "mm"}


@dataclass(frozen=True)
class Scan:
    """What is known of a case's scan from its header.

    Attributes:
        n_slices: Axial slices.
        thickness_mm: Distance of their centres.
    """

    n_slices: float
    thickness_mm: float

    @classmethod
    def of(cls, case: Case) -> Scan:
        """That of a case; where its file has a header, it alone is read.

        Raises:
            LeansegError: If the file cannot be read.
        """
        return cls(*slices_of(case))


def strata_of(
    scores: Sequence[LabelScore], by: str, scans: Mapping[str, Scan]
) -> dict[str, tuple[str, ...]]:
    """Name of each group, from the lowest, to the names of its cases.

    Args:
        scores: Of one label, a case each.
        by: One of `STRATA`.
        scans: Case name to its scan, for those of `OF_SCANS`.

    Raises:
        LeansegError: If `by` is none of these, or what it goes by is not known of a case.
    """
    if by not in STRATA:
        raise LeansegError(f"strata {by!r} are not known; choose one of {', '.join(STRATA)}")
    values = np.array([_value(score, by, scans) for score in scores])
    if by == "size":
        masks = {
            name: (low <= values) & (values < high) for name, (low, high) in DIAMETERS_MM.items()
        }
    else:
        third = np.searchsorted(np.quantile(values, [1 / 3, 2 / 3]), values)
        masks = {_range(values[third == n]): third == n for n in range(3) if (third == n).any()}
    return {
        f"{name} {_UNITS[by]}": tuple(
            score.case for score, is_in in zip(scores, mask, strict=True) if is_in
        )
        for name, mask in masks.items()
        if mask.any()
    }


def _value(score: LabelScore, by: str, scans: Mapping[str, Scan]) -> float:
    if by in OF_SCANS:
        scan = scans.get(score.case)
        if scan is None:
            raise LeansegError(
                f"strata by {by} need the scan of case {score.case!r}, which is not known from "
                "scores alone; name the references or the dataset (--references)"
            )
        return scan.n_slices if by == "slices" else scan.thickness_mm
    volume_ml = score.metrics["reference_ml"]
    if volume_ml is None:
        raise LeansegError(
            f"strata by {by} need reference_ml, which case {score.case!r} lacks; score it again"
        )
    return volume_ml if by == "volume" else float(np.cbrt(6000 * volume_ml / np.pi))


def _range(values: NDArray[np.float64]) -> str:
    low, high = (f"{end:.3g}" for end in (values.min(), values.max()))
    return low if low == high else f"{low}-{high}"
