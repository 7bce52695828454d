"""The tumour network and its modules: localisation, context exploration, focusing."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import paper_003_counts as counts
import pytest
import torch
from network_tester import NetworkTester
from torch import nn

from leanseg.errors import GeometryError
from leanseg.networks import build, count_parameters
from leanseg.networks.tumour_modules import (
    ChannelAttention,
    ContextExploration,
    Focusing,
    NonlocalLocalisation,
    SpatialAttention,
    foreground,
    resized,
)


class TestTumourNetwork(NetworkTester):
    name = "tumour-network"
    options: ClassVar = {"base_filters": 8}
    size = (32, 48)
    # A bias of the keys adds the same to all of a softmax's arguments.
    without_gradient = r".*\.conv\.bias|.*\.key\.bias"
    published: ClassVar = {
        # The specification's; running statistics are those of the blocks (2 per channel).
        "tumour-network": (129_179_823, 129_220_015),
        "tumour-network-half": (32_322_911, 32_343_007),
        "tumour-network-quarter": (8_094_711, 8_104_759),
    }

    @classmethod
    def prepare(cls, network: nn.Module, generator: torch.Generator) -> None:
        """Smaller maps: random normalisation makes logits of hundreds, with roundings to match."""
        with torch.no_grad():
            for module in (network.localisation, *network.focusing):
                module.map.weight *= 0.03

    @pytest.mark.slow
    def test_onnx(self, tmp_path):
        super().test_onnx(tmp_path)

    @pytest.mark.slow
    def test_compile(self):
        super().test_compile()


def test_count_with_the_kernels_of_the_text():
    with torch.device("meta"):
        network = build("tumour-network", reduce_kernel=3)
    assert count_parameters(network).trainable == 131_965_103


@pytest.mark.parametrize(
    ("options", "features", "steps", "full"),
    [
        ({}, "decoder", 2, 129_179_823),
        ({"attention": "printed"}, "decoder", 2, 129_179_823),
        ({"features": "encoder"}, "encoder", 2, 109_659_759),
        ({"focusing": "false-positives"}, "decoder", 1, 128_346_219),
        ({"focusing": "false-negatives"}, "decoder", 1, 128_346_219),
    ],
)
def test_counts_of_the_options(options, features, steps, full):
    assert counts.tumour(64, features=features, steps=steps) == full
    for filters in (64, 32, 16):
        with torch.device("meta"):
            network = build("tumour-network", base_filters=filters, **options)
        expected = counts.tumour(filters, features=features, steps=steps)
        assert count_parameters(network).trainable == expected


@pytest.mark.parametrize(
    ("channels", "both", "one"),
    [
        (256, 7_688_195, 7_062_018),
        (128, 1_927_171, 1_769_730),
        (64, 484_355, 444_546),
        (32, 122_371, 112_194),
    ],
)
def test_count_of_focusing(channels, both, one):
    counted = []
    for interference in ("both", "false-positives", "false-negatives"):
        with torch.device("meta"):
            module = Focusing(channels, 2 * channels, interference=interference)
        counted.append(count_parameters(module).trainable)
    assert counted == [both, one, one]
    assert one == counts.focusing(channels, 2 * channels, steps=1)


def test_counts_of_the_other_modules():
    with torch.device("meta"):
        assert count_parameters(NonlocalLocalisation(512)).trainable == 353_411
        assert count_parameters(ContextExploration(256)).trainable == 625_664


def test_channel_attention_by_hand(rng):
    """Equations 5 and 6, element by element."""
    features, gamma = rng.normal(size=(3, 2, 2)), 0.7
    flat = features.reshape(3, 4)
    expected = np.empty_like(flat)
    for i in range(3):
        weights = np.array([np.exp(flat[i] @ flat[j]) for j in range(3)])
        expected[i] = gamma * sum(w * flat[j] for j, w in enumerate(weights / weights.sum()))
        expected[i] += flat[i]
    module = ChannelAttention().double()
    assert module.gamma.item() == 1
    nn.init.constant_(module.gamma, gamma)
    with torch.no_grad():
        result = module(torch.from_numpy(features)[None])[0].numpy()
    np.testing.assert_allclose(result, expected.reshape(3, 2, 2), rtol=1e-10)


@pytest.mark.parametrize("attention", ["pfnet", "printed"])
def test_spatial_attention_by_hand(attention, rng):
    """Equations 7 and 8, element by element: x'(i, j) as PFNet sums, x'(j, i) as printed."""
    features, gamma = rng.normal(size=(8, 2, 3)), 0.7
    module = SpatialAttention(8, attention).double()
    assert module.gamma.item() == 1
    nn.init.constant_(module.gamma, gamma)
    flat = features.reshape(8, 6)
    query, key, value = (
        layer.weight.detach().numpy()[:, :, 0, 0] @ flat + layer.bias.detach().numpy()[:, None]
        for layer in (module.query, module.key, module.value)
    )
    assert query.shape == key.shape == (1, 6)
    influence = np.empty((6, 6))
    for i in range(6):
        weights = np.array([np.exp(query[:, i] @ key[:, j]) for j in range(6)])
        influence[i] = weights / weights.sum()
    expected = np.empty_like(flat)
    for i in range(6):
        read = influence[:, i] if attention == "printed" else influence[i]
        mixed = sum(read[j] * value[:, j] for j in range(6))
        expected[:, i] = gamma * mixed + flat[:, i]
    with torch.no_grad():
        result = module(torch.from_numpy(features)[None])[0].numpy()
    np.testing.assert_allclose(result, expected.reshape(8, 2, 3), rtol=1e-10)


def test_channel_attention_in_half_precision_stays_finite():
    """Products of thousands of values overflow a half; the softmax must not see that."""
    features = torch.rand(1, 8, 64, 64) * 10
    with torch.no_grad(), torch.autocast("cpu", torch.float16):
        result = ChannelAttention()(features.half())
    torch.testing.assert_close(
        result.float(), ChannelAttention()(features.half().float()), rtol=1e-2, atol=1e-2
    )


def test_context_exploration_feeds_each_branch_with_the_one_before():
    module, seen = ContextExploration(8).eval(), {}
    for index, branch in enumerate(module.branches):
        branch.register_forward_hook(lambda _, given, out, i=index: seen.update({i: (given, out)}))
    module.fuse.register_forward_pre_hook(lambda _, given: seen.update(fuse=given[0]))
    features = torch.randn(1, 8, 10, 10)
    with torch.no_grad():
        module(features)
        reduced = [reduce(features) for reduce in module.reduce]
    assert torch.equal(seen[0][0][0], reduced[0])
    for index in (1, 2, 3):
        assert torch.equal(seen[index][0][0], reduced[index] + seen[index - 1][1])
    assert torch.equal(seen["fuse"], torch.cat([seen[index][1] for index in range(4)], dim=1))
    convolutions = [[block.conv for block in branch] for branch in module.branches]
    assert [pair[0].kernel_size for pair in convolutions] == [(1, 1), (3, 3), (5, 5), (7, 7)]
    assert [pair[1].dilation for pair in convolutions] == [(1, 1), (2, 2), (4, 4), (8, 8)]


def test_focusing_by_hand():
    """Equation 9 with the module's own parts."""
    module = Focusing(4, 8).eval()
    nn.init.constant_(module.subtracted, 0.8)
    nn.init.constant_(module.added, 1.3)
    assert Focusing(4, 8).subtracted.item() == Focusing(4, 8).added.item() == 1
    features, coarse, found = (
        torch.randn(1, 4, 6, 8),
        torch.randn(1, 8, 3, 4),
        torch.randn(1, 1, 3, 4),
    )
    with torch.no_grad():
        refined, finer = module(features, coarse, found)
        enlarged = torch.nn.UpsamplingBilinear2d(scale_factor=2)
        inside = torch.sigmoid(enlarged(found))
        step = enlarged(module.up(coarse)) - 0.8 * module.false_positives(inside * features)
        step = torch.relu(module.first_norm(step))
        step = step + 1.3 * module.false_negatives((1 - inside) * features)
        expected = torch.relu(module.second_norm(step))
        torch.testing.assert_close(refined, expected)
        torch.testing.assert_close(finer, module.map(expected))


