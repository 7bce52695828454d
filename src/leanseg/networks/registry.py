"""Networks by name. A new network is one file here and one line in `NETWORKS`."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from torch import nn

from leanseg.networks.base import SegmentationNetwork
from leanseg.registry import Count, check_value, make

# Name -> "module:factory". A factory takes in_channels and out_channels, then its own options.
NETWORKS: Final[dict[str, str]] = {
    "monet": "leanseg.networks.monet:MoNet",
    "unet": "leanseg.networks.unet:UNet",
    "unet-64": "leanseg.networks.unet:unet_64",
    "unet-16": "leanseg.networks.unet:unet_16",
    "attention-unet": "leanseg.networks.unet:AttentionUNet",
    "attention-unet-64": "leanseg.networks.unet:attention_unet_64",
    "attention-unet-16": "leanseg.networks.unet:attention_unet_16",
    "nnunet-2d": "leanseg.networks.nnunet:nnunet_2d",
    "nnunet-3d": "leanseg.networks.nnunet:nnunet_3d",
    "plain-conv-unet": "leanseg.networks.dynamic_unet:plain_conv_unet",
    "residual-encoder-unet": "leanseg.networks.dynamic_unet:residual_encoder_unet",
    "msd-2d": "leanseg.networks.msd:msd_2d",
    "msd-3d": "leanseg.networks.msd:msd_3d",
    "combiner": "leanseg.networks.combiner:Combiner",
    "multiscale-unet": "leanseg.networks.multiscale_unet:MultiscaleUNet",
    "multiscale-unet-half": "leanseg.networks.multiscale_unet:multiscale_unet_half",
    "multiscale-unet-quarter": "leanseg.networks.multiscale_unet:multiscale_unet_quarter",
    "localised-unet": "leanseg.networks.localised_unet:LocalisedUNet",
    "localised-unet-half": "leanseg.networks.localised_unet:localised_unet_half",
    "localised-unet-quarter": "leanseg.networks.localised_unet:localised_unet_quarter",
    "tumour-network": "leanseg.networks.tumour_network:TumourNetwork",
    "tumour-network-half": "leanseg.networks.tumour_network:tumour_network_half",
    "tumour-network-quarter": "leanseg.networks.tumour_network:tumour_network_quarter",
    "cascade": "leanseg.networks.cascade:Cascade",
    "cascade-half": "leanseg.networks.cascade:cascade_half",
    "cascade-quarter": "leanseg.networks.cascade:cascade_quarter",
    "unetpp": "leanseg.networks.unetpp:UNetPP",
    "residual-unet": "leanseg.networks.residual_unet:residual_unet",
    "dense-unet": "leanseg.networks.dense_unet:DenseUNet",
    "dense-unet-56": "leanseg.networks.dense_unet:dense_unet_56",
    "dense-unet-67": "leanseg.networks.dense_unet:dense_unet_67",
    "dense-unet-103": "leanseg.networks.dense_unet:dense_unet_103",
    "dints": "leanseg.networks.dints:dints",
    "dense-vnet": "leanseg.networks.dense_vnet:DenseVNet",
    "obelisk": "leanseg.networks.obelisk:Obelisk",
    "obelisk-unary": "leanseg.networks.obelisk:obelisk_unary",
    "obelisk-random": "leanseg.networks.obelisk:obelisk_random",
    "obelisk-hybrid-tcia": "leanseg.networks.obelisk_hybrid:HybridTCIA",
    "obelisk-hybrid-visceral": "leanseg.networks.obelisk_hybrid:HybridVISCERAL",
    "allconv-unet": "leanseg.networks.obelisk_unet:AllConvUNet",
    "allconv-unet-tcia": "leanseg.networks.obelisk_unet:allconv_unet_tcia",
    "lean-unet": "leanseg.networks.obelisk_unet:lean_unet",
    "lean-unet-220k": "leanseg.networks.obelisk_unet:lean_unet_220k",
    "global-fc-unet": "leanseg.networks.obelisk_unet:GlobalFCUNet",
}

# Parts of networks, which model files name.
PARTS: Final[dict[str, str]] = {"salient": "leanseg.networks.cascade:SalientStage"}


class ParameterCount(NamedTuple):
    """Parameters of a network in two conventions.

    Attributes:
        trainable: Weights, biases and normalisation affine terms that are trained.
        keras_total: All parameters and the running mean and variance of batch normalisation;
            the figure that papers 000 and 001 publish.
    """

    trainable: int
    keras_total: int


def build(
    name: str, *, in_channels: int = 1, out_channels: int = 1, **options: Any
) -> SegmentationNetwork:
    """Build a network; no name or option makes it run code from elsewhere.

    Args:
        name: One of `NETWORKS`, or "monai:" and the name of one of MONAI's networks.
        in_channels: Channels of the images.
        out_channels: 1 for one foreground class (sigmoid), else classes with background.
        **options: The network's own, such as `base_filters` and `dropout`, and `generator`, a
            `torch.Generator` for the starting weights (without it torch's global generator is
            drawn from).

    Returns:
        A module from (B, in_channels, *spatial) to logits (B, out_channels, *spatial).

    Raises:
        RecipeError: A name, option or value that is not known, or an import path.
        MissingDependencyError: MONAI is needed and not installed.
    """
    return _build(name, in_channels, out_channels, options, trusted=False)


def build_trusted(
    name: str, *, in_channels: int = 1, out_channels: int = 1, **options: Any
) -> SegmentationNetwork:
    """As `build`, and import paths "package.module:Name" as well: that runs the module's code.

    For what the user wrote; never for what a model file says. The permission is a function of
    its own because a keyword could be given by the options of a file.
    """
    return _build(name, in_channels, out_channels, options, trusted=True)


def _build(
    name: str, in_channels: int, out_channels: int, options: dict[str, Any], *, trusted: bool
) -> SegmentationNetwork:
    channels = {"in_channels": in_channels, "out_channels": out_channels}
    for key, value in channels.items():
        check_value("network", name, key, Count, value)
    if ":" in name:
        from leanseg.networks.foreign import build_foreign

        return build_foreign(name, in_channels, out_channels, options, trusted=trusted)
    always = (*channels, "generator")
    table = PARTS if name in PARTS else NETWORKS
    network: SegmentationNetwork = make("network", table, name, channels | options, always)
    return network


def count_parameters(module: nn.Module) -> ParameterCount:
    """Count the parameters of a module in both conventions."""
    trainable = sum(each.numel() for each in module.parameters() if each.requires_grad)
    everything = sum(each.numel() for each in module.parameters())
    running = sum(
        each.numel()
        for name, each in module.named_buffers()
        if name.rpartition(".")[2] in ("running_mean", "running_var")
    )
    return ParameterCount(trainable, everything + running)
