"""Paper 004's Table 3 and its side findings, as small studies with equal budgets.

Every row trains one network on the same cases within the same time, keeps its last weights as the
paper does, and scores cases that took no part. Without `--data` the cases are phantoms of seven
organs, as many as the paper's: 16 train, 4 monitor, 8 test. Prints a Markdown table, writes
`results.json` anew after every row, and goes on where it was interrupted.

    python benchmarks/study_obelisk.py --output runs/table3 --minutes 10 [--size 96] [--seeds 0 1]
    python benchmarks/study_obelisk.py --output runs/sigma --study sigma --cpu-minutes 20
    python benchmarks/study_obelisk.py --output runs/table3 --minutes 10 --figure offsets.png

Budgets are short beside the paper's, so rates fall with the share of the budget that is spent, to
where the paper's fall: 0.96 an epoch over 50 epochs, and 0.99 over 300.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from leanseg.datasets import Dataset, Split, open_dataset, write_splits
from leanseg.datasets.phantom import phantom
from leanseg.files import write_json
from leanseg.progress import quiet_console
from leanseg.training import Recipe, Run, open_run, start_run, train_run
from leanseg.training.folder import METRICS_FILE, RECIPE_FILE, SCORES_FILE, SUMMARY_FILE
from leanseg.training.recipe import validate_recipe

N_TRAIN, N_MONITOR, N_TEST = 16, 4, 8
ORGANS = ["liver", "spleen", "right_kidney", "left_kidney", "stomach", "aorta"]
PHANTOM_LABELS = {
    **{name: [name] for name in ORGANS},
    "pancreas": ["pancreas", "pancreatic_tumour"],
}
# The shares of both rates that are left in the end: 0.96 ** 50 and 0.99 ** 300, in 1,000 points.
FALLS_TO_13, FALLS_TO_5 = 0.998, 0.997

Settings = dict[str, Any]


def loss(name: str, **options: Any) -> Settings:
    """A phase with this loss alone."""
    return {"loss": [{"name": name, "options": options}]}


def rate(gamma: float, **options: Any) -> Settings:
    """A phase with Adam at 2e-3, falling."""
    schedule = {"name": "exponential", "by": "share", "options": {"gamma": gamma}}
    return {"optimiser": {"name": "Adam", "options": {"lr": 2e-3, **options}}, "schedule": schedule}


# What the papers' trainings have in common, and how they differ (specification, section 3.4).
SHARED: Settings = {
    "sampler": {"name": "volumes", "options": {}},
    "augmentation": [],
    "epochs": None,
    # Long enough for what is done once an epoch to cost little.
    "steps_per_epoch": 200,
    "monitor_every": 1_000_000,
    "selection": "last",
}
DENSE = SHARED | rate(FALLS_TO_13) | loss("hard-cross-entropy", class_weights="equal")
DENSE |= {"batch_size": 3}
SPARSE = DENSE | {
    "task": {"name": "points", "options": {}},
    "sampler": {"name": "volumes", "options": {"repeats": 8}},
}
HYBRID = SHARED | rate(FALLS_TO_5, weight_decay=1e-5) | loss("hard-cross-entropy")
HYBRID |= {"batch_size": 1}
UNET = SHARED | rate(FALLS_TO_5, weight_decay=1e-5) | loss("cross-entropy") | {"batch_size": 3}
# The two things that "++" stands for: offsets that are turned, and images that are moved.
TURNED: Settings = {"task": {"name": "points", "options": {"turn_sd": 0.2}}}
MOVED: Settings = {"augmentation": [{"name": "affine-noise", "options": {"sigma": 0.075}}]}


@dataclass(frozen=True)
class Row:
    """One training: a network, a phase, the paper's Dice (%), and how many cases train."""

    network: str
    phase: Settings
    paper: float | None = None
    options: Settings = field(default_factory=dict)
    cases: int | None = None