@pytest.mark.parametrize("interference", ["false-positives", "false-negatives"])
def test_focusing_by_one_step_alone(interference):
    """Equation 9 without its second line, or without its third."""
    module = Focusing(4, 8, interference=interference).eval()
    removes = interference == "false-positives"
    nn.init.constant_(module.subtracted if removes else module.added, 0.8)
    features, coarse, found = (
        torch.randn(1, 4, 6, 8),
        torch.randn(1, 8, 3, 4),
        torch.randn(1, 1, 3, 4),
    )
    enlarged = torch.nn.UpsamplingBilinear2d(scale_factor=2)
    with torch.no_grad():
        refined, finer = module(features, coarse, found)
        inside, up = torch.sigmoid(enlarged(found)), enlarged(module.up(coarse))
        if removes:
            expected = module.first_norm(up - 0.8 * module.false_positives(inside * features))
        else:
            revealed = module.false_negatives((1 - inside) * features)
            expected = module.second_norm(up + 0.8 * revealed)
        torch.testing.assert_close(refined, expected.relu())
        torch.testing.assert_close(finer, module.map(expected.relu()))


@pytest.mark.parametrize(
    "options",
    [{"features": "encoder"}, {"focusing": "false-positives"}, {"focusing": "false-negatives"}],
)
def test_nothing_is_built_that_is_not_used(options):
    network = build("tumour-network", base_filters=8, **options)
    sum(each.sum() for each in network.all_maps(torch.randn(2, 1, 32, 32))).backward()
    assert [name for name, each in network.named_parameters() if each.grad is None] == []


