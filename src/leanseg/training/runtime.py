"""A recipe's network, and how this machine trains it best."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable

import torch
from torch import nn

from leanseg.networks import build_trusted
from leanseg.plan import Plan
from leanseg.training.recipe import Recipe

logger = logging.getLogger(__name__)


def build_network(
    recipe: Recipe, plan: Plan, generator: torch.Generator | None = None
) -> nn.Module:
    """The network that a recipe names, for the channels and labels of a plan.

    Raises:
        RecipeError: If its name or an option is not known.
    """
    # The user's own recipe may name the user's own code.
    network: nn.Module = build_trusted(
        recipe.network.name,
        in_channels=plan.input_shape(plan.final)[0],
        out_channels=plan.final.n_outputs,
        generator=generator,
        **recipe.network.options,
    )
    return network


def choose_precision(
    network: nn.Module,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    image: torch.Tensor,
    classes: torch.Tensor,
) -> str:
    """The faster of "32" and "bf16-mixed", measured on training steps of a copy.

    Args:
        network: Copied; neither its weights nor its statistics change.
        loss: As the training's.
        image: A batch (batch, channel, row, column).
        classes: Its classes (batch, row, column).

    Returns:
        "bf16-mixed" only where it saves at least a tenth of the step.
    """
    trial = copy.deepcopy(network).train()
    seconds = {False: float("inf"), True: float("inf")}
    for repeat in range(3):
        for reduced in (False, True):
            started = time.perf_counter()
            with torch.autocast(image.device.type, dtype=torch.bfloat16, enabled=reduced):
                value = loss(trial(image), classes)
            value.backward()  # type: ignore[no-untyped-call]
            if image.device.type == "cuda":
                torch.cuda.synchronize()
            # The first round warms up and is not counted.
            if repeat:
                seconds[reduced] = min(seconds[reduced], time.perf_counter() - started)
    chosen = "bf16-mixed" if seconds[True] < 0.9 * seconds[False] else "32"
    logger.info("precision %s (32: %.3f s, bf16: %.3f s)", chosen, seconds[False], seconds[True])
    return chosen