HYBRID_NAME = "obelisk-hybrid-visceral"
STUDIES: dict[str, dict[str, Row]] = {
    "table3": {
        "unary": Row("obelisk-unary", SPARSE, 72.32),
        "random": Row("obelisk-random", SPARSE, 71.67),
        "original": Row("obelisk", SPARSE, 76.68),
        "original++": Row("obelisk", SPARSE | TURNED, 80.61),
        "hybrid++": Row(HYBRID_NAME, HYBRID | MOVED, 82.27),
        "all-conv": Row("allconv-unet", UNET, 72.84),
        "all-conv++": Row("allconv-unet", UNET | MOVED, 79.95),
        "global-FC": Row("global-fc-unet", UNET, 72.85),
        "global-FC++": Row("global-fc-unet", UNET | MOVED, 81.67),
    },
    "sigma": {
        f"{title}, sigma {sd}": Row(network, SPARSE, options={"offset_sd": sd})
        for title, network in (("original", "obelisk"), ("random", "obelisk-random"))
        for sd in (0.02, 0.05, 0.1)
    },
    "offsets": {
        f"{n} pairs": Row("obelisk", SPARSE, options={"n_offsets": n}) for n in (64, 256, 512, 1024)
    },
    "ohem": {
        f"{title}{plus}": Row(HYBRID_NAME, HYBRID | change | augmentation)
        for plus, augmentation in (("", {}), ("++", MOVED))
        for title, change in (("hybrid, OHEM", {}), ("hybrid, all voxels", loss("cross-entropy")))
    },
    "loss": {
        f"all-conv, {name}": Row("allconv-unet", UNET | loss(name))
        for name in ("dice", "hinge-dice", "cross-entropy")
    },
    "sparse": {
        "original, 3 x 192 points": Row("obelisk", SPARSE),
        "original, all voxels": Row("obelisk", DENSE),
    },
    "size": {f"hybrid++, {n} cases": Row(HYBRID_NAME, HYBRID | MOVED, cases=n) for n in (4, 8, 16)},
}


def make_recipe(title: str, row: Row, data: Dataset, split: Path, args: Any, seed: int) -> Recipe:
    """The recipe of a row, validated."""
    options = dict(row.options)
    if row.network == "global-fc-unet":
        options["size"] = [args.size] * 3
    is_ct = data.channels == ("CT",)
    intensity = {
        "window": {"kind": "none"} if is_ct else {"kind": "quantile", "low": 0.005, "high": 0.995},
        "scaling": {"divide_by": 1024.0, "add": 1.0} if is_ct else "zscore",
    }
    content = {
        "name": title,
        "data": {} if args.data else {"labels": PHANTOM_LABELS},
        "network": {"name": row.network, "options": options},
        "plan": {
            "frame": {"orientation": "RAS", "axes": [args.size] * 3},
            "patch": {"shape": ["whole"] * 3},
            "intensity": intensity,
        },
        "split": {"kind": "file", "file": str(split.resolve())},
        "phases": [row.phase | {"minutes": args.minutes, "cpu_minutes": args.cpu_minutes}],
        "training": {
            "seed": seed,
            "precision": "32",
            "device": args.device,
            "threads": args.threads,
        },
        "packaging": {"export": False},
    }
    return validate_recipe(content, f"study {args.study}, row {title!r}", args.overrides)


def make_split(names: list[str], cases: int | None, seed: int = 0) -> Split:
    """Four sevenths train, or the first so many of them; one monitors, two test."""
    order = [names[n] for n in np.random.default_rng(seed).permutation(len(names))]
    n_train = round(len(order) * N_TRAIN / (N_TRAIN + N_MONITOR + N_TEST))
    n_monitor = max(round(len(order) * N_MONITOR / (N_TRAIN + N_MONITOR + N_TEST)), 1)
    monitor, test = order[n_train : n_train + n_monitor], order[n_train + n_monitor :]
    return Split(tuple(order[: min(cases or n_train, n_train)]), tuple(monitor), tuple(test))


