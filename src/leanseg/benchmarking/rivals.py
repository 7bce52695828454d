"""Other tools at the same job: what is asked of them, and what they took."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from leanseg.benchmarking.measure import Outcome, spread
from leanseg.benchmarking.nnunet_plans import CONFIGURATIONS, MIRRORING, check_choice
from leanseg.errors import MissingDependencyError, RecipeError

# Name -> the package that it needs; the extra has the tool's name.
TOOLS = {"nnunet": "nnunetv2", "monai": "monai"}


@dataclass(frozen=True)
class Choice:
    """What the user asks of the other tools.

    Attributes:
        tools: Of `TOOLS`.
        configurations: Of nnU-Net.
        mirroring: "on" (nnU-Net's default), "off" or "both".
        tiles: How many tiles of nnU-Net's are run; the rest is extrapolated. None runs all.
        plans: nnU-Net's plans as it stores them; None has its planner make them.
        repeats: Runs of each.
    """

    tools: tuple[str, ...]
    configurations: tuple[str, ...] = CONFIGURATIONS
    mirroring: str = "on"
    tiles: int | None = None
    plans: Mapping[str, Any] | None = None
    repeats: int = 1

    def __post_init__(self) -> None:
        check_choice("tool", self.tools, tuple(TOOLS))
        check_choice("mirroring", (self.mirroring,), MIRRORING)
        if self.plans is None:
            check_choice("configuration", self.configurations, CONFIGURATIONS)
        for name, number in (("tiles", self.tiles), ("against-repeats", self.repeats)):
            if number is not None and number < 1:
                msg = f"{name} is {number}; choose 1 or more"
                raise RecipeError(msg)
        for tool in self.tools:
            if find_spec(TOOLS[tool]) is None:
                msg = (
                    f"--against {tool} needs the package {TOOLS[tool]}, which is not installed; "
                    f"install it with: pip install 'leanseg[{tool}]'"
                )
                raise MissingDependencyError(msg)


@dataclass
class Rival:
    """Another tool in one setting, and what it took.

    Attributes:
        tool: "nnunet" or "monai".
        setting: Such as "3d_fullres, mirroring".
        job: For its child.
        network: Of nnU-Net: "patch_size", "spacing_mm", "axes" (in which order the plans have
            them), "parameters", "multiply_adds" (of one pass over one tile) and "passes" (a tile).
        status: "measured" or "failed".
        message: Why it was not measured.
        runs: One entry a run: seconds of "process" (whole) and "network", "peak_memory_mb",
            "extrapolated"; of nnU-Net "tiles", "timed_tiles" and "measured" (seconds in fact).
        equal_voxels: Of MONAI: share of voxels with the label of leanseg's reference.
        reference: Engine and precision of that.
    """

    tool: str
    setting: str
    job: dict[str, Any]
    network: dict[str, Any] = field(default_factory=dict)
    status: str = "measured"
    message: str = ""
    runs: list[dict[str, Any]] = field(default_factory=list)
    equal_voxels: float | None = None
    reference: str = ""
    mask: Path | None = None

    def as_dict(self, ours: Sequence[Outcome]) -> dict[str, Any]:
        """As JSON has it, with the ratios to leanseg's runs."""
        facts: dict[str, Any] = {
            "tool": self.tool,
            "setting": self.setting,
            "status": self.status,
            "message": self.message,
            "network": self.network,
        }
        if self.status != "measured" or not self.runs:
            return facts
        last = self.runs[-1]
        return facts | {
            "whole_process_s": spread([run["process"] for run in self.runs]),
            "network_s": spread([run["network"] for run in self.runs]),
            "peak_memory_mb": spread([run["peak_memory_mb"] for run in self.runs]),
            "extrapolated": last["extrapolated"],
            "tiles": last.get("tiles"),
            "timed_tiles": last.get("timed_tiles"),
            "equal_voxels": self.equal_voxels,
            "reference": self.reference,
            "ratios": [self.ratio(outcome) for outcome in ours if outcome.status == "measured"],
            "runs": self.runs,
        }

    def ratio(self, ours: Outcome) -> dict[str, Any]:
        """How many times leanseg's time and memory this tool takes, by medians."""
        return {
            "model": str(ours.model),
            "engine": ours.chosen[0],
            "precision": ours.chosen[1],
            "time": spread([run["process"] for run in self.runs])["median"]
            / ours.spread("process")["median"],
            "memory": spread([run["peak_memory_mb"] for run in self.runs])["median"]
            / ours.spread("peak_memory_mb")["median"],
        }


def read_plans(path: Path) -> dict[str, Any]:
    """nnU-Net's plans from a file.

    Raises:
        RecipeError: If it holds none.
    """
    try:
        plans = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(plans, dict) and isinstance(plans["configurations"], dict):
            return plans
    except (OSError, ValueError, KeyError):
        pass
    msg = f"{path}: holds no plans of nnU-Net's; give a file such as nnUNetPlans.json"
    raise RecipeError(msg)
