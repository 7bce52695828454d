"""What is counted behind activation functions, against numpy and against sums done by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from leanseg.errors import ModelFileError
from leanseg.networks import build
from leanseg.reports.activation_layers import feature_maps, watch_layers


def pointwise(weights: list[float], biases: list[float] | None = None) -> nn.Conv2d:
    """Every output channel is one number times the image, and one number."""
    layer = nn.Conv2d(1, len(weights), 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weights).reshape(-1, 1, 1, 1))
        layer.bias.copy_(torch.tensor(biases or [0.0] * len(weights)))
    return layer


IMAGE = np.array([[[[0.0, 1.0], [2.0, 3.0]]]], dtype=np.float32)


def test_a_relu_by_hand() -> None:
    # Channels: 0 1 2 3 / dead / 0 0 1 2 (minus one) / constant.
    network = nn.Sequential(pointwise([1, -1, 1, 0], [0, 0, -1, 5]), nn.ReLU())
    (layer,) = watch_layers(network, [IMAGE])
    assert (layer.name, layer.function, layer.n_channels, layer.size) == ("1", "ReLU", 4, (2, 2))
    assert layer.n_values == 16
    assert layer.dead == (1,)
    assert (layer.low, layer.high) == (0, 5)
    assert layer.at_floor == layer.near_zero == 7 / 16
    assert layer.negative == 0
    assert layer.mean == pytest.approx((6 + 0 + 3 + 20) / 16)
    squares = (14 + 0 + 5 + 100) / 16
    assert layer.sd == pytest.approx((squares - layer.mean**2) ** 0.5)
    assert (layer.edges[0], layer.edges[-1]) == (0, 5)
    assert [layer.counts[n] for n in (0, 24, 48, 72, 119)] == [7, 2, 2, 1, 4]
    assert sum(layer.counts) == 16


def test_an_elu_by_hand() -> None:
    # Channels: all deep in the floor / negative but alive / positive.
    network = nn.Sequential(pointwise([-1, 0, 1], [-8, -0.5, 0.25]), nn.ELU())
    (layer,) = watch_layers(network, [IMAGE])
    assert layer.function == "ELU"
    assert layer.dead == (0,)
    assert layer.negative == 8 / 12
    assert layer.at_floor == 4 / 12
    assert layer.near_zero == 0
    assert layer.low == pytest.approx(-1 + np.exp(-11), abs=1e-6)
    expected = 4 * np.expm1(-0.5) + np.expm1([-8.0, -9, -10, -11]).sum() + 6 + 1
    assert layer.mean == pytest.approx(expected / 12, rel=1e-3)


def test_a_leaky_relu_has_no_floor() -> None:
    network = nn.Sequential(pointwise([-1, 0, 1], [-1, -3, 0]), nn.LeakyReLU(0.01))
    (layer,) = watch_layers(network, [IMAGE])
    assert layer.at_floor is None
    # The one with a single value everywhere.
    assert layer.dead == (1,)
    assert layer.negative == 8 / 12


@pytest.mark.parametrize(
    ("activation", "kind", "floor"),
    [
        (nn.ELU(0.5, inplace=True), "ELU", -0.5),
        (nn.SELU(), "ELU", -1.7580993),
        (nn.CELU(2.0), "CELU", -2.0),
        (nn.ReLU(inplace=True), "ReLU", 0.0),
        (nn.ReLU6(), "hardtanh", 0.0),
        (nn.Hardtanh(-3.0, 1.0), "hardtanh", -3.0),
        (nn.GELU(), "GELU", 0.0),
        (nn.SiLU(), "SiLU", 0.0),
        (nn.Mish(), "Mish", 0.0),
        (nn.Hardswish(), "Hardswish", 0.0),
        (nn.Softplus(), "Softplus", 0.0),
    ],
)
def test_every_kind_and_its_floor(activation, kind, floor) -> None:
    """For very negative inputs a channel lies at the floor and is dead."""
    network = nn.Sequential(pointwise([1, 1], [-60, 60]), activation)
    (layer,) = watch_layers(network, [IMAGE])
    assert layer.function == kind
    assert layer.low == pytest.approx(floor, abs=1e-5)
    assert layer.at_floor == 0.5
    assert layer.dead == (0,)


def test_prelu_is_seen() -> None:
    (layer,) = watch_layers(nn.Sequential(pointwise([-1]), nn.PReLU()), [IMAGE])
    assert (layer.function, layer.at_floor, layer.low) == ("PReLU", None, -0.75)


class Twice(nn.Module):
    """Calls functions of its own, and one module two times."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ELU()
        self.dropout = nn.Dropout(0.9)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        first = self.act(images - 1)
        second = self.act(nn.functional.relu(first))
        return self.dropout(second.relu_()).sigmoid()