def train_row(title: str, row: Row, data: Dataset, args: Any, seed: int) -> Run:
    """The run of a row, trained to its end; one that is there is gone on with."""
    folder = args.output / f"{title.replace(' ', '-').replace(',', '')}-seed{seed}"
    if (folder / RECIPE_FILE).exists():
        run = open_run(folder, args.output / "cache")
    else:
        split = args.output / f"split-{row.cases or 'all'}.json"
        write_splits(split, [make_split([case.name for case in data.cases], row.cases)])
        recipe = make_recipe(title, row, data, split, args, seed)
        cache = args.output / "cache"
        run = start_run(recipe, data, folder, cache, check=False, console=quiet_console())
    train_run(run, quiet_console())
    return run


def measured(run: Run) -> Settings:
    """What a run came to: Dice of every test case and label, and what it took."""
    folder = run.fold_folder(0)
    scores = json.loads((folder / SCORES_FILE).read_text())
    summary = json.loads((folder / SUMMARY_FILE).read_text())
    rows = [json.loads(line) for line in (folder / METRICS_FILE).read_text().splitlines()]
    dice: dict[str, dict[str, float]] = {}
    for score in scores["cases"]:
        if score["metrics"]["dice"] is not None:
            dice.setdefault(score["case"], {})[score["label"]] = score["metrics"]["dice"]
    steps = np.diff([0, *(row["step"] for row in rows)])
    # Without the looks at the monitor cases.
    batch = run.recipe.phases[0].batch_size
    seconds = sum(n * batch / row["samples_per_s"] for n, row in zip(steps, rows, strict=True) if n)
    return {
        "dice": dice,
        "parameters": summary["parameters"],
        "steps": int(steps.sum()),
        "seconds_per_step": seconds / max(int(steps.sum()), 1),
        "train_seconds": summary["train_seconds"],
        "train_cpu_seconds": summary["train_cpu_seconds"],
        "monitor_dice": rows[-1].get("monitor_dice"),
        "model_bytes": summary["model_bytes"],
    }


def summarised(title: str, row: Row, runs: dict[int, Settings]) -> Settings:
    """A row of the table, over the seeds."""
    every = list(runs.values())
    names = every[0]["dice"]
    per_case = {
        case: fmean(fmean(run["dice"][case].values()) for run in every if run["dice"].get(case))
        for case in names
    }
    labels = {label: None for run in every for case in run["dice"].values() for label in case}
    per_label = {
        label: fmean(c[label] for run in every for c in run["dice"].values() if label in c)
        for label in labels
    }
    worst = min(per_case, key=per_case.__getitem__)
    return {
        "row": title,
        "network": row.network,
        "paper": row.paper,
        "dice": fmean(per_case.values()),
        "sd": stdev(per_case.values()) if len(per_case) > 1 else 0.0,
        "worst": per_case[worst],
        "worst_case": worst,
        "dice_per_label": per_label,
        "dice_per_seed": {
            seed: fmean(fmean(case.values()) for case in run["dice"].values())
            for seed, run in runs.items()
        },
        "parameters": every[0]["parameters"],
        "steps": round(fmean(run["steps"] for run in every)),
        "seconds_per_step": fmean(run["seconds_per_step"] for run in every),
        "runs": runs,
    }


