"""The mixed-scale dense network in 2-D and 3-D (paper 002, "Modified MS-D Net")."""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

import torch
from torch import nn

from leanseg.networks.base import SegmentationNetwork
from leanseg.networks.blocks import CONVOLUTIONS, NORMS, check_size, without_autocast
from leanseg.networks.msd_dense import EPS, Parameters, dense_layers
from leanseg.networks.msd_traced import traced_layers
from leanseg.registry import Count, Layers


class DilatedLayer(nn.Module):
    """Parameters of a dilated convolution with bias and, if wanted, instance normalisation.

    `dense_layers` and `traced_layers` compute all of a network's layers.

    Args:
        in_channels: Of the input: the images and all layers before.
        width: Channels of the output.
        dimensions: 2 or 3.
        instance_norm: Whether there is a normalisation.
    """

    def __init__(
        self, in_channels: int, width: int, *, dimensions: int, instance_norm: bool
    ) -> None:
        super().__init__()
        self.conv = CONVOLUTIONS[dimensions](in_channels, width, 3)
        self.norm = NORMS[dimensions](width, eps=EPS, affine=True) if instance_norm else None


class MSDNet(SegmentationNetwork):
    """MS-D Net (paper 002; spec section 2.3): every layer reads the images and all layers before.

    Layer i has `width` channels and dilation (i mod `max_dilation`) + 1; the head is a
    1 x 1 convolution of the images and all layers. There is no halving, so every size is taken.
    Paper 002 adds the instance normalisation and the LeakyReLU to the original, which has a ReLU
    alone, and leaves depth and width open: 100 and 1 are the original's. The boundary of both
    public implementations is the mirror that repeats the voxel at the edge (numpy's
    "symmetric", scipy's "reflect"), which is the default here.

    Trainable parameters, for c channels, K outputs, depth d, width w, n dimensions:
    3^n w (d c + w d (d - 1) / 2) + d w + (c + w d) K + K, and 2 w d more with instance
    normalisation. With one channel, depth 100, width 1 and 2 / 3 classes: 45,754 / 45,856 in 2-D
    and 136,654 / 136,756 in 3-D without normalisation, 45,954 / 46,056 and 136,854 / 136,956
    with it.

    Memory of a training step grows with the depth, not its square. Under autocast the layers
    compute in the type of their weights: each adds to the gradients of all before, too many
    sums for half precision.

    Args:
        in_channels: Channels of the images.
        out_channels: 1 for one foreground class (sigmoid), else classes with background.
        dimensions: 2 for slices, 3 for volumes.
        depth: Layers.
        width: Channels of each.
        max_dilation: Dilations are 1 to this one, again and again.
        boundary: "mirror" or "zero".
        instance_norm: Whether layers are normalised.
        generator: Source of the normal start; None takes torch's global generator.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        *,
        dimensions: int,
        depth: Layers = 100,
        width: Count = 1,
        max_dilation: Count = 10,
        boundary: Literal["mirror", "zero"] = "mirror",
        instance_norm: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.dimensions = dimensions
        self.mirror = boundary == "mirror"
        self.dilations = tuple(layer % max_dilation + 1 for layer in range(depth))
        self.layers = nn.ModuleList(
            DilatedLayer(
                in_channels + width * layer,
                width,
                dimensions=dimensions,
                instance_norm=instance_norm,
            )
            for layer in range(depth)
        )
        self.head = CONVOLUTIONS[dimensions](in_channels + width * depth, out_channels, 1)
        self._initialise(3**dimensions * (in_channels + width * (depth - 1)), generator)

    def _initialise(self, most_inputs: int, generator: torch.Generator | None) -> None:
        """Normal weights, the same variance for all layers; zero biases; a head of zeros."""
        deviation = math.sqrt(2 / (most_inputs + self.head.out_channels))
        parameters = self._parameters_of_layers()
        for weight, bias in zip(parameters.weights, parameters.biases, strict=True):
            nn.init.normal_(weight, std=deviation, generator=generator)
            nn.init.zeros_(bias)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of a batch.

        Args:
            images: (B, in_channels, *spatial), of any size.

        Returns:
            (B, out_channels, *spatial), before sigmoid or softmax.

        Raises:
            GeometryError: Another number of axes than `dimensions`.
        """
        check_size(images, (1,) * self.dimensions, "MS-D Net")
        parameters = self._parameters_of_layers()
        if torch.compiler.is_compiling():
            return self.head(traced_layers(images, parameters, self.dilations, mirror=self.mirror))
        with without_autocast(images.device):
            features = images.to(self.head.weight.dtype)
            features = dense_layers(features, parameters, self.dilations, mirror=self.mirror)
            logits: torch.Tensor = self.head(features)
        return logits

    def _parameters_of_layers(self) -> Parameters:
        layers = [layer for layer in self.layers if isinstance(layer, DilatedLayer)]
        norms = [layer.norm for layer in layers if layer.norm is not None]
        return Parameters(
            [layer.conv.weight for layer in layers],
            [layer.conv.bias for layer in layers],
            [norm.weight for norm in norms],
            [norm.bias for norm in norms],
        )


msd_2d = partial(MSDNet, dimensions=2)
msd_3d = partial(MSDNet, dimensions=3)
