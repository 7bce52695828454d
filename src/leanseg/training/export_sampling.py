"""Networks with sparse deformable layers, exported in two graphs around these layers.

ONNX can say what such a layer does with a `GridSample` of five dimensions, but OpenVINO has none,
and ONNX Runtime would gather all samples at once. So the engine computes the layers between two
graphs: the first goes from the image to what they read, the second from the image and their results
to the logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from leanseg.modelfile.manifest import SamplingLayer
from leanseg.networks.obelisk_layer import ObeliskLayer
from leanseg.networks.obelisk_sampling import SampledLayer, regular_grid, sampling_elsewhere

# What the parts put before the names of the network's weights.
WRAPPED = "network."


class _FirstPart(nn.Module):
    """(B, C, ...) to what each layer reads.

    Args:
        network: The whole network.
        results: Shapes of the layers' results.
    """

    def __init__(self, network: nn.Module, results: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.network = network
        self._results = results

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        results = [images.new_zeros(list(shape)) for shape in self._results]
        with sampling_elsewhere(results) as noted:
            self.network(images)
        return tuple(layer.images for layer in noted.layers)


class _SecondPart(nn.Module):
    """(B, C, ...) and the layers' results to logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor, *results: torch.Tensor) -> torch.Tensor:
        with sampling_elsewhere(results):
            logits: torch.Tensor = self.network(images)
        return logits


@dataclass(frozen=True)
class Parts:
    """A network cut at its sparse deformable layers.

    Attributes:
        layers: What the model file says of each.
        results: Shape of each layer's result for one image.
        first: Image to what the layers read.
        second: Image and the layers' results to logits.
    """

    layers: tuple[SamplingLayer, ...]
    results: tuple[tuple[int, ...], ...]
    first: nn.Module
    second: nn.Module


def parts(network: nn.Module, image: torch.Tensor) -> Parts | None:
    """The two parts of a network with sparse deformable layers; None where it has none.

    Args:
        network: In evaluation mode.
        image: (1, C, *spatial), of the shape that the model sees.

    Raises:
        ValueError: If a layer cannot be computed apart: on another grid than one from corner to
            corner, or with offsets that are not weights as they are.
    """
    if not any(isinstance(module, ObeliskLayer) for module in network.modules()):
        return None
    with torch.no_grad(), sampling_elsewhere() as noted:
        network(image)
    layers = tuple(_described(network, layer) for layer in noted.layers)
    results = tuple(
        (len(image), call.weight.shape[0], *layer.grid)
        for call, layer in zip(noted.layers, layers, strict=True)
    )
    return Parts(layers, results, _FirstPart(network, results), _SecondPart(network))


def _described(network: nn.Module, layer: SampledLayer) -> SamplingLayer:
    names = {id(tensor): name for name, tensor in network.state_dict(keep_vars=True).items()}
    z, y, x = layer.grid
    size = (len(z), len(y), len(x))
    spans = all(
        torch.equal(own, other) for own, other in zip(layer.grid, regular_grid(size), strict=True)
    )
    if not spans or id(layer.offsets) not in names or id(layer.weight) not in names:
        msg = "a sparse deformable layer lies on a grid or uses offsets that are no weights of it"
        raise ValueError(msg)
    return SamplingLayer(
        offsets=names[id(layer.offsets)],
        weight=names[id(layer.weight)],
        groups=layer.groups,
        grid=size,
    )
