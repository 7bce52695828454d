"""What one process computes of a batch, and what two compute of its halves."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import torch
from torch import nn

import plans
from leanseg.losses import LOSSES, build_loss
from leanseg.networks import build
from leanseg.progress import Display, quiet_console
from leanseg.training import joint, open_run, ranks
from leanseg.training.run import _prepared
from leanseg.training.tasks.base import Batch, Term
from leanseg.training.tasks.cascade import CascadeTask
from leanseg.training.trainer import Trainer

_SMALLEST = {"shared-boundary": 3}
LOSS_CASES = [(name, n) for name in sorted(LOSSES) for n in (1, 3) if n >= _SMALLEST.get(name, 1)]
# Dimensions, momentum, and whether there are weights.
NORMS = [(2, 0.1, True), (3, 0.3, True), (3, None, True), (2, 0.1, False)]
VARIANTS = {"plain": [], "accumulated": ["phases.0.accumulate=2"]}
STEPS = 4
# Crops by the label, and by what the first stage finds.
CROPS = ("truth", "found")


def own(tensor: torch.Tensor) -> torch.Tensor:
    """This process's samples of a batch."""
    return tensor[ranks.rank() :: ranks.n_ranks()]


def of_loss(name: str, classes: int) -> dict[str, torch.Tensor]:
    """A loss, what reaches the network's input and its weights; unevenly annotated halves."""
    generator = torch.Generator().manual_seed(3)
    image = torch.randn(4, 2, 6, 7, generator=generator, dtype=torch.float64)
    target = torch.randint(max(2, classes), (4, 6, 7), generator=generator)
    # The halves differ in how much of them counts, so that no mean of means is the joint one.
    target[1, :, :5] = -1
    target[0] = target[0].clamp(max=1)
    known = torch.ones(4, classes, dtype=torch.bool)
    if classes > 1:
        known[3, 1] = False
        target[3][target[3] == 1] = 0
    network = nn.Conv2d(2, classes, 3, padding=1, dtype=torch.float64)
    for parameter in network.parameters():
        nn.init.normal_(parameter, generator=generator)
    image = own(image).requires_grad_()
    logits = joint.joint(network(image))
    value = build_loss(name)(logits, joint.joint(own(target)), joint.joint(own(known)))
    value.backward()
    joint.sum_gradients(network.parameters())
    found = {"value": value.detach(), "part of image": image.grad}
    return found | {name: each.grad for name, each in network.named_parameters()}


def of_norm(dimensions: int, momentum: float | None, affine: bool) -> dict[str, torch.Tensor]:
    """Two batches through a batch normalisation: results, statistics, gradients."""
    generator = torch.Generator().manual_seed(4)
    kind = nn.BatchNorm2d if dimensions == 2 else nn.BatchNorm3d
    network = nn.Sequential(kind(3, momentum=momentum, affine=affine).double())
    for parameter in network.parameters():
        nn.init.normal_(parameter, generator=generator)
    joint.join_normalisation(network)
    found: dict[str, torch.Tensor] = {}
    for number in range(2):
        shape = (4, 3, *(5, 4, 3)[:dimensions])
        values = 2 + torch.randn(shape, generator=generator, dtype=torch.float64)
        factors = torch.randn(shape, generator=generator, dtype=torch.float64)
        values = own(values).requires_grad_()
        result = network(values)
        (own(factors) * result.square()).sum().backward()
        found[f"part of result {number}"] = result.detach()
        found[f"part of gradient {number}"] = values.grad
    if affine:
        joint.sum_gradients(network.parameters())
        found |= {name: each.grad for name, each in network.named_parameters()}
    found |= {f"kept {name}": each for name, each in network[0].state_dict().items()}
    network.eval()
    return found | {"evaluated": network(torch.ones_like(values[:1])).detach()}


def of_training(folder: Path, overrides: list[str]) -> dict[str, torch.Tensor]:
    """Weights after a few steps of a run's recipe."""
    run = open_run(folder)
    recipe = run.recipe.with_overrides(overrides)
    with Display(quiet_console()) as display:
        cases, _ = _prepared(run, run.splits[0], display)
    trainer = Trainer(recipe, run.plan, cases)
    return trainer.steps(trainer.begin(), STEPS).network


def of_cascade(crop: Literal["truth", "found"]) -> dict[str, torch.Tensor]:
    """Weights of a cascade after two steps, and what its task tells; crops differ in size."""
    task = CascadeTask(
        plans.slices((64, 64), ("organ", "lesion"), inside={"lesion": "organ"}).final,
        [
            Term(build_loss("dice"), part="first"),
            Term(build_loss("boundary-bce-iou"), part="second", outputs=(1, 1, 2, 4)),
            Term(build_loss("shared-boundary"), 0.4, part="both"),
        ],
        crop=crop,
    )
    unet = {"name": "multiscale-unet", "options": {"base_filters": 4}}
    nested = {"name": "unetpp", "options": {"base_filters": 4}}
    generator = torch.Generator().manual_seed(6)
    network = build(
        "cascade", out_channels=2, first=unet, second=nested, margin=4, generator=generator
    ).double()
    if crop == "found":
        # So little that some slices are looked at by their labels.
        nn.init.constant_(network.get_parameter("first.head.bias"), -4.0)
    joint.join_normalisation(network)
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3)
    for step in range(2):
        image = torch.randn(4, 1, 64, 64, generator=generator, dtype=torch.float64)
        classes = torch.zeros(4, 64, 64, dtype=torch.int32)
        for number in range(3):
            # The largest one is in the other process every time.
            side = 12 + 20 * ((number + step) % 2)
            classes[number, 8 : 8 + side, 20 : 20 + side] = 1
            classes[number, 10:15, 24:30] = 2
        seeds = tuple(range(4))[ranks.rank() :: ranks.n_ranks()]
        task.loss(network, Batch(own(image + classes[:, None]), own(classes), seeds)).backward()
        joint.sum_gradients(network.parameters())
        optimiser.step()
        optimiser.zero_grad()
    told = task.told()
    missed = float(told.split(" in ")[1].split(" ")[0]) if told else 0.0
    return network.state_dict() | {"missed": torch.tensor(missed)}


def everything(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """All of it, by what it is of."""
    found = {f"{name} {n}": of_loss(name, n) for name, n in LOSS_CASES}
    found |= {f"norm {n}": of_norm(*each) for n, each in enumerate(NORMS)}
    found |= {f"cascade {crop}": of_cascade(crop) for crop in CROPS}
    return found | {name: of_training(folder, changed) for name, changed in VARIANTS.items()}


def share(rank: int, n_ranks: int, port: int, folder: Path, results: Path) -> None:
    """All of it in one of several processes; for a process of its own."""
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(n_ranks),
        "RANK": str(rank),
    }
    with ranks.together(None):
        torch.save(everything(folder), results)
