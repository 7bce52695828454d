"""Input that is wrong in ways that hospitals' files are: one sentence, or a defined result."""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import plans
from leanseg.modelfile import Member, ModelFile, NetworkSpec, read_model, write_model
from leanseg.plan import Plan

SHAPE = (20, 18, 7)


def predict(model: Path, scan: Path, output: Path, *options: object) -> list[object]:
    return ["predict", model, scan, "--output", output, "--precision", "f32", *options]


def combiner_model(path: Path, side: int) -> ModelFile:
    """A network that is exported in a moment, for slices of some size."""
    import torch

    from leanseg.networks import build
    from leanseg.training import package

    options = {"base_filters": 4, "instance_norm": True}
    network = build("combiner", generator=torch.Generator().manual_seed(2), **options)
    weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    spec = NetworkSpec(name="combiner", in_channels=1, out_channels=1, options=options)
    write_model(path, ModelFile.of(plans.slices((side, side)), Member(spec, weights)))
    package(path)
    return read_model(path)


# --- Exported networks that are damaged ----------------------------------------------------------


def written(path: Path, model: ModelFile, **changes) -> Path:
    """A model file whose seal is right and whose content is not."""
    write_model(path, ModelFile.of(model.plan, replace(model.members[0], **changes)))
    return path


def without(member: Member, name: str) -> dict[str, np.ndarray]:
    return {key: array for key, array in member.weights.items() if key != name}


FIRST = "encoder1.conv.conv.weight"


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
@pytest.mark.parametrize(
    "graph",
    [
        lambda graph: b"",
        lambda graph: b"This is no graph. " * 50,
        lambda graph: bytes(len(graph)),
        lambda graph: graph[: len(graph) // 2],
        lambda graph: graph.replace(b"conv2d_3", b"conv2d_\xe5", 1),
        lambda graph: graph.replace(b"image", b"picto"),
    ],
    ids=["empty", "text", "zeros", "half", "no text", "renamed"],
)
def test_a_graph_that_is_none(
    leanseg, exported: Path, make_scan, tmp_path: Path, graph, engine: str
) -> None:
    model = read_model(exported)
    whole = model.members[0].exported
    damaged = replace(whole, graph=graph(whole.graph))
    bad = written(tmp_path / "bad.leanseg", model, exported=damaged)
    scan = make_scan(tmp_path / "ct.nii.gz")
    outcome = leanseg(*predict(bad, scan, tmp_path / "out", "--engine", engine))
    outcome.assert_refused("bad.leanseg: its exported network", "export")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
@pytest.mark.parametrize(
    "weights",
    [
        lambda member: without(member, FIRST),
        lambda member: {},
        lambda member: {**member.weights, FIRST: member.weights[FIRST][:, :, :2]},
        lambda member: {**member.weights, "head.0.weight": member.weights["head.0.weight"][:, :2]},
        lambda member: {**member.weights, FIRST: member.weights[FIRST].astype(np.float16)},
    ],
    ids=["one missing", "all missing", "another kernel", "other channels", "half precision"],
)
def test_weights_that_do_not_fit_the_graph(
    leanseg, exported: Path, make_scan, tmp_path: Path, weights, engine: str
) -> None:
    model = read_model(exported)
    bad = written(tmp_path / "bad.leanseg", model, weights=weights(model.members[0]))
    scan = make_scan(tmp_path / "ct.nii.gz")
    outcome = leanseg(*predict(bad, scan, tmp_path / "out", "--engine", engine))
    outcome.assert_refused("bad.leanseg: its exported network", "export")


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime", "torch"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda array: np.full_like(array, np.nan), "NaN or infinity is among them"),
        (lambda array: array / np.float32(0), "NaN or infinity is among them"),
        (lambda array: array.astype(np.float64), "type float64"),
        # This one ends the process inside OpenVINO.
        (lambda array: np.zeros(0, dtype=np.float32), "shape (0,)"),
    ],
    ids=["nan", "infinite", "double", "empty"],
)
def test_weights_that_are_no_numbers(
    leanseg, exported: Path, make_scan, tmp_path: Path, change, said: str, engine: str
) -> None:
    model = read_model(exported)
    with np.errstate(all="ignore"):
        weights = dict(model.members[0].weights)
        weights[FIRST] = change(weights[FIRST])
    bad = written(tmp_path / "bad.leanseg", model, weights=weights)
    scan = make_scan(tmp_path / "ct.nii.gz")
    outcome = leanseg(*predict(bad, scan, tmp_path / "out", "--engine", engine))
    outcome.assert_refused(f"bad.leanseg: its weights '{FIRST}' cannot be used", said)


