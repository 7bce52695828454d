"""Measure the cheap ones of the numbers in README and docs again: `make docs-numbers`.

docs/numbers.yaml lists them: the page, what it says, the value, and a Python expression (measured
here) or a command (which takes minutes or data, and is only named). A measured value that is off
by more than `within` (a quarter, if it is not said) fails. Expressions may use the functions below.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml

import leanseg

ROOT = Path(__file__).resolve().parents[2]


def parameters(name: str, outputs: int = 1, **options: Any) -> Any:
    """The two counts of a network, without its weights being made."""
    with torch.device("meta"):
        network = leanseg.networks.build(name, in_channels=1, out_channels=outputs, **options)
    return leanseg.networks.count_parameters(network)


def cost(name: str, *shape: int) -> Any:
    """Stored bytes and multiply-adds of a network for one image of this shape."""
    from leanseg.networks.measure import network_cost

    return network_cost(name, shape)


def recipes(*beginnings: str) -> int:
    """How many built-in recipes begin so."""
    from leanseg.training.recipe import builtin_recipes

    return sum(name.startswith(beginnings) for name in builtin_recipes())


def robustness_predictions() -> int:
    """Of a case under every change, and as it is."""
    from leanseg.evaluation.changes import FACTORS

    return 1 + sum(len(factor.levels) for factor in FACTORS.values())


def tta_passes(names: str, n_axes: int) -> int:
    """Passes of the network, the plain one included."""
    from leanseg.inference.engines import tta

    return 1 + sum(len(getattr(tta, name)(n_axes)) for name in names.split(","))


@cache
def surface_metrics() -> list[list[str]]:
    """The rows that the benchmark of surface metrics prints."""
    script = ROOT / "benchmarks/bench_surface_metrics.py"
    done = subprocess.run(
        [sys.executable, str(script), "--rounds", "1"], capture_output=True, text=True, check=True
    )
    rows = (line.strip("|").split("|") for line in done.stdout.splitlines() if "|" in line)
    return [[cell.strip() for cell in row] for row in rows]


def surface_row(name: str) -> list[str]:
    """The first row whose name begins so."""
    return next(row for row in surface_metrics() if row[0].startswith(name))


@cache
def phantom_dice() -> float:
    """Mean Dice of the liver by the commands of docs/get-started.md, with --steps 100."""
    from leanseg.evaluation import read_scores

    with tempfile.TemporaryDirectory() as scratch:
        data, run = f"{scratch}/phantoms", f"{scratch}/run"
        labels = ["--set", "data.labels={liver: [1]}"]
        for command in (
            ["phantom", data, "--cases", "12", "--size", "96"],
            ["train", "--data", data, "--output", run, "--steps", "100", "--threads", "1", *labels],
        ):
            subprocess.run([sys.executable, "-m", "leanseg", *command], check=True)
        scores = read_scores(Path(run) / "fold_0/test/scores.json")
    return float(scores["liver"].dice)


def main() -> int:
    """Print a line for each number; the number of those that are off."""
    wrong = 0
    for number in yaml.safe_load((ROOT / "docs/numbers.yaml").read_text(encoding="utf-8")):
        if "command" in number:
            print(f"not measured  {number['page']}: {number['says']}  ({number['command']})")
            continue
        measured = eval(number["python"], globals())  # our own file
        off = abs(measured / number["value"] - 1)
        is_wrong = off > number.get("within", 0.25)
        wrong += is_wrong
        what = "OFF" if is_wrong else "ok"
        print(
            f"{what:12}  {number['page']}: {number['says']}  (measured {measured:.6g})", flush=True
        )
    return wrong


if __name__ == "__main__":
    raise SystemExit(1 if main() else 0)
