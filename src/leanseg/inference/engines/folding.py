"""Batch normalisation folded into the convolution in front of it, for prediction alone."""

from __future__ import annotations

from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_normalisation(network: nn.Module) -> None:
    """Fold every normalisation that directly follows its convolution, in place.

    At prediction a normalisation is a fixed scale and offset per channel, which weights and bias
    of the convolution can take over: a pass over the activations less. Only the blocks in which
    the one is known to feed the other are touched (in U-Net a ReLU lies between them).

    Args:
        network: In evaluation mode.
    """
    for module in network.modules():
        if type(module).forward is not nn.Sequential.forward:
            continue
        for (name, first), (next_name, second) in pairwise(module.named_children()):
            if isinstance(first, nn.Conv2d | nn.ConvTranspose2d) and isinstance(
                second, nn.BatchNorm2d
            ):
                transpose = isinstance(first, nn.ConvTranspose2d)
                setattr(module, name, fuse_conv_bn_eval(first, second, transpose=transpose))
                setattr(module, next_name, nn.Identity())
