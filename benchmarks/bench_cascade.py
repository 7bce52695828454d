"""Time and memory of the cascade of paper 003 beside MoNet: the tables in docs/performance.md.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/bench_cascade.py predict
    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/bench_cascade.py train

Processor seconds of one thread, medians of interleaved rounds. A scan has 30 slices, of which 10
hold the organ, in crops of 128 x 160 pixels. Memory is the peak of a process of its own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch

from leanseg.inference.memory import peak_memory_mb
from leanseg.modelfile import Member, ModelFile, NetworkSpec
from leanseg.networks import build
from leanseg.plan import Axis, Frame, HounsfieldWindow, Intensity, Patch, Plan, Stage
from leanseg.training import Recipe, load_recipe
from leanseg.training.export import export_model
from leanseg.training.tasks.base import Batch
from leanseg.training.trainer import PhaseParts
from leanseg.training.two_stages import as_stages

ROUNDS, SLICES, WITH_ORGAN, CROP = 3, 30, 10, (128, 160)
SIDE, BATCH = 320, 4


def stage(side: int, *labels: str) -> Stage:
    """Whole slices of a side."""
    inside = {labels[1]: labels[0]} if labels[1:] else {}
    axes = (Axis(size=side), Axis(size=side), Axis())
    return Stage(
        labels=labels,
        inside=inside,
        frame=Frame(axes=axes),
        patch=Patch("whole", "whole", 1),
        intensity=Intensity(window=HounsfieldWindow(), scaling="minmax"),
    )


def model_of(name: str, seen: Stage, **options: Any) -> ModelFile:
    """An untrained network, exported; a cascade as its two stages."""
    network = build(name, out_channels=seen.n_outputs, **options)
    weights = {key: value.numpy() for key, value in network.state_dict().items()}
    spec = NetworkSpec(
        name=name,
        in_channels=1,
        out_channels=seen.n_outputs,
        options=options,
        activation=seen.activation,
    )
    model = ModelFile.of(Plan(stages=(seen,)), Member(spec, weights))
    if name.startswith("cascade"):
        model = as_stages(model, network)  # type: ignore[arg-type]
    return export_model(model)


def predict() -> None:
    """Seconds a scan of MoNet, and of a cascade's stages."""
    from leanseg.inference.engines import make_engine

    monet = model_of("monet", stage(256, "organ"))
    runs: dict[str, Callable[[], object]] = {}
    first = make_engine(monet, name="openvino", threads=1)
    slices = np.random.default_rng(0).random((SLICES, 1, 256, 256), dtype=np.float32)
    runs["MoNet, 256 x 256"] = lambda: [first.run(each[None]) for each in slices]
    ours = load_recipe("cascade-pancreas").network
    for title, side, name, options in (
        ("cascade-quarter", 256, "cascade-quarter", {}),
        ("cascade-quarter", SIDE, "cascade-quarter", {}),
        ("cascade-pancreas", SIDE, ours.name, ours.options),
    ):
        model = model_of(name, stage(side, "organ", "lesion"), **options)
        seen = np.random.default_rng(0).random((SLICES, 1, side, side), dtype=np.float32)
        crops = np.random.default_rng(0).random((WITH_ORGAN, 2, *CROP), dtype=np.float32)
        coarse, fine = (
            make_engine(
                model.stages[each.name],
                name="openvino",
                threads=1,
                input_shape=(0, *model.plan.input_shape(each)),
                varies=each.patch.crop is not None,
            )
            for each in model.plan.networks
        )

        def whole(coarse=coarse, fine=fine, seen=seen, crops=crops) -> None:  # type: ignore[no-untyped-def]
            for each in seen:
                coarse.run(each[None])
            for each in crops:
                fine.run(each[None])

        runs[f"{title}, {side} x {side}"] = whole
        runs[f"{title}'s first stage alone, {side} x {side}"] = lambda coarse=coarse, seen=seen: [  # type: ignore[misc]
            coarse.run(each[None]) for each in seen
        ]
    report(runs, "s a scan")


def report(runs: dict[str, Callable[[], object]], unit: str) -> None:
    """Medians, and as ratios to the first."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(ROUNDS + 1):
        for name, run in runs.items():
            began = time.process_time()
            run()
            # The first round warms up.
            if number:
                seconds[name].append(time.process_time() - began)
    base = seconds[next(iter(runs))]
    print(f"| | {unit} | ratio |\n|---|---:|---:|")
    for name, found in seconds.items():
        ratio = median(a / b for a, b in zip(found, base, strict=True))
        print(f"| {name} | {median(found):.2f} | {ratio:.2f} |")


def steps() -> dict[str, Callable[[], object]]:
    """Training steps of each phase, and of each stage alone."""
    torch.set_num_threads(1)
    recipe = load_recipe("cascade-pancreas", [f"plan.frame.axes=[{SIDE},{SIDE},null]"])
    plan = Plan(stages=(stage(SIDE, "pancreas", "tumour"),))
    ours = recipe.network
    network = build(ours.name, out_channels=2, **ours.options)
    network = network.to(memory_format=torch.channels_last)
    classes = torch.zeros((BATCH, SIDE, SIDE), dtype=torch.int32)
    # With its margins about as large as the crops above.
    classes[:, 100:180, 90:200], classes[:, 130:150, 120:150] = 1, 2
    image = torch.rand((BATCH, 1, SIDE, SIDE)).contiguous(memory_format=torch.channels_last)
    batch = Batch(image, classes, tuple(range(BATCH)))

    def step(number: int, part: str | None = None) -> Callable[[], object]:
        content = recipe.model_dump(mode="json")
        phase = content["phases"][number]
        phase["task"]["options"] |= {"random_margin": 0, "crop": "truth"}
        if part:
            phase["loss"] = [term for term in phase["loss"] if term["part"] == part]
        made = Recipe.model_validate(content)
        task = PhaseParts(made.phases[number], made, plan, ()).task

        def run() -> None:
            network.zero_grad(set_to_none=True)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                value = task.loss(network, batch)
            value.backward()  # type: ignore[no-untyped-call]

        return run

    stage_two = network.second.network

    def second_alone() -> None:
        network.zero_grad(set_to_none=True)
        crop = image[:, :, 80:208, 64:224]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            maps = stage_two.all_maps(crop)
        sum(each.float().square().mean() for each in maps).backward()  # type: ignore[union-attr]

    return {
        "stage 1 alone": step(0, "first"),
        "stage 2 alone, on the crop": second_alone,
        "phase S": step(0),
        "phase I": step(1),
        "phase J": step(2),
    }


def train() -> None:
    """Seconds a step, and the peak of a process that takes one kind of step alone."""
    report(steps(), "s a step")
    print("\n| | peak MB |\n|---|---:|")
    for name in steps():
        found = subprocess.run(
            [sys.executable, __file__, "peak", "--name", name],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        print(f"| {name} | {found.stdout.strip()} |")


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("predict", "train", "peak"))
    parser.add_argument("--name")
    given = parser.parse_args()
    if given.what == "peak":
        run = steps()[given.name]
        for _ in range(3):
            run()
        print(f"{peak_memory_mb():.0f}")
    else:
        {"predict": predict, "train": train}[given.what]()


if __name__ == "__main__":
    main()
