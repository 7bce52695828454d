"""The dense layers of an MS-D Net in memory that grows with their number, not its square.

Concatenating what the layers before have made costs a copy of all of it per layer, and autograd
keeps every one: 5 GB for 100 layers on 128 x 128 x 16 voxels. Here each layer writes its channels
into one buffer, and the backward pass adds into one buffer likewise.

Each layer is computed as one matrix product and shifts: a dilated convolution with a kernel of 3
is a 1 x 1 convolution to one channel per tap of the kernel, whose results are shifted by the
dilation and summed, axis after axis. Only those few results are shifted and mirrored, never the
many channels that the layer reads, and the product runs at the speed of the matrix library:
libraries are slow at convolutions to one channel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import nn
from torch.autograd.function import once_differentiable

SLOPE: Final = 0.01
EPS: Final = 1e-5


class Parameters(NamedTuple):
    """Of d layers of w channels each, that read c channels and those of the layers before.

    Attributes:
        weights: Layer i: (w, c + i w, 3, 3) or (w, c + i w, 3, 3, 3).
        biases: Layer i: (w,).
        gains: Layer i: (w,), multiplies the normalised values; empty without normalisation.
        offsets: Layer i: (w,), added behind that; empty without normalisation.
    """

    weights: Sequence[torch.Tensor]
    biases: Sequence[torch.Tensor]
    gains: Sequence[torch.Tensor]
    offsets: Sequence[torch.Tensor]


def dense_layers(
    images: torch.Tensor, parameters: Parameters, dilations: Sequence[int], *, mirror: bool
) -> torch.Tensor:
    """All the layers' channels, behind those of the images.

    With instance normalisation the biases are left out, as it would take them out again; their
    gradient is exactly zero, not the rounding errors that optimisers would blow up.

    Args:
        images: (B, c, *spatial).
        parameters: Of the layers.
        dilations: One per layer.
        mirror: Beyond the edge are the voxels before it, the last one first; otherwise zeros.

    Returns:
        (B, c + d w, *spatial).
    """
    flat = [each for kind in parameters for each in kind]
    if torch.is_grad_enabled() and any(each.requires_grad for each in (images, *flat)):
        settings = (tuple(dilations), mirror)
        return _DenseLayers.apply(images, settings, *flat)  # type: ignore[no-untyped-call]
    return _fill(images, parameters, dilations, mirror, None)[0]


class _DenseLayers(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        images: torch.Tensor,
        settings: tuple[tuple[int, ...], bool],
        *flat: torch.Tensor,
    ) -> torch.Tensor:
        dilations, mirror = settings
        parameters = _unflatten(flat, len(dilations))
        channels = sum(map(len, parameters.biases)) if parameters.gains else 0
        normalised = images.new_empty((images.shape[0], channels, *images.shape[2:]))
        buffer, scales = _fill(images, parameters, dilations, mirror, normalised)
        ctx.save_for_backward(buffer, normalised, *scales, *flat)
        ctx.settings = settings
        return buffer

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        dilations, mirror = ctx.settings
        depth = len(dilations)
        buffer, normalised, *rest = ctx.saved_tensors
        count = depth if normalised.shape[1] else 0
        scales, parameters = rest[:count], _unflatten(rest[count:], depth)
        first = parameters.weights[0].shape[1]
        total = gradient.clone(memory_format=torch.contiguous_format)
        taps = _scratch(buffer, len(parameters.biases[0]))
        found: list[list[torch.Tensor]] = [[] for _ in parameters]
        for layer in reversed(range(depth)):
            weight = parameters.weights[layer]
            here = slice(weight.shape[1], weight.shape[1] + weight.shape[0])
            change = total[:, here]
            change = torch.where(buffer[:, here] > 0, change, SLOPE * change)
            if scales:
                own = normalised[:, here.start - first : here.stop - first]
                change, gain, offset = _normalisation_backward(
                    change, own, scales[layer], parameters.gains[layer]
                )
                found[2].append(gain)
                found[3].append(offset)
                found[1].append(torch.zeros_like(parameters.biases[layer]))
            else:
                found[1].append(_sum_per_channel(change).to(weight.dtype))
            found[0].append(
                _convolution_backward(change, weight, buffer, total, taps, dilations[layer], mirror)
            )
        ours = total[:, :first] if ctx.needs_input_grad[0] else None
        return ours, None, *(each for kind in found for each in reversed(kind))


def _unflatten(flat: Sequence[torch.Tensor], depth: int) -> Parameters:
    kinds = [flat[start : start + depth] for start in range(0, 4 * depth, depth)]
    return Parameters(*kinds)


def _fill(
    images: torch.Tensor,
    parameters: Parameters,
    dilations: Sequence[int],
    mirror: bool,
    normalised: torch.Tensor | None,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The buffer (B, c + d w, *spatial), and per layer 1 / standard deviation (B, w, 1, ...).

    The normalised values are written to `normalised` (B, d w, *spatial) if there is one.
    """
    batch, start, *spatial = images.shape
    channels = start + sum(map(len, parameters.biases))
    buffer = images.new_empty((batch, channels, *spatial))
    buffer[:, :start] = images
    scales, first = [], start
    taps = _scratch(buffer, len(parameters.biases[0]))
    for layer, (weight, bias) in enumerate(zip(parameters.weights, parameters.biases, strict=True)):
        values = _convolution(buffer, weight, taps, dilations[layer], mirror)
        if parameters.gains:
            values = values.to(torch.promote_types(values.dtype, torch.float32))
            space = tuple(range(2, values.ndim))
            variance, mean = torch.var_mean(values, space, correction=0, keepdim=True)
            scale = (variance + EPS).rsqrt_()
            values = values.sub_(mean).mul_(scale)
            if normalised is not None:
                normalised[:, start - first : start - first + len(bias)] = values
                scales.append(scale)
            gain, offset = parameters.gains[layer], parameters.offsets[layer]
            values = values.mul_(_per_channel(gain, values)).add_(_per_channel(offset, values))
        else:
            values = values.add_(_per_channel(bias, values))
        buffer[:, start : start + len(bias)] = nn.functional.leaky_relu_(values, SLOPE)
        start += len(bias)
    return buffer, scales


