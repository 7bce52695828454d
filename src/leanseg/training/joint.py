"""What processes that train together compute together: losses, normalisation, gradients.

Losses and batch normalisation see the joint batch, so that the weights are those of one process
with all of it, to rounding. That is why `DistributedDataParallel` is not used: it averages the
gradients of losses that each process has of its own part, which is the joint gradient only of a
mean over voxels. Dice is none, nor is the mean over the hardest voxels of all; and torch's
`SyncBatchNorm` is for GPUs alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import distributed, nn

from leanseg.training.ranks import n_ranks, rank


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
    """Let batch normalisation in training see the joint batch, in place."""
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
        seen = values if values.dtype == torch.float64 else values.float()
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
                share = norm.momentum
                if share is None:
                    share = 1 / float(norm.num_batches_tracked)
                norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), share)
                unbiased = variance * n / max(n - 1, 1)
                norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), share)
        result = centred * (variance + norm.eps).rsqrt().view(shape)
        if norm.affine:
            result = result * norm.weight.view(shape) + norm.bias.view(shape)
        return result.to(values.dtype)
