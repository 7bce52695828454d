"""Training steps of paper 002's 2-D nnU-Net beside nnU-Net v2's own trainer: images a second.

    python -m venv rival && rival/bin/pip install nnunetv2 .
    taskset -c 0,1 rival/bin/python benchmarks/bench_framework.py Task101_SarcomaCT work --threads 2

    python benchmarks/bench_framework.py Task101_SarcomaCT work --steps

The first: both train the same network (nnU-Net's own class, 30 filters doubled four times, no deep
supervision) on patches of 128 x 128 in batches of 28, each with its own loading, augmentation, loss
and optimiser, in the precision that is faster for it, in turns within one process. Prints medians.
`--steps` needs no nnU-Net: seconds of a step of the paper's four networks as the recipes have them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import torch

import leanseg
from leanseg.datasets import Split
from leanseg.frames import CasePreparer
from leanseg.training import load_recipe, start_run
from leanseg.training.trainer import Trainer

SHAPE, BATCH = (128, 128), 28


def rival(data: leanseg.Dataset, folder: Path, threads: int) -> Any:
    """nnU-Net's trainer on the data, with the network, patch and batch of the paper."""
    from rival_nnunet import DATASET, NUMBER, write_raw

    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ[name] = str(folder.resolve() / name)
        (folder / name).mkdir(parents=True)
    os.environ |= {"nnUNet_n_proc_DA": str(threads), "nnUNet_compile": "false"}
    names = tuple(case.name for case in data)
    write_raw(data, Split(names[1:], (), names[:1]), None, folder / "nnUNet_raw" / DATASET)
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    api.extract_fingerprints([NUMBER], num_processes=threads)
    name = api.plan_experiments([NUMBER])
    path = folder / "nnUNet_preprocessed" / DATASET / f"{name}.json"
    plans = json.loads(path.read_text())
    own = plans["configurations"]["2d"]
    own |= {"patch_size": list(SHAPE), "batch_size": BATCH}
    own["architecture"]["arch_kwargs"] |= {
        "n_stages": 5,
        "features_per_stage": [30, 60, 120, 240, 480],
        "kernel_sizes": [[3, 3]] * 5,
        "strides": [[1, 1], *[[2, 2]] * 4],
        "n_conv_per_stage": [2] * 5,
        "n_conv_per_stage_decoder": [2] * 4,
    }
    path.write_text(json.dumps(plans))
    api.preprocess([NUMBER], name, ("2d",), (threads,))
    # Augmentation in this process; the planner cannot be asked for that.
    os.environ |= {"nnUNet_n_proc_DA": "0"}
    content = json.loads((path.parent / "dataset.json").read_text())
    plans |= {"continue_training": False}
    trainer = nnUNetTrainer(plans, "2d", "all", content, torch.device("cpu"))
    trainer.enable_deep_supervision = False
    trainer.on_train_start()
    loss = trainer.loss
    trainer.loss = lambda outputs, target: loss(outputs.float(), target)
    trainer.network.train()
    return trainer


def ours(
    data: leanseg.Dataset, folder: Path, threads: int, network: str = "nnunet-2d"
) -> tuple[Trainer, Any]:
    """leanseg's trainer of a recipe, on the same cases."""
    recipe = load_recipe(
        f"ctia-{network}-kidney", ["data.labels=null", f"training.threads={threads}"]
    )
    run = start_run(recipe, data, folder / network, folder / "cache", check=False)
    # Without what a run's fold would add: any grey values serve.
    plan = run.plan.model_copy(
        update={
            "stages": (
                run.plan.final.model_copy(
                    update={"intensity": leanseg.Intensity(window="organ", scaling="zscore")}
                ),
            )
        }
    )
    preparer = CasePreparer(plan, run.data.label_values, None, run.cache)
    cases = [preparer.prepare(case) for case in run.data.cases]
    trainer = Trainer(run.recipe, plan, cases)
    return trainer, trainer.begin()


def main() -> None:
    """Take turns, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    data = leanseg.open_dataset(given.data)
    if given.steps:
        for network in ("nnunet-2d", "nnunet-3d", "msd-2d", "msd-3d"):
            trainer, state = ours(data, given.folder, given.threads, network)
            spent = []
            for _ in range(4):
                began = time.process_time()
                state = trainer.steps(state, 1)
                spent.append(time.process_time() - began)
            print(f"{network}: {statistics.median(spent[1:]):.2f} processor s, {state.precision}")
        return
    from rival_nnunet import bf16, is_bf16_faster

    other = rival(data, given.folder, given.threads)
    torch.set_num_threads(given.threads)
    is_bf16 = is_bf16_faster(_Listed(other))
    trainer, state = ours(data, given.folder, given.threads)
    seconds: dict[str, list[float]] = {"leanseg": [], "nnU-Net": []}
    for _ in range(given.rounds + 1):
        began = time.perf_counter()
        state = trainer.steps(state, 2)
        seconds["leanseg"].append((time.perf_counter() - began) / 2)
        began = time.perf_counter()
        for _ in range(2):
            with bf16(enabled=is_bf16):
                other.train_step(next(other.dataloader_train))
        seconds["nnU-Net"].append((time.perf_counter() - began) / 2)
    n = {
        "leanseg": sum(p.numel() for p in trainer.network.parameters()),
        "nnU-Net": sum(p.numel() for p in other.network.parameters()),
    }
    precision = {"leanseg": state.precision, "nnU-Net": "bf16" if is_bf16 else "float32"}
    print("| trainer | parameters | precision | s a step | images/s |\n|---|--:|---|--:|--:|")
    for name, values in seconds.items():
        step = statistics.median(values[1:])
        print(f"| {name} | {n[name]:,} | {precision[name]} | {step:.2f} | {BATCH / step:.1f} |")
    pairs = zip(seconds["nnU-Net"][1:], seconds["leanseg"][1:], strict=True)
    print(f"median ratio of pairs: {statistics.median(a / b for a, b in pairs):.2f}")


class _Listed:
    """The trainer as `is_bf16_faster` takes it: with a list of targets, of one map."""

    def __init__(self, trainer: Any) -> None:
        self._trainer, self.network = trainer, trainer.network
        self.dataloader_train = self

    def __next__(self) -> dict[str, Any]:
        batch = next(self._trainer.dataloader_train)
        return {"data": batch["data"], "target": [batch["target"]]}

    def loss(self, outputs: torch.Tensor, target: list[torch.Tensor]) -> torch.Tensor:
        """Of the one map."""
        found: torch.Tensor = self._trainer.loss(outputs, target[0])
        return found


if __name__ == "__main__":
    main()