def test_a_graph_of_another_network(leanseg, exported, make_scan, tmp_path: Path) -> None:
    model = read_model(exported)
    scan = make_scan(tmp_path / "ct.nii.gz")
    onnx = pytest.importorskip("onnx")
    graph = onnx.load_from_string(model.members[0].exported.graph)
    for node in graph.graph.node:
        if node.op_type == "Conv":
            node.op_type = "ConvTranspose"
    exports = {
        "swapped": replace(model.members[0].exported, graph=graph.SerializeToString()),
        "none": None,
    }
    bad = written(tmp_path / "swapped.leanseg", model, exported=exports["swapped"])
    outcome = leanseg(*predict(bad, scan, tmp_path / "out", "--engine", "openvino"))
    outcome.assert_refused("swapped.leanseg: its exported network cannot be used")
    # One that has none says how to come by one.
    bad = written(tmp_path / "none.leanseg", model, exported=exports["none"])
    outcome = leanseg(*predict(bad, scan, tmp_path / "out", "--engine", "openvino"))
    outcome.assert_refused("holds no exported network", "leanseg export", "--engine torch")


def test_a_graph_for_other_slices_serves_as_well(leanseg, make_scan, tmp_path: Path) -> None:
    """The shape is the plan's."""
    own, other = (combiner_model(tmp_path / f"{side}.leanseg", side) for side in (32, 64))
    scan = make_scan(tmp_path / "ct.nii.gz")
    good = written(tmp_path / "good.leanseg", own, exported=other.members[0].exported)
    assert leanseg(*predict(good, scan, tmp_path / "good")).status == 0
    assert leanseg(*predict(tmp_path / "32.leanseg", scan, tmp_path / "full")).status == 0
    found, expected = (tmp_path / name / "ct.nii.gz" for name in ("good", "full"))
    assert 0 < np.asarray(nib.load(found).dataobj).mean() < 1
    assert found.read_bytes() == expected.read_bytes()


def test_files_beside_the_model_are_not_read(
    leanseg, exported: Path, make_scan, tmp_path: Path
) -> None:
    """A graph may say that its weights lie in any file of the machine."""
    onnx = pytest.importorskip("onnx")
    model = read_model(exported)
    graph = onnx.load_from_string(model.members[0].exported.graph)
    tensor = graph.graph.initializer.add()
    tensor.name, tensor.data_type = FIRST, onnx.TensorProto.FLOAT
    tensor.dims.extend(model.members[0].weights[FIRST].shape)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"
    bad = written(
        tmp_path / "bad.leanseg",
        model,
        weights=without(model.members[0], FIRST),
        exported=replace(model.members[0].exported, graph=graph.SerializeToString()),
    )
    scan = make_scan(tmp_path / "ct.nii.gz")
    for engine in ("openvino", "onnxruntime"):
        outcome = leanseg(*predict(bad, scan, tmp_path / "out", "--engine", engine))
        outcome.assert_refused("bad.leanseg: its exported network cannot be used")