def _scratch(buffer: torch.Tensor, width: int) -> torch.Tensor:
    """Room for what every tap of a kernel makes, (B, 3, 3[, 3], w, *spatial).

    One for all layers: the heap would be torn to pieces by so many large ones that come and go.
    """
    batch, spatial = buffer.shape[0], buffer.shape[2:]
    return buffer.new_empty((batch, *(3 for _ in spatial), width, *spatial))


def _convolution(
    buffer: torch.Tensor, weight: torch.Tensor, taps: torch.Tensor, dilation: int, mirror: bool
) -> torch.Tensor:
    """(B, w, *spatial), a part of `taps`: the convolution of the first channels of the buffer."""
    batch, rows = len(buffer), rows_of(weight)
    read = buffer[:, : weight.shape[1]].flatten(2)
    torch.bmm(rows.expand(batch, -1, -1), read, out=taps.view(batch, len(rows), -1))
    for axis in range(2 - buffer.ndim, 0):
        behind, taps, ahead = taps.unbind(1)
        _add_shifted(taps, behind, axis, -dilation, mirror)
        _add_shifted(taps, ahead, axis, dilation, mirror)
    return taps


def _convolution_backward(
    change: torch.Tensor,
    weight: torch.Tensor,
    buffer: torch.Tensor,
    total: torch.Tensor,
    taps: torch.Tensor,
    dilation: int,
    mirror: bool,
) -> torch.Tensor:
    """Gradient of the weight; that of the first channels of the buffer is added to `total`."""
    batch, read, rows = len(buffer), weight.shape[1], rows_of(weight)
    levels = [taps.zero_()]
    for _ in buffer.shape[2:]:
        levels.append(levels[-1][:, 1])
    levels.pop().copy_(change)
    for axis in range(-1, 1 - buffer.ndim, -1):
        level = levels.pop()
        _spread_shifted(level[:, 0], level[:, 1], axis, -dilation, mirror)
        _spread_shifted(level[:, 2], level[:, 1], axis, dilation, mirror)
    product = taps.view(batch, len(rows), -1)
    total[:, :read].view(batch, read, -1).baddbmm_(rows.mT.expand(batch, -1, -1), product)
    gradient = torch.bmm(product, buffer[:, :read].flatten(2).mT).sum(0)
    moved = weight.movedim((0, 1), (-2, -1))
    return gradient.view(moved.shape).movedim((-2, -1), (0, 1))


