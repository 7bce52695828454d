"""Engines that run the exported network, against PyTorch."""

from __future__ import annotations

import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from openvino import Core

import plans
from leanseg.errors import MissingDependencyError, ModelFileError, RecipeError
from leanseg.inference import load_model, make_engine
from leanseg.inference.engines import base
from leanseg.inference.engines.activation import sigmoid, softmax
from leanseg.inference.engines.tta import augmented
from leanseg.modelfile import (
    Exported,
    Member,
    ModelFile,
    NetworkSpec,
    read_model,
    write_model,
)
from leanseg.networks import build
from leanseg.training.export import export_model

ENGINES = ("openvino", "onnxruntime")
SHAPE = (32, 48)
NETWORKS = {
    "monet": {"base_filters": 4},
    "unet": {"base_filters": 4},
    "attention-unet": {"base_filters": 4},
    "msd-2d": {"depth": 6},
}
# Exporting takes seconds; of both U-Nets one is enough for every run of the tests.
EXPORTED = [
    pytest.param(name, marks=[pytest.mark.slow] * (name == "attention-unet")) for name in NETWORKS
]
# Exported in a moment, for tests of what lies around the network.
QUICK = {"combiner": {"base_filters": 8}}


def lively(name: str, in_channels: int, out_channels: int, seed: int) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    network = build(
        name,
        in_channels=in_channels,
        out_channels=out_channels,
        generator=generator,
        **(NETWORKS | QUICK)[name],
    )
    if name == "msd-2d":
        # Its last layer starts at zero.
        for parameter in network.parameters():
            parameter.data.normal_(0, 0.3, generator=generator)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.3, 2, generator=generator)
    return network.eval()


def model_of(
    name: str, in_channels: int = 1, n_labels: int = 1, members: int = 1, regions: bool = False
) -> ModelFile:
    labels = tuple(f"label {n}" for n in range(n_labels))
    channels = tuple(f"channel {n}" for n in range(in_channels))
    inside = dict(pairwise(labels)) if regions else {}
    plan = plans.slices(SHAPE, labels, channels=channels, inside=inside)
    networks = [lively(name, in_channels, plan.final.n_outputs, seed) for seed in range(members)]
    spec = NetworkSpec(
        name=name,
        in_channels=in_channels,
        out_channels=plan.final.n_outputs,
        options=(NETWORKS | QUICK)[name],
        activation=plan.final.activation,
    )
    path = Path("m.leanseg")
    weights = [{k: v.numpy() for k, v in each.state_dict().items()} for each in networks]
    return ModelFile.of(plan, *(Member(spec, each, path=path) for each in weights), path=path)


def changed(model: ModelFile, **changes) -> ModelFile:
    """The model with something else in its one network."""
    return ModelFile.of(model.plan, replace(model.members[0], **changes))


def graph(model: ModelFile, content: bytes) -> Exported:
    """The model's export with another graph."""
    return replace(model.members[0].exported, graph=content)


@cache
def exported_model(
    name: str, in_channels: int = 1, n_labels: int = 1, members: int = 1, regions: bool = False
):
    return export_model(model_of(name, in_channels, n_labels, members, regions))


