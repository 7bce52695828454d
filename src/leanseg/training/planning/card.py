"""The cost card: what a training will take, and what it took."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

from leanseg.progress import duration

PLANNING_FILE = "planning.json"


@dataclass(frozen=True)
class CostCard:
    """What a training and its model take; None for what was not measured.

    Attributes:
        minutes: By the clock, of each fold's training.
        cpu_minutes: Of the processor, of each fold's training.
        steps: Of each fold.
        memory_bytes: The most that the process has in training.
        disk_bytes: The run's folder.
        model_bytes: The model file.
        scan_s: To predict a median scan, with PyTorch.
    """

    minutes: float | None
    cpu_minutes: float | None
    steps: float | None
    memory_bytes: float | None
    disk_bytes: float | None
    model_bytes: float | None
    scan_s: float | None

    def lines(self, was: CostCard | None = None) -> list[str]:
        """One line each; beside it what was true."""
        truth = dict(was._rows()) if was else {}
        head = [f"{'':24}{'planned':>12}{'true':>12}"] if was else []
        rows = ((what, said, truth.get(what, "")) for what, said in self._rows())
        return [
            *head,
            *(f"{what:<24}{said or '-':>12}{true or '':>12}".rstrip() for what, said, true in rows),
        ]

    def _rows(self) -> Iterator[tuple[str, str | None]]:
        def told(value: float | None, say: Callable[[float], str]) -> str | None:
            return None if value is None else say(value)

        yield "training", told(self.minutes, lambda each: duration(60 * each))
        yield "processor time", told(self.cpu_minutes, lambda each: duration(60 * each))
        yield "steps", told(self.steps, lambda each: f"{each:,.0f}")
        yield "memory", told(self.memory_bytes, _size)
        yield "disk", told(self.disk_bytes, _size)
        yield "model file", told(self.model_bytes, _size)
        yield "prediction of a scan", told(self.scan_s, lambda each: f"{each:.2g} s")


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"


def cards_of(folder: Path) -> tuple[CostCard, CostCard] | None:
    """What was planned for the run in a folder, and what was true of its folds that are done.

    None where nothing was planned, or no fold is done.
    """
    path = folder / PLANNING_FILE
    if not path.exists():
        return None
    said = CostCard(**json.loads(path.read_text(encoding="utf-8"))["card"])
    summaries = sorted(folder.glob("fold_*/summary.json"))
    folds = [json.loads(each.read_text(encoding="utf-8")) for each in summaries]
    if not folds:
        return None
    scans = [sum(case["stages"].values()) for fold in folds for case in fold["prediction"]["cases"]]
    files = (each for each in folder.rglob("*") if each.is_file())
    was = CostCard(
        minutes=fmean(fold["train_seconds"] for fold in folds) / 60,
        cpu_minutes=fmean(fold["train_cpu_seconds"] for fold in folds) / 60,
        steps=fmean(fold["steps"] for fold in folds),
        memory_bytes=max(fold["peak_memory_mb"] for fold in folds) * 1e6,
        disk_bytes=sum(each.stat().st_size for each in files),
        model_bytes=fmean(fold["model_bytes"] for fold in folds),
        scan_s=median(scans) if scans else None,
    )
    return said, was
