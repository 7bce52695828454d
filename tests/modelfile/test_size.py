from __future__ import annotations

import numpy as np
import pytest

from leanseg.modelfile import Manifest, NetworkSpec, write_model
from leanseg.modelfile.size import model_file_bytes
from leanseg.preprocessing import Plan


def manifest(name: str, outputs: int, **options) -> Manifest:
    labels = tuple(f"größe {number}" for number in range(1, max(outputs, 2)))
    spec = NetworkSpec(name=name, in_channels=1, out_channels=outputs, options=options)
    return Manifest(network=spec, plan=Plan(labels=labels))


@pytest.mark.parametrize(
    ("name", "outputs"), [("monet", 1), ("monet", 4), ("attention-unet-16", 3)]
)
def test_is_the_size_of_the_file(tmp_path, name, outputs):
    from leanseg.networks import build
    from leanseg.networks.measure import network_cost

    made = manifest(name, outputs)
    arrays = {key: t.numpy() for key, t in build(name, out_channels=outputs).state_dict().items()}
    write_model(tmp_path / "model", made, arrays)
    cost = network_cost(name, out_channels=outputs)
    assert model_file_bytes(made, cost.weights) == (tmp_path / "model").stat().st_size


@pytest.mark.parametrize("length", range(8))
def test_every_padding_and_type(tmp_path, length):
    arrays = {
        "z" * length: np.zeros((2, 3), np.float32),
        "scalar": np.zeros((), np.int64),
        "none": np.zeros((0, 4), np.float64),
        "flags": np.zeros(5, np.bool_),
        "half": np.zeros(7, np.float16),
    }
    made = manifest("monet", 1)
    write_model(tmp_path / "model", made, arrays)
    weights = {key: (str(array.dtype), array.shape) for key, array in arrays.items()}
    assert model_file_bytes(made, weights) == (tmp_path / "model").stat().st_size
