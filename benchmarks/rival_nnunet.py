"""nnU-Net v2 trained for a number of processor minutes on one split, scored as leanseg scores.

    python -m venv rival && rival/bin/pip install nnunetv2 .
    OMP_NUM_THREADS=1 taskset -c 0 rival/bin/python benchmarks/rival_nnunet.py Task04_Hippocampus \
        results/nnunet-3d --configuration 3d_fullres --cpu-minutes 60 --split run/splits.json

nnU-Net makes its default plans, and its own trainer takes the steps. Of the split's first fold it
gets what trains and monitors; the test cases take no part in its plans.

- The budget counts `time.process_time()` of training steps, loading and augmentation included;
  not planning, preprocessing and the predictions at marks. It ends where no step fits any more.
- The learning rate falls with the share of the budget that is spent, where nnU-Net counts epochs.
- One process does it all. Where a trial shows bfloat16 to be faster, training and prediction run
  under autocast, as nnU-Net does on a GPU; the loss stays in float32.
- Mirroring at prediction, nnU-Net's default, is off: `--mirroring` turns it on.

OUTPUT/curve.jsonl gets a line at each mark. Only the last one is of a finished schedule: what six
minutes give is told by a run with `--cpu-minutes 6`, not by the mark at 6 of a longer one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch

import leanseg
from leanseg.datasets import Split, is_ignore, read_splits
from leanseg.errors import DatasetError, LeansegError
from leanseg.files import require_new_folder, write_json

NUMBER, DATASET = 900, "Dataset900_Rival"
Labels = dict[str, list[int]]
AtMark = Callable[[float, dict[str, Any]], None]
bf16 = partial(torch.autocast, "cpu", torch.bfloat16)


def write_raw(data: leanseg.Dataset, split: Split, regions: Labels | None, folder: Path) -> Labels:
    """Write the split's cases in nnU-Net's layout; gives the values of each label there."""
    values = sorted(data.labels.values())
    if not {value for wanted in (regions or {}).values() for value in wanted} <= set(values):
        raise DatasetError(f"--labels: {data.root} has the values {values}; choose of them")
    parts = dict.fromkeys((*split.train, *split.monitor), "training")
    parts |= dict.fromkeys(split.test, "test")
    known = [case for case in data if case.name in parts]
    cases = [replace(case, metadata={**case.metadata, "part": parts[case.name]}) for case in known]
    done = leanseg.convert(replace(data, cases=tuple(cases)), "nnunet", folder)
    new = {value: done.renumbered.get(name, value) for name, value in data.labels.items()}
    own = {name: [new[value]] for name, value in data.labels.items()}
    if regions is None:
        return own
    named = {name: [new[value] for value in values] for name, values in regions.items()}
    ignored = {name: values for name, values in own.items() if is_ignore(name)}
    return write_regions(folder / "dataset.json", named) | ignored


def write_regions(path: Path, regions: Labels) -> Labels:
    """Tell nnU-Net of regions; it writes them over each other, so the larger come first."""
    ordered = dict(sorted(regions.items(), key=lambda each: -len(each[1])))
    values = list(ordered.values())
    # Each is written as a value that no later one has.
    own = [set(each).difference(*values[n:]) for n, each in enumerate(values, start=1)]
    if not all(own) or len(values[0]) < 2:
        msg = "--labels: a region has to merge values, and smaller ones may not cover it"
        raise DatasetError(msg)
    content = json.loads(path.read_text())
    kept = {name: value for name, value in content["labels"].items() if is_ignore(name)}
    content["labels"] = {"background": 0, **ordered, **kept}
    write_json(path, {**content, "regions_class_order": [min(each) for each in own]})
    return ordered


def make_trainer(configuration: str, folder: Path, threads: int) -> Any:
    """Plan and preprocess in a folder; gives nnU-Net's trainer, ready for its first step."""
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    api.extract_fingerprints([NUMBER], num_processes=threads)
    name = api.plan_experiments([NUMBER])
    plans = json.loads((folder / f"{name}.json").read_text())
    api.preprocess([NUMBER], name, (configuration,), (threads,))
    # Augmentation in this process; the planner cannot be asked for that.
    os.environ |= {"nnUNet_n_proc_DA": "0"}
    torch.set_num_threads(threads)
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)
    content = json.loads((folder / "dataset.json").read_text())
    # Versions from 2.7 on want this key. All cases that are preprocessed train.
    plans |= {"continue_training": False}
    trainer = nnUNetTrainer(plans, configuration, "all", content, torch.device("cpu"))
    trainer.on_train_start()
    loss = trainer.loss
    trainer.loss = lambda outputs, target: loss([each.float() for each in outputs], target)
    trainer.network.train()
    return trainer


def is_bf16_faster(trainer: Any) -> bool:
    """Whether half a batch goes forward and back faster in bfloat16, the better of two tries."""
    batch = next(trainer.dataloader_train)
    half = (len(batch["data"]) + 1) // 2
    seconds = [np.inf, np.inf]
    for enabled in (False, True) * 2:
        began = time.process_time()
        with bf16(enabled=enabled):
            outputs = trainer.network(batch["data"][:half])
            trainer.loss(outputs, [each[:half] for each in batch["target"]]).backward()
        seconds[enabled] = min(seconds[enabled], time.process_time() - began)
    print(f"half a batch: float32 {seconds[False]:.2f} s, bfloat16 {seconds[True]:.2f} s")
    return bool(seconds[True] < seconds[False])