def test_any_damage_is_told(leanseg, exported: Path, make_scan, tmp_path: Path) -> None:
    """Bytes of the graph flipped or cut, under a right seal: a sentence, or a mask."""
    model = read_model(exported)
    scan = make_scan(tmp_path / "ct.nii.gz")
    rng = np.random.default_rng(20240229)
    refused = 0
    for number in range(25):
        graph = bytearray(model.members[0].exported.graph)
        for _ in range(int(rng.integers(1, 4))):
            graph[int(rng.integers(len(graph)))] ^= 1 << int(rng.integers(8))
        damaged = replace(model.members[0].exported, graph=bytes(graph))
        bad = written(tmp_path / "bad.leanseg", model, exported=damaged)
        engine = ("openvino", "onnxruntime")[number % 2]
        options = ("--engine", engine, "--overwrite")
        outcome = leanseg(*predict(bad, scan, tmp_path / "out", *options))
        if outcome.status:
            refused += 1
            outcome.assert_refused("bad.leanseg: its exported network")
    assert refused > 10


def test_a_network_past_every_memory(leanseg, exported, make_scan, tmp_path: Path) -> None:
    model = read_model(exported)
    spec = model.members[0].network.model_copy(update={"options": {"base_filters": 10**9}})
    bad = written(tmp_path / "bad.leanseg", model, network=spec)
    scan = make_scan(tmp_path / "ct.nii.gz")
    outcome = leanseg(*predict(bad, scan, tmp_path / "out", "--engine", "torch"))
    outcome.assert_refused("bad.leanseg: its network cannot be built")


@pytest.mark.parametrize(
    "harm",
    [
        lambda manifest: manifest.replace('"weights_sha256": "', '"weights_sha256": "0'),
        lambda manifest: manifest.replace('"plan": {', '"plan": {"new": 1,'),
        lambda manifest: manifest.replace('"base_filters": 4', '"base_filters": ' + "9" * 5000),
        lambda manifest: manifest + " " * (40 << 20),
        lambda manifest: "[" * 10_000,
    ],
)
def test_every_command_refuses_a_model_that_somebody_else_sealed(
    leanseg, model: Path, make_scan, tmp_path: Path, harm, listing
) -> None:
    scan, bad, new = make_scan(tmp_path / "in.nii"), tmp_path / "bad.leanseg", tmp_path / "new"
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(model) as old,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name in old.namelist():
            content = old.read(name)
            changed = harm(content.decode()) if name == "manifest.json" else content
            archive.writestr(name, changed)
        archive.comment = old.comment
    body = buffer.getvalue()[:-64]
    bad.write_bytes(body + hashlib.sha256(body).hexdigest().encode())
    before = listing(tmp_path)
    for command in (
        ["info", bad], ["info", bad, "--json"], ["predict", bad, scan, "-o", new],
        ["export", bad], ["ensemble", model, bad, "-o", new / "m.leanseg"],
        ["benchmark", bad, "--scan", scan], ["activations", bad, scan, "-o", new],
    ):  # fmt: skip
        leanseg(*command).assert_refused(f"{bad}: is sealed")
    assert listing(tmp_path) == before


# --- Engines and precisions that are not there ---------------------------------------------------


# --- Scans ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("array", "label"),
    [
        (np.full(SHAPE, -1024, np.int16), "air"),
        (np.zeros(SHAPE, np.int16), "zeros"),
        (np.full(SHAPE, 55.5, np.float32), "constant"),
        (np.full(SHAPE, -32768, np.int16), "padding"),
    ],
    ids=["air", "zeros", "constant", "padding"],
)
@pytest.mark.parametrize("scaling", ["minmax", "zscore"])
def test_nothing_in_the_scan(
    leanseg, make_model, make_scan, tmp_path: Path, array, label, scaling
) -> None:
    """A constant scan is zeros to the network, whatever the constant: one defined mask."""
    model = make_model(tmp_path / "m.leanseg", plans.slices(scaling=scaling))
    for name, voxels in (("a", array), ("b", np.full(SHAPE, 7, np.int16))):
        make_scan(tmp_path / f"{name}.nii.gz", voxels)
    outcome = leanseg(
        "predict", model, tmp_path / "a.nii.gz", tmp_path / "b.nii.gz", "-o", tmp_path / "out"
    )
    assert outcome.status == 0, outcome.err
    masks = [np.asarray(nib.load(tmp_path / "out" / f"{n}.nii.gz").dataobj) for n in "ab"]
    assert masks[0].shape == SHAPE
    np.testing.assert_array_equal(*masks)


