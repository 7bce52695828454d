"""What is counted behind activation functions, against numpy and sums by hand; model files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from leanseg.errors import LeansegError, ModelFileError
from leanseg.inference.engines.torch_engine import built
from leanseg.modelfile import Manifest, NetworkSpec, read_model, write_model
from leanseg.networks import build
from leanseg.preprocessing import Plan, ScanSlices
from leanseg.reports.activation_figure import activation_figure, write_figure
from leanseg.reports.activations import study_activations, watch_layers
from leanseg.volumes import Volume


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
    assert (float(layer.low.min()), float(layer.high.max())) == (0, 5)
    assert layer.at_floor == layer.near_zero == 7 / 16
    assert layer.negative == 0
    assert layer.mean == pytest.approx((6 + 0 + 3 + 20) / 16)
    squares = (14 + 0 + 5 + 100) / 16
    assert layer.sd == pytest.approx((squares - layer.mean**2) ** 0.5)
    low, width, counts = layer.histogram()
    assert low == 0
    assert [counts[int(value / width)] for value in range(4)] == [7, 2, 2, 1]
    assert counts[-1] == 4
    assert counts.sum() == 16


def test_an_elu_by_hand() -> None:
    # Channels: all deep in the floor / negative but alive / positive.
    network = nn.Sequential(pointwise([-1, 0, 1], [-8, -0.5, 0.25]), nn.ELU())
    (layer,) = watch_layers(network, [IMAGE])
    assert layer.function == "ELU"
    assert layer.dead == (0,)
    assert layer.negative == 8 / 12
    assert layer.at_floor == 4 / 12
    assert layer.near_zero == 0
    assert float(layer.low.min()) == pytest.approx(-1 + np.exp(-11), abs=1e-6)
    expected = 4 * np.expm1(-0.5) + np.expm1([-8.0, -9, -10, -11]).sum() + 6 + 1
    assert layer.mean == pytest.approx(expected / 12, rel=1e-5)


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
    assert float(layer.low.min()) == pytest.approx(floor, abs=1e-5)
    assert layer.at_floor == 0.5
    assert layer.dead == (0,)


def test_prelu_is_seen() -> None:
    (layer,) = watch_layers(nn.Sequential(pointwise([-1]), nn.PReLU()), [IMAGE])
    assert (layer.function, layer.at_floor, float(layer.low.min())) == ("PReLU", None, -0.75)


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
    """Whatever the order and the batches, the figures are those of numpy on all values."""
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
        assert layer.mean == pytest.approx(expected.mean(), rel=1e-6)
        assert layer.sd == pytest.approx(expected.std(), rel=1e-6)
        assert layer.negative == (expected < 0).mean()
        assert layer.near_zero == (np.abs(expected) <= 0.01).mean()
        assert layer.at_floor == (np.abs(expected + 1) <= 0.01).mean()
        low, width, counts = layer.histogram()
        edges = low + width * np.arange(len(counts) + 1)
        # What lies outside is in the outer bins.
        edges[0], edges[-1] = -np.inf, np.inf
        np.testing.assert_array_equal(counts, np.histogram(expected, edges)[0])
        np.testing.assert_array_equal(counts, found[0].histogram().counts)
        assert len(counts) <= 120


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e35])
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


def model_file(path: Path, name: str = "monet", members: int = 1, change=None, **plan) -> Path:
    plan = Plan(**{"labels": ("organ",), "slice_shape": (32, 32), **plan})
    weights = {}
    for member in range(members):
        generator = torch.Generator().manual_seed(member)
        options = {"base_filters": 4} if name in ("monet", "unet") else {"depth": 4}
        network = build(name, generator=generator, **options)
        prefix = f"{member}/" if members > 1 else ""
        weights |= {prefix + key: value.numpy() for key, value in network.state_dict().items()}
    if change:
        change(weights)
    spec = NetworkSpec(name=name, in_channels=1, out_channels=1, options=options)
    write_model(path, Manifest(network=spec, plan=plan, members=members), weights)
    return path


@pytest.fixture
def scan(rng) -> Volume:
    affine = np.diag([-0.8, -0.8, 2.5, 1.0])
    return Volume(rng.normal(0, 150, (40, 36, 9)).astype(np.int16), affine)


def test_the_study_is_that_of_the_chosen_slices(tmp_path: Path, scan: Volume) -> None:
    file = read_model(model_file(tmp_path / "m.leanseg"))
    study = study_activations(file, scan, max_inputs=3, name="ct")
    assert (study.inputs, study.n_inputs) == ((1, 4, 7), 9)
    slices = ScanSlices(scan, file.manifest.plan)
    direct = watch_layers(built(file, False), [slices.read(k, k + 1) for k in (1, 4, 7)])
    assert [layer.name for layer in study.layers] == [layer.name for layer in direct]
    for one, other in zip(study.layers, direct, strict=True):
        assert (one.mean, one.sd, one.dead) == (other.mean, other.sd, other.dead)
    assert [layer.name for layer in study.shown.values()] == [
        "encoder1.conv",
        "bottleneck.1.dilated3",
        "decoder2.rddc.dilated1",
    ]
    assert list(study.shown) == ["early", "middle", "late"]


def test_a_channel_that_is_killed_is_found(tmp_path: Path, scan: Volume) -> None:
    path = model_file(tmp_path / "m.leanseg", "unet")
    names = [name for name in read_model(path).weights if name.startswith("encoder.0.")]
    first = sorted(name for name in names if name.endswith(".weight"))[0].rpartition(".")[0]

    def kill(weights: dict) -> None:
        # The ReLU of this channel sees nothing but its bias.
        weights[f"{first}.weight"][2] = 0
        weights[f"{first}.bias"][2] = -1

    before = study_activations(read_model(path), scan)
    model_file(path, "unet", change=kill)
    after = study_activations(read_model(path), scan)
    assert 2 not in before.layers[0].dead
    assert after.layers[0].dead == (*sorted({*before.layers[0].dead, 2}),)
    assert after.n_dead == sum(len(layer.dead) for layer in after.layers)
    assert after.n_channels == before.n_channels


def test_an_ensemble_is_studied_by_its_first(tmp_path: Path, scan: Volume) -> None:
    alone = study_activations(read_model(model_file(tmp_path / "a.leanseg")), scan)
    both = study_activations(read_model(model_file(tmp_path / "b.leanseg", members=2)), scan)
    assert both.members == 2
    assert [layer.mean for layer in both.layers] == [layer.mean for layer in alone.layers]


def test_a_network_that_sees_a_whole_region(tmp_path: Path, scan: Volume) -> None:
    path = model_file(tmp_path / "m.leanseg", "msd-3d", volume_shape=(16, 16, 8))
    study = study_activations(read_model(path), scan)
    assert (study.inputs, study.n_inputs) == ((0,), 1)
    assert study.layers[0].size == (16, 16, 8)


def test_a_network_that_sees_tiles(tmp_path: Path, scan: Volume) -> None:
    path = model_file(tmp_path / "m.leanseg", "msd-3d", tile_shape=(16, 16, 8))
    study = study_activations(read_model(path), scan, max_inputs=3)
    assert len(study.inputs) == 3
    assert study.n_inputs > 10
    assert study.layers[0].size == (16, 16, 8)
    assert study.layers[0].n_values == 3 * 16 * 16 * 8


def test_diverged_weights(tmp_path: Path, scan: Volume) -> None:
    def diverge(weights: dict) -> None:
        weights["bottleneck.0.conv.weight"][:] = np.nan

    path = model_file(tmp_path / "m.leanseg", change=diverge)
    with pytest.raises(ModelFileError, match=r"m\.leanseg: layer bottleneck\.0 answers with"):
        study_activations(read_model(path), scan)


def test_voxels_that_are_no_numbers(tmp_path: Path, scan: Volume) -> None:
    array = scan.array.astype(np.float32)
    array[0, 0, 0] = np.nan
    with pytest.raises(LeansegError, match="1 NaN"):
        study_activations(read_model(model_file(tmp_path / "m.leanseg")), scan.with_array(array))


def test_the_record_holds_everything(tmp_path: Path, scan: Volume) -> None:
    file = read_model(model_file(tmp_path / "m.leanseg"))
    study = study_activations(file, scan, name="ct")
    record = json.loads(json.dumps(study.to_json(), allow_nan=False))
    assert record["weights_sha256"] == file.manifest.weights_sha256
    assert record["inputs"] == list(range(9))
    for layer, stored in zip(study.layers, record["layers"], strict=True):
        assert stored["name"] == layer.name
        histogram = stored["histogram"]
        assert sum(histogram["counts"]) == layer.n_values
        middles = histogram["low"] + histogram["width"] * (
            0.5 + np.arange(len(histogram["counts"]))
        )
        mean = np.average(middles, weights=histogram["counts"])
        assert mean == pytest.approx(layer.mean, abs=histogram["width"] / 2)


@pytest.mark.parametrize(
    ("most", "expected"), [(1, (4,)), (2, (2, 6)), (9, tuple(range(9))), (None, tuple(range(9)))]
)
def test_inputs_are_evenly_spaced(tmp_path: Path, scan: Volume, most, expected) -> None:
    file = read_model(model_file(tmp_path / "m.leanseg"))
    assert study_activations(file, scan, max_inputs=most).inputs == expected


def test_the_figure(tmp_path: Path, scan: Volume) -> None:
    studies = [
        study_activations(read_model(model_file(tmp_path / f"{name}.leanseg", name)), scan)
        for name in ("monet", "unet")
    ]
    figure = activation_figure(studies)
    assert len(figure.axes) == 8
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[0].startswith("early: encoder1.conv\nELU, 4 channels of 32 x 32")
    write_figure(tmp_path / "a.png", studies)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
