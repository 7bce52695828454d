"""Graphs that take images of any size, against PyTorch on several sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from leanseg.inference.engines.openvino_import import import_openvino
from leanseg.modelfile import Member, NetworkSpec
from leanseg.modelfile.graph import INPUT, with_weights
from leanseg.networks import build
from leanseg.training.export_graph import export_graph

# One block along an axis, square, and longer one way than the other.
SIZES = ((16, 48), (64, 64), (96, 32))
NARROW: dict[str, Any] = {"base_filters": 8}


def slow(*values: Any) -> Any:
    """Tracing takes as long for a few filters as for many."""
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        slow("unet-16", {"dropout": 0.0}),  # as a stage of tests/training/test_cascade.py
        slow("multiscale-unet", NARROW),
        ("localised-unet", NARROW),
        slow("tumour-network", NARROW),
        slow("tumour-network", NARROW | {"attention": "printed"}),
        slow("tumour-network", NARROW | {"features": "encoder"}),
        slow("tumour-network", NARROW | {"focusing": "false-positives"}),
        slow("tumour-network", NARROW | {"focusing": "false-negatives"}),
    ],
)
def test_one_graph_for_every_size(name: str, options: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(0)
    network = build(name, in_channels=2, out_channels=1, generator=generator, **options).eval()
    weights = {key: value.numpy() for key, value in network.state_dict().items()}
    spec = NetworkSpec(name=name, in_channels=2, out_channels=1, options=options)
    # The sizes of this shape do not matter.
    graph = export_graph(network, Member(spec, weights), (1, 2, 512, 512), dynamic=16)
    content = with_weights(graph, weights)

    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, session_options)
    core = import_openvino().Core()
    compiled = core.compile_model(
        core.read_model(content),
        "CPU",
        {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1},
    )
    for size in SIZES:
        images = torch.rand(1, 2, *size, generator=generator)
        with torch.no_grad():
            expected = network(images).numpy()
        assert expected.shape == (1, 1, *size)
        for found in (session.run(None, {INPUT: images.numpy()})[0], compiled(images.numpy())[0]):
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.ptp(expected))