def test_no_body_where_the_abdomen_is_looked_for(leanseg, make_scan, tmp_path: Path, rng) -> None:
    plan = plans.whole((16, 16, 16), ("liver", "spleen"), around="abdomen")
    model = volume_model(tmp_path / "abdomen.leanseg", plan)
    scan = make_scan(tmp_path / "air.nii.gz", np.full((40, 40, 30), -1024, np.int16))
    outcome = leanseg(*predict(model, scan, tmp_path / "out"))
    outcome.assert_refused("air.nii.gz: there is no body in this scan", "CT in HU")
    far = np.diag([1e6, 1e6, 1e6, 1.0])
    scan = make_scan(tmp_path / "far.nii.gz", rng.integers(0, 80, (40, 40, 30), np.int16), far)
    outcome = leanseg(*predict(model, scan, tmp_path / "out"))
    outcome.assert_refused("far.nii.gz: there is no body where the abdomen should be", "spacing")


def test_a_scan_of_kilometres(leanseg, make_scan, tmp_path: Path, rng) -> None:
    """In the network's spacing it would have more voxels than any memory holds."""
    plan = plans.patches((16, 16, 8), ("liver", "spleen"), spacing_mm=(2, 2, 2))
    model = volume_model(tmp_path / "patches.leanseg", plan)
    far = np.diag([1e5, 1e3, 1.0, 1.0])
    scan = make_scan(tmp_path / "far.nii.gz", rng.integers(0, 80, SHAPE, np.int16), far)
    outcome = leanseg(*predict(model, scan, tmp_path / "out"))
    outcome.assert_refused("far.nii.gz", "by its header")


def volume_model(path: Path, plan: Plan) -> Path:
    import torch

    from leanseg.networks import build

    network = build("msd-3d", depth=2, out_channels=3, generator=torch.Generator().manual_seed(0))
    weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    spec = NetworkSpec(name="msd-3d", in_channels=1, out_channels=3, options={"depth": 2})
    write_model(path, ModelFile.of(plan, Member(spec, weights)))
    return path


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 3, 1), (1, 9, 9), (9, 1, 9), (64, 60, 1)])
def test_tiny_scans(leanseg, exported, make_scan, tmp_path: Path, rng, shape) -> None:
    scan = make_scan(tmp_path / "ct.nii.gz", rng.integers(-500, 500, shape, np.int16))
    outcome = leanseg(*predict(exported, scan, tmp_path / "out"))
    assert outcome.status == 0, outcome.err
    assert nib.load(tmp_path / "out" / "ct.nii.gz").shape == shape


def test_a_scan_of_one_slice_is_that_slice(
    leanseg, exported, make_scan, tmp_path: Path, rng
) -> None:
    """Alone or among others: with the same extremes a slice is the same to the network."""
    array = rng.integers(-500, 500, (30, 28, 5), np.int16)
    array[0, :2] = [[-500], [500]]
    many = make_scan(tmp_path / "many.nii.gz", array)
    one = make_scan(tmp_path / "one.nii.gz", array[:, :, 2:3])
    outcome = leanseg("predict", exported, many, one, "-o", tmp_path / "out", "--precision", "f32")
    assert outcome.status == 0, outcome.err
    masks = [
        np.asarray(nib.load(tmp_path / "out" / f"{n}.nii.gz").dataobj) for n in ("many", "one")
    ]
    np.testing.assert_array_equal(masks[0][:, :, 2:3], masks[1])
    assert 0 < masks[1].mean() < 1


def test_a_huge_slice(leanseg, exported: Path, make_scan, tmp_path: Path, rng) -> None:
    scan = make_scan(tmp_path / "ct.nii", rng.integers(-500, 500, (2048, 2048, 2), np.int16))
    outcome = leanseg(*predict(exported, scan, tmp_path / "out"))
    assert outcome.status == 0, outcome.err
    assert nib.load(tmp_path / "out" / "ct.nii.gz").shape == (2048, 2048, 2)


