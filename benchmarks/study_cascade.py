"""The cascade of paper 003, its ablation and what it is compared with: tables in docs/cascade.md.

    leanseg phantom phantoms --cases 80 --size 128 --tumour 5-40
    python benchmarks/study_cascade.py phantoms results --rows main \
        --labels '{"pancreas": [7, 8], "tumour": [8]}' --side 128 --margin 8 --cpu-minutes 8
    python benchmarks/study_cascade.py phantoms results --rows table-3 figure-10 loss margins ...
    python benchmarks/study_cascade.py Task102_BrainTumour results --rows main --leave-one-out \
        --labels '{"whole": [1, 2, 3], "enhancing": [3]}' --window quantile --cpu-minutes 3

Every row trains for the same processor minutes, with the same slices, optimiser and augmentation,
and is scored on the same test cases. A row that is in results/DATA.jsonl is not trained again. The
tables are printed from what is there: Dice of the lesion by case, pooled, in labelled slices and in
whole scans, and how many lesions are found, by their size.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import leanseg
from leanseg.datasets import load_case
from leanseg.evaluation.lesions import lesion_scores
from leanseg.progress import quiet_console
from leanseg.training import Recipe, Run, load_recipe, start_run, train_run
from leanseg.volumes import read_volume

ONE_STAGE = [{"name": "dice"}, {"name": "cross-entropy"}]
SIZES = ((0, 10), (10, 20), (20, 30), (30, 1000))
Row = dict[str, Any]
ANY = {"name": "slices", "options": {"foreground_fraction": 0.8}}


# Channels of the paper's finest level, which narrow networks keep, as `cascade-quarter` does.
LEAST = 32
# Filters at full resolution; the paper's width has 64. Beside it a U-Net of about the same cost.
WIDTHS = {"half": (32, 48), "quarter": (16, 24), "eighth": (8, 16)}


def tumour(width: str, **options: Any) -> Row:
    """The second stage with other options."""
    return stage("tumour-network", width) | {
        "options": {"base_filters": WIDTHS[width][0], "least_channels": LEAST} | options
    }


def stage(name: str, width: str) -> Row:
    """A network of paper 003."""
    return {"name": name, "options": {"base_filters": WIDTHS[width][0]}}


def rows(width: str, margin: int) -> dict[str, dict[str, Row]]:
    """Sets of rows by name; a row says its network, and what is unlike the full cascade."""
    first = stage("multiscale-unet", width)
    localised = stage("localised-unet", width)
    full: Row = {"first": first, "second": tumour(width), "margin": margin}
    plain: Row = {"first": first, "second": first, "margin": margin, "saliency": False}
    unet = {"name": "unet", "options": {"base_filters": WIDTHS[width][1]}}
    separate = {"phases": "separate", "maps": 1}
    return {
        "main": {
            "cascade": {"cascade": full},
            "cascade, stages trained apart": {
                "cascade": full | {"saliency": False}, "phases": "separate",
            },
            "multiscale U-Net, one stage": {"network": first},
            "tumour network, one stage": {"network": tumour(width), "maps": 5},
            "U-Net, one stage": {"network": unet},
        },
        "table-3": {
            "U": {"network": unet},
            "M": {"network": first},
            "M-P": {"cascade": plain, **separate},
            "M-P-T (from stage 1's weights)": {"cascade": plain, **separate, "copies": True},
            "M-P-T (by saliency)": {"cascade": plain | {"saliency": True}, "maps": 1},
            "M-P-T-L": {"cascade": full | {"second": localised}, "maps": 2},
            "M-P-T-L-F": {"cascade": full},
        },
        "figure-10": {
            f"focusing: {kind}": {"cascade": full | {"second": tumour(width, focusing=kind)}}
            for kind in ("false-positives", "false-negatives", "both")
        },
        "loss": {"without the boundary loss": {"cascade": full, "boundary": False}},
        "phases": {
            f"M-P-T-L, ended after {phase}": {
                "cascade": full | {"second": localised}, "maps": 2, "until": phase,
            }
            for phase in ("S", "I", "J")
        },
        "margins": {
            f"margin {pixels}": {"cascade": full | {"margin": pixels}}
            for pixels in (0, 10, 20, 40)
        },
        "comparators": {
            name: {"network": {"name": name, "options": {}}}
            for name in (
                "unet-16", "attention-unet-16", "unetpp", "residual-unet", "dense-unet",
            )
        },
    }  # fmt: skip


def losses(n_maps: int, *, boundary: bool) -> list[dict[str, Any]]:
    """Equation 17 for a second stage with so many maps."""
    organ = [{"name": "dice", "part": "first"}, {"name": "cross-entropy", "part": "first"}]
    weights: dict[int, list[tuple[float, list[int] | None]]] = {
        1: [(5.0, None)],
        2: [(0.0, [1, 0]), (5.0, [0, 4])],
        5: [(0.0, [1, 0, 0, 0, 0]), (5.0, [0, 1, 1, 2, 4])],
    }
    # A mean over the maps, as in cascade-pancreas.
    of_all = {1: 1, 2: 5, 5: 9}[n_maps]
    lesion = [
        {"name": "boundary-bce-iou", "options": {"boundary_weight": weight}, "part": "second",
         "weight": 0.9 / of_all, "outputs": outputs}
        for weight, outputs in weights[n_maps]
    ]  # fmt: skip
    outputs = {1: None, 2: [1, 4], 5: [1, 1, 1, 2, 4]}[n_maps]
    lesion.append({"name": "dice", "part": "second", "weight": 0.9 / of_all, "outputs": outputs})
    shared = [{"name": "shared-boundary", "part": "both", "weight": 0.4}]
    return organ + lesion + (shared if boundary else [])


def recipe_of(row: Row, given: argparse.Namespace) -> Recipe:
    """A row's recipe."""
    base = load_recipe("cascade-pancreas").model_dump(mode="json")
    labels = json.loads(given.labels)
    n_maps = row.get("maps", 5 if "cascade" in row else 1)
    base["data"]["labels"] = labels
    phases = {phase["name"]: phase for phase in base["phases"]}
    for phase in phases.values():
        phase["loss"] = losses(n_maps, boundary=row.get("boundary", True))
    if "cascade" not in row:
        # The lesion alone, as the paper's networks of one stage.
        base["data"]["labels"] = dict([list(labels.items())[-1]])
        base["network"] = row["network"]
        terms = ONE_STAGE
        if n_maps == 5:
            found = [term for term in losses(5, boundary=False) if term["part"] == "second"]
            terms = [{**term, "part": None} for term in found]
        one = phases["J"] | {"task": {"name": "segmentation"}, "loss": terms, "sampler": ANY}
        base["phases"] = [one]
    else:
        base["network"] = {"name": "cascade", "options": row["cascade"]}
    if row.get("phases") == "separate":
        organ = [term for term in phases["S"]["loss"] if term["part"] == "first"]
        lesion = [term for term in phases["S"]["loss"] if term["part"] == "second"]
        cosine = {"name": "cosine"}
        one = phases["S"] | {"name": "organ", "loss": organ, "epochs": 50, "schedule": cosine}
        one |= {"trains": ["first"], "sampler": ANY}
        other = phases["J"] | {"name": "lesion", "loss": lesion, "epochs": 50}
        other["trains"] = ["second"]
        if row.get("copies"):
            other["copies"] = {"second.network": "first"}
        base["phases"] = [one, other]
    base["plan"]["frame"]["axes"] = [given.side, given.side, None]
    if given.window == "quantile":
        window = {"kind": "quantile", "low": 0.0, "high": 0.995, "nonzero_only": True}
        base["plan"]["intensity"] = {"window": window, "scaling": "zscore"}
    base["split"] = (
        {"kind": "leave-one-out", "monitor_fraction": 0.0}
        if given.leave_one_out
        else {"kind": "random", "train_fraction": 0.75, "monitor_fraction": 0.0}
    )
    folds = "all" if given.leave_one_out else [0]
    base["training"] |= {
        "threads": 1, "precision": given.precision, "folds": folds, "seed": given.seed,
    }  # fmt: skip
    base["packaging"]["export"] = False
    if given.channels:
        base["data"]["channels"] = given.channels
    for phase in base["phases"]:
        phase["monitor_every"] = 1000
    recipe = Recipe.model_validate(base | {"name": "study"}).within(cpu_minutes=given.cpu_minutes)
    if "until" not in row:
        return recipe
    # Each phase keeps its part of the minutes.
    n = [phase.name for phase in recipe.phases].index(row["until"]) + 1
    return recipe.model_copy(update={"phases": recipe.phases[:n]})


