"""Networks with sparse deformable layers, exported in two graphs around these layers.

ONNX can say what such a layer does with a `GridSample` of five dimensions, but OpenVINO has none,
and ONNX Runtime would gather all samples at once. So the engine computes the layers between two
graphs: the first goes from the image to what they read, the second from the image and their results
to the logits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from leanseg.modelfile import Member, SamplingLayer
from leanseg.networks.obelisk_layer import ObeliskLayer
from leanseg.networks.obelisk_sampling import SampledLayer, regular_grid, sampling_elsewhere
from leanseg.training.export_graph import cannot_export


class PartOfNetwork(nn.Module):
    """A network without its layers that sample: what lies before them, or what lies behind.

    Args:
        network: The whole network.
        results: Shapes of the layers' results.
    """

    def __init__(self, network: nn.Module, results: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.network = network
        self._results = results

    def forward(
        self, images: torch.Tensor, *results: torch.Tensor
    ) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """(B, C, ...) to what each layer reads; with the layers' results to logits."""
        given = results or [images.new_zeros(list(shape)) for shape in self._results]
        with sampling_elsewhere(given) as noted:
            logits: torch.Tensor = self.network(images)
        return logits if results else tuple(layer.images for layer in noted.layers)


def sampling_layers(network: nn.Module, member: Member, image: torch.Tensor) -> list[SamplingLayer]:
    """What the model file says of a network's sparse deformable layers; empty where it has none.

    Args:
        network: In evaluation mode.
        member: What the model file says of it.
        image: (1, C, *spatial), of the shape that the model sees.

    Raises:
        ExportError: If a layer cannot be computed apart: on another grid than one from corner to
            corner, or with offsets that are not weights as they are.
    """
    if not any(isinstance(module, ObeliskLayer) for module in network.modules()):
        return []
    with torch.no_grad(), sampling_elsewhere() as noted:
        network(image)
    names = {id(tensor): name for name, tensor in network.state_dict(keep_vars=True).items()}
    return [_described(layer, names, member) for layer in noted.layers]


def _described(layer: SampledLayer, names: dict[int, str], member: Member) -> SamplingLayer:
    z, y, x = layer.grid
    size = (len(z), len(y), len(x))
    spans = all(map(torch.equal, layer.grid, regular_grid(size)))
    if not spans or id(layer.offsets) not in names or id(layer.weight) not in names:
        reason = (
            "a sparse deformable layer lies on a grid or uses offsets that are no weights of it"
        )
        raise cannot_export(member, reason)
    return SamplingLayer(
        offsets=names[id(layer.offsets)],
        weight=names[id(layer.weight)],
        groups=layer.groups,
        grid=size,
    )
