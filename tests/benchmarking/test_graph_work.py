"""Multiply-adds of graphs: by hand, and against what PyTorch counts."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from leanseg.benchmarking.cost import model_facts
from leanseg.benchmarking.graph_work import graph_work
from leanseg.modelfile import Member, ModelFile, NetworkSpec, read_model, write_model
from leanseg.networks import build
from leanseg.networks.measure import network_cost
from leanseg.preprocessing import Plan
from leanseg.training.export import export_model


def graph(nodes, weights: dict[str, tuple[int, ...]], shape=("n", "c", "i", "j")) -> bytes:
    arrays = {
        name: np.ones(size, np.float32) if isinstance(size, tuple) else np.asarray(size)
        for name, size in weights.items()
    }
    body = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 9
    return bytes(onnx.ModelProto.SerializeToString(model))


def test_a_convolution_with_a_stride():
    node = helper.make_node("Conv", ["image", "w"], ["logits"], strides=[2, 2], pads=[1, 1, 1, 1])
    work = graph_work(graph([node], {"w": (5, 3, 3, 3)}), {"image": (1, 3, 8, 6)})
    assert work == (4 * 3 * 5 * (3 * 9), ())


def test_a_convolution_in_groups_counts_the_inputs_of_its_group():
    node = helper.make_node("Conv", ["image", "w"], ["logits"], group=2)
    work = graph_work(graph([node], {"w": (6, 2, 1, 1)}), {"image": (1, 4, 5, 5)})
    assert work.multiply_adds == 25 * 6 * 2


@pytest.mark.parametrize("group", [1, 2])
def test_a_transposed_convolution(group):
    node = helper.make_node(
        "ConvTranspose", ["image", "w"], ["logits"], group=group, strides=[2, 2]
    )
    work = graph_work(graph([node], {"w": (4, 6 // group, 2, 2)}), {"image": (1, 4, 5, 7)})
    # Each of the inputs goes to 2 x 2 places in each output channel of its group.
    assert work.multiply_adds == 5 * 7 * 4 * (6 // group) * 4


def test_in_three_dimensions():
    node = helper.make_node("Conv", ["image", "w"], ["logits"], pads=[1] * 6)
    content = graph([node], {"w": (2, 1, 3, 3, 3)}, ("n", "c", "i", "j", "k"))
    assert graph_work(content, {"image": (1, 1, 4, 5, 6)}).multiply_adds == 120 * 2 * 27


def test_products_of_matrices():
    flat = helper.make_node("Reshape", ["image", "shape"], ["flat"])
    first = helper.make_node("MatMul", ["flat", "w"], ["h"])
    second = helper.make_node("Gemm", ["h", "v"], ["logits"], transB=1)
    weights = {"shape": np.array([2, 8], np.int64), "w": (8, 5), "v": (3, 5)}
    work = graph_work(graph([flat, first, second], weights), {"image": (1, 1, 4, 4)})
    assert work.multiply_adds == 2 * 8 * 5 + 2 * 5 * 3


def test_shapes_that_the_graph_computes_are_known():
    shape = helper.make_node("Shape", ["image"], ["shape"])
    grown = helper.make_node("Mul", ["shape", "factors"], ["size"])
    tiled = helper.make_node("Expand", ["image", "size"], ["wide"])
    node = helper.make_node("Conv", ["wide", "w"], ["logits"])
    weights = {"factors": np.array([1, 1, 3, 1], np.int64), "w": (2, 1, 1, 1)}
    work = graph_work(graph([shape, grown, tiled, node], weights), {"image": (1, 1, 1, 4)})
    assert work.multiply_adds == 3 * 4 * 2


def test_what_has_no_formula_is_named():
    node = helper.make_node("GridSample", ["image", "grid"], ["logits"])
    work = graph_work(graph([node], {"grid": (1, 4, 4, 2)}), {"image": (1, 1, 8, 8)})
    assert work == (0, ("GridSample",))


def model_of(name: str, path, members: int = 1, shape: tuple[int, ...] = (32, 48), **options):
    flat = {"slice_shape": shape} if len(shape) == 2 else {"volume_shape": shape}
    plan = Plan(labels=("a", "b"), **flat)
    spec = NetworkSpec(name=name, in_channels=1, out_channels=3, options=options)
    generator = torch.Generator().manual_seed(0)
    network = build(name, out_channels=3, generator=generator, **options)
    weights = {key: tensor.numpy() for key, tensor in network.state_dict().items()}
    write_model(path, ModelFile.of(plan, *[Member(spec, weights)] * members))
    return network_cost(name, shape, out_channels=3, options=options)


def exported(path):
    write_model(path, export_model(read_model(path)))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("monet", {"base_filters": 4}),
        ("attention-unet", {"base_filters": 4}),
        ("msd-2d", {"depth": 5}),
    ],
)
def test_the_graph_says_what_pytorch_says(tmp_path, name, options):
    path = tmp_path / "m.leanseg"
    cost = model_of(name, path, **options)
    before = model_facts(path)
    exported(path)
    facts = model_facts(path)
    assert facts.multiply_adds == before.multiply_adds == cost.multiply_adds
    assert facts.uncounted == ()
    assert (facts.parameters, facts.keras_total) == tuple(cost.parameters)
    assert (facts.input_shape, facts.input_kind) == ((32, 48), "slice")
    assert facts.file_bytes == path.stat().st_size > before.file_bytes


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("msd-3d", {"depth": 3}),
        ("obelisk", {"n_offsets": 64}),
        ("obelisk-hybrid-tcia", {"coarse_grid": [3, 6, 3]}),
    ],
)
def test_in_three_dimensions_and_with_layers_between_two_graphs(tmp_path, name, options):
    path = tmp_path / "m.leanseg"
    cost = model_of(name, path, shape=(24, 20, 28), **options)
    exported(path)
    facts = model_facts(path)
    assert facts.multiply_adds == cost.multiply_adds
    assert facts.input_kind == "volume" and facts.parameters == cost.parameters.trainable


def test_members_are_counted_together(tmp_path):
    path = tmp_path / "m.leanseg"
    cost = model_of("monet", path, members=2, base_filters=4)
    facts = model_facts(path)
    assert facts.members == 2
    assert facts.multiply_adds == 2 * cost.multiply_adds
    assert facts.parameters == 2 * cost.parameters.trainable


def test_a_file_without_a_graph_has_no_count_where_pytorch_is_missing(tmp_path, monkeypatch):
    path = tmp_path / "m.leanseg"
    model_of("monet", path, base_filters=4)
    monkeypatch.setattr("leanseg.benchmarking.cost.find_spec", lambda name: None)
    assert model_facts(path).multiply_adds is None


def test_without_pytorch_the_graph_is_enough(tmp_path, monkeypatch):
    path = tmp_path / "m.leanseg"
    cost = model_of("monet", path, base_filters=4)
    exported(path)
    monkeypatch.setattr(
        "leanseg.benchmarking.cost.find_spec", lambda name: name if name == "openvino" else None
    )
    assert model_facts(path).multiply_adds == cost.multiply_adds
