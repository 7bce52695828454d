"""The error budget of a cascade: what each of its two stages costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from leanseg.evaluation.lesions import LESION_DEFINITIONS, LesionScores, summarise_lesions
from leanseg.files import write_csv, write_json

# A cost below this is not worth a word on which stage to improve.
_LITTLE: Final = 0.01

BUDGET_DEFINITIONS: Final[dict[str, str]] = {
    "target": "what the second stage labels: the lesion, or of one label the organ again",
    "organ": "the union of the organ's and the lesion's reference",
    "part": "what a crop may cut: a lesion (a connected component of the reference, 26 "
    "neighbours); where the organ alone is labelled, the organ of a case",
    "labelled_slices": "slices of the frame in which the reference has the organ",
    "missed_slices": "how many of these have no pixel for which stage 1 gives a probability of "
    "0.5 or more",
    "found_nothing": "whether that holds for all slices of the scan",
    "organ_dice": "Dice of stage 1 alone and the organ, on the scan's grid",
    "kept": "by the margin in pixels of the frame: share of a part's voxels, on the frame's grid, "
    "that lie inside the crops around what stage 1 finds, each widened to the model's multiple",
    "lost": "parts of which nothing is kept",
    "off_grid": "parts that have no voxel on the frame's grid, and are not counted in kept",
    "dice_found": "Dice of the target, the second stage looking around what the first finds, as in "
    "prediction; undefined where the reference has no target",
    "dice_true": "the same, looking around the organ's reference in every slice that has it, with "
    "the same margin and the first stage's probability, and nowhere else",
    "gain": "dice_true - dice_found",
    "verdict": "stage 1 costs the mean gain, at least 0, and stage 2 costs 1 - the mean dice_true, "
    "what is missing even with the true box. The stage with the larger cost is to be improved "
    f"first; below {_LITTLE} each, neither. Means are of the cases that have the target",
    **LESION_DEFINITIONS,
}


@dataclass(frozen=True)
class CaseBudget:
    """One case; `BUDGET_DEFINITIONS` says what each number is.

    Attributes:
        case: Its name.
        labelled_slices: Slices with the organ.
        missed_slices: Those in which stage 1 finds nothing.
        found_nothing: Whether it finds nothing in the scan.
        organ_dice: Of stage 1; None where the reference has no organ.
        voxels: Of each part, on the frame's grid, without those that have none.
        kept: By margin, the share of each of these that the crops keep.
        off_grid: Parts that have none.
        dice_found: Of the target, with the found box.
        dice_true: With the true box.
        lesions_found: Single lesions with the found box; None where the organ is the target.
        lesions_true: With the true box.
    """

    case: str
    labelled_slices: int
    missed_slices: int
    found_nothing: bool
    organ_dice: float | None
    voxels: tuple[int, ...]
    kept: Mapping[int, tuple[float, ...]]
    off_grid: int
    dice_found: float | None
    dice_true: float | None
    lesions_found: LesionScores | None = None
    lesions_true: LesionScores | None = None

    @property
    def gain(self) -> float | None:
        """Dice that the true box would gain."""
        if self.dice_found is None or self.dice_true is None:
            return None
        return self.dice_true - self.dice_found

    def kept_of_all(self, margin: int) -> float | None:
        """Share of the voxels of all parts together."""
        pairs = zip(self.kept[margin], self.voxels, strict=True)
        return sum(share * n for share, n in pairs) / sum(self.voxels) if self.voxels else None


@dataclass(frozen=True)
class ErrorBudget:
    """What each stage of a cascade costs, case by case.

    Attributes:
        organ: Label of the first stage.
        target: Label of the second.
        margin: The model's own, in pixels of the frame.
        cases: At least one.
        notes: What is to be said of the data, a sentence each.
    """

    organ: str
    target: str
    margin: int
    cases: tuple[CaseBudget, ...]
    notes: tuple[str, ...] = ()

    @property
    def has_lesion(self) -> bool:
        """Whether the second stage labels something inside the organ."""
        return self.target != self.organ

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Figures of all cases, by "stage_1", "kept" (by margin), "dice" and "lesions"."""
        cases = self.cases
        summary: dict[str, Any] = {
            "stage_1": {
                "cases": len(cases),
                "found_nothing": [each.case for each in cases if each.found_nothing],
                "labelled_slices": sum(each.labelled_slices for each in cases),
                "missed_slices": sum(each.missed_slices for each in cases),
                "organ_dice": _summarise({each.case: each.organ_dice for each in cases}),
            },
            "kept": {margin: self._kept(margin) for margin in cases[0].kept},
            "off_grid": sum(each.off_grid for each in cases),
            "dice": {
                name: _summarise({each.case: getattr(each, name) for each in cases})
                for name in ("dice_found", "dice_true", "gain")
            },
        }
        if self.has_lesion:
            summary["lesions"] = {
                box: summarise_lesions([score for each in cases if (score := getattr(each, name))])
                for box, name in (("found", "lesions_found"), ("true", "lesions_true"))
            }
        return summary

    def _kept(self, margin: int) -> dict[str, Any]:
        shares = [share for each in self.cases for share in each.kept[margin]]
        sizes = [n for each in self.cases for n in each.voxels]
        inside = sum(share * n for share, n in zip(shares, sizes, strict=True))
        return {
            "parts": len(shares),
            "mean": fmean(shares) if shares else None,
            "worst": min(shares, default=None),
            "lost": sum(not share for share in shares),
            "of_all_voxels": inside / sum(sizes) if sizes else None,
        }

    @property
    def verdict(self) -> str:
        """Which stage to improve first, by the rule in `BUDGET_DEFINITIONS`."""
        dice, kept = self.summary["dice"], self.summary["kept"][self.margin]["of_all_voxels"]
        gain, true = dice["gain"]["mean"], dice["dice_true"]["mean"]
        if gain is None:
            return f"No case has {self.target}, so there is nothing to say of either stage."
        loses = f"The frame's grid has no {self.target} voxel"
        if kept is not None:
            loses = f"Stage 1 loses {100 * (1 - kept):.3g} % of the {self.target} voxels"
        stages = {"stage 1": max(0.0, gain), "stage 2": 1 - true}
        worst = max(stages, key=lambda name: stages[name])
        advice = f"improve {worst} first" if stages[worst] >= _LITTLE else "neither needs improving"
        return (
            f"{loses}; the true box would change Dice by {gain:+.3f}, and {1 - true:.3f} would be "
            f"missing even then: {advice}."
        )

    def to_json(self, path: str | Path) -> None:
        """Write everything with its definitions; undefined values become null.

        Raises:
            LeansegError: If the file cannot be written.
        """
        content = {
            "format": "leanseg-budget",
            "version": 1,
            "definitions": BUDGET_DEFINITIONS,
            "organ": self.organ,
            "target": self.target,
            "margin": self.margin,
            "verdict": self.verdict,
            "summary": self.summary,
            "cases": [asdict(each) | {"gain": each.gain} for each in self.cases],
            "notes": self.notes,
        }
        write_json(Path(path), content)

    def to_csv(self, path: str | Path) -> None:
        """Write one line per case; undefined values are empty cells.

        Raises:
            LeansegError: If the file cannot be written.
        """
        rows = [self._row(each) for each in self.cases]
        write_csv(path, [*rows[0]], rows)

    def _row(self, case: CaseBudget) -> dict[str, Any]:
        row: dict[str, Any] = {
            "case": case.case,
            "labelled_slices": case.labelled_slices,
            "missed_slices": case.missed_slices,
            "found_nothing": int(case.found_nothing),
            "organ_dice": case.organ_dice,
            **{f"kept_{margin}": case.kept_of_all(margin) for margin in case.kept},
            "dice_found": case.dice_found,
            "dice_true": case.dice_true,
            "gain": case.gain,
        }
        for box, scores in (("found", case.lesions_found), ("true", case.lesions_true)):
            if scores is not None:
                row["lesions"] = len(scores.lesions)
                row[f"lesions_{box}"] = sum(lesion.found for lesion in scores.lesions)
                row[f"false_positives_{box}"] = scores.false_positives
        return row


def _summarise(values: Mapping[str, float | None]) -> dict[str, Any]:
    """Of the cases that have a value."""
    defined = {case: value for case, value in values.items() if value is not None}
    worst = min(defined, key=lambda case: defined[case], default=None)
    return {
        "n": len(defined),
        "mean": fmean(defined.values()) if defined else None,
        "worst": None if worst is None else defined[worst],
        "worst_case": worst,
    }