def rows_of(weight: torch.Tensor) -> torch.Tensor:
    """(w, c, 3, 3[, 3]) to the matrix (taps x w, c)."""
    return weight.movedim((0, 1), (-2, -1)).reshape(-1, weight.shape[1])


def _normalisation_backward(
    change: torch.Tensor, values: torch.Tensor, scale: torch.Tensor, gain: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of what was normalised, of the gain and of the offset.

    Args:
        change: Gradient of what came out, (B, w, *spatial).
        values: Normalised values, before gain and offset.
        scale: What they were multiplied by, (B, w, 1, ...).
        gain: (w,).
    """
    change = change.to(scale.dtype)
    space = tuple(range(2, change.ndim))
    mean = change.mean(space, keepdim=True)
    slope = (change * values).mean(space, keepdim=True)
    voxels = math.prod(change.shape[2:])
    gain_gradient, offset_gradient = (_sum_per_channel(each) * voxels for each in (slope, mean))
    result = (change - mean - values * slope).mul_(scale * _per_channel(gain, change))
    return result, gain_gradient.to(gain.dtype), offset_gradient.to(gain.dtype)


def _per_channel(vector: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return vector.view(-1, *(1 for _ in like.shape[2:]))


def _sum_per_channel(values: torch.Tensor) -> torch.Tensor:
    return values.sum((0, *range(2, values.ndim)))


class _Shift(NamedTuple):
    """Along an axis, where positions p find p + shift.

    Attributes:
        start: First of the positions that find it within the line.
        inside: How many there are.
        edge: First of the other positions.
        beyond: What each of those finds if the line is mirrored; None if it is not.
    """

    start: int
    inside: int
    edge: int
    beyond: torch.Tensor | None


def _shift(values: torch.Tensor, axis: int, shift: int, mirror: bool) -> _Shift:
    size = values.shape[axis]
    inside = max(size - abs(shift), 0)
    edge = 0 if shift < 0 else inside
    sources = range(edge + shift, edge + shift + size - inside)
    beyond = mirrored(sources.start, sources.stop, size, values.device) if mirror else None
    return _Shift(min(max(-shift, 0), size), inside, edge, beyond)


def _add_shifted(
    total: torch.Tensor, values: torch.Tensor, axis: int, shift: int, mirror: bool
) -> None:
    """`total[p] += values[p + shift]` along an axis."""
    start, inside, edge, beyond = _shift(values, axis, shift, mirror)
    if inside:
        total.narrow(axis, start, inside).add_(values.narrow(axis, start + shift, inside))
    if beyond is not None:
        total.narrow(axis, edge, len(beyond)).add_(values.index_select(axis, beyond))


def _spread_shifted(
    total: torch.Tensor, values: torch.Tensor, axis: int, shift: int, mirror: bool
) -> None:
    """`total[p + shift] += values[p]` along an axis: the adjoint of `_add_shifted`."""
    start, inside, edge, beyond = _shift(values, axis, shift, mirror)
    if inside:
        total.narrow(axis, start + shift, inside).add_(values.narrow(axis, start, inside))
    if beyond is not None:
        total.index_add_(axis, beyond, values.narrow(axis, edge, len(beyond)))


def mirrored(start: int, stop: int, size: int, device: torch.device | None = None) -> torch.Tensor:
    """Where an endless line of mirror images finds positions `start` to `stop` of a line.

    Position -1 is 0, -2 is 1, `size` is `size - 1`, and so on, as often as needed.
    """
    # The period as a tensor: torch's exporter to ONNX cannot divide by a size that is not fixed.
    period = torch.arange(2 * size, 2 * size + 1, device=device)
    places = torch.arange(start, stop, device=device) % period
    return torch.minimum(places, period - 1 - places)
