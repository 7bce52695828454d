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

from leanseg.cli.main import build_app
from leanseg.errors import LeansegError
from leanseg.inference import load_model, make_engine
from leanseg.modelfile import Manifest, ModelFile, NetworkSpec, read_model, write_model
from leanseg.networks import build
from leanseg.preprocessing import Plan
from leanseg.training import export
from leanseg.training.export import Agreement, ExportError, Reference, export_model, package
from leanseg.training.quantise import with_int8
from leanseg.training.recipe import load_recipe
from leanseg.training.run import start_run, train
from leanseg.volumes import Volume, write_volume


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
    manifest = Manifest(network=spec, plan=Plan(labels=("a",), slice_shape=(slices, slices)))
    weights = {key: value.numpy() for key, value in network.state_dict().items()}
    write_model(path, manifest, weights)
    return read_model(path)


def blobs() -> np.ndarray:
    coarse = np.random.default_rng(1).random((1, 1, 4, 4), dtype=np.float32)
    return coarse.repeat(8, axis=2).repeat(8, axis=3)


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("packaged") / "m.leanseg"
    lively_model(path)
    package(path, Reference(blobs(), "blobs"))
    return path


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    path = tmp_path / "scan.nii.gz"
    array = np.random.default_rng(0).integers(-500, 500, (40, 40, 5)).astype(np.int16)
    write_volume(path, Volume(array, np.diag([1.0, 1, 3, 1])))
    return path


def run(*arguments: object):
    given = [str(argument) for argument in arguments]
    return CliRunner().invoke(build_app(given[0]), given)


def test_the_record_says_how_it_was_checked(packaged: Path) -> None:
    record = read_model(packaged).manifest.export
    assert record.equal_labels >= 0.9999
    assert record.checked_with.startswith("openvino 20")
    assert record.reference == "blobs"
    assert record.opset == 20


def test_the_graph_holds_no_weights_and_nothing_of_the_machine(packaged: Path) -> None:
    model = read_model(packaged)
    graph = model.exported.graph
    proto = onnx.ModelProto.FromString(graph)
    assert not {each.name for each in proto.graph.initializer} & set(model.weights)
    assert len(graph) < 50_000
    for trace in (b".py", str(Path.home()).encode(), b"site-packages", b"Traceback"):
        assert trace not in graph


def test_the_reference_is_what_every_precision_is_given(packaged: Path) -> None:
    stored = read_model(packaged).exported.reference
    np.testing.assert_array_equal(stored, blobs().astype(np.float16).astype(np.float32))


def test_a_network_whose_export_gives_other_labels_is_not_packaged(
    tmp_path: Path, monkeypatch
) -> None:
    path = tmp_path / "m.leanseg"
    lively_model(path)
    before = path.read_bytes()
    honest = export.export_graph

    def dishonest(network: torch.nn.Module, model: ModelFile) -> bytes:
        # As if the exporter had got a layer wrong.
        proto = onnx.ModelProto.FromString(honest(network, model))
        node = next(node for node in proto.graph.node if node.op_type == "Relu")
        node.op_type = "Neg"
        return proto.SerializeToString()

    monkeypatch.setattr(export, "export_graph", dishonest)
    with pytest.raises(ExportError, match=r"m\.leanseg: .* label for [\d.]+ % of .*99\.99"):
        package(path)
    assert path.read_bytes() == before


def test_every_member_of_an_ensemble_is_checked(tmp_path: Path, monkeypatch) -> None:
    model = lively_model(tmp_path / "m.leanseg")
    weights = {f"{n}/{k}": v for n in range(3) for k, v in model.weights.items()}
    ensemble = replace(
        model, manifest=model.manifest.model_copy(update={"members": 3}), weights=weights
    )
    seen = []

    def compared(member: ModelFile, *_: object, **__: object) -> Agreement:
        seen.append(member)
        return Agreement(1.0 if len(seen) < 3 else 0.99, 1.0)

    monkeypatch.setattr(export, "compare", compared)
    with pytest.raises(ExportError, match=r"99\.000 %"):
        export_model(ensemble)
    assert len(seen) == 3


def test_voxels_are_counted(packaged: Path, monkeypatch) -> None:
    class Other:
        def __init__(self, *_: object, **__: object) -> None:
            self.engine = make_engine(read_model(packaged), "openvino", "f32")

        def run(self, batch: np.ndarray) -> np.ndarray:
            found = self.engine.run(batch)
            found[..., :8, :16] = found[..., :8, :16] <= 0.5
            return found

    monkeypatch.setattr(export, "OpenVINOEngine", Other)
    assert export.compare(read_model(packaged), blobs()) == Agreement(7 / 8, 7 / 8)


