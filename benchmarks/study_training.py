"""Other ways to train the planned network, beside the default: lines of docs/quality.md.

    python benchmarks/study_training.py Task04_Hippocampus results --folds 5 --inner 4 \
        --cpu-minutes 1 --seeds 1 2 3 --ways default deep muon coarse small

deep: a loss on every stage of the decoder, halved with each halving. muon: matrices are
orthogonalised, a convolution's with its inputs and kernel flattened (torch's own Muon takes no
convolutions). coarse: a third of the minutes on voxels and patches a quarter coarser, then from
those weights on the planned ones. small: the same with the planned voxels in patches that are
smaller by a quarter. free: AdamW without a schedule (Defazio et al., arXiv:2405.15682; the package
schedulefree), whose own average takes the place of ours.

    pip install schedulefree

Nothing is chosen by test cases: see `--inner` in study_default.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from schedulefree import AdamWScheduleFree
from study_default import chosen, fold_of, line, trained
from torch.optim._muon import _zeropower_via_newtonschulz as orthogonalised

import leanseg
from leanseg.networks.nnunet import topology
from leanseg.progress import quiet_console
from leanseg.training import trainer
from leanseg.training.planning import budget_of, plan_training
from leanseg.training.planning.rules import HALVINGS, View

OUR_AVERAGE = trainer._averaging
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


class ConvMuon(torch.optim.Optimizer):
    """Muon for weights of any number of axes from two on; AdamW with the same rate for others."""

    def __init__(self, params: Any, lr: float = 5e-3, weight_decay: float = 0.01) -> None:
        params = list(params)
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        few = [each for each in params if each.ndim < 2]
        self._beside = torch.optim.AdamW(few, lr=lr, weight_decay=weight_decay)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move the weights."""
        assert closure is None
        (group,) = self.param_groups
        self._beside.param_groups[0]["lr"] = group["lr"]
        self._beside.step()
        for weights in (each for each in group["params"] if each.ndim >= 2):
            gradient = weights.grad
            if gradient is None:
                continue
            state = self.state[weights]
            mean = state.setdefault("mean", torch.zeros_like(gradient))
            mean.lerp_(gradient, 0.05)
            flat = gradient.lerp(mean, 0.95).flatten(1)
            moved = orthogonalised(flat, _NEWTON_SCHULZ, 5, 1e-7).float().view(weights.shape)
            weights.mul_(1 - group["lr"] * group["weight_decay"])
            # As large as a step of AdamW.
            weights.add_(moved, alpha=-0.2 * group["lr"] * max(flat.shape) ** 0.5)


class ScheduleFree(AdamWScheduleFree):  # type: ignore[misc]
    """The package's optimiser; the last one made says what the averaged weights are."""

    made: ClassVar[list[ScheduleFree]] = []

    def __init__(self, params: Any, lr: float = 5e-3) -> None:
        super().__init__(params, lr=lr, warmup_steps=30, weight_decay=0.01)
        self.train()
        self.made[:] = [self]

    @classmethod
    def copy_average(cls, averaged: Any, current: Any, _: Any) -> None:
        """From where gradients are taken (y) and where the steps went (z) to their average (x)."""
        states, beta = {}, 1.0
        # Planning measures with another optimiser.
        for optimiser in cls.made:
            beta = optimiser.param_groups[0]["betas"][0]
            states = {each.data_ptr(): state for each, state in optimiser.state.items()}
        for own, other in zip(averaged, current, strict=True):
            own.copy_(other)
            if other.data_ptr() in states:
                own.lerp_(states[other.data_ptr()]["z"], 1 - 1 / beta)


def deep(view: View) -> list[str]:
    """A loss on every map of the decoder, coarse to fine."""
    n_maps = len(topology(view.patch, view.voxels_mm, HALVINGS[3]).pools)
    weights = [2**number / (2**n_maps - 1) for number in range(n_maps)]
    terms = [f"phases.main.loss.{number}.outputs={json.dumps(weights)}" for number in (0, 1)]
    return ["network.options.deep_supervision=true", *terms]


def first_part(way: str, view: View) -> list[str]:
    """What the first third of the minutes sees."""
    patch = [max(8 * round(0.75 * n / 8), 8) for n in view.patch]
    changes = [f"plan.patch.shape={patch}"]
    if way == "coarse":
        axes = [
            {"spacing_mm": round(mm * n / less, 3)}
            for mm, n, less in zip(view.voxels_mm, view.patch, patch, strict=True)
        ]
        changes.append(f"plan.frame.axes={json.dumps(axes)}")
    return changes


def run(given: argparse.Namespace, way: str, seed: int) -> dict[str, Any]:
    """Train once."""
    minutes = given.cpu_minutes
    options = {**vars(given), "cases": 0, "threads": 1, "labels": None, "name": way}
    changes = []
    is_free = way.startswith("free")
    trainer._averaging = (lambda _: ScheduleFree.copy_average) if is_free else OUR_AVERAGE
    if way.startswith("muon"):
        rate = float(way.partition("@")[2] or 5e-3)
        optimiser = {"name": "ConvMuon", "options": {"lr": rate}}
        changes = [f"phases.main.optimiser={json.dumps(optimiser)}"]
    elif is_free:
        optimiser = {
            "name": "ScheduleFree",
            "options": {"lr": float(way.partition("@")[2] or 5e-3)},
        }
        changes = [
            f"phases.main.optimiser={json.dumps(optimiser)}",
            'phases.main.schedule={"name": "constant"}',
        ]
    elif way != "default":
        dataset = leanseg.open_dataset(given.data)
        view = plan_training(
            chosen(dataset, set(fold_of(given, dataset, seed).train)),
            budget_of(cpu_minutes=minutes),
            overrides=[f"training.seed={seed}", "training.threads=1"],
            console=quiet_console(),
        ).views[0]
        if way == "deep":
            changes = deep(view)
        else:
            model = (given.output / f"{given.data.name}-{way}-{seed}.leanseg").resolve()
            third = [*first_part(way, view), f"phases.main.cpu_minutes={minutes / 3}"]
            first = SimpleNamespace(**options, set=third)
            seen = trained(first, minutes, seed, keep=model)  # type: ignore[arg-type]
            print(f"first {way}: {fmean(seen['dice'].values()):.3f}, {seen['steps']} steps")
            changes = [f"init={model}", f"phases.main.cpu_minutes={minutes * 2 / 3}"]
    row = trained(SimpleNamespace(**options, set=changes), minutes, seed)  # type: ignore[arg-type]
    return {"name": way, "cases": 0, "cpu_minutes": minutes, "seed": seed, **row}


def main() -> None:
    """Train what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--cpu-minutes", type=float, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--inner", type=int, default=4)
    parser.add_argument("--ways", nargs="+", default=["default", "deep", "muon", "coarse"])
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    # Where recipes look for optimisers.
    torch.optim.ConvMuon = ConvMuon  # type: ignore[attr-defined]
    torch.optim.ScheduleFree = ScheduleFree  # type: ignore[attr-defined]
    listing = given.output / f"{given.data.name}-training.jsonl"
    for way in given.ways:
        rows = []
        for seed in given.seeds:
            rows.append(run(given, way, seed))
            with listing.open("a") as stream:
                stream.write(json.dumps(rows[-1]) + "\n")
            print(line(given, rows[-1:]), flush=True)
        print(line(given, rows), flush=True)


if __name__ == "__main__":
    main()