def table(rows: list[Settings]) -> str:
    """Markdown; Dice in percent."""
    labels = list(rows[0]["dice_per_label"])
    papers = [row["paper"] for row in rows if row["paper"] is not None]
    heads = ["network", *(["paper"] if papers else []), "Dice", "sd", "worst", *labels]
    heads += ["parameters", "steps", "s/step"]
    lines = [heads, ["---", *["--:"] * (len(heads) - 1)]]
    for row in rows:
        numbers = [row["dice"], row["sd"], row["worst"]]
        numbers += [row["dice_per_label"].get(label, float("nan")) for label in labels]
        paper = [f"{row['paper']:.2f}"] if papers else []
        percent = [f"{100 * number:.1f}" for number in numbers]
        cost = [f"{row['parameters']:,}", f"{row['steps']:,}", f"{row['seconds_per_step']:.3f}"]
        lines.append([row["row"], *paper, *percent, *cost])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def order_of(rows: list[Settings]) -> str:
    """Whether the rows are in the paper's order."""
    from scipy.stats import kendalltau

    known = [row for row in rows if row["paper"] is not None]
    if len(known) < 3:
        return ""
    found = kendalltau([row["dice"] for row in known], [row["paper"] for row in known])
    ours, papers = (
        " < ".join(row["row"] for row in sorted(known, key=lambda row: row[key]))
        for key in ("dice", "paper")
    )
    return (
        f"Kendall's tau {found.statistic:.2f} (p = {found.pvalue:.3f}), "
        f"the order {'holds' if ours == papers else 'does not hold'}.\n"
        f"here:  {ours}\npaper: {papers}"
    )


def draw_offsets(run: Run, path: Path) -> None:
    """Figure 2: the offsets of the run's network as its seed drew them, and trained."""
    import torch
    from safetensors.numpy import load_file

    from leanseg.reports.offsets import write_offsets
    from leanseg.training.finish import WEIGHTS_FILE
    from leanseg.training.runtime import build_network
    from leanseg.training.seeds import Role, derive_seed

    seed = derive_seed(run.recipe.training.seed, Role.INITIALISATION)
    start = build_network(run.recipe, run.plan, torch.Generator().manual_seed(seed)).state_dict()
    trained = load_file(run.fold_folder(0) / WEIGHTS_FILE)
    write_offsets(path, start["layer.offsets"].numpy(), trained["layer.offsets"])


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for runs and results")
    parser.add_argument("--study", choices=STUDIES, default="table3")
    parser.add_argument("--rows", nargs="+", help="only these rows")
    parser.add_argument("--data", type=Path, help="folder of a dataset; default: phantoms")
    parser.add_argument("--size", type=int, default=96, help="edge of the frame in voxels")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--minutes", type=float, help="of each row and seed, by the clock")
    parser.add_argument("--cpu-minutes", type=float, help="the same in processor time")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--figure", type=Path, help="draw the original's offsets, start and end")
    args = parser.parse_args()
    if args.minutes is None and args.cpu_minutes is None:
        parser.error("give --minutes or --cpu-minutes")
    unknown = set(args.rows or ()) - set(STUDIES[args.study])
    if unknown:
        parser.error(f"study {args.study} has no row {unknown.pop()!r}")
    return args


def main() -> None:
    """Train the rows that are wanted, one after another."""
    args = arguments()
    args.output.mkdir(parents=True, exist_ok=True)
    if args.data:
        data = open_dataset(args.data)
    else:
        n_cases = N_TRAIN + N_MONITOR + N_TEST
        data = phantom(args.output / "phantoms", n_cases, size=max(args.size, 64))
    rows: list[Settings] = []
    for title, row in STUDIES[args.study].items():
        if args.rows and title not in args.rows:
            continue
        found = {}
        for seed in args.seeds:
            run = train_row(title, row, data, args, seed)
            found[seed] = measured(run)
            if args.figure and title == "original" and seed == args.seeds[0]:
                draw_offsets(run, args.figure)
        rows.append(summarised(title, row, found))
        print(f"{title}: Dice {rows[-1]['dice']:.3f}, {rows[-1]['steps']} steps", flush=True)
        budget = {"minutes": args.minutes, "cpu_minutes": args.cpu_minutes}
        about = {"study": args.study, "size": args.size, "device": args.device, **budget}
        write_json(args.output / "results.json", about | {"rows": rows})
    print(f"\n{table(rows)}\n\n{order_of(rows)}")


if __name__ == "__main__":
    main()
