"""Weights put back into a graph: what onnx's own parser makes of the bytes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper, numpy_helper

from leanseg.modelfile import with_weights

TYPES = ["float32", "float16", "int64", "int32", "uint8", "bool"]


def bare_graph(names: list[str]) -> bytes:
    """y = x + each of the names, which are nowhere defined."""
    nodes, last = [], "x"
    for number, name in enumerate(names):
        nodes.append(helper.make_node("Add", [last, name], [f"sum{number}"]))
        last = f"sum{number}"
    ports = [helper.make_tensor_value_info(port, TensorProto.FLOAT, [2, 3]) for port in ("x", last)]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    # The writer of today numbers its format past what the runtime in use may read.
    model.ir_version = 8
    return model.SerializeToString()


@given(
    weights=st.dictionaries(
        st.text(min_size=1, max_size=200),
        st.sampled_from(TYPES).flatmap(
            lambda kind: hnp.arrays(kind, hnp.array_shapes(min_dims=0, max_dims=4, max_side=9))
        ),
        max_size=6,
    )
)
def test_onnx_reads_what_was_put_in(weights: dict[str, np.ndarray]) -> None:
    proto = onnx.ModelProto.FromString(with_weights(bare_graph(list(weights)), weights))
    assert [node.op_type for node in proto.graph.node] == ["Add"] * len(weights)
    found = {each.name: numpy_helper.to_array(each) for each in proto.graph.initializer}
    assert list(found) == list(weights)
    for name, array in weights.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_large_arrays_and_odd_memory_orders() -> None:
    rng = np.random.default_rng(0)
    weights = {
        "a": np.asfortranarray(rng.normal(size=(300, 2, 70)).astype(np.float32)),
        "b": rng.normal(size=(8, 6)).astype(">f4")[::-2],
    }
    proto = onnx.ModelProto.FromString(with_weights(bare_graph(["a", "b"]), weights))
    for each in proto.graph.initializer:
        np.testing.assert_array_equal(numpy_helper.to_array(each), weights[each.name])


def test_a_runtime_computes_with_them() -> None:
    runtime = pytest.importorskip("onnxruntime")
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(size=(2, 3)).astype(np.float32) for name in ("v", "w")}
    session = runtime.InferenceSession(with_weights(bare_graph(["v", "w"]), weights))
    x = rng.normal(size=(2, 3)).astype(np.float32)
    (y,) = session.run(None, {"x": x})
    np.testing.assert_allclose(y, x + weights["v"] + weights["w"], rtol=1e-6)
