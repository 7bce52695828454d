"""Packaging: what is exported is checked, and what fails the check is not packaged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

import plans
from leanseg.cli.main import build_app
from leanseg.inference import load_model, make_engine
from leanseg.modelfile import Member, ModelFile, NetworkSpec, read_model, write_model
from leanseg.networks import build
from leanseg.training import export, package
from leanseg.training.export import ExportError, export_model
from leanseg.training.export_graph import export_graph
from leanseg.training.recipe import load_recipe
from leanseg.training.run import start_run, train_run


def lively_model(path: Path, name: str = "unet", slices: int = 32) -> ModelFile:
    generator = torch.Generator().manual_seed(0)
    options = {"base_filters": 8}
    network = build(name, in_channels=1, out_channels=1, generator=generator, **options)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.3, 2, generator=generator)
    with torch.no_grad():
        # Half of what it sees is foreground.
        logits = network.eval()(torch.from_numpy(blobs()))
        list(network.parameters())[-1].sub_(logits.median())
    spec = NetworkSpec(name=name, in_channels=1, out_channels=1, options=options)
    plan = plans.slices((slices, slices), ("a",))
    weights = {key: value.numpy() for key, value in network.state_dict().items()}
    return write_model(path, ModelFile.of(plan, Member(spec, weights, path=path)))


def blobs() -> np.ndarray:
    coarse = np.random.default_rng(1).random((1, 1, 4, 4), dtype=np.float32)
    return coarse.repeat(8, axis=2).repeat(8, axis=3)


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("packaged") / "m.leanseg"
    lively_model(path)
    package(path)
    return path


def run(*arguments: object):
    given = [str(argument) for argument in arguments]
    return CliRunner().invoke(build_app(given[0]), given)


def test_the_record_says_how_it_was_checked(packaged: Path) -> None:
    record = read_model(packaged).members[0].exported.record
    assert record.equal_labels >= 0.9999
    assert record.checked_with.startswith("openvino 20")
    assert record.opset == 20


def test_the_graph_holds_no_weights_and_nothing_of_the_machine(packaged: Path) -> None:
    (member,) = read_model(packaged).members
    graph = member.exported.graph
    proto = onnx.ModelProto.FromString(graph)
    assert not {each.name for each in proto.graph.initializer} & set(member.weights)
    assert len(graph) < 50_000
    for trace in (b".py", str(Path.home()).encode(), b"site-packages", b"Traceback"):
        assert trace not in graph


def test_nor_does_that_of_a_network_of_monais() -> None:
    network = build("residual-unet", base_filters=2)
    weights = {key: value.numpy() for key, value in network.state_dict().items()}
    member = Member(NetworkSpec(name="residual-unet", in_channels=1, out_channels=1), weights)
    graph = onnx.ModelProto.FromString(export_graph(network, member, (1, 1, 32, 32))).graph
    named = {name for node in graph.node for name in node.input}
    assert not {each.name for each in graph.initializer} & set(weights)
    assert set(weights) <= named


def test_a_network_whose_export_gives_other_labels_is_not_packaged(
    tmp_path: Path, monkeypatch
) -> None:
    path = tmp_path / "m.leanseg"
    lively_model(path)
    before = path.read_bytes()
    honest = export.export_graph

    def dishonest(network: torch.nn.Module, *arguments: object) -> bytes:
        # As if the exporter had got a layer wrong.
        proto = onnx.ModelProto.FromString(honest(network, *arguments))
        node = next(node for node in proto.graph.node if node.op_type == "Relu")
        node.op_type = "Neg"
        return proto.SerializeToString()

    monkeypatch.setattr(export, "export_graph", dishonest)
    with pytest.raises(ExportError, match=r"m\.leanseg: .* label for [\d.]+ % of .*99\.99"):
        package(path)
    assert path.read_bytes() == before


def test_every_member_of_an_ensemble_is_checked(tmp_path: Path, monkeypatch) -> None:
    """The graph, which they share, was made from the first alone."""
    model = lively_model(tmp_path / "m.leanseg")
    (member,) = model.members
    weights = {name: np.flip(array) for name, array in member.weights.items()}
    second = replace(member, weights=weights)
    made = export_model(ModelFile.of(model.plan, member, second))
    assert made.is_exported
    seen = []

    def compared(found: np.ndarray, expected: np.ndarray, *_: object) -> tuple[float, float]:
        seen.append(expected)
        return (1.0 if len(seen) < 2 else 0.99), 1.0

    monkeypatch.setattr(export, "agreement", compared)
    with pytest.raises(ExportError, match=r"99\.000 %"):
        export_model(ModelFile.of(model.plan, member, second))
    assert np.abs(seen[0] - seen[1]).max() > 0.01


def test_voxels_are_counted(rng) -> None:
    expected = rng.random((1, 1, 32, 32), dtype=np.float32)
    found = expected.copy()
    found[..., :8, :16] = 1 - found[..., :8, :16]
    found[..., 0, 31] += 0.005
    equal_labels, close = export.agreement(found, expected)
    assert equal_labels == pytest.approx(7 / 8, abs=0.001)
    assert close == pytest.approx(7 / 8, abs=0.01)


def test_of_regions_every_one_has_to_agree(rng) -> None:
    expected = rng.random((1, 3, 32, 32), dtype=np.float32)
    found = expected.copy()
    # The highest stays the highest, but one region is lost and another found.
    found[:, :, :8] *= 0.5 / found[:, :, :8].max(axis=1, keepdims=True)
    changed = ((found > 0.5) != (expected > 0.5)).any(axis=1)
    assert 0 < changed.mean() < 1
    assert export.agreement(found, expected)[0] == 1
    assert export.agreement(found, expected, "sigmoid")[0] == pytest.approx(1 - changed.mean())
    changed = ((found > 0.8) != (expected > 0.8)).any(axis=1)
    assert export.agreement(found, expected, "sigmoid", 0.8)[0] == pytest.approx(1 - changed.mean())


def test_training_packages_what_it_made(tmp_path, tiny_dataset, tiny_recipe) -> None:
    settings = ["packaging.export=true", "phases.0.epochs=1"]
    made = start_run(load_recipe(tiny_recipe, settings), tiny_dataset, tmp_path / "run")
    (path,) = train_run(made, Console(quiet=True))
    model = read_model(path)
    assert model.provenance.scores
    case = made.splits[0].test[0]
    scan = made.data.case(case).images[0].path
    found = load_model(path, precision="f32").predict(scan).array
    expected = load_model(path, engine="torch", precision="f32").predict(scan).array
    assert load_model(path, precision="f32").engine.name == "openvino"
    assert (found == expected).mean() >= 0.9999


def test_a_network_that_cannot_be_exported_keeps_its_training(
    tmp_path, tiny_dataset, tiny_recipe, monkeypatch
) -> None:
    def refuse(*_: object, **__: object) -> ModelFile:
        msg = "it has a loop"
        raise ExportError(msg)

    monkeypatch.setattr("leanseg.training.finish.export_model", refuse)
    settings = ["packaging.export=true", "phases.0.epochs=1"]
    made = start_run(load_recipe(tiny_recipe, settings), tiny_dataset, tmp_path / "run")
    console = Console(record=True, width=200, file=(tmp_path / "log").open("w"))
    (path,) = train_run(made, console)
    assert "the model file needs PyTorch to run: it has a loop" in console.export_text()
    assert not read_model(path).is_exported


class TestCommand:
    def test_an_old_file_learns_to_run_without_pytorch(self, tmp_path: Path) -> None:
        path, plain = tmp_path / "m.leanseg", tmp_path / "m.onnx"
        lively_model(path)
        result = run("export", path, "--onnx", plain)
        assert result.exit_code == 0, result.output
        assert "% of the labels as from PyTorch" in result.output
        model = read_model(path)
        onnx.checker.check_model(onnx.load(plain))
        runtime = pytest.importorskip("onnxruntime")
        (logits,) = runtime.InferenceSession(plain).run(None, {"image": blobs()})
        expected = make_engine(model, name="torch", precision="f32").run(blobs())
        np.testing.assert_allclose(1 / (1 + np.exp(-logits)), expected, atol=1e-4)

    def test_info_tells(self, packaged: Path) -> None:
        output = run("info", packaged).output
        assert "opset: 20" in output
