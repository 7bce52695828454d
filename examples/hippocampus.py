"""From a raw folder to a compared pair of models: two networks on hippocampi, case by case.

    python examples/hippocampus.py Task04_Hippocampus
    python examples/hippocampus.py --phantoms

The first takes the Decathlon's hippocampi, the second draws phantoms. Both check the data, train
two networks on the same three folds, for two minutes of one core each fold, and say which one is
better, and how surely.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import leanseg
from leanseg.evaluation import read_scores
from leanseg.evaluation.comparison import Comparison

NETWORKS = {"monet": {"base_filters": 8}, "unet-16": {}}


def recipe(
    network: str, labels: dict[str, list[int]], size: int, end: dict[str, Any], n_folds: int
) -> leanseg.Recipe:
    """The same for both networks, but for the network."""
    return leanseg.Recipe.model_validate(
        {
            "name": f"compared-{network}",
            "data": {"labels": labels},
            "network": {"name": network, "options": NETWORKS[network]},
            "plan": {
                "frame": {"axes": [size, size, None]},
                "intensity": {"window": {"kind": "quantile", "high": 0.995}, "scaling": "zscore"},
            },
            "split": {"kind": "k-fold", "n_folds": n_folds, "monitor_fraction": 0},
            "phases": [
                {
                    "loss": [{"name": "dice"}, {"name": "cross-entropy"}],
                    "optimiser": {"name": "AdamW", "options": {"lr": 3e-3}},
                    "schedule": {"name": "cosine", "warmup": 0.05},
                    "epochs": None,
                    "steps_per_epoch": 50,
                    "selection": "last",
                    **end,
                }
            ],
            "training": {"folds": "all", "threads": 1, "precision": "32"},
            # To compare them they need not run without PyTorch.
            "packaging": {"export": False},
        }
    )


def main(
    source: Path | None,
    folder: Path,
    end: dict[str, Any],
    n_cases: int | None = None,
    n_folds: int = 3,
) -> Comparison:
    """Check, train, compare.

    Args:
        source: The Decathlon's folder; None for phantoms.
        folder: Where everything is written.
        end: Of a fold's training: {"cpu_minutes": 2} or {"steps": 3}.
        n_cases: Of the first ones; None for all.
        n_folds: Of the cross-validation.
    """
    if source is None:
        data = leanseg.phantom(folder / "phantoms", n_cases or 12, size=64, slices=20)
        labels, size = {"liver": [1]}, 64
    else:
        data = leanseg.open_dataset(source)
        labels, size = {"anterior": [1], "posterior": [2]}, 48
    if n_cases is not None:
        cases = list(data)[:n_cases]
        data = leanseg.Dataset(cases, labels=data.labels, channels=data.channels, name=data.name)
    result = leanseg.check(data)
    if not result.may_train:
        raise SystemExit("\n".join(each.message for each in result.findings))
    scores = {}
    for network in NETWORKS:
        run = leanseg.train(
            data, recipe(network, labels, size, end, n_folds), output=folder / network
        )
        tests = [read_scores(run.folder / f"fold_{n}/test/scores.json") for n in run.folds]
        scores[network] = replace(tests[0], cases=tuple(c for each in tests for c in each.cases))
    return leanseg.compare(scores, margin=0.02)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, nargs="?", help="Task04_Hippocampus")
    parser.add_argument("--phantoms", action="store_true", help="draw phantoms instead")
    parser.add_argument("--folder", type=Path, default=Path("hippocampus-example"))
    parser.add_argument("--cpu-minutes", type=float, default=2)
    given = parser.parse_args()
    if given.source is None and not given.phantoms:
        parser.error("give the folder Task04_Hippocampus, or --phantoms")
    found = main(given.source, given.folder, {"cpu_minutes": given.cpu_minutes})
    for group in found.groups:
        for method in group.methods:
            print(f"{group.label}: {method.name} {method.mean:.3f}")
        (pair,) = group.pairs
        low, high = pair.interval
        verdict = f"{pair.better} is better" if pair.better else "neither is shown to be better"
        print(
            f"  difference {pair.mean_difference:+.3f} (95 %: {low:+.3f} to {high:+.3f}); {verdict}"
        )