def train(trainer: Any, given: argparse.Namespace, is_bf16: bool, at_mark: AtMark) -> None:
    """Take steps until the budget is spent; `at_mark` gets each mark and the facts at it."""
    budget, spent, said = 60 * given.cpu_minutes, 0.0, 0.0
    left = sorted(mark for mark in given.marks if mark < given.cpu_minutes)
    losses: list[float] = []
    while not losses or spent + spent / len(losses) <= budget:
        began = time.process_time()
        # nnU-Net's own decay, with time for epochs.
        rate = trainer.initial_lr * (1 - spent / budget) ** 0.9
        for group in trainer.optimizer.param_groups:
            group["lr"] = rate
        with bf16(enabled=is_bf16):
            losses.append(float(trainer.train_step(next(trainer.dataloader_train))["loss"]))
        spent += time.process_time() - began
        facts = {"cpu_minutes": spent / 60, "steps": len(losses), "learning_rate": rate}
        facts["train_loss"] = fmean(losses[-50:])
        if spent - said >= 30 or len(losses) == 1:
            said = spent
            print(", ".join(f"{name} {value:.4g}" for name, value in facts.items()), flush=True)
        passed = [mark for mark in left if spent >= 60 * mark]
        if passed:
            left = left[len(passed) :]
            at_mark(passed[-1], facts)
    at_mark(given.cpu_minutes, facts)


def predict(trainer: Any, images: Path, output: Path, mirroring: bool) -> None:
    """Label maps of a folder's cases by nnU-Net's predictor; the trainer can go on afterwards."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    output.mkdir()
    trainer.set_deep_supervision_enabled(False)
    places = {"device": trainer.device, "perform_everything_on_device": False}
    predictor = nnUNetPredictor(use_mirroring=mirroring, allow_tqdm=False, **places)
    plans = (trainer.plans_manager, trainer.configuration_manager)
    weights, axes = [trainer.network.state_dict()], trainer.inference_allowed_mirroring_axes
    about = (trainer.dataset_json, type(trainer).__name__, axes)
    predictor.manual_initialization(trainer.network, *plans, weights, *about)
    predictor.predict_from_files_sequential(str(images), str(output))
    trainer.set_deep_supervision_enabled(True)
    trainer.network.train()


def score(predictions: Path, references: Path, labels: Labels) -> dict[str, Any]:
    """Dice by leanseg: means over a case's labels, then over cases; undefined ones left out."""
    scores = leanseg.evaluate(predictions, references, labels)
    scores.to_json(predictions / "scores.json")
    cases: dict[str, list[float]] = {}
    for each in scores.cases:
        if (dice := each.metrics["dice"]) is not None:
            cases.setdefault(each.case, []).append(dice)
    means = {case: fmean(dice) for case, dice in cases.items()}
    spread = stdev(means.values()) if len(means) > 1 else None
    summary = {"dice": fmean(means.values()), "sd": spread, "worst": min(means.values())}
    per_label = {name: scores[name].dice for name in scores.labels}
    return {**summary, "per_label": per_label, "cases": means}


def run(given: argparse.Namespace) -> None:
    """Prepare, train, predict and score at every mark."""
    data = leanseg.open_dataset(given.data)
    split = read_splits(given.split, [case.name for case in data])[0]
    require_new_folder(given.output)
    # nnU-Net reads these when it is imported.
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ[name] = str(given.output.resolve() / name)
        (given.output / name).mkdir(parents=True)
    processes = dict.fromkeys(("nnUNet_def_n_proc", "nnUNet_n_proc_DA"), str(given.threads))
    os.environ |= {"nnUNet_compile": "false", **processes}
    raw = given.output / "nnUNet_raw" / DATASET
    labels = write_raw(data, split, given.labels, raw)
    folder = given.output / "nnUNet_preprocessed" / DATASET
    trainer = make_trainer(given.configuration, folder, given.threads)
    is_bf16 = is_bf16_faster(trainer)
    facts = {
        "tool": f"nnU-Net {version('nnunetv2')}",
        "configuration": given.configuration,
        "patch": [int(n) for n in trainer.configuration_manager.patch_size],
        "batch": trainer.batch_size,
        "parameters": sum(each.numel() for each in trainer.network.parameters()),
        "precision": "bf16" if is_bf16 else "float32",
        "mirroring": given.mirroring,
        "threads": given.threads,
        "budget_cpu_minutes": given.cpu_minutes,
    }
    print(json.dumps(facts))

    def at_mark(mark: float, progress: dict[str, Any]) -> None:
        output, began = given.output / f"predictions_{mark:g}", time.process_time()
        with bf16(enabled=is_bf16):
            predict(trainer, raw / "imagesTs", output, given.mirroring)
        line = {**facts, "mark": mark, "finished": mark == given.cpu_minutes, **progress}
        line |= {"predict_cpu_seconds": time.process_time() - began}
        line |= score(output, raw / "labelsTs", labels)
        with (given.output / "curve.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        unfinished = f" (unfinished schedule; --cpu-minutes {mark:g} gives the fair figure)"
        said = f"{mark:g} min, {line['steps']} steps: mean Dice {line['dice']:.4f}"
        print(said + ("" if line["finished"] else unfinished), flush=True)

    train(trainer, given, is_bf16, at_mark)
    trainer.on_train_end()


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("data", type=Path)
    add("output", type=Path)
    add("--configuration", default="3d_fullres", choices=["3d_fullres", "2d"])
    add("--cpu-minutes", type=float, default=60.0)
    add("--split", type=Path, required=True, help="as in a run's splits.json")
    add("--labels", type=json.loads, help='regions: {"whole": [1, 2], "core": [1]}')
    add("--threads", type=int, default=1)
    add("--marks", type=float, nargs="*", default=[1, 3, 6, 10, 20, 30, 60])
    add("--mirroring", action="store_true", help="at prediction")
    try:
        run(parser.parse_args())
    except LeansegError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
