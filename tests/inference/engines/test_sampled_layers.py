"""Networks with sparse deformable layers, without PyTorch: two graphs and the layers between."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

import plans
from leanseg.errors import ModelFileError
from leanseg.inference.engines.onnxruntime_engine import ONNXRuntimeEngine
from leanseg.inference.engines.openvino_engine import OpenVINOEngine
from leanseg.inference.engines.torch_engine import TorchEngine
from leanseg.modelfile import Member, ModelFile, NetworkSpec, SamplingLayer, read_model, write_model
from leanseg.networks import build
from leanseg.plan import LinearScaling
from leanseg.training.export import export_model

LABELS = ("spleen", "pancreas", "liver")
# Network, options, spatial shape, how many layers lie between the graphs.
CASES = {
    "hybrid TCIA": ("obelisk-hybrid-tcia", {"coarse_grid": [3, 6, 3]}, (24, 20, 28), 2),
    "hybrid VISCERAL": ("obelisk-hybrid-visceral", {}, (20, 15, 24), 2),
    "original": ("obelisk", {"n_offsets": 64}, (20, 15, 24), 1),
    "frozen offsets": ("obelisk-random", {"n_offsets": 32}, (16, 16, 16), 1),
    "none": ("dense-vnet", {}, (16, 16, 16), 0),
}


def model(name, options, shape) -> ModelFile:
    generator = torch.Generator().manual_seed(3)
    network = build(name, out_channels=4, generator=generator, **options).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.4, 1.5, generator=generator)
            module.weight.data.uniform_(0.7, 1.6, generator=generator)
            module.bias.data.normal_(0, 0.3, generator=generator)
    plan = plans.whole(shape, LABELS, scaling=LinearScaling())
    spec = NetworkSpec(name=name, in_channels=1, out_channels=4, options=options)
    weights = {key: tensor.numpy() for key, tensor in network.state_dict().items()}
    return ModelFile.of(plan, Member(spec, weights))


@pytest.fixture(scope="module")
def packaged(tmp_path_factory):
    """Model files, exported and read again."""
    folder, made = tmp_path_factory.mktemp("models"), {}

    def get(case) -> ModelFile:
        if case not in made:
            name, options, shape, _ = CASES[case]
            exported = export_model(model(name, options, shape))
            path = folder / f"{case}.leanseg"
            write_model(path, exported)
            made[case] = read_model(path)
        return made[case]

    return get


def case_of(name: str):
    """Networks without these layers are exported by the tests of tiles and of groups, too."""
    slow = name in ("hybrid VISCERAL", "none")
    return pytest.param(name, marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize("case", [case_of(name) for name in CASES])
def test_engines_give_pytorchs_probabilities(case, packaged, rng):
    file, shape = packaged(case), CASES[case][2]
    image = rng.normal(0, 3, (2, 1, *shape)).astype(np.float32)
    (member,) = file.members
    expected = TorchEngine.of_member(member, image.shape).run(image)
    # Equal would mean little if the image did not matter.
    assert np.ptp(expected, axis=(2, 3, 4)).max() > 5e-3
    assert len(member.exported.record.sampling) == CASES[case][3]
    for engine in (OpenVINOEngine(member, image.shape), ONNXRuntimeEngine(member, image.shape)):
        found = engine.run(image)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert engine.scout() is engine


def test_a_layers_weights_are_in_the_file_once(packaged):
    (member,) = packaged("hybrid TCIA").members
    layer = member.exported.record.sampling[0]
    assert (layer.offsets, layer.grid) == ("coarse.layer.offsets", (3, 6, 3))
    offsets = member.weights[layer.offsets].tobytes()
    assert offsets not in member.exported.graph + member.exported.sampled


def damaged(member: Member, part: str) -> Member:
    exported = member.exported
    layers = exported.record.sampling
    if part == "its first part":
        return replace(member, exported=replace(exported, sampled=None))
    if part == "weights 'fine.layer.weight'":
        weights = {k: v for k, v in member.weights.items() if k != "fine.layer.weight"}
        return replace(member, weights=weights)
    changed = {"layers": layers[:1], "grid": (layers[0].model_copy(update={"grid": (3, 3, 3)}),)}
    record = exported.record.model_copy(
        update={"sampling": changed[part] + layers[1:] if part == "grid" else changed[part]}
    )
    return replace(member, exported=replace(exported, record=record))


@pytest.mark.parametrize("engine", [OpenVINOEngine, ONNXRuntimeEngine])
@pytest.mark.parametrize(
    "part", ["its first part", "weights 'fine.layer.weight'", "layers", "grid"]
)
def test_parts_that_are_missing_or_do_not_fit(part, engine, packaged):
    message = {"layers": "it takes|takes", "grid": "it takes|takes"}.get(part, part)
    with pytest.raises(ModelFileError, match=message):
        engine(damaged(packaged("hybrid TCIA").members[0], part), (1, 1, *CASES["hybrid TCIA"][2]))


@pytest.mark.parametrize("engine", [OpenVINOEngine, ONNXRuntimeEngine])
@pytest.mark.parametrize(
    ("changes", "weights"),
    [
        ({"groups": 7}, {}),
        ({"groups": 10**6}, {}),
        ({"weight": "absent"}, {}),
        ({}, {"offsets": (64, 3, 3)}),
        ({}, {"offsets": (64, 2, 2)}),
        ({}, {"offsets": (5, 2, 3)}),
        ({}, {"offsets": (64,)}),
        ({}, {"weight": (4, 4)}),
        ({}, {"weight": (4,)}),
    ],
)
def test_layers_that_would_read_past_an_array(changes, weights, engine, packaged):
    """Compiled loops do not look where an array ends."""
    (member,) = packaged("original").members
    (layer,) = member.exported.record.sampling
    arrays = dict(member.weights)
    arrays |= {getattr(layer, key): np.zeros(size, np.float32) for key, size in weights.items()}
    record = member.exported.record.model_copy(
        update={"sampling": (layer.model_copy(update=changes),)}
    )
    member = replace(member, weights=arrays, exported=replace(member.exported, record=record))
    image = np.zeros((1, 1, *CASES["original"][2]), np.float32)
    with pytest.raises(ModelFileError, match="leanseg export"):
        engine(member, image.shape).run(image)


@pytest.mark.parametrize("size", [0, -1, 10**9])
def test_a_grid_of_no_size(size, packaged):
    (member,) = packaged("original").members
    facts = member.exported.record.sampling[0].model_dump() | {"grid": (4, size, 4)}
    with pytest.raises(ValidationError, match="grid"):
        SamplingLayer(**facts)


def test_memory_comes_back_and_results_stay(packaged, rng):
    file, shape = packaged("hybrid TCIA"), CASES["hybrid TCIA"][2]
    engine = OpenVINOEngine(file.members[0], (1, 1, *shape))
    first, second = rng.normal(size=(2, 1, 1, *shape)).astype(np.float32)
    result = engine.run(first)
    kept = result.copy()
    engine.release()
    other = engine.run(second)
    np.testing.assert_array_equal(result, kept)
    assert not np.array_equal(other, kept)
    np.testing.assert_array_equal(engine.run(first), kept)