def trained(row: Row, given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train all folds of a row, and what the test cases' lesions say."""
    began = time.process_time()
    run = start_run(
        recipe_of(row, given), given.data, folder, given.output / "cache", check=False,
        console=quiet_console(),
    )  # fmt: skip
    train_run(run, quiet_console())
    return scored(run, given) | {"cpu_s": round(time.process_time() - began)}


def scored(run: Run, given: argparse.Namespace) -> dict[str, Any]:
    """What the test cases of a trained run say."""
    lesion = list(json.loads(given.labels))[-1]
    values = json.loads(given.labels)[lesion]
    cases: dict[str, dict[str, Any]] = {}
    steps = 0
    for number in run.folds:
        fold = run.fold_folder(number)
        scores = leanseg.evaluation.read_scores(fold / "test" / "scores.json")
        model = leanseg.load_model(fold / "model.leanseg", engine="torch", threads=1)
        for score in scores.of_label(lesion):
            counts = {kind: list(vars(getattr(score, kind)).values())
                      for kind in ("counts", "counts_labelled_slices")}  # fmt: skip
            found = read_volume(fold / "test" / "predictions" / f"{score.case}.nii.gz").array
            _, label = load_case(run.data.case(score.case))
            assert label is not None
            lesions = lesion_scores(
                _isin(found, model.label_values[lesion]), _isin(label.array, values), label.affine
            )
            cases[score.case] = {
                "dice": score.metrics["dice"],
                "dice_labelled_slices": score.metrics["dice_labelled_slices"],
                **counts,
                "lesions": [(each.diameter_mm, each.found) for each in lesions.lesions],
                "false_positives": lesions.false_positives,
            }
        summary = json.loads((fold / "summary.json").read_text())
        steps += summary["steps"]
        parameters = summary["parameters"]
    return {"cases": cases, "steps": steps, "parameters": parameters}


def _isin(array: Any, values: Any) -> Any:
    import numpy as np

    return np.isin(array, list(values))


def line(name: str, found: dict[str, Any]) -> str:
    """A row of the table."""
    cases = list(found["cases"].values())

    def mean(key: str) -> str:
        values = [case[key] for case in cases if case[key] is not None]
        return f"{fmean(values):.3f} ± {pstdev(values):.3f}"

    def pooled(key: str) -> str:
        tp, fp, fn, _ = (sum(case[key][n] for case in cases) for n in range(4))
        return f"{2 * tp / max(2 * tp + fp + fn, 1):.3f}"

    parts = []
    for low, high in SIZES:
        sized = [is_found for case in cases for mm, is_found in case["lesions"] if low <= mm < high]
        parts.append(f"{sum(sized)}/{len(sized)}")
    false = fmean(case["false_positives"] for case in cases)
    columns = [
        name, f"{found['parameters'] / 1e6:.1f} M", str(found["steps"]), mean("dice"),
        pooled("counts"), mean("dice_labelled_slices"), pooled("counts_labelled_slices"), *parts,
        f"{false:.1f}",
    ]  # fmt: skip
    return "| " + " | ".join(columns) + " |"


def main() -> None:
    """Train what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--rows", nargs="+", required=True)
    parser.add_argument("--only", nargs="+", help="rows by name; all where not given")
    parser.add_argument("--labels", required=True, help="the organ, then the lesion in it; JSON")
    parser.add_argument("--channels", nargs="+")
    parser.add_argument("--width", default="quarter", choices=tuple(WIDTHS))
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--margin", type=int, default=8)
    parser.add_argument("--window", default="hu", choices=("hu", "quantile"))
    parser.add_argument("--leave-one-out", action="store_true")
    parser.add_argument("--cpu-minutes", type=float, required=True)
    parser.add_argument("--precision", default="bf16-mixed")
    parser.add_argument("--seed", type=int, default=42)
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    listing = given.output / f"{given.data.name}.jsonl"
    done: dict[str, Any] = {}
    if listing.exists():
        done = {key: value for text in listing.read_text().splitlines()
                for key, value in json.loads(text).items()}  # fmt: skip
    chosen = rows(given.width, given.margin)
    for group in given.rows:
        for name, row in chosen[group].items():
            key = f"{name} @ {given.cpu_minutes:g} min, seed {given.seed}"
            if key in done or (given.only and name not in given.only):
                continue
            folder = given.output / "run"
            shutil.rmtree(folder, ignore_errors=True)
            done[key] = trained(row, given, folder)
            with listing.open("a") as stream:
                stream.write(json.dumps({key: done[key]}) + "\n")
            print(line(name, done[key]), flush=True)
    print(
        "| row | parameters | steps | Dice per case | pooled | labelled slices, per case | pooled "
        "| <10 mm | 10-20 | 20-30 | >=30 | false positives a scan |\n"
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    )
    for group in given.rows:
        for name in chosen[group]:
            key = f"{name} @ {given.cpu_minutes:g} min, seed {given.seed}"
            if key in done:
                print(line(name, done[key]))


if __name__ == "__main__":
    main()
