"""The modules of paper 003's tumour network: localisation, context exploration and focusing.

Section 3.2.1 (Fig 5, equations 5 to 8) is the positioning module of PFNet (Mei et al., CVPR 2021),
on the coarsest features: attention among the channels, then among the places, then a first coarse
map of the tumour. Section 3.2.2 (Fig 6, equation 9) refines it.
"""

from __future__ import annotations

from typing import Final, Literal

import torch
from torch import nn
from torch.nn import functional

from leanseg.networks.blocks import without_autocast
from leanseg.networks.multiscale_unet import ConvNormReLU

# Kernel of the local convolution and dilation of the one behind it, for each branch.
_BRANCHES: Final = ((1, 1), (3, 2), (5, 4), (7, 8))

Attention = Literal["pfnet", "printed"]
Interference = Literal["both", "false-positives", "false-negatives"]


class ChannelAttention(nn.Module):
    """F' = gamma X F + F, X the softmax over the rows of F F^T (equations 5 and 6).

    No convolutions: queries, keys and values are the features themselves. One parameter.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(1))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to the same shape."""
        # The products are sums over all places, too large for the softmax of half precision.
        with without_autocast(features.device):
            flat = features.flatten(2)
            flat = flat.to(torch.promote_types(flat.dtype, torch.float32))
            attention = (flat @ flat.transpose(1, 2)).softmax(dim=2)
            mixed = (attention @ flat).view(features.shape)
        return self.gamma * mixed + features


