"""A recipe's network, and how this machine trains it best."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from torch import nn

from leanseg.errors import LeansegError, RecipeError
from leanseg.networks import build_trusted
from leanseg.networks.base import SegmentationNetwork
from leanseg.plan import Plan
from leanseg.training import ranks
from leanseg.training.recipe import Recipe
from leanseg.training.tasks.base import Batch

logger = logging.getLogger(__name__)
# What the list of an epoch's samples holds of each.
_SAMPLE_BYTES = 200
# What Python, PyTorch and leanseg take before anything is trained.
_PROCESS_BYTES = 450_000_000


def build_network(
    recipe: Recipe, plan: Plan, generator: torch.Generator | None = None
) -> SegmentationNetwork:
    """The network that a recipe names, for the channels and labels of a plan.

    Raises:
        RecipeError: If its name or an option is not known.
    """
    # The user's own recipe may name the user's own code.
    return build_trusted(
        recipe.network.name,
        in_channels=plan.input_shape(plan.final)[0],
        out_channels=plan.final.n_outputs,
        generator=generator,
        **recipe.network.options,
    )


def memory_format(is_3d: bool) -> torch.memory_format:
    """The order of axes in memory in which convolutions are quick: channels last."""
    return torch.channels_last_3d if is_3d else torch.channels_last


def fabric(device: str, precision: Any = "32") -> Fabric:
    """Lightning's Fabric for the device of this process, which may be one of several.

    Raises:
        RecipeError: If this machine does not have the device, or the device not the precision.
    """
    # Each process has one device; what they exchange, `leanseg.training.ranks` does.
    own: Any = [ranks.local_rank()] if ranks.n_ranks() > 1 and ranks.on_gpu(device) else 1
    try:
        # Fabric looks for launchers, and has opinions on them (SLURM's above all).
        alone = LightningEnvironment()
        return Fabric(accelerator=device, devices=own, precision=precision, plugins=alone)
    except Exception as error:  # Lightning has kinds of its own
        reason = " ".join(str(error).split())
        msg = f"'training.device' {device!r} cannot be used here ({reason}); choose auto or cpu"
        raise RecipeError(msg) from error


@dataclass(frozen=True)
class Trial:
    """What a network does with patches.

    Attributes:
        shape: Of what it makes of one patch, (1, channel, *spatial).
        network: On the meta device.
        needed_bytes: The least memory that its tensors take in training.
        right_in_bf16: Whether a processor computes right gradients with 16 bits.
    """

    shape: tuple[int, ...]
    network: SegmentationNetwork
    needed_bytes: int
    right_in_bf16: bool


def trial_run(recipe: Recipe, plan: Plan) -> Trial:
    """Try a recipe's network on one patch.

    The network is on the meta device, where tensors have shapes and no content.

    Raises:
        RecipeError: If the network cannot be built, or does not take the patches.
        GeometryError: If their size does not fit the network.
    """
    shape = (1, *plan.input_shape(plan.final))
    held, wrong = [math.prod(shape)], list[nn.Module]()

    def note(module: nn.Module, given: tuple[torch.Tensor, ...], made: torch.Tensor) -> None:
        held.append(made.numel())
        # oneDNN 3.12 leaves parts of the weights' gradient as the memory was before where a kernel
        # is longer than what it slides along, along the first axis, unless that is one voxel.
        sides = given[0].shape[2:] if given else ()
        if isinstance(module, nn.Conv3d) and sides and 1 < sides[0] < module.kernel_size[0]:
            wrong.append(module)

    # On the meta device shapes are computed and nothing else; other people's networks may hold
    # tensors of their own on the processor.
    device = "cpu" if ":" in recipe.network.name else "meta"
    with torch.device(device), torch.no_grad():
        network = build_network(recipe, plan).eval().to(device)
        for module in network.modules():
            if not next(module.children(), None) and next(module.parameters(), None) is not None:
                module.register_forward_hook(note)
        try:
            found = tuple(network(torch.zeros(shape)).shape)
        except LeansegError:
            raise
        except Exception as error:  # whatever a network says of a shape that it does not take
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise RecipeError(
                f"recipe {recipe.name!r}: network {recipe.network.name!r} does not take patches of "
                f"{' x '.join(map(str, shape[2:]))} ({reason}); is it a "
                f"{'2' if len(shape) > 4 else '3'}-D network?"
            ) from error
    # Weights, gradients, two moments, the best weights and those being saved; and half of what
    # layers make, as some of it may be freed, or have 16 bits.
    weights = sum(each.numel() for each in network.parameters())
    batch = max(phase.batch_size for phase in recipe.phases)
    needed_bytes = 4 * (6 * weights + batch * sum(held) // 2)
    return Trial(found, network, needed_bytes, not wrong)


def training_bytes(recipe: Recipe, plan: Plan) -> int:
    """About what a process takes at least that trains by a recipe.

    Raises:
        LeansegError: As `trial_run`.
    """
    return _PROCESS_BYTES + trial_run(recipe, plan).needed_bytes


def require_devices(recipe: Recipe, device: torch.device) -> None:
    """Refuse more devices than this machine has; processors take any number of processes.

    Raises:
        RecipeError: With the numbers.
    """
    wanted = recipe.training.devices
    there = {"cpu": wanted, "cuda": torch.cuda.device_count()}.get(device.type, 1)
    if wanted > there:
        raise RecipeError(
            f"recipe {recipe.name!r}: 'training.devices' is {wanted}, but {there} of the kind "
            f"{device.type} can train here; lower it, or choose 'training.device' cpu"
        )


def require_memory(recipe: Recipe, needed_bytes: int, device: torch.device) -> None:
    """Refuse a recipe that takes more memory than there is, before the system ends the process.

    Raises:
        RecipeError: With the numbers.
    """
    import psutil

    there = psutil.virtual_memory().total
    if device.type == "cuda":
        there = torch.cuda.get_device_properties(device).total_memory
    samples = max((phase.steps_per_epoch or 0) * phase.batch_size for phase in recipe.phases)
    if max(needed_bytes, samples * _SAMPLE_BYTES) > there:
        raise RecipeError(
            f"recipe {recipe.name!r}: training takes at least "
            f"{max(needed_bytes, samples * _SAMPLE_BYTES) / 1e9:,.1f} GB of memory, and there are "
            f"{there / 1e9:,.1f}; lower phases.0.batch_size, the size of the patch "
            "(plan) or of the network"
        )


def choose_precision(
    network: nn.Module,
    loss: Callable[[nn.Module, Batch], torch.Tensor],
    batch: Batch,
) -> str:
    """The faster of "32" and "bf16-mixed", measured on training steps of a copy.

    Args:
        network: Copied; neither its weights nor its statistics change.
        loss: As the training's, of network and batch.
        batch: On the network's device.

    Returns:
        "bf16-mixed" only where it saves at least a tenth of the step.
    """
    trial = copy.deepcopy(network).train()
    device = batch.image.device.type
    seconds = {False: float("inf"), True: float("inf")}
    for repeat in range(3):
        for reduced in (False, True):
            started = time.perf_counter()
            with torch.autocast(device, dtype=torch.bfloat16, enabled=reduced):
                value = loss(trial, batch)
            value.backward()  # type: ignore[no-untyped-call]
            if device == "cuda":
                torch.cuda.synchronize()
            # The first round warms up and is not counted.
            if repeat:
                seconds[reduced] = min(seconds[reduced], time.perf_counter() - started)
    chosen = "bf16-mixed" if seconds[True] < 0.9 * seconds[False] else "32"
    logger.info("precision %s (32: %.3f s, bf16: %.3f s)", chosen, seconds[False], seconds[True])
    return chosen