def test_layers_go_by_their_modules_in_the_order_in_which_they_run() -> None:
    layers = watch_layers(Twice(), [IMAGE])
    assert [(layer.name, layer.function) for layer in layers] == [
        ("act", "ELU"),
        ("#1", "ReLU"),
        ("act#2", "ELU"),
        ("#2", "ReLU"),
    ]


def test_a_stream_is_as_one_array(rng) -> None:
    """Whatever the order and the batches, the figures are those of numpy on all values.

    As far as float16 tells them apart, which is what is counted.
    """
    images = (rng.normal(size=(6, 1, 9, 7)) * 10.0 ** rng.integers(-3, 3, (6, 1, 1, 1))).astype(
        "f4"
    )
    network = nn.Sequential(pointwise([1.0, -2.0]), nn.ELU())
    expected = network(torch.from_numpy(images)).detach().numpy().astype(np.float64)
    found = [
        watch_layers(network, [images])[0],
        watch_layers(network, [image[None] for image in images])[0],
        watch_layers(network, [image[None] for image in images[::-1]])[0],
    ]
    for layer in found:
        assert layer.n_values == expected.size
        assert layer.mean == pytest.approx(expected.mean(), rel=1e-4)
        assert layer.sd == pytest.approx(expected.std(), rel=1e-4)
        assert layer.negative == (expected < 0).mean()
        assert layer.near_zero == pytest.approx((np.abs(expected) <= 0.01).mean(), abs=5e-3)
        assert layer.at_floor == pytest.approx((np.abs(expected + 1) <= 0.01).mean(), abs=5e-3)
        edges = np.array(layer.edges)
        # What lies outside is in the outer bins.
        edges[0], edges[-1] = -np.inf, np.inf
        halves = expected.astype(np.float16).astype(np.float64)
        np.testing.assert_array_equal(layer.counts, np.histogram(halves, edges)[0])
        assert layer.counts == found[0].counts


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none(value: float) -> None:
    network = nn.Sequential(pointwise([1.0]), nn.LeakyReLU())
    with pytest.raises(ModelFileError, match="layer 1 answers with values that are no finite"):
        watch_layers(network, [np.full((1, 1, 2, 2), value, dtype=np.float32)])


def test_nothing_to_look_at() -> None:
    with pytest.raises(ModelFileError, match="no activation function"):
        watch_layers(nn.Sequential(pointwise([1.0]), nn.Sigmoid()), [IMAGE])


SMALL = {
    "monet": ({"base_filters": 4}, (16, 16), 29),
    "unet": ({"base_filters": 4}, (16, 16), 18),
    "attention-unet": ({"base_filters": 4}, (16, 16), 22),
    "msd-2d": ({"depth": 7}, (16, 16), 7),
    "msd-3d": ({"depth": 5}, (8, 8, 8), 5),
    "nnunet-3d": ({}, (32, 32, 16), None),
    "dense-vnet": ({}, (48, 48, 48), None),
    "tumour-network-quarter": ({}, (32, 32), None),
    "obelisk-hybrid-tcia": ({}, (16, 16, 16), None),
}


@pytest.mark.parametrize("name", SMALL)
def test_networks_of_the_registry(name: str, rng) -> None:
    options, size, n_layers = SMALL[name]
    network = build(name, **options, generator=torch.Generator().manual_seed(0))
    layers = watch_layers(network, [rng.normal(size=(1, 1, *size)).astype(np.float32)])
    assert n_layers in (None, len(layers))
    assert len(layers) > 4
    assert all(layer.n_values == layer.n_channels * np.prod(layer.size) for layer in layers)
    assert len({layer.name for layer in layers}) == len(layers)


def test_feature_maps_are_what_the_layers_answer(rng) -> None:
    """Against hooks of PyTorch; the last function works in place on what the second gave."""
    network = nn.Sequential(pointwise([1, -1]), nn.ReLU(), nn.ELU(), nn.ReLU(inplace=True)).eval()
    seen: dict[int, np.ndarray] = {}
    for number in (1, 2):
        network[number].register_forward_hook(
            lambda _, __, out, number=number: seen.update({number: out.detach().clone().numpy()})
        )
    image = rng.normal(size=(1, 1, 5, 4)).astype(np.float32)
    found = feature_maps(network, image, (0, 1))
    assert found.keys() == {0, 1}
    for place, maps in found.items():
        np.testing.assert_array_equal(maps, seen[place + 1][0])
