from __future__ import annotations

import pytest
import torch
from torch import nn

from leanseg.errors import RecipeError
from leanseg.networks import NETWORKS, ParameterCount, build, count_parameters

# The networks of several maps, by how their names start.
MAPS = {"unetpp": 4, "localised-unet": 2, "tumour-network": 5}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_name_builds(name):
    with torch.device("meta"):
        network = build(name, in_channels=2, out_channels=2 if name.startswith("cascade") else 3)
    assert network.n_maps == next((n for start, n in MAPS.items() if name.startswith(start)), 1)
    divisor = network.size_divisor
    divisors = divisor if isinstance(divisor, tuple) else (divisor,)
    assert all(isinstance(each, int) and each >= 1 for each in divisors)


def test_frozen_parameters_are_not_trainable():
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1))
    module[0].requires_grad_(False)
    # Convolutions 20 and 3, normalisation 4 and 4 running.
    assert count_parameters(module) == ParameterCount(trainable=4 + 3, keras_total=20 + 8 + 3)


@pytest.mark.parametrize(
    ("name", "option", "values"),
    [
        ("monet", "base_filters", (0, -1, 1.5, True, "8")),
        ("monet", "dropout", (-0.1, 1.0, float("nan"), "0.2", None)),
        ("monet", "foreground_prior", (0, 1, 1.5)),
        ("attention-unet", "base_filters", (0,)),
        ("unetpp", "base_filters", (0,)),
        ("residual-unet", "dropout", (1,)),
        ("residual-unet", "spatial_dims", (4,)),
        ("dense-unet", "layers_per_block", ([4], [4, 0], 4)),
        ("dense-unet", "growth_rate", (0, 1.5)),
        ("dense-vnet", "dropout", (1.0,)),
        ("nnunet-3d", "shape", ((32, 32), [32, 32, 0], 32)),
        ("nnunet-3d", "spacing_mm", ((1, 1), (1, 1, 0), (1, 1, float("inf")))),
        ("nnunet-2d", "max_pools", (-1, True)),
        ("msd-2d", "depth", (0,)),
        ("msd-2d", "width", (1.5,)),
        ("msd-3d", "max_dilation", (True,)),
        ("msd-2d", "boundary", ("wrap",)),
        ("msd-2d", "dimensions", (3,)),
        ("tumour-network", "base_filters", (4, 12)),
        ("tumour-network", "reduce_kernel", (0, 2, 5, "3")),
        ("tumour-network", "attention", ("PFNet", None)),
        ("tumour-network", "features", ("centre", True)),
        ("tumour-network", "focusing", ("none", ["both"])),
        ("obelisk", "n_offsets", (0, 6, "many")),
        ("obelisk", "smoothing", ([4], 3, [3, -1])),
        ("obelisk-random", "offset_sd", (0, -0.1, float("inf"), "0.1")),
        ("obelisk-random", "trainable_offsets", (True,)),
        ("nnunet-2d", "deep_supervision", (1, "yes")),
        ("obelisk-hybrid-tcia", "coarse_grid", ([18, 18], [0, 18, 18], 18, "abc", [1.5, 2, 3])),
        ("obelisk-hybrid-visceral", "fine_grid", ([18, 18],)),
        ("allconv-unet", "widths", ([16, 32],)),
        ("allconv-unet", "groups", ([1, 1, 1, 1], [1, 1, 1, 3, 1, 1, 1, 1])),
        ("global-fc-unet", "size", ([144, 144],)),
        ("global-fc-unet", "hidden", (0,)),
    ],
)
def test_refused_options(name, option, values):
    for value in values:
        with pytest.raises(RecipeError, match=rf"{option}|groups"), torch.device("meta"):
            build(name, **{option: value})
