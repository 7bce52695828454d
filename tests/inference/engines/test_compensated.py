"""The compensated first layer: the same function, with next to no rounding in front of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from openvino import Core, Model
from openvino import opset13 as operators

from leanseg.inference.engines.compensated import compensate, rounded, split_input
from leanseg.modelfile.graph import INPUT

RNG = np.random.default_rng(0)


@given(
    hnp.arrays(
        np.float32,
        (7,),
        elements=st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=True),
    )
)
def test_rounding_is_pytorchs(values: np.ndarray) -> None:
    expected = torch.from_numpy(values).bfloat16().float().numpy()
    np.testing.assert_array_equal(rounded(values), expected)


def test_ties_go_to_even() -> None:
    ties = np.array([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8], dtype=np.float32)
    np.testing.assert_array_equal(rounded(ties), [1, 1 + 2**-6, -1])


def test_the_parts_add_up() -> None:
    image = RNG.normal(size=(2, 3, 5, 4)).astype(np.float32)
    parts = split_input(image)
    assert parts.shape == (2, 11, 5, 4)
    assert (parts[:, 9:] == 1).all()
    np.testing.assert_array_equal(parts[:, :3] + parts[:, 3:6], image)
    np.testing.assert_array_equal(parts[:, 6:9], parts[:, :3])


def network(chain: str, channels: int = 2, n_out: int = 6) -> Model:
    """image -> convolution -> what `chain` names -> relu -> 1 x 1 convolution."""

    def constant(*shape: int, low: float = -1.0) -> object:
        return operators.constant(RNG.uniform(low, 1.0, shape).astype(np.float32))

    image = operators.parameter([1, channels, 12, 14], np.float32, name=INPUT)
    image.output(0).set_names({INPUT})
    seen = operators.relu(image) if "relu first" in chain else image
    pads = [1, 3] if "wide pad" in chain else [1, 2]
    last = operators.convolution(
        seen, constant(n_out, channels, 3, 3), [2, 1], pads, [1, 2], [1, 2]
    )
    if "bias" in chain:
        last = operators.add(last, constant(1, n_out, 1, 1))
    if "norm" in chain:
        statistics = [constant(n_out) for _ in range(3)]
        variance = constant(n_out, low=0.2)
        last = operators.batch_norm_inference(last, *statistics, variance, 1e-3)
    if "alone" in chain:
        return Model([last], [image], "test")
    if "twice" in chain:
        last = operators.concat([last, operators.relu(last)], 1)
        n_out *= 2
    last = operators.convolution(
        operators.relu(last), constant(3, n_out, 1, 1), [1, 1], [0, 0], [0, 0], [1, 1]
    )
    if "image twice" in chain:
        last = operators.add(last, operators.reduce_mean(image, [1, 2, 3], keep_dims=True))
    return Model([last], [image], "test")


def computed(model: Model, image: np.ndarray, precision: str) -> np.ndarray:
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 1}
    return np.array(Core().compile_model(model, "CPU", settings)([image])[0])


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("chain", ["", "bias", "norm", "bias, norm", "bias, twice", "norm, twice"])
def test_the_same_function(chain: str, channels: int) -> None:
    plain = network(chain, channels)
    image = RNG.normal(size=(1, channels, 12, 14)).astype(np.float32)
    expected = computed(plain.clone(), image, "f32")
    found = compensate(plain)
    assert found is not None
    assert list(found.inputs[0].shape) == [1, 3 * channels + 2, 12, 14]
    np.testing.assert_allclose(
        computed(found, split_input(image), "f32"), expected, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("chain", ["alone", "bias, alone", "bias, norm, alone"])
def test_the_first_layer_is_exact_in_bf16(chain: str) -> None:
    if "BF16" not in Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor does not compute in bf16")
    plain = network(chain)
    image = RNG.uniform(0.4, 0.6, (1, 2, 12, 14)).astype(np.float32)
    exact = computed(plain.clone(), image, "f32")
    # The layer's result may be stored in bf16: the nearest there is, nearly always.
    rough, better = (
        np.mean(rounded(found) == rounded(exact))
        for found in (
            computed(plain.clone(), image, "bf16"),
            computed(compensate(plain), split_input(image), "bf16"),
        )
    )
    assert rough < 0.9
    assert better > 0.98


@pytest.mark.parametrize("chain", ["relu first", "image twice", "wide pad"])
def test_graphs_that_it_leaves_alone(chain: str) -> None:
    assert compensate(network(chain)) is None
