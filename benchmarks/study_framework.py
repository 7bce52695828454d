"""The framework of paper 002 on real scans and on phantoms: the tables in docs/framework.md.

    python benchmarks/study_framework.py sarcoma Task101_SarcomaCT results --cpu-minutes 1
    python benchmarks/study_framework.py hippocampus Task04_Hippocampus results --cpu-minutes 1
    python benchmarks/study_framework.py parts Task101_SarcomaCT results --cpu-minutes 1
    python benchmarks/study_framework.py sizes Task101_SarcomaCT results --cpu-minutes 1
    python benchmarks/study_framework.py thickness - results --cpu-minutes 1

Every row is one of the built-in recipes with smaller networks, slices and batches, and a budget of
processor minutes for each fold. A row that is there is not trained again: `--only` trains those
whose names hold a text, so that several processes can share a study. The tables are printed from
what is there. What a study costs in all is its rows times its folds times the minutes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import numpy as np
from scipy import stats

import leanseg
from leanseg.datasets.phantom.anatomy import LABELS
from leanseg.datasets.phantom.scan import PhantomOptions, make_phantom
from leanseg.progress import quiet_console
from leanseg.training import load_recipe, start_run, train_run

Overrides = dict[str, Any]
AUGMENTATIONS = ("ctia", "mia", "none")
NETWORKS = ("nnunet-2d", "nnunet-3d", "msd-2d", "msd-3d")
# For two cores and a minute: the recipes have 30 filters, 100 layers, 128 x 128, batches of 28
# slices, and a rate of 1e-3.
FILTERS, DEPTH, BATCH, RATE = 12, 20, 14, 5e-3
IN_PLANE = {"hippocampus": 48}
# The paper's percentiles are for abdominal CT "and must be adjusted".
WINDOWS = {"hippocampus": {"kind": "quantile", "low": 0.005, "high": 0.995}}
ORGANS = {"liver": ["liver"], "spleen": ["spleen"], "kidneys": ["right_kidney", "left_kidney"]}
THICKNESS_MM = (1.5, 2.5, 3.5, 5.0)
N_TRAIN, N_TEST = 12, 6
SAMPLER = "phases.main.sampler.options."
PARTS: dict[str, Overrides] = {
    "noise": {"phases.main.augmentation.ctia.options.noise_sd": 0.0},
    "range shift": {"phases.main.augmentation.ctia.options.shift_share": 0.0},
    "rotation": {"phases.main.augmentation.ctia.options.rotation_deg": 0.0},
    "skipping": {f"{SAMPLER}skip": [1]},
    "interpolation": {f"{SAMPLER}resample": [1.0, 1.0]},
}


def overrides(network: str, augmentation: str, size: int = 64, slices: int = 16) -> Overrides:
    """What makes a recipe small, and takes its augmentation away."""
    kind, dimensions = network.split("-")
    shape = [size, size] if dimensions == "2d" else [size, size, slices]
    own = {"base_filters": FILTERS, "shape": shape, "max_pools": 3}
    changes: Overrides = {
        "data.labels": None,
        "network.options": own if kind == "nnunet" else {"depth": DEPTH},
        "plan.frame.axes": [size, size, None],
        "split.seed": 42,
        "training.threads": 1,
        "training.folds": "all",
        "packaging.export": False,
        "phases.main.epochs": None,
        "phases.main.steps_per_epoch": 50,
        "phases.main.optimiser.options.lr": RATE,
        "phases.main.patience": None,
    }
    if dimensions == "2d":
        changes["phases.main.batch_size"] = BATCH
    else:
        changes["plan.patch.shape"] = ["whole", "whole", slices]
    if augmentation == "mia":
        # As much of the slice as in slices of 128.
        options = {"elastic_sd": size / 32, "elastic_spacing": size / 4}
        for key, value in options.items():
            changes[f"phases.main.augmentation.mia.options.{key}"] = value
    if augmentation == "none":
        changes |= {
            "phases.main.augmentation": [], f"{SAMPLER}skip": [1], f"{SAMPLER}resample": [1.0, 1.0],
        }  # fmt: skip
    return changes


def rows(study: str) -> Iterator[tuple[str, str, Overrides]]:
    """Name, recipe and changes of each row of a study."""
    if study == "parts":
        for part, change in PARTS.items():
            changes = overrides("nnunet-2d", "ctia") | change
            yield f"ctia-nnunet-2d without {part}", "ctia-nnunet-2d-kidney", changes
        return
    if study == "sizes":
        for size in (96, 128):
            changes = overrides("nnunet-2d", "ctia", size)
            yield f"ctia-nnunet-2d, {size} x {size}", "ctia-nnunet-2d-kidney", changes
        changes = overrides("nnunet-3d", "ctia", slices=32)
        yield "ctia-nnunet-3d, 32 slices", "ctia-nnunet-3d-kidney", changes
        return
    for network, augmentation in product(NETWORKS, AUGMENTATIONS):
        changes = overrides(network, augmentation, IN_PLANE.get(study, 64))
        if study in WINDOWS:
            # MR has no scale that scans share.
            changes["plan.intensity"] = {"window": WINDOWS[study], "scaling": "zscore"}
        if study == "hippocampus" and (augmentation, network) not in STACKED:
            changes["training.folds"] = [0]
        if (augmentation, network) in STACKED:
            changes["packaging.export"] = True
        recipe = f"{'mia' if augmentation == 'mia' else 'ctia'}-{network}-kidney"
        yield f"{augmentation}-{network}", recipe, changes


# As in the paper: the stack is of 2-D nnU-Nets and 3-D MS-D Nets, trained with CTIA.
STACKED = (("ctia", "nnunet-2d"), ("ctia", "msd-3d"))


def as_texts(changes: Overrides) -> list[str]:
    """As --set takes them."""
    return [f"{key}={json.dumps(value)}" for key, value in changes.items()]


def train(recipe: str, changes: Overrides, data: leanseg.Dataset, folder: Path, name: str) -> None:
    """A run of a row."""
    made = load_recipe(recipe, [f"name={name}", *as_texts(changes)])
    run = start_run(
        made, data, folder, folder.parent / "cache", check=False, console=quiet_console()
    )
    train_run(run, quiet_console())


def dice_of(folder: Path) -> dict[str, tuple[int, float]]:
    """Fold and mean Dice over its labels of each case that a run tested."""
    found: dict[str, tuple[int, float]] = {}
    for number, path in enumerate(sorted(folder.glob("fold_*/test/scores.json"))):
        values: dict[str, list[float]] = {}
        for score in json.loads(path.read_text())["cases"]:
            if (dice := score["metrics"]["dice"]) is not None:
                values.setdefault(score["case"], []).append(dice)
        found |= {case: (number, fmean(dice)) for case, dice in values.items()}
    return found


def line(name: str, dice: dict[str, tuple[int, float]]) -> str:
    """Mean and spread over volumes and over folds."""
    values = [value for _, value in dice.values()]
    folds = [
        fmean(value for number, value in dice.values() if number == fold)
        for fold in {number for number, _ in dice.values()}
    ]
    return (
        f"| {name} | {len(values)} | {fmean(values):.3f} ± {pstdev(values):.3f} "
        f"| ± {pstdev(folds):.3f} | {min(values):.3f} |"
    )


def sd_ratio(one: dict[str, tuple[int, float]], other: dict[str, tuple[int, float]]) -> str:
    """Ratio of the standard deviations over volumes, with a bootstrap interval."""
    cases = sorted(one.keys() & other.keys())
    pairs = [np.array([dice[case][1] for case in cases]) for dice in (one, other)]

    def ratio(x: Any, y: Any, axis: int = -1) -> Any:
        return np.std(x, axis=axis) / np.std(y, axis=axis)

    found = stats.bootstrap(pairs, ratio, paired=True, rng=np.random.default_rng(0))
    low, high = found.confidence_interval
    return f"{ratio(*pairs):.2f} (95 % {low:.2f} to {high:.2f})"


def joint_errors(one: Path, other: Path, data: leanseg.Dataset) -> str:
    """Of the voxels that any of reference and two runs labels, who is right; means over cases."""
    shares = []
    for path in sorted(one.glob("fold_*/test/predictions/*.nii*")):
        second = other / path.relative_to(one)
        case = next(case for case in data if case.name == path.name.partition(".nii")[0])
        truth = leanseg.read(case.label.path).array
        a, b = (leanseg.read(each).array for each in (path, second))
        seen = (truth > 0) | (a > 0) | (b > 0)
        right_a, right_b = (a == truth)[seen], (b == truth)[seen]
        ways = (right_a & right_b, right_a & ~right_b, ~right_a & right_b, ~right_a & ~right_b)
        shares.append([way.mean() for way in ways])
    both, first, second_, neither = np.mean(shares, axis=0)
    # Were the errors independent, this many voxels would be wrong in both.
    chance = np.mean([(s[1] + s[3]) * (s[2] + s[3]) for s in shares])
    return (
        f"both right {both:.3f}, the first alone {first:.3f}, the second alone {second_:.3f}, "
        f"neither {neither:.3f} (by chance {chance:.3f})"
    )


def phantoms(folder: Path, slice_mm: float, n: int, seed: int) -> leanseg.Dataset:
    """Phantom scans with slices of one thickness; the same patients for every thickness."""
    if not folder.exists():
        for part in ("images", "labels"):
            (folder / part).mkdir(parents=True)
        options = PhantomOptions(size=96, slice_mm=slice_mm)
        for index in range(n):
            image, label = make_phantom(np.random.default_rng([seed, index]), options)
            leanseg.write(folder / "images" / f"p{index:02d}.nii.gz", image)
            leanseg.write(folder / "labels" / f"p{index:02d}.nii.gz", label)
    cases = [
        leanseg.Case(path, folder / "labels" / path.name, f"{slice_mm:g}mm-{path.name[:3]}")
        for path in sorted((folder / "images").iterdir())
    ]
    return leanseg.Dataset(cases, labels=LABELS, channels=("CT",))


def thickness(given: argparse.Namespace) -> None:
    """Train on thick slices and test on thin, and the reverse: the slope of Dice over thickness."""
    tests = {mm: phantoms(given.output / f"test-{mm:g}", mm, N_TEST, 7) for mm in THICKNESS_MM}
    columns = " | ".join(f"{mm:g} mm" for mm in THICKNESS_MM)
    print(f"| trained on | | {columns} | slope, Dice per mm |")
    for network, augmentation, mm in product(NETWORKS, AUGMENTATIONS, (5.0, 1.5)):
        name = f"{augmentation}-{network}-{mm:g}"
        folder = given.output / name
        if given.only in name and not (folder / "recipe.yaml").exists():
            recipe = f"{'mia' if augmentation == 'mia' else 'ctia'}-{network}-kidney"
            changes = overrides(network, augmentation) | {
                "data.labels": ORGANS,
                "phases.main.cpu_minutes": given.cpu_minutes,
                "training.folds": [0],
                "split": {"kind": "random", "train_fraction": 1.0, "monitor_fraction": 0.1},
            }
            data = phantoms(given.output / f"train-{mm:g}", mm, N_TRAIN, 3)
            train(recipe, changes, data, folder, name)
            model = leanseg.load_model(folder / "fold_0/model.leanseg", threads=1)
            found = {
                f"{each:g}": [organ_dice(model, case) for case in data]
                for each, data in tests.items()
            }
            (folder / "thickness.json").write_text(json.dumps(found))
        if not (folder / "thickness.json").exists():
            continue
        found = json.loads((folder / "thickness.json").read_text())
        pairs = [(each, dice) for each in THICKNESS_MM for dice in found[f"{each:g}"]]
        means = " | ".join(f"{fmean(found[f'{each:g}']):.3f}" for each in THICKNESS_MM)
        fit = stats.linregress(*zip(*pairs, strict=True))
        slope = f"{fit.slope:+.4f} ± {fit.stderr:.4f}"
        print(f"| {mm:g} mm | {augmentation}-{network} | {means} | {slope} |", flush=True)


def organ_dice(model: leanseg.Model, case: leanseg.Case) -> float:
    """Mean Dice over the organs of a phantom."""
    mask = model.predict(case.image.path).array
    truth = leanseg.read(case.label.path).array
    dice = []
    for number, names in enumerate(ORGANS.values(), start=1):
        found, reference = mask == number, np.isin(truth, [LABELS[name] for name in names])
        dice.append(2 * (found & reference).sum() / max(found.sum() + reference.sum(), 1))
    return float(np.mean(dice))


def main() -> None:
    """Train what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", choices=["sarcoma", "hippocampus", "parts", "sizes", "thickness"])
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--cpu-minutes", type=float, default=1.0)
    parser.add_argument("--only", default="", help="train rows whose names hold this")
    given = parser.parse_args()
    given.output /= given.study
    given.output.mkdir(parents=True, exist_ok=True)
    if given.study == "thickness":
        thickness(given)
        return
    data = leanseg.open_dataset(given.data)
    found: dict[str, dict[str, tuple[int, float]]] = {}
    print("| | cases | Dice, mean ± SD over volumes | over folds | worst |\n|---|--:|---|--:|--:|")
    for name, recipe, changes in rows(given.study):
        folder = given.output / name.replace(" ", "-").replace(",", "")
        if given.only in name and not (folder / "recipe.yaml").exists():
            budget = {"phases.main.cpu_minutes": given.cpu_minutes}
            train(recipe, changes | budget, data, folder, name)
        dice = dice_of(folder)
        if dice:
            found[name] = dice
            print(line(name, dice), flush=True)
    stacked = given.output / "stack"
    if dice := dice_of(stacked):
        print(line("stack", dice))
    for network in NETWORKS:
        pair = [found.get(f"{augmentation}-{network}") for augmentation in ("mia", "ctia")]
        if pair[0] and pair[1]:
            print(f"{network}: SD of MIA over SD of CTIA {sd_ratio(pair[0], pair[1])}")
    members = [given.output / f"{augmentation}-{network}" for augmentation, network in STACKED]
    if all(dice_of(each) for each in members) and given.study == "sarcoma":
        print("nnunet-2d and msd-3d:", joint_errors(members[0], members[1], data))


if __name__ == "__main__":
    main()
