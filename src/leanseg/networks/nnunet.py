"""The U-Net shape of nnU-Net in 2018, in 2-D and 3-D (paper 002, "Modified nnU-Net").

The sources contradict one another in three places, settled as follows.

- Depth. The rule of the public code halves an axis down to 4 voxels, which gives 128 x 128 slices
  five halvings; the 2018 paper stops at 8. Followed: the rule of the code, but at most four
  halvings unless `max_pools` says otherwise, which gives 8 x 8, and 8 x 8 x 4 in 3-D.
- Halving: by max-pooling in the paper, by a stride of the next stage's first convolution in the
  code. Followed: the code, as its transposed convolutions are the mirror image of it.
- The bias of a convolution ahead of an instance normalisation is taken out again by it. It is
  there because the code has it, and in the counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Final, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from leanseg.errors import GeometryError, RecipeError
from leanseg.networks.base import SegmentationNetwork
from leanseg.networks.blocks import CONVOLUTIONS, NORMS, Layers, check_size, initialise
from leanseg.registry import Count, Counts, Positive, Whole

SLOPE: Final = 0.01
SMALLEST: Final = 4  # voxels along an axis that has been halved
SAME_SPACING: Final = 1.8  # ratio to the finest spacing up to which axes count as alike
FILTER_CAPS: Final = {2: 480, 3: 320}
DEFAULT_SHAPES: Final = {2: (128, 128), 3: (128, 128, 16)}  # paper 002, after its downsampling
TRANSPOSED: Final[Layers] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
LINEAR: Final = {2: "bilinear", 3: "trilinear"}


class Topology(NamedTuple):
    """What a shape and a spacing make of the network.

    Attributes:
        pools: Per halving, 2 for the axes that it halves and 1 for the others.
        kernels: Per stage, one more than there are halvings, the size of the kernel along each
            axis.
    """

    pools: tuple[tuple[int, ...], ...]
    kernels: tuple[tuple[int, ...], ...]

    @property
    def divisors(self) -> tuple[int, ...]:
        """What each axis must be a multiple of."""
        axes = range(len(self.kernels[-1]))
        return tuple(math.prod(pool[axis] for pool in self.pools) for axis in axes)


def topology(shape: Sequence[int], spacing_mm: Sequence[float], max_pools: int) -> Topology:
    """Halvings and kernels by nnU-Net's rule.

    An axis is halved while it has 8 voxels or more and its spacing is within a factor of 1.8 of
    the finest of the axes that still have. Kernels are 1 along axes that are coarser than 1.8
    times the finest, and 3 from the stage on where they no longer are; 3 at the bottom.

    Args:
        shape: Voxels of the patch or slice that the network is made for.
        spacing_mm: Its spacing; only the ratios matter.
        max_pools: Most halvings.
    """
    axes = range(len(shape))
    sizes, spacing = [int(size) for size in shape], [float(each) for each in spacing_mm]
    kernel = [1 for _ in axes]
    pools: list[tuple[int, ...]] = []
    kernels: list[tuple[int, ...]] = []
    while len(pools) < max_pools:
        large = [axis for axis in axes if sizes[axis] >= 2 * SMALLEST]
        if not large:
            break
        limit = SAME_SPACING * min(spacing[axis] for axis in large)
        pool = tuple(2 if axis in large and spacing[axis] <= limit else 1 for axis in axes)
        limit = SAME_SPACING * min(spacing)
        kernel = [3 if spacing[axis] <= limit else kernel[axis] for axis in axes]
        pools.append(pool)
        kernels.append(tuple(kernel))
        # A size that is not a multiple is padded by the caller: up to the next one.
        sizes = [math.ceil(size / factor) for size, factor in zip(sizes, pool, strict=True)]
        spacing = [each * factor for each, factor in zip(spacing, pool, strict=True)]
    return Topology(tuple(pools), (*kernels, tuple(3 for _ in axes)))


class ConvNormLReLU(nn.Sequential):
    """Convolution with bias, instance normalisation with affine terms, LeakyReLU of slope 0.01.

    Args:
        in_channels: Of the input.
        out_channels: Of the output.
        kernel: 1 or 3 along each axis; the padding keeps the size.
        stride: 1 or 2 along each axis.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, ...],
        stride: tuple[int, ...] | int = 1,
    ) -> None:
        super().__init__()
        padding = tuple(size // 2 for size in kernel)
        convolution, norm = CONVOLUTIONS[len(kernel)], NORMS[len(kernel)]
        self.conv = convolution(in_channels, out_channels, kernel, stride, padding)
        self.norm = norm(out_channels, eps=1e-5, affine=True)
        # In place: normalisation keeps its input, and the activation its output.
        self.activation = nn.LeakyReLU(SLOPE, inplace=True)


class UpStage(nn.Module):
    """Transposed convolution (kernel and stride of the halving), skip, two convolutions.

    Args:
        coarse: Channels of the coarser stage.
        fine: Channels of the skip and of the output.
        pool: The halving that is undone.
        kernel: Of the two convolutions.
    """

    def __init__(
        self, coarse: int, fine: int, pool: tuple[int, ...], kernel: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.up = TRANSPOSED[len(pool)](coarse, fine, pool, pool, bias=False)
        self.first = ConvNormLReLU(2 * fine, fine, kernel)
        self.second = ConvNormLReLU(fine, fine, kernel)

    def forward(self, features: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """(B, C_coarse, *coarse) and (B, C_fine, *fine) to (B, C_fine, *fine)."""
        merged = torch.cat((self.up(features), skip), dim=1)
        return self.second(self.first(merged))


class NNUNet(SegmentationNetwork):
    """nnU-Net's U-Net, made for one shape and spacing (paper 002; spec section 2.2).

    Per stage two convolutions with instance normalisation and LeakyReLU, no dropout; halving by
    the stride of the stage's first convolution, doubling by transposed convolutions without
    bias, skips concatenated behind the upsampled features, a head without bias. Filters double
    with each halving up to a cap of 480 in 2-D and 320 in 3-D.

    Trainable parameters, for one channel and 2 / 3 classes: 6,825,210 / 6,825,240 on 128 x 128;
    18,120,570 / 18,120,600 on 128 x 128 with `max_pools=5`; 14,623,590 / 14,623,620 on
    128 x 128 x 16. There is nothing that only Keras would count.

    The public code can put a head on every stage of the decoder, and does not by default:
    `deep_supervision`. The coarse maps are enlarged, so that every loss works on the images' grid.

    Args:
        in_channels: Channels of the images.
        out_channels: 1 for one foreground class (sigmoid), else classes with background.
        dimensions: 2 for slices, 3 for patches.
        shape: Their voxels, in the order of the tensors' axes; None for 128 x 128 or
            128 x 128 x 16. Other sizes that `size_divisor` allows are taken too.
        spacing_mm: Their spacing in the same order; None for equal ones.
        base_filters: Filters at full resolution.
        max_pools: Most halvings.
        deep_supervision: A head on every stage of the decoder, for `all_maps`; `forward` leaves
            all but the last alone.
        generator: Source of the He-normal start; None takes torch's global generator.

    Raises:
        RecipeError: `shape` or `spacing_mm` does not have as many numbers as there are axes.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        *,
        dimensions: int,
        shape: Counts | None = None,
        spacing_mm: Sequence[Positive] | None = None,
        base_filters: Count = 30,
        max_pools: Whole = 4,
        deep_supervision: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        shape = DEFAULT_SHAPES[dimensions] if shape is None else shape
        spacing_mm = (1.0,) * dimensions if spacing_mm is None else spacing_mm
        if len(shape) != dimensions or len(spacing_mm) != dimensions:
            msg = f"shape {shape!r} and spacing_mm {spacing_mm!r} must have {dimensions} numbers"
            raise RecipeError(msg)
        self.topology = topology(shape, spacing_mm, max_pools)
        pools, kernels = self.topology
        divisors = self.topology.divisors
        self.size_divisor = divisors[0] if len(set(divisors)) == 1 else divisors
        cap = FILTER_CAPS[dimensions]
        widths = [min(base_filters * 2**stage, cap) for stage in range(len(kernels))]
        strides = ((1,) * dimensions, *pools)
        fans = pairwise([in_channels, *widths])
        self.encoder = nn.ModuleList(
            nn.Sequential(
                ConvNormLReLU(fan_in, width, kernel, stride), ConvNormLReLU(width, width, kernel)
            )
            for (fan_in, width), kernel, stride in zip(fans, kernels, strides, strict=True)
        )
        steps = list(zip(pairwise(widths), pools, kernels[:-1], strict=True))
        self.decoder = nn.ModuleList(
            UpStage(coarse, fine, pool, kernel) for (fine, coarse), pool, kernel in reversed(steps)
        )
        head = partial(
            CONVOLUTIONS[dimensions], out_channels=out_channels, kernel_size=1, bias=False
        )
        self.head = head(widths[0])
        # Of the stages below the last, coarse to fine.
        self.lower_heads = nn.ModuleList(
            head(width) for width in (widths[-2:0:-1] if deep_supervision else ())
        )
        self.n_maps = len(self.lower_heads) + 1
        initialise(self, generator, partial(nn.init.kaiming_normal_, a=SLOPE))

    def _decoded(self, images: torch.Tensor) -> list[torch.Tensor]:
        """What every stage of the decoder gives, coarse to fine, or else the bottom."""
        divisors = self.topology.divisors
        check_size(images, divisors, "nnU-Net")
        if tuple(images.shape[2:]) == divisors:
            sizes = " x ".join(map(str, divisors))
            msg = f"nnU-Net needs images of more than {sizes}, which it reduces to a single voxel"
            raise GeometryError(msg)
        features, skips = images, []
        for stage in self.encoder:
            features = stage(features)
            skips.append(features)
        decoded = [skips.pop()]
        for up in self.decoder:
            decoded.append(up(decoded[-1], skips.pop()))
        return decoded[1:] or decoded

    def all_maps(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The logits of every head, coarse to fine, those of the lower stages enlarged linearly.

        Args:
            images: (B, in_channels, *spatial), multiples of `size_divisor`.

        Returns:
            (B, out_channels, *spatial) each: as many as halvings with deep supervision, else one.

        Raises:
            GeometryError: As `forward`.
        """
        *lower, last = self._decoded(images)
        maps = (
            functional.interpolate(head(features), images.shape[2:], mode=LINEAR[images.ndim - 2])
            for head, features in zip(self.lower_heads, lower, strict=False)
        )
        return *maps, self.head(last)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of a batch.

        Args:
            images: (B, in_channels, *spatial), multiples of `size_divisor`.

        Returns:
            (B, out_channels, *spatial), before sigmoid or softmax.

        Raises:
            GeometryError: A size is not a multiple, or so small that a single voxel is left at
                the bottom, which instance normalisation cannot normalise.
        """
        return self.head(self._decoded(images)[-1])


nnunet_2d = partial(NNUNet, dimensions=2)
nnunet_3d = partial(NNUNet, dimensions=3)