class SpatialAttention(nn.Module):
    """F'' = gamma' V X'^T + F', X' the softmax over the rows of Q^T K (equations 7 and 8).

    Queries and keys are 1x1 convolutions to an eighth of the channels, values to all of them.

    Each place takes the values of the others by its own row of X', which sums to 1: PFNet's form.
    As equation 8 is printed, with x'(j, i), it takes them by its column, V X'.

    Args:
        channels: A multiple of 8.
        attention: "pfnet" or, to the letter of equation 8, "printed".
    """

    def __init__(self, channels: int, attention: Attention = "pfnet") -> None:
        super().__init__()
        self.by_rows = attention == "pfnet"
        self.query = nn.Conv2d(channels, channels // 8, 1)
        self.key = nn.Conv2d(channels, channels // 8, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.ones(1))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to the same shape; holds a matrix (B, HW, HW) meanwhile."""
        query, key, value = (
            layer(features).flatten(2) for layer in (self.query, self.key, self.value)
        )
        attention = (query.transpose(1, 2) @ key).softmax(dim=2)
        if self.by_rows:
            attention = attention.transpose(1, 2)
        mixed = (value @ attention.to(value.dtype)).view(features.shape)
        return self.gamma * mixed + features


class NonlocalLocalisation(nn.Module):
    """Channel attention, spatial attention, and a 7x7 convolution to the first map.

    353,411 parameters for 512 channels and one class. Both gammas start at 1, as the text says.

    Args:
        channels: Of the features, a multiple of 8.
        n_classes: Channels of the map.
        attention: See `SpatialAttention`.
    """

    def __init__(self, channels: int, n_classes: int = 1, attention: Attention = "pfnet") -> None:
        super().__init__()
        self.channel_attention = ChannelAttention()
        self.spatial_attention = SpatialAttention(channels, attention)
        self.map = nn.Conv2d(channels, n_classes, 7, padding=3)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, C, H, W) to features of that shape and logits (B, n_classes, H, W)."""
        located = self.spatial_attention(self.channel_attention(features))
        return located, self.map(located)


class ContextExploration(nn.Module):
    """Four branches of growing reach, each fed with the one before it.

    Every branch reduces the channels to a quarter, adds the previous branch's output, and applies
    a k x k convolution (k = 1, 3, 5, 7) and a dilated 3x3 one (dilation 1, 2, 4, 8); the four are
    concatenated and fused. Every convolution has normalisation and ReLU.

    The text reduces and fuses with 3x3 convolutions, the authors' code and PFNet's with 1x1: 1x1
    is the default. 625,664 parameters for 256 channels (1x1).

    Args:
        channels: Of input and output, a multiple of 4.
        reduce_kernel: 1 or 3, of the reducing and fusing convolutions.
    """

    def __init__(self, channels: int, reduce_kernel: int = 1) -> None:
        super().__init__()
        quarter = channels // 4
        self.reduce = nn.ModuleList(
            ConvNormReLU(channels, quarter, reduce_kernel) for _ in _BRANCHES
        )
        self.branches = nn.ModuleList(
            nn.Sequential(
                ConvNormReLU(quarter, quarter, kernel),
                ConvNormReLU(quarter, quarter, 3, dilation),
            )
            for kernel, dilation in _BRANCHES
        )
        self.fuse = ConvNormReLU(channels, channels, reduce_kernel)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to the same shape."""
        outputs: list[torch.Tensor] = []
        for reduce, branch in zip(self.reduce, self.branches, strict=True):
            reduced = reduce(features)
            outputs.append(branch(reduced + outputs[-1] if outputs else reduced))
        return self.fuse(torch.cat(outputs, dim=1))


def foreground(logits: torch.Tensor) -> torch.Tensor:
    """Probability (B, 1, H, W) that a pixel is of any class but the background.

    The text normalises the map with a softmax, which is 1 everywhere on its single channel: the
    sigmoid is meant. Several classes (which the paper has not) count as one against background.
    """
    if logits.shape[1] == 1:
        return logits.sigmoid()
    return 1 - logits.softmax(dim=1)[:, :1]


def resized(images: torch.Tensor, factor: int) -> torch.Tensor:
    """(B, C, H, W) enlarged bilinearly, corners aligned as in the public code."""
    return functional.interpolate(images, scale_factor=factor, mode="bilinear", align_corners=True)


class Focusing(nn.Module):
    """Removes false positives and adds false negatives of the coarser map.

    With p the coarser map's foreground: what the context within p reveals is subtracted from the
    coarser features, what the context outside reveals is added, each followed by normalisation
    and ReLU; a 7x7 convolution makes the finer map. Parameters for one class and (channels,
    coarser): 7,688,195 for (256, 512), 1,927,171 for (128, 256), 484,355 for (64, 128), 122,371
    for (32, 64).

    Figure 10 compares with one of the two steps alone; of the other nothing is built then, and
    either has as many parameters: 7,062,018, 1,769,730, 444,546 and 112,194.

    Args:
        channels: Of this level, a multiple of 4.
        coarse_channels: Of the level above.
        n_classes: Channels of the maps.
        reduce_kernel: 1 or 3, see `ContextExploration`.
        interference: What is looked for.
    """

    def __init__(
        self,
        channels: int,
        coarse_channels: int,
        n_classes: int = 1,
        reduce_kernel: int = 1,
        interference: Interference = "both",
    ) -> None:
        super().__init__()
        self.removes = interference != "false-negatives"
        self.adds = interference != "false-positives"
        self.up = ConvNormReLU(coarse_channels, channels, 7)
        # In the order in which the weights of model files and trainings were made.
        if self.removes:
            self.false_positives = ContextExploration(channels, reduce_kernel)
            self.subtracted = nn.Parameter(torch.ones(1))
        if self.adds:
            self.false_negatives = ContextExploration(channels, reduce_kernel)
            self.added = nn.Parameter(torch.ones(1))
        if self.removes:
            self.first_norm = nn.BatchNorm2d(channels)
        if self.adds:
            self.second_norm = nn.BatchNorm2d(channels)
        self.map = nn.Conv2d(channels, n_classes, 7, padding=3)

    def forward(
        self, features: torch.Tensor, coarse: torch.Tensor, coarse_map: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A finer map.

        Args:
            features: (B, channels, 2H, 2W) of this level.
            coarse: (B, coarse_channels, H, W), refined features of the level above.
            coarse_map: Logits (B, n_classes, H, W) of the level above.

        Returns:
            Refined features (B, channels, 2H, 2W) and logits (B, n_classes, 2H, 2W).
        """
        inside = foreground(resized(coarse_map, 2))
        refined = resized(self.up(coarse), 2)
        if self.removes:
            positives = self.false_positives(features * inside)
            refined = self.first_norm(refined - self.subtracted * positives).relu()
        if self.adds:
            negatives = self.false_negatives(features * (1 - inside))
            refined = self.second_norm(refined + self.added * negatives).relu()
        return refined, self.map(refined)
