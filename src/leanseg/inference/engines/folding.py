"""Batch normalisation folded into the convolution in front of it, for prediction alone."""

from __future__ import annotations

from itertools import pairwise
from typing import TypeGuard

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from leanseg.networks.blocks import ConvNormELU

_Convolution = nn.Conv2d | nn.ConvTranspose2d


def fold_normalisation(network: nn.Module) -> None:
    """Fold every normalisation that directly follows its convolution, in place.

    At prediction a normalisation is a fixed scale and offset per channel, which weights and bias
    of the convolution can take over: a pass over the activations less. Only the blocks in which
    the one is known to feed the other are touched (in U-Net a ReLU lies between them).

    Args:
        network: In evaluation mode.
    """
    for module in network.modules():
        if isinstance(module, ConvNormELU):
            module.conv, module.norm = _folded(module.conv, module.norm), nn.Identity()  # type: ignore[assignment]
        elif type(module).forward is nn.Sequential.forward:
            for (name, first), (next_name, second) in pairwise(module.named_children()):
                if _is_convolution(first) and isinstance(second, nn.BatchNorm2d):
                    setattr(module, name, _folded(first, second))
                    setattr(module, next_name, nn.Identity())


def _is_convolution(module: nn.Module) -> TypeGuard[_Convolution]:
    return isinstance(module, _Convolution)


def _folded(convolution: _Convolution, norm: nn.BatchNorm2d) -> _Convolution:
    transpose = isinstance(convolution, nn.ConvTranspose2d)
    return fuse_conv_bn_eval(convolution, norm, transpose=transpose)