def with_header(path: Path, at: int, form: str, *values: float) -> Path:
    """Fields of the 348 bytes overwritten, whatever is in there."""
    content = bytearray(path.read_bytes())
    struct.pack_into(form, content, at, *values)
    path.write_bytes(content)
    return path


NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize("qform", [0, 1])
@pytest.mark.parametrize(
    ("spacing", "said"),
    [
        ((0, 0.8, 2), "spacing of 0 mm along axis 1 of 3; write the true spacing"),
        ((0.8, 0.8, 0), "spacing of 0 mm along axis 3 of 3"),
        ((0.8, NAN, 2), "the affine is not a finite 4 x 4 matrix"),
        ((0.8, 0.8, INFINITE), "the affine is not a finite 4 x 4 matrix"),
        ((1e-20, 1e-20, 1e-20), "determinant zero"),
        ((1e20, 1, 1), "leads far away"),
    ],
)
def test_spacing_that_is_none(
    leanseg, exported: Path, make_scan, tmp_path: Path, spacing, said: str, qform: int
) -> None:
    scan = make_scan(tmp_path / "ct.nii")
    with_header(scan, 80, "<3f", *spacing)
    with_header(scan, 252, "<2h", qform, 0)
    outcome = leanseg(*predict(exported, scan, tmp_path / "out"))
    outcome.assert_refused("ct.nii: ", said, "export the scan again")
    outcome = leanseg("info", scan)
    outcome.assert_refused(said)


def test_spacing_that_is_negative_is_taken_as_positive(
    leanseg, exported: Path, make_scan, tmp_path: Path
) -> None:
    """Without a place in the world its sign says nothing; nibabel does the same."""
    scan = with_header(make_scan(tmp_path / "ct.nii"), 80, "<3f", -0.8, 0.8, -2)
    with_header(scan, 252, "<2h", 0, 0)
    outcome = leanseg(*predict(exported, scan, tmp_path / "out"))
    assert outcome.status == 0, outcome.err
    found = nib.load(tmp_path / "out" / "ct.nii.gz")
    np.testing.assert_allclose(np.abs(np.diag(found.affine)), [0.8, 0.8, 2, 1], rtol=1e-6)


def test_spacing_that_nobody_uses_may_be_zero(
    leanseg, exported: Path, make_scan, tmp_path: Path
) -> None:
    """Where the sform says where voxels lie, pixdim plays no part."""
    scan = with_header(make_scan(tmp_path / "ct.nii"), 80, "<3f", 0, 0, 0)
    assert leanseg(*predict(exported, scan, tmp_path / "out")).status == 0


@pytest.mark.parametrize(
    ("dims", "said"),
    [
        ((3, 2048, 2048, 600, 1, 1, 1, 1), "holds fewer voxels than its header says"),
        ((3, 32767, 32767, 32767, 1, 1, 1, 1), "holds fewer voxels than its header says"),
        ((3, -5, 18, 7, 1, 1, 1, 1), "without an empty axis"),
        ((3, 0, 18, 7, 1, 1, 1, 1), "without an empty axis"),
        ((2, 20, 18, 7, 1, 1, 1, 1), "expected a 3-D volume"),
        ((4, 20, 18, 1, 7, 1, 1, 1), "7 channel(s) are given, but the network needs 1 (CT)"),
    ],
)
def test_headers_that_lie(leanseg, exported, make_scan, tmp_path: Path, dims, said) -> None:
    for name in ("ct.nii", "ct.nii.gz"):
        scan = with_header(make_scan(tmp_path / "plain.nii"), 40, "<8h", *dims)
        if name.endswith(".gz"):
            import gzip

            (tmp_path / name).write_bytes(gzip.compress(scan.read_bytes()))
        else:
            scan.rename(tmp_path / name)
        outcome = leanseg(*predict(exported, tmp_path / name, tmp_path / "out"))
        outcome.assert_refused(f"{name}: ", said)