def blobs(in_channels: int = 1, n: int = 3) -> np.ndarray:
    rng = np.random.default_rng(1)
    coarse = rng.random((n, in_channels, SHAPE[0] // 8, SHAPE[1] // 8), dtype=np.float32)
    return coarse.repeat(8, axis=2).repeat(8, axis=3)


def of_two_channels(name: str) -> ModelFile:
    """Of each network one, for the tests of all."""
    return exported_model(name, 2, 3 if name == "unet" else 1)


@pytest.fixture(scope="module")
def exported() -> ModelFile:
    return export_model(model_of("combiner"))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", EXPORTED)
def test_probabilities_are_those_of_pytorch(name: str, engine: str) -> None:
    model = of_two_channels(name)
    batch = blobs(2)
    expected = make_engine(model, name="torch", precision="f32").run(batch)
    found = make_engine(model, name=engine, precision="f32").run(batch)
    assert found.dtype == np.float32
    assert np.ptp(expected) > 0.05
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("engine", [*ENGINES, "torch"])
def test_regions_have_a_sigmoid_each(engine: str) -> None:
    model = exported_model("combiner", 1, 3, 2, regions=True)
    batch = blobs()
    ensemble = make_engine(model, name=engine)
    with torch.no_grad():
        expected = [
            lively("combiner", 1, 3, seed)(torch.from_numpy(batch)).sigmoid().numpy()
            for seed in (0, 1)
        ]
    assert expected[0].sum(axis=1).max() > 1.1
    np.testing.assert_allclose(ensemble.run(batch), np.mean(expected, axis=0), atol=1e-4)
    mirrored = augmented(ensemble, "flips", 2, 3)
    views = [batch, batch[:, :, ::-1], batch[..., ::-1], batch[:, :, ::-1, ::-1]]
    seen = [ensemble.run(np.ascontiguousarray(view)) for view in views]
    back = [seen[0], seen[1][:, :, ::-1], seen[2][..., ::-1], seen[3][:, :, ::-1, ::-1]]
    np.testing.assert_allclose(mirrored.run(batch), np.mean(back, axis=0), atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_one_graph_serves_all_members_of_an_ensemble(engine: str) -> None:
    model = exported_model("combiner", members=3)
    batch = blobs()
    ensemble = make_engine(model, name=engine, precision="f32")
    assert ensemble.passes == 3
    alone = [
        make_engine([member], name=engine, input_shape=batch.shape).run(batch)
        for member in model.members
    ]
    assert np.abs(alone[0] - alone[1]).max() > 0.01
    np.testing.assert_allclose(ensemble.run(batch), np.mean(alone, axis=0), atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("threads", "lanes"), [(1, None), (2, None), (2, 1), (3, 2)])
def test_threads_may_call_it_at_the_same_time(exported, engine, threads, lanes) -> None:
    made = make_engine(exported, name=engine, precision="f32", threads=threads, lanes=lanes)
    assert made.lanes == (lanes or threads)
    batches = [blobs(n=1) + np.float32(n / 16) for n in range(16)]
    single = make_engine(exported, name=engine, precision="f32", threads=1)
    alone = [single.run(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        for found, expected in zip(pool.map(made.run, batches), alone, strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_results_are_the_callers_own(exported, engine: str) -> None:
    made = make_engine(exported, name=engine, precision="f32", threads=1)
    first = made.run(blobs(n=1))
    kept = first.copy()
    made.run(1 - blobs(n=1))
    np.testing.assert_array_equal(first, kept)
    first += 1


def test_reduced_precision_is_really_used(exported) -> None:
    capabilities = Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if "BF16" not in capabilities:
        with pytest.raises(RecipeError, match="does not compute in bf16"):
            make_engine(exported, name="openvino", precision="bf16")
        return
    exact = make_engine(exported, name="openvino", precision="f32").run(blobs())
    found = make_engine(exported, name="openvino", precision="bf16").run(blobs())
    assert 0 < np.abs(found - exact).max() < 0.3


@pytest.mark.parametrize(
    ("engine", "precision", "said"),
    [
        ("onnxruntime", "bf16", "choose f32, or --engine openvino"),
        ("openvino", "f64", "'f64' is not known; choose one of: f32, bf16, f16"),
        ("openvin", "f32", "engine 'openvin' is not known; choose one of: auto, openvino"),
    ],
)
def test_what_cannot_be_had_is_refused(exported, engine, precision, said) -> None:
    with pytest.raises(RecipeError, match=said):
        make_engine(exported, name=engine, precision=precision)


def test_auto_prefers_openvino(exported) -> None:
    assert make_engine(exported, precision="f32").name == "openvino"
    assert make_engine(changed(exported, exported=None), precision="f32").name == "torch"


@pytest.mark.parametrize(
    ("engine", "hint"),
    [
        ("openvino", "pip install 'openvino'"),
        ("onnxruntime", r"pip install 'leanseg\[onnx\]'"),
        ("torch", r"pip install 'leanseg\[train\]'"),
    ],
)
def test_an_engine_that_is_not_installed_names_what_to_install(
    monkeypatch, exported, engine, hint
) -> None:
    monkeypatch.setattr("leanseg.errors.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=hint):
        make_engine(exported, name=engine, precision="f32")


def test_a_file_without_export_on_a_machine_without_pytorch(monkeypatch, exported) -> None:
    real = base.find_spec
    monkeypatch.setattr(base, "find_spec", lambda name: None if name == "torch" else real(name))
    with pytest.raises(MissingDependencyError, match="leanseg export"):
        make_engine(changed(exported, exported=None))


@pytest.mark.parametrize("engine", ENGINES)
class TestDamaged:
    def refused(self, model: ModelFile, engine: str) -> None:
        with pytest.raises(ModelFileError, match=r"m\.leanseg: .*leanseg export"):
            make_engine(model, name=engine, precision="f32").run(blobs(n=1))

    def test_no_export(self, exported, engine) -> None:
        self.refused(changed(exported, exported=None), engine)

    def test_nonsense(self, exported, engine) -> None:
        self.refused(changed(exported, exported=graph(exported, b"no graph at all")), engine)

    def test_empty(self, exported, engine) -> None:
        self.refused(changed(exported, exported=graph(exported, b"")), engine)

    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
    def test_cut(self, exported, engine, share) -> None:
        whole = exported.members[0].exported.graph
        cut = graph(exported, whole[: int(share * len(whole))])
        self.refused(changed(exported, exported=cut), engine)

    def test_a_weight_is_missing(self, exported, engine) -> None:
        weights = dict(exported.members[0].weights)
        del weights["body.0.weight"]
        self.refused(changed(exported, weights=weights), engine)

    def test_the_graph_of_another_network(self, exported, engine) -> None:
        other = of_two_channels("unet")
        self.refused(changed(exported, exported=other.members[0].exported), engine)

    def test_the_graph_of_another_plan(self, exported, engine) -> None:
        spec = exported.members[0].network.model_copy(update={"out_channels": 4})
        self.refused(changed(exported, network=spec), engine)

    def test_an_input_of_another_shape(self, exported, engine) -> None:
        with pytest.raises(ModelFileError, match=r"m\.leanseg: .*leanseg export"):
            make_engine(exported, name=engine, input_shape=(1, 2, 32, 48))


def test_the_model_file_keeps_it_all(tmp_path: Path, exported) -> None:
    path = tmp_path / "m.leanseg"
    write_model(path, exported)
    read = read_model(path)
    assert read.members[0].exported == exported.members[0].exported
    assert load_model(path, precision="f32").engine.name == "openvino"
    with zipfile.ZipFile(path) as archive:
        # The weights are there once: the graph's entry is small.
        sizes = {info.filename: info.compress_size for info in archive.infolist()}
    assert sizes["main/0/network.onnx"] < 20_000
    before = path.read_bytes()
    write_model(path, exported)
    assert path.read_bytes() == before


def test_the_result_ends_in_probabilities(rng) -> None:
    logits = rng.normal(0, 30, (2, 4, 3, 5)).astype(np.float32)
    logits[0, :, 0, 0] = [1000, -1000, 999, 0]
    one, several = torch.from_numpy(logits[:, :1]), torch.from_numpy(logits)
    np.testing.assert_allclose(sigmoid(logits[:, :1].copy()), one.sigmoid(), atol=1e-6)
    np.testing.assert_allclose(softmax(logits.copy()), several.softmax(1), atol=1e-6)


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("network", EXPORTED)
def test_memory_is_told_of_every_network(name: str, network: str) -> None:
    """Its input and its output are there at the same time, at least."""
    model = of_two_channels(network)
    engine = make_engine(model, name=name, threads=1)
    assert engine.memory_bytes() > 4 * (2 + model.plan.final.n_outputs) * SHAPE[0] * SHAPE[1]
