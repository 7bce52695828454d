"""The registered operators behind `obelisk_sampling`: float32 on the CPU, compiled with numba.

`leanseg::obelisk_convolve` samples on a grid and convolves; its gradient is its twin
`..._backward`. The offsets have a batch axis here.
"""

from __future__ import annotations

from typing import Any, Final

import torch

from leanseg.kernels.sparse_convolution import Grid, grouped, in_threads, sample_and_convolve, tiles

# Where the image has a gradient each thread adds to one of its own; so much memory at most.
GRADIENT_BYTES: Final = 2**30


def _grouped(weight: torch.Tensor, groups: int) -> torch.Tensor:
    """(O, M) to (groups, O / groups, M), padded with zeros to multiples of 4."""
    return torch.from_numpy(grouped(weight.detach().numpy(), groups))


def _arrays(*tensors: torch.Tensor) -> list[Any]:
    return [tensor.detach().contiguous().numpy() for tensor in tensors]


def _grid(z: torch.Tensor, y: torch.Tensor, x: torch.Tensor) -> Grid:
    depth, rows, columns = _arrays(z, y, x)
    return depth, rows, columns


@torch.library.custom_op("leanseg::obelisk_convolve", mutates_args=(), device_types="cpu")
def convolve(
    images: torch.Tensor,
    offsets: torch.Tensor,
    weight: torch.Tensor,
    groups: int,
    z: torch.Tensor,
    y: torch.Tensor,
    x: torch.Tensor,
) -> torch.Tensor:
    """(B, O, planes, rows, columns) of images (B, C, D, H, W), offsets (B, K, 1 or 2, 3)."""
    own, where, weights = _arrays(images, offsets, weight)
    threads, grid = torch.get_num_threads(), _grid(z, y, x)
    result = sample_and_convolve(own, where, weights, grid, groups=groups, threads=threads)
    return torch.from_numpy(result)


@convolve.register_fake
def _(
    images: torch.Tensor, _: torch.Tensor, weight: torch.Tensor, _groups: int, *grid: torch.Tensor
) -> torch.Tensor:
    return images.new_empty(images.shape[0], weight.shape[0], *(axis.shape[0] for axis in grid))


@torch.library.custom_op("leanseg::obelisk_convolve_backward", mutates_args=(), device_types="cpu")
def convolve_backward(
    gradient: torch.Tensor,
    images: torch.Tensor,
    offsets: torch.Tensor,
    weight: torch.Tensor,
    groups: int,
    z: torch.Tensor,
    y: torch.Tensor,
    x: torch.Tensor,
    of_images: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of images (without entries unless `of_images`), offsets and weight."""
    from leanseg.networks import obelisk_gradients

    grouped = _grouped(weight, groups)
    gradient = gradient.reshape(len(gradient), groups, -1, *gradient.shape[2:])
    arrays, grid = _arrays(gradient, images, offsets, grouped, grouped.mT), _grid(z, y, x)
    rows, n_tiles = tiles(len(images), grid)
    shape = images.shape if of_images else (images.shape[0], 0, 0, 0, 0)
    # In shares of their own, added in their order: the same sums at the same number of threads.
    shares = max(1, min(torch.get_num_threads(), n_tiles))
    if of_images:
        shares = max(1, min(shares, GRADIENT_BYTES // max(1, images.nbytes)))
    grad_images = images.new_zeros(shares, *shape)
    grad_offsets = offsets.new_zeros(shares, *offsets.shape, dtype=torch.float64)
    grad_weight = grouped.new_zeros(shares, *grouped.shape)

    def work(share: int, begin: int, end: int) -> None:
        own = (each[share].numpy() for each in (grad_images, grad_offsets, grad_weight))
        obelisk_gradients.convolve_backward(*arrays, grid, rows, begin, end, *own)

    in_threads(work, n_tiles, shares, torch.get_num_threads())
    return (
        grad_images.sum(0) if shares > 1 else grad_images[0].clone(),
        _normalised(grad_offsets.sum(0), images),
        grad_weight.sum(0)[:, : weight.shape[0] // groups, : weight.shape[1]].flatten(0, 1).clone(),
    )


@convolve_backward.register_fake
def _(
    _: torch.Tensor, images: torch.Tensor, offsets: torch.Tensor, weight: torch.Tensor, *others: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    shape = images.shape if others[-1] else (images.shape[0], 0, 0, 0, 0)
    return images.new_empty(shape), torch.empty_like(offsets), torch.empty_like(weight)


def _normalised(gradient: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """From gradients per voxel to those per normalised coordinate (column, row, depth)."""
    scale = [(length - 1) / 2 for length in reversed(images.shape[2:])]
    return (gradient * gradient.new_tensor(scale)).to(images.dtype)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    images, offsets, weight, groups, *grid = inputs
    ctx.save_for_backward(images, offsets, weight, *grid)
    ctx.groups = groups


def _return(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    images, offsets, weight, *grid = ctx.saved_tensors
    of_images = ctx.needs_input_grad[0]
    grad_images, grad_offsets, grad_weight = convolve_backward(
        gradient, images, offsets, weight, ctx.groups, *grid, of_images
    )
    return grad_images if of_images else None, grad_offsets, grad_weight, None, None, None, None


convolve.register_autograd(_return, setup_context=_keep)