def test_the_least_channels():
    """32 are what the full width has anyway; a quarter of it has 8 at its finest level."""
    with torch.device("meta"):
        narrow = build("tumour-network-quarter", least_channels=32)
        full = build("tumour-network", least_channels=32)
    assert [each.conv.out_channels for each in narrow.reduce] == [128, 64, 32, 32, 32]
    assert [each.map.in_channels for each in narrow.focusing] == [64, 32, 32, 32]
    assert count_parameters(full).trainable == 129_179_823


def test_levels_of_both_encoders():
    network, seen = build("tumour-network", base_filters=8, features="encoder").eval(), {}
    for number, reduce in enumerate(network.reduce):
        reduce.register_forward_pre_hook(lambda _, given, n=number: seen.update({n: given[0]}))
    blocks = {}
    for name in ("plain.3", "scales.3", "plain.0", "scales.0"):
        network.backbone.get_submodule(name).register_forward_hook(
            lambda _, given, out, name=name: blocks.update({name: out})
        )
    with torch.no_grad():
        network(torch.randn(1, 1, 32, 32))
    shapes = [tuple(seen[number].shape[1:]) for number in range(5)]
    assert shapes == [(384, 2, 2), (192, 4, 4), (96, 8, 8), (48, 16, 16), (24, 32, 32)]
    for number, level in ((1, 3), (4, 0)):
        both = torch.cat((blocks[f"plain.{level}"], blocks[f"scales.{level}"]), dim=1)
        assert torch.equal(seen[number], both)


def test_foreground_of_classes():
    logits = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(foreground(logits)[:, 0], logits.softmax(1)[:, 1:].sum(1))
    torch.testing.assert_close(foreground(logits[:, :1]), logits[:, :1].sigmoid())


def test_resized_aligns_the_corners():
    images = torch.randn(1, 1, 3, 4)
    large = resized(images, 4)
    assert large.shape == (1, 1, 12, 16)
    torch.testing.assert_close(large[..., ::11, ::15], images[..., ::2, ::3])


def test_five_maps():
    network = build("tumour-network", base_filters=8, out_channels=2).eval()
    images = torch.randn(1, 1, 32, 48)
    with torch.no_grad():
        levels, maps, logits = (
            network.level_maps(images),
            network.all_maps(images),
            network(images),
        )
    assert [tuple(level.shape[1:]) for level in levels] == [
        (2, 2, 3),
        (2, 4, 6),
        (2, 8, 12),
        (2, 16, 24),
        (2, 32, 48),
    ]
    assert [tuple(each.shape) for each in maps] == 5 * [(1, 2, 32, 48)]
    assert torch.equal(maps[-1], logits)
    torch.testing.assert_close(maps[0][..., ::31, ::47], levels[0][..., ::1, ::2])
    with pytest.raises(GeometryError, match="multiples of 16"):
        network.all_maps(images[..., 1:])


def test_localisation_stands_on_the_centre():
    network, seen = build("tumour-network", base_filters=8).eval(), []
    network.reduce[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    network.localisation.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    images = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        network(images)
        assert torch.equal(seen[0], network.backbone(images)[0])
    assert seen[0].shape[1:] == (3 * 128, 2, 2)
    assert seen[1].shape[1:] == (64, 2, 2)
