"""What `leanseg train --data DATA` learns in how many processor minutes: tables in docs/quality.md.

    python benchmarks/study_default.py Task04_Hippocampus results --folds 5 --cpu-minutes 1 3 10
    python benchmarks/study_default.py Task101_SarcomaCT results --folds 2 --cpu-minutes 3 6 12

One line a run in results/DATA.jsonl; a run that is there already is not trained again. The first
fold tests; `--cases` trains on so many of the others, `--set` changes the recipe. To choose by,
take `--inner N`: the cases that train are divided in N folds themselves, and another one scores
for each seed; what tests is not read.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import leanseg
from leanseg.datasets import Split
from leanseg.progress import quiet_console
from leanseg.training import start_run, train_run
from leanseg.training.planning import budget_of, cards_of, plan_training


def main() -> None:
    """Train what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--cpu-minutes", type=float, nargs="+", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[42])
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--cases", type=int, default=0, help="training cases; 0 for all")
    parser.add_argument("--inner", type=int, default=0, help="folds of what trains; 0 for none")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--labels", type=json.loads)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--name", default="default")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    listing = given.output / f"{given.data.name}.jsonl"
    done = (
        [json.loads(line) for line in listing.read_text().splitlines()] if listing.exists() else []
    )
    for minutes in given.cpu_minutes:
        for seed in given.seeds:
            key = {
                "name": given.name, "cpu_minutes": minutes, "seed": seed, "cases": given.cases,
            }  # fmt: skip
            if any(all(row[each] == key[each] for each in key) for row in done):
                continue
            row = {**key, **trained(given, minutes, seed)}
            with listing.open("a") as stream:
                stream.write(json.dumps(row) + "\n")
            done.append(row)
            print(line(given, [row]), flush=True)
    print(
        "| name | training cases | CPU min | seeds | Dice, mean ± SD over cases | over seeds "
        "| worst |"
    )
    print("|---|--:|--:|--:|---|--:|--:|")
    for name, n, minutes in sorted({(r["name"], r["cases"], r["cpu_minutes"]) for r in done}):
        rows = [r for r in done if (r["name"], r["cases"], r["cpu_minutes"]) == (name, n, minutes)]
        print(line(given, rows))


def line(given: argparse.Namespace, rows: list[dict[str, Any]]) -> str:
    """A line of the table: runs that differ in their seeds."""
    means = [fmean(row["dice"].values()) for row in rows]
    spread = fmean(pstdev(row["dice"].values()) for row in rows)
    worst = min(min(row["dice"].values()) for row in rows)
    first = rows[0]
    return (
        f"| {first['name']} | {first['n_train']} | {first['cpu_minutes']:g} | {len(rows)} "
        f"| {fmean(means):.3f} ± {spread:.3f} | {pstdev(means):.3f} | {worst:.3f} "
        f"| {first['plan']}, {first['steps']:,} steps"
    )


def chosen(dataset: leanseg.Dataset, names: set[str]) -> leanseg.Dataset:
    """The dataset with some of its cases."""
    return replace(dataset, cases=tuple(case for case in dataset if case.name in names))


def fold_of(given: argparse.Namespace, dataset: leanseg.Dataset, seed: int) -> Split:
    """What trains and what scores."""
    first = leanseg.split(dataset, "k-fold", n_folds=given.folds, monitor_fraction=0.0, seed=42)[0]
    if not given.inner:
        return first
    known = chosen(dataset, set(first.train))
    inner = leanseg.split(known, "k-fold", n_folds=given.inner, monitor_fraction=0.0, seed=42)
    return inner[seed % given.inner]


def trained(
    given: argparse.Namespace, minutes: float, seed: int, keep: Path | None = None
) -> dict[str, Any]:
    """Plan and train once, and keep the model where that is said; what came of it."""
    folder = given.output / f"{given.data.name}-{given.name}-{minutes:g}-{seed}-{given.cases}"
    shutil.rmtree(folder, ignore_errors=True)
    dataset = leanseg.open_dataset(given.data)
    fold = fold_of(given, dataset, seed)
    names = fold.train[: given.cases] if given.cases else fold.train
    used = chosen(dataset, {*names, *fold.test})
    split = folder.with_suffix(".json")
    split.write_text(json.dumps([{"train": list(names), "monitor": [], "test": list(fold.test)}]))
    overrides = [
        f"training.seed={seed}",
        f"training.threads={given.threads}",
        "packaging.export=false",
        *([] if given.labels is None else [f"data.labels={json.dumps(given.labels)}"]),
    ]
    quiet = quiet_console()
    # What tests is not looked at in planning either.
    seen = chosen(dataset, set(names))
    planned = plan_training(
        seen, budget_of(cpu_minutes=minutes), overrides=overrides, console=quiet
    )
    recipe = planned.recipe.with_overrides(
        [
            "split.kind=file",
            f"split.file={json.dumps(str(split))}",
            *([] if len(names) > 10 else ["split.monitor_fraction=0.0"]),
            *given.set,
        ]
    )
    run = start_run(recipe, used, folder, given.output / "cache", check=False, console=quiet)
    planned.write(run.folder)
    train_run(run, quiet)
    scores = json.loads((folder / "fold_0/test/scores.json").read_text())
    dice: dict[str, list[float]] = {}
    for score in scores["cases"]:
        if score["metrics"]["dice"] is not None:
            dice.setdefault(score["case"], []).append(score["metrics"]["dice"])
    labels = {
        label: round(summary["dice"]["mean"] or 0.0, 4)
        for label, summary in scores["summary"].items()
    }
    cards = cards_of(run.folder)
    assert cards is not None
    if keep is not None:
        shutil.copy(folder / "fold_0/model.leanseg", keep)
    shutil.rmtree(folder)
    return {
        "n_train": len(names),
        "plan": str(planned.views[0]),
        "steps": int(cards[1].steps or 0),
        "dice": {case: round(fmean(values), 4) for case, values in dice.items()},
        "labels": labels,
        "said": vars(cards[0]),
        "was": vars(cards[1]),
    }


if __name__ == "__main__":
    main()
