from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from network_tester import NetworkTester
from torch import nn

from leanseg.networks import build, count_parameters


class TestUNetPP(NetworkTester):
    name = "unetpp"
    options: ClassVar = {"base_filters": 4}
    size = (32, 48)
    # Zhou et al. publish 9.04 million.
    published: ClassVar = {"unetpp": (9_041_700, 9_041_700)}


@pytest.mark.parametrize(
    ("options", "counts"),
    [
        ({"deep_supervision": False}, (9_041_601, 9_041_601)),
        ({"normalisation": True}, (9_048_996, 9_056_292)),
    ],
)
def test_counts_of_variants(options, counts):
    with torch.device("meta"):
        assert count_parameters(build("unetpp", **options)) == counts


def test_what_every_node_sees():
    """X^(i,j): the upsampled X^(i+1,j-1), then X^(i,0) to X^(i,j-1)."""
    network, seen = build("unetpp", base_filters=2).eval(), {}

    def note(place):
        return lambda _, given, out: seen.update({place: (given, out)})

    for level, block in enumerate(network.encoder):
        block.register_forward_hook(note((level, 0)))
    for column, nodes in enumerate(network.columns, start=1):
        for level, node in enumerate(nodes):
            node.register_forward_hook(note((level, column)))
            node.convs.register_forward_hook(note((level, column, "convs")))
            node.up.register_forward_hook(note((level, column, "up")))
    with torch.no_grad():
        maps = network.all_maps(torch.randn(1, 1, 32, 32))
    assert len(seen) == 5 + 3 * 10
    for column in range(1, 5):
        for level in range(5 - column):
            below = seen[level + 1, column - 1][1]
            assert torch.equal(seen[level, column, "up"][0][0], below)
            before = [seen[level, index][1] for index in range(column)]
            expected = torch.cat((seen[level, column, "up"][1], *before), dim=1)
            assert torch.equal(seen[level, column, "convs"][0][0], expected)
    with torch.no_grad():
        for index, (head, logits) in enumerate(zip(network.heads, maps, strict=True)):
            assert torch.equal(head(seen[0, index + 1][1]), logits)


def test_logits_are_the_mean_of_the_heads():
    network, images = build("unetpp", base_filters=2).eval(), torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        maps = network.all_maps(images)
        assert len(maps) == 4
        torch.testing.assert_close(network(images), sum(maps) / 4)
    single = build("unetpp", base_filters=2, deep_supervision=False)
    assert len(single.all_maps(images)) == single.n_maps == 1


def test_normalisation_stands_between_convolution_and_relu():
    network = build("unetpp", base_filters=2, normalisation=True)
    kinds = [nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * 2
    blocks = [*network.encoder, *(node.convs for nodes in network.columns for node in nodes)]
    assert len(blocks) == 15
    for block in blocks:
        assert [type(layer) for layer in block] == kinds
    logits = network(torch.randn(2, 1, 32, 32))
    logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_foreground_prior():
    network = build("unetpp", base_filters=1, foreground_prior=0.1).eval()
    for head in network.heads:
        nn.init.zeros_(head.weight)
    assert network(torch.zeros(1, 1, 16, 16)).sigmoid().mean().item() == pytest.approx(0.1)
