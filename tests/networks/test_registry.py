from __future__ import annotations

import pytest
import torch
from torch import nn

from leanseg.errors import RecipeError
from leanseg.losses import build_loss
from leanseg.networks import NETWORKS, ParameterCount, build, count_parameters


@pytest.mark.parametrize("name", NETWORKS)
def test_every_name_builds(name):
    with torch.device("meta"):
        divisor = build(name, in_channels=2, out_channels=3).size_divisor
    divisors = divisor if isinstance(divisor, tuple) else (divisor,)
    assert all(isinstance(each, int) and each >= 1 for each in divisors)


def test_unknown_name_lists_the_known():
    with pytest.raises(RecipeError, match=r"'monett'.*monet.*unet-16"):
        build("monett")


@pytest.mark.parametrize(
    ("asked", "near"),
    [
        ("monett", "monet"),
        ("MoNet", "monet"),
        ("unet_64", "unet-64"),
        ("atention-unet", "attention-unet"),
    ],
)
def test_unknown_name_suggests_the_nearest(asked, near):
    with pytest.raises(RecipeError, match=rf"'{asked}' is not known \(did you mean '{near}'\?\); "):
        build(asked)


def test_names_far_from_all_get_no_suggestion():
    with pytest.raises(RecipeError, match=r"'xyzzy' is not known; choose one of "):
        build("xyzzy")


def test_unknown_option_lists_the_known():
    with pytest.raises(RecipeError, match=r"'drop'; its options are base_filters, dropout"):
        build("monet", drop=0.1)


def test_unknown_options_suggest_the_nearest():
    expected = r"'base_filter', 'zzz'; its .*did you mean 'dropout' or 'base_filters'\?"
    with pytest.raises(RecipeError, match=expected):
        build("monet", Dropout=0.1, base_filter=3, zzz=1)


def test_other_registries_suggest_too():
    with pytest.raises(RecipeError, match=r"loss 'dise' is not known \(did you mean 'dice'\?\)"):
        build_loss("dise")


def test_a_number_in_the_name_is_settled():
    with pytest.raises(RecipeError, match=r"'base_filters'; its options are dropout"):
        build("unet-16", base_filters=32)


def test_frozen_parameters_are_not_trainable():
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1))
    module[0].requires_grad_(False)
    # Convolutions 20 and 3, normalisation 4 and 4 running.
    assert count_parameters(module) == ParameterCount(trainable=4 + 3, keras_total=20 + 8 + 3)
