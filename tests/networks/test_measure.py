from __future__ import annotations

import pytest
import torch
from torch import nn

from leanseg.errors import GeometryError, RecipeError
from leanseg.networks import build, count_parameters, registry
from leanseg.networks.measure import network_cost


@pytest.mark.parametrize(
    ("name", "giga"),
    [("monet", 4.76), ("unet-16", 3.01), ("unet-64", 48.1), ("attention-unet-64", 50.2)],
)
def test_multiply_adds_are_the_specifications(name, giga):
    assert network_cost(name, (256, 256)).multiply_adds / 1e9 == pytest.approx(giga, abs=0.05)


@pytest.mark.parametrize(("name", "options"), [("monet", {"base_filters": 4}), ("unet-16", {})])
def test_parameters_and_weights_are_the_networks(name, options):
    network = build(name, in_channels=2, out_channels=3, **options)
    cost = network_cost(name, (16, 16), in_channels=2, out_channels=3, options=options)
    assert cost.parameters == count_parameters(network)
    assert cost.weight_bytes == sum(each.nbytes for each in network.state_dict().values())


class ByHand(nn.Module):
    def __init__(self, in_channels=1, out_channels=1, *, run=False, generator=None):
        super().__init__()
        self.first = nn.Conv3d(in_channels, 5, 3, padding=1, stride=2)
        self.second = nn.Linear(5, out_channels)
        self.run = run

    def forward(self, images):
        features = self.first(images)
        if self.run:  # needs numbers, not only shapes
            features = features * float(features.abs().max() >= 0)
        return self.second(features.movedim(1, -1)).movedim(-1, 1)


@pytest.fixture
def by_hand(monkeypatch):
    monkeypatch.setitem(registry.NETWORKS, "by-hand", f"{__name__}:ByHand")


@pytest.mark.parametrize("run", [False, True])
def test_counted_by_hand(by_hand, run):
    options = {"run": run}
    cost = network_cost("by-hand", (8, 6, 4), in_channels=2, out_channels=3, options=options)
    voxels = 4 * 3 * 2
    assert cost.multiply_adds == voxels * (27 * 2 * 5) + voxels * 5 * 3


def test_the_work_of_obelisk_by_hand():
    from leanseg.networks.measure import _convolve_work

    # 2 images of 3 channels; 5 pairs of offsets; 4 x 6 x 7 points; 15 values to 8 in one group.
    images, offsets = (2, 3, 9, 9, 9), (1, 5, 2, 3)
    sampled = 2 * (3 * 5) * (4 * 6 * 7) * 2 * 8
    work = _convolve_work(images, offsets, (8, 15, 1, 1, 1), 1, (4,), (6,), (7,), out_shape=())
    assert work == 2 * (sampled + 2 * (4 * 6 * 7) * 15 * 8)


def test_the_sampling_of_obelisk_is_counted():
    # Per voxel of the quarter grid 1024 pairs x 8 corners and a convolution to 256 in 4 groups.
    cost = network_cost("obelisk", (156, 115, 160), out_channels=8)
    voxels = 39 * 29 * 40
    assert cost.multiply_adds > voxels * (1024 * 2 * 8 + 1024 * 256 // 4 + 256 * 128)


def test_without_a_size_there_is_no_work(by_hand):
    cost = network_cost("by-hand")
    assert cost.multiply_adds is None
    assert cost.parameters.trainable == 27 * 5 + 5 + 5 + 1


def test_nothing_random_is_used_up():
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    network_cost("monet", (16, 16))
    assert torch.equal(torch.rand(3), expected)


def test_a_network_is_real_again_afterwards():
    network_cost("monet", (16, 16))
    network = build("monet", base_filters=4, generator=torch.Generator().manual_seed(0))
    assert network.eval()(torch.zeros(1, 1, 8, 8)).isfinite().all()


def test_errors_are_the_networks():
    with pytest.raises(GeometryError, match="MoNet"):
        network_cost("monet", (15, 16))
    with pytest.raises(RecipeError, match="no option 'width'"):
        network_cost("monet", options={"width": 3})
