"""The dense layers of an MS-D Net as a graph, for compilers that plan the memory themselves.

As in `msd_dense`, each layer is one matrix product and shifts. A plain dilated convolution takes
OpenVINO ten times as long: it changes the layout of all channels around it, and mirrors the edge
of all of them. A concatenation that only grows costs it nothing, as the parts are written into it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from leanseg.networks.msd_dense import EPS, SLOPE, Parameters, mirrored, rows_of


def traced_layers(
    images: torch.Tensor, parameters: Parameters, dilations: Sequence[int], *, mirror: bool
) -> torch.Tensor:
    """As `dense_layers`: (B, c, *spatial) to (B, c + d w, *spatial), and with as few operations."""
    features = images
    # Traced once, not in every layer.
    places: dict[tuple[int, int], torch.Tensor] = {}
    for layer, (weight, dilation) in enumerate(zip(parameters.weights, dilations, strict=True)):
        taps = rows_of(weight) @ features.flatten(2)
        values = taps.view(*taps.shape[:2], *images.shape[2:])
        for axis in range(2, images.ndim):
            behind, values, ahead = values.chunk(3, dim=1)
            for shift, tap in ((-dilation, behind), (dilation, ahead)):
                if not mirror:
                    tap = _zeros_beyond(tap, axis, shift)
                else:
                    if (axis, shift) not in places:
                        size = images.shape[axis]
                        places[axis, shift] = mirrored(shift, size + shift, size, images.device)
                    tap = tap.index_select(axis, places[axis, shift])
                values = values + tap
        values = values + parameters.biases[layer].view(-1, *(1 for _ in images.shape[2:]))
        if parameters.gains:
            gain, offset = parameters.gains[layer], parameters.offsets[layer]
            values = nn.functional.instance_norm(values, weight=gain, bias=offset, eps=EPS)
        features = torch.cat((features, nn.functional.leaky_relu(values, SLOPE)), dim=1)
    return features


def _zeros_beyond(values: torch.Tensor, axis: int, shift: int) -> torch.Tensor:
    """`values[p + shift]` along an axis, zeros where there is none."""
    sides = [0] * (2 * (values.ndim - axis))
    sides[-1 if shift > 0 else -2] = abs(shift)
    padded = nn.functional.pad(values, sides)
    return padded.narrow(axis, max(shift, 0), values.shape[axis])