def test_training_packages_what_it_made(tmp_path, tiny_dataset, tiny_recipe) -> None:
    settings = ["packaging.export=true", "training.epochs=1"]
    made = start_run(load_recipe(tiny_recipe, settings), tiny_dataset, tmp_path / "run")
    console = Console(record=True, width=200, quiet=False, file=(tmp_path / "log").open("w"))
    (path,) = train(made, console)
    model = read_model(path)
    text = console.export_text()
    assert "the model file holds one slice of grey values" in text
    assert "packaging.reference=none" in text
    assert model.manifest.export.reference.startswith("case ")
    case, number = model.manifest.export.reference.removeprefix("case ").split(", slice ")
    assert case in made.splits[0].validation
    assert model.exported.reference.shape == (1, 1, 24, 24)
    assert model.manifest.provenance.scores
    scan = made.data.case(case).images[0].path
    found = load_model(path, precision="f32").predict(scan).array
    expected = load_model(path, engine="torch", precision="f32").predict(scan).array
    assert load_model(path, precision="f32").predictor.engine.name == "openvino"
    assert (found == expected).mean() >= 0.9999
    assert int(number) < found.shape[2]


def test_no_slice_of_a_scan_in_the_file_where_none_is_wanted(
    tmp_path, tiny_dataset, tiny_recipe
) -> None:
    settings = ["packaging={export: true, reference: none}", "training.epochs=1"]
    made = start_run(load_recipe(tiny_recipe, settings), tiny_dataset, tmp_path / "run")
    (path,) = train(made, Console(quiet=True))
    model = read_model(path)
    assert model.exported is not None
    assert model.exported.reference is None
    assert model.manifest.export.reference == ""


def test_a_network_that_cannot_be_exported_keeps_its_training(
    tmp_path, tiny_dataset, tiny_recipe, monkeypatch
) -> None:
    def refuse(*_: object, **__: object) -> ModelFile:
        msg = "it has a loop"
        raise ExportError(msg)

    monkeypatch.setattr("leanseg.training.finish.export_model", refuse)
    settings = ["packaging.export=true", "training.epochs=1"]
    made = start_run(load_recipe(tiny_recipe, settings), tiny_dataset, tmp_path / "run")
    console = Console(record=True, width=200, file=(tmp_path / "log").open("w"))
    (path,) = train(made, console)
    assert "the model file needs PyTorch to run: it has a loop" in console.export_text()
    assert read_model(path).exported is None


def test_int8_is_made_checked_and_run(packaged: Path, scan: Path) -> None:
    model = with_int8(read_model(packaged))
    share = model.manifest.export.int8_equal_labels
    assert 0.8 < share <= 1
    for engine in ("openvino", "onnxruntime"):
        exact = make_engine(model, engine, "f32").run(blobs())
        found = make_engine(model, engine, "int8").run(blobs())
        assert 0 < np.abs(found - exact).max() < 0.5
    assert len(model.exported.int8) < sum(w.nbytes for w in model.weights.values()) / 2


def test_int8_needs_an_export_and_something_to_calibrate_with(tmp_path: Path) -> None:
    model = lively_model(tmp_path / "m.leanseg")
    with pytest.raises(ExportError, match="export it first"):
        with_int8(model)
    with pytest.raises(ExportError, match="--reference SCAN"):
        with_int8(export_model(model))


class TestCommand:
    def test_an_old_file_learns_to_run_without_pytorch(self, tmp_path: Path, scan: Path) -> None:
        path, plain = tmp_path / "m.leanseg", tmp_path / "m.onnx"
        lively_model(path)
        result = run("export", path, "--reference", scan, "--int8", "--onnx", plain)
        assert result.exit_code == 0, result.output
        assert "reference input: scan.nii.gz, slice " in result.output
        assert "int8: " in result.output
        model = read_model(path)
        assert model.exported.int8
        assert model.exported.reference.shape == (1, 1, 32, 32)
        onnx.checker.check_model(onnx.load(plain))
        runtime = pytest.importorskip("onnxruntime")
        (logits,) = runtime.InferenceSession(plain).run(None, {"image": blobs()})
        expected = make_engine(model, "torch", "f32").run(blobs())
        np.testing.assert_allclose(1 / (1 + np.exp(-logits)), expected, atol=1e-4)

    def test_the_reference_stays_or_goes(self, tmp_path: Path, packaged: Path) -> None:
        kept, gone = tmp_path / "kept.leanseg", tmp_path / "gone.leanseg"
        assert run("export", packaged, "-o", kept).exit_code == 0
        assert read_model(kept).manifest.export.reference == "blobs"
        assert run("export", packaged, "-o", gone, "--no-reference").exit_code == 0
        assert read_model(gone).exported.reference is None
        assert read_model(packaged).exported.reference is not None

    def test_info_tells(self, packaged: Path) -> None:
        output = run("info", packaged).output
        assert "opset" in output
        assert "blobs" in output

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--reference", "no.nii.gz", "--no-reference"], "exclude each other"),
            (["--reference", "no.nii.gz"], "there is no such file"),
        ],
    )
    def test_errors(self, tmp_path: Path, packaged: Path, arguments, said) -> None:
        before = packaged.read_bytes()
        result = run("export", packaged, *arguments)
        assert isinstance(result.exception, LeansegError)
        assert said in str(result.exception)
        assert packaged.read_bytes() == before
