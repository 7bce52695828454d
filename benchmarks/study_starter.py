"""Do weights from procedural shapes or phantoms spare minutes? The table in docs/quality.md.

    python benchmarks/study_starter.py Task04_Hippocampus results --starts shapes phantoms \
        --pretrain-minutes 10 --cases 1 3 6 --cpu-minutes 1 --inner 4

Shapes: blobs, boxes, tubes and rings of random pose, size, grey value, texture and sharpness under
a smooth field of brightness; the network has to tell the kinds apart, whatever their contrast (as
SynthSeg and anatomix learn from images that nobody has to license). Phantoms: leanseg's own. The
network is the planner's for the data, trained on them for some minutes; then the default trains on
few cases with those weights (`init`, all but the last layer) for half the minutes, on the same
plan, and without them for all and for half of the minutes.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter, zoom
from scipy.spatial.transform import Rotation
from study_default import trained

import leanseg
from leanseg.progress import quiet_console
from leanseg.training import start_run, train_run
from leanseg.training.planning import budget_of, plan_training

KINDS = ("blob", "box", "tube", "ring")
SIZE = 56


def shapes(n: int, seed: int) -> leanseg.Dataset:
    """Scans of shapes, 1 mm, with their kinds as labels."""
    cases = []
    for number in range(n):
        image, label = _scene(np.random.default_rng([seed, number]))
        cases.append(leanseg.Case((image, np.eye(4)), (label, np.eye(4)), f"shapes_{number:03d}"))
    labels = {kind: value for value, kind in enumerate(KINDS, start=1)}
    return leanseg.Dataset(cases, labels=labels, channels=("MR",))


def _scene(rng: np.random.Generator) -> tuple[Any, Any]:
    axes = np.stack(np.meshgrid(*[np.arange(SIZE) - SIZE / 2] * 3, indexing="ij"), axis=-1)
    label = np.zeros((SIZE,) * 3, np.uint8)
    image = np.full(label.shape, rng.random())
    for _ in range(rng.integers(20, 40)):
        centre = rng.uniform(-SIZE / 2, SIZE / 2, 3)
        radii = rng.uniform(5, 14, 3)
        turned = (axes - centre) @ Rotation.random(random_state=rng).as_matrix() / radii
        # Bent: no two of a kind are the same.
        turned += 0.3 * np.sin(turned[..., ::-1] * rng.uniform(1, 2, 3))
        kind = int(rng.integers(len(KINDS)))
        across = np.hypot(turned[..., 0], turned[..., 1])
        inside = (
            (turned**2).sum(-1) < 1,
            (np.abs(turned) < 0.8).all(-1),
            (across < 0.5) & (np.abs(turned[..., 2]) < 2),
            np.hypot(across - 1, turned[..., 2]) < 0.4,
        )[kind]
        label[inside] = kind + 1
        image[inside] = rng.random()
    image = gaussian_filter(image, rng.uniform(0.3, 1.2))
    texture = gaussian_filter(rng.standard_normal(image.shape), rng.uniform(0, 1.5))
    image += rng.uniform(0, 0.15) * texture / texture.std()
    image *= np.exp(0.3 * zoom(rng.standard_normal((4, 4, 4)), SIZE / 4, order=3))
    return image.astype(np.float32), label


def pretrained(given: argparse.Namespace, start: str) -> Path:
    """A model of shapes or phantoms with the network that the data would be given."""
    folder = given.output / f"{start}-{given.pretrain_minutes:g}"
    model = folder / "fold_0/model.leanseg"
    if model.exists():
        return model
    target = plan_training(
        leanseg.open_dataset(given.data), budget_of(cpu_minutes=1), console=quiet_console()
    ).recipe
    if start == "shapes":
        data = shapes(given.pretrain_cases, 0)
    else:
        data = leanseg.phantom(given.output / "phantoms", given.pretrain_cases, size=128)
    own = plan_training(
        data,
        budget_of(cpu_minutes=given.pretrain_minutes),
        overrides=["training.threads=1", "split.train_fraction=1.0", "split.monitor_fraction=0.0"],
        console=quiet_console(),
    )
    network = json.dumps(target.network.model_dump(mode="json"))
    recipe = own.recipe.with_overrides([f"network={network}", "packaging.export=false"])
    run = start_run(recipe, data, folder, check=False, console=quiet_console())
    train_run(run, quiet_console())
    return model


def main() -> None:
    """Train what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--starts", nargs="+", choices=["shapes", "phantoms"], required=True)
    parser.add_argument("--pretrain-minutes", type=float, default=10)
    parser.add_argument("--pretrain-cases", type=int, default=60)
    parser.add_argument("--cases", type=int, nargs="+", default=[1, 3, 6])
    parser.add_argument("--cpu-minutes", type=float, nargs="+", default=[1])
    parser.add_argument("--seeds", type=int, nargs="+", default=[42])
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--inner", type=int, default=0, help="as in study_default")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    starts: dict[str, tuple[float, list[str]]] = {
        "nothing": (1.0, []),
        "nothing, half": (0.5, []),
    }
    for start in given.starts:
        starts[start] = 0.5, [f"init={pretrained(given, start).resolve()}"]
    listing = given.output / f"{given.data.name}-starter.jsonl"
    print("| training cases | CPU min | from | Dice | worst |\n|--:|--:|---|--:|--:|")
    for n, minutes in product(given.cases, given.cpu_minutes):
        for name, (share, overrides) in starts.items():
            ends = f"phases.main.cpu_minutes={share * minutes}"
            options = {
                "data": given.data, "output": given.output, "folds": given.folds, "cases": n,
                "inner": given.inner, "threads": 1, "labels": None, "name": name,
                "set": [*overrides, ends],
            }  # fmt: skip
            rows = [
                trained(SimpleNamespace(**options), minutes, seed)  # type: ignore[arg-type]
                for seed in given.seeds
            ]
            with listing.open("a") as stream:
                for row in rows:
                    stream.write(json.dumps({"from": name, "cases": n} | row) + "\n")
            means = [fmean(row["dice"].values()) for row in rows]
            worst = min(min(row["dice"].values()) for row in rows)
            each = ", ".join(f"{mean:.3f}" for mean in means)
            print(
                f"| {n} | {share * minutes:g} | {name} | {fmean(means):.3f} ({each}) "
                f"| {worst:.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
