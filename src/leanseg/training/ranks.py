"""Several processes that train together: each has a share of every batch, all have one result.

Without them (`leanseg train` in one process) everything here does nothing. Losses and batch
normalisation see the joint batch, so that the weights are those of one process with all of it, to
rounding; averaging gradients alone would not do for losses that are no mean over voxels, as Dice.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import distributed, nn

from leanseg.errors import LeansegError, RecipeError

# A rank that prepares data, or monitors a slow case, keeps the others waiting.
_LONGEST_WAIT = datetime.timedelta(days=7)
_Item = TypeVar("_Item")


def started_by_launcher() -> bool:
    """Whether a launcher such as torchrun started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "MASTER_ADDR" in os.environ


def join(device: str) -> None:
    """Meet the other processes that a launcher started; does nothing without one.

    Args:
        device: As in recipes.
    """
    if not started_by_launcher() or distributed.is_initialized():
        return
    backend = "nccl" if on_gpu(device) else "gloo"
    distributed.init_process_group(backend, timeout=_LONGEST_WAIT)


def on_gpu(device: str) -> bool:
    """Whether a device of a recipe is one of NVIDIA's here."""
    return device in ("auto", "gpu", "cuda") and torch.cuda.is_available()


def leave() -> None:
    """Part from the other processes."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def rank() -> int:
    """This process's number; 0 writes files and talks to the user."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def n_ranks() -> int:
    """Number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def local_rank() -> int:
    """This process's number on its machine, which is that of its device."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def wait() -> None:
    """Wait until all processes are here."""
    if n_ranks() > 1:
        distributed.barrier()


@contextmanager
def first_alone() -> Iterator[None]:
    """Let the first process through, then the others."""
    if rank():
        wait()
    yield
    if not rank():
        wait()


@contextmanager
def whole(folder: Path) -> Iterator[None]:
    """Have an end of another process told as such.

    Raises:
        LeansegError: If the connection to another process broke.
    """
    try:
        yield
    except (RuntimeError, ValueError) as error:
        broken = isinstance(error, distributed.DistError) or "gloo" in str(error)
        if n_ranks() == 1 or not broken:
            raise
        raise LeansegError(
            f"{folder}: another of the processes that train together ended; go on with: leanseg "
            f"train --resume {folder}"
        ) from error


def share(items: Sequence[_Item]) -> Sequence[_Item]:
    """This process's part of what all do together."""
    return items[rank() :: n_ranks()]


def require_even(batch_size: int) -> None:
    """Refuse a batch that cannot be divided evenly.

    Raises:
        RecipeError: With the numbers.
    """
    if batch_size % n_ranks():
        raise RecipeError(
            f"a batch_size of {batch_size} cannot be divided evenly among {n_ranks()} devices; "
            f"choose a multiple of {n_ranks()}"
        )


def agreed(value: _Item) -> _Item:
    """What the first process says."""
    if n_ranks() == 1:
        return value
    held: list[Any] = [value]
    distributed.broadcast_object_list(held)
    return held[0]


def gathered_objects(value: _Item) -> list[_Item]:
    """What each process says, in their order."""
    if n_ranks() == 1:
        return [value]
    found: list[Any] = [None] * n_ranks()
    distributed.all_gather_object(found, value)
    return found


def joint(tensor: torch.Tensor) -> torch.Tensor:
    """The tensors of all processes, joined along the first axis.

    Each process's part gets its own gradient of the joint loss; `sum_gradients` adds up what
    these make of the weights.
    """
    joined: torch.Tensor = tensor if n_ranks() == 1 else _Joined.apply(tensor)  # type: ignore[no-untyped-call]
    return joined


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add up the gradients of all processes, in place.

    In one exchange at the end of a step: compact networks have a few megabytes of them.
    """
    if n_ranks() == 1:
        return
    found = [each for each in parameters if each.grad is not None]
    flat = torch.cat([each.grad.flatten() for each in found if each.grad is not None])
    distributed.all_reduce(flat)
    parts = torch.split(flat, [each.numel() for each in found])
    for each, part in zip(found, parts, strict=True):
        each.grad = part.view_as(each)


class _Joined(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.contiguous()
        found = [torch.empty_like(tensor) for _ in range(n_ranks())]
        distributed.all_gather(found, tensor)
        ctx.length = len(tensor)
        return torch.cat(found)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        # Every process computes the same loss of the same batch, so nothing need be exchanged.
        start = rank() * ctx.length
        return gradient[start : start + ctx.length]


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        total = tensor.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.clone()
        distributed.all_reduce(total)
        return total


def _summed(tensor: torch.Tensor) -> torch.Tensor:
    total: torch.Tensor = _Summed.apply(tensor)  # type: ignore[no-untyped-call]
    return total


def join_normalisation(network: nn.Module) -> None:
    """Let batch normalisation in training see the joint batch, in place.

    torch's own `SyncBatchNorm` is for GPUs alone.
    """
    if n_ranks() == 1:
        return
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.forward = _JointNorm(module)  # type: ignore[method-assign, assignment]


class _JointNorm:
    """The forward pass of a batch normalisation with the statistics of all processes."""

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm) -> None:
        self._norm = norm

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        norm = self._norm
        if not norm.training:
            return type(norm).forward(norm, values)
        seen = values.float()
        axes = [axis for axis in range(seen.ndim) if axis != 1]
        shape = [1, -1, *[1] * (seen.ndim - 2)]
        n = n_ranks() * seen.numel() // seen.shape[1]
        mean = _summed(seen.sum(axes)) / n
        centred = seen - mean.view(shape)
        variance = _summed(centred.square().sum(axes)) / n
        if norm.running_mean is not None and norm.running_var is not None:
            with torch.no_grad():
                assert norm.num_batches_tracked is not None
                norm.num_batches_tracked += 1
                share = norm.momentum or 1 / float(norm.num_batches_tracked)
                norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), share)
                unbiased = variance * n / max(n - 1, 1)
                norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), share)
        result = centred * (variance + norm.eps).rsqrt().view(shape)
        if norm.affine:
            result = result * norm.weight.view(shape) + norm.bias.view(shape)
        return result.to(values.dtype)
