"""The model file: round trip, sealed against any change, readable by any zip tool."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import pickletools
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import ValidationError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

import plans
from leanseg.errors import LeansegError, ModelFileError
from leanseg.modelfile import (
    Exported,
    ExportRecord,
    Member,
    ModelFile,
    NetworkSpec,
    Provenance,
    RobustnessRecord,
    SamplingLayer,
    read_model,
    write_model,
)
from leanseg.modelfile.manifest import Manifest

NETWORK = NetworkSpec(name="monet", in_channels=1, out_channels=1, options={"dropout": 0.2})
PLAN = plans.slices(labels=("pancreas",))


def single(arrays: dict[str, np.ndarray] | None = None, **changes) -> ModelFile:
    arrays = weights() if arrays is None else arrays
    return ModelFile.of(PLAN, Member(NETWORK, arrays, **changes))


def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "enc.weight": rng.normal(size=(4, 1, 3, 3)).astype(np.float32),
        "bn.num_batches_tracked": np.array(7, dtype=np.int64),
        "bn.bias": np.zeros(4, np.float32),
    }


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.leanseg"
    write_model(path, single())
    return path


def test_round_trip(model: Path) -> None:
    read = read_model(model)
    assert (read.plan, read.path) == (PLAN, model)
    (member,) = read.members
    assert (member.network, member.exported, member.path) == (NETWORK, None, model)
    for name, array in weights().items():
        np.testing.assert_array_equal(member.weights[name], array)
        assert member.weights[name].dtype == array.dtype


def test_stages_and_members_keep_their_order_weights_and_graphs(tmp_path: Path) -> None:
    layer = SamplingLayer(offsets="o", weight="w", groups=1, grid=(2, 3, 4))
    sampled = Exported(b"second", ExportRecord(opset=20, sampling=(layer,)), b"first")
    wide = NetworkSpec(name="unet", in_channels=1, out_channels=1)
    first = tuple(Member(wide, {"w": np.full(2, n, np.float32)}) for n in range(2))
    last = (
        Member(NETWORK, {"w": np.full(3, 7, np.float32)}, sampled),
        Member(NETWORK, {}, Exported(b"graph", ExportRecord(opset=18))),
    )
    coarse = plans.slices(labels=("a",), channels=PLAN.channels, name="coarse").final
    plan = PLAN.model_copy(update={"stages": (coarse, PLAN.final)})
    model = ModelFile(plan, {"coarse": first, "main": last})
    written = write_model(tmp_path / "m.leanseg", model)
    read = read_model(tmp_path / "m.leanseg")
    assert list(read.stages) == ["coarse", "main"]
    assert read.manifest == written.manifest
    assert [each.weights["w"].tolist() for each in read.stages["coarse"]] == [[0, 0], [1, 1]]
    assert [each.exported for each in read.members] == [each.exported for each in last]
    assert len(read.networks) == 4
    assert not read.is_exported


def test_any_zip_tool_reads_it(model: Path) -> None:
    with zipfile.ZipFile(model) as archive:
        assert archive.testzip() is None
        assert json.loads(archive.read("manifest.json"))["plan"]["channels"] == ["CT"]
        arrays = load_safetensors(archive.read("main/0/weights.safetensors"))
    np.testing.assert_array_equal(arrays["enc.weight"], weights()["enc.weight"])


def test_there_is_no_pickle_in_it(model: Path) -> None:
    with zipfile.ZipFile(model) as archive:
        for name in archive.namelist():
            with pytest.raises(ValueError, match=r"."):
                list(pickletools.genops(archive.read(name)))


def test_same_model_same_bytes(model: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.leanseg"
    write_model(again, single(dict(reversed(weights().items()))))
    assert again.read_bytes() == model.read_bytes()


def test_every_altered_byte_is_noticed(model: Path, tmp_path: Path) -> None:
    content = bytearray(model.read_bytes())
    target = tmp_path / "altered.leanseg"
    positions = [*range(0, len(content), 37), *range(len(content) - 200, len(content))]
    for position in positions:
        content[position] ^= 1
        target.write_bytes(content)
        with pytest.raises(ModelFileError, match=r"altered|not a leanseg|cut off"):
            read_model(target)
        content[position] ^= 1


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_cut_file_is_refused(model: Path, tmp_path: Path, share: float) -> None:
    content = model.read_bytes()
    target = tmp_path / "cut.leanseg"
    target.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelFileError, match=r"cut\.leanseg"):
        read_model(target)


def test_other_files_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    with pytest.raises(ModelFileError, match=r"notes\.txt: is not a leanseg model file"):
        read_model(text)
    with pytest.raises(ModelFileError, match="cannot be read"):
        read_model(tmp_path / "absent.leanseg")
    with pytest.raises(ModelFileError, match="cannot be read"):
        read_model(tmp_path)


def test_a_full_disk_leaves_nothing_behind(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = model.read_bytes()

    def full(self: Path, content: bytes) -> None:
        with self.open("wb") as stream:
            stream.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(LeansegError, match=r"model\.leanseg: the disk is full"):
        write_model(model, single())
    assert [path.name for path in tmp_path.iterdir()] == ["model.leanseg"]
    assert model.read_bytes() == before


@settings(max_examples=25, deadline=None)
@given(
    arrays=st.dictionaries(
        st.text(min_size=1, max_size=12, alphabet=st.characters(codec="ascii", categories=["L"])),
        hnp.arrays(
            st.sampled_from([np.float32, np.float16, np.int64, np.uint8]),
            hnp.array_shapes(min_dims=0, max_dims=4, max_side=3),
            elements=st.integers(0, 9),
        ),
        max_size=5,
    )
)
def test_any_weights_come_back(tmp_path_factory: pytest.TempPathFactory, arrays) -> None:
    path = tmp_path_factory.mktemp("model") / "m.leanseg"
    write_model(path, single(arrays))
    read = read_model(path).members[0].weights
    assert set(read) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].dtype == array.dtype


@pytest.mark.parametrize(
    ("inputs", "outputs", "labels"), [(2, 1, ("a",)), (1, 2, ("a",)), (1, 1, ("a", "b"))]
)
def test_a_network_that_does_not_fit_its_plan(tmp_path, inputs, outputs, labels) -> None:
    network = NetworkSpec(name="monet", in_channels=inputs, out_channels=outputs)
    model = ModelFile.of(plans.slices(labels=labels), Member(network, {}))
    with pytest.raises(ValidationError, match="the plan asks for 1 and"):
        write_model(tmp_path / "m.leanseg", model)


def test_a_sealed_file_of_a_newer_version_names_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "newer.leanseg"
    dump = Manifest.model_dump_json
    monkeypatch.setattr(
        Manifest,
        "model_dump_json",
        lambda self, **options: dump(self, **options).replace('"plan": {', '"plan": {"new": 1,'),
    )
    write_model(path, single())
    with pytest.raises(ModelFileError, match=r"newer\.leanseg: is sealed .* \('plan\.new': Extra"):
        read_model(path)


def test_a_file_of_before_splits_had_three_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its validation cases chose the epoch: nothing may call them test cases."""
    path = tmp_path / "former.leanseg"
    dump = Manifest.model_dump_json

    def former(self: Manifest, **options) -> str:
        content = json.loads(dump(self, **options))
        del content["provenance"]["monitor_cases"], content["provenance"]["test_cases"]
        content["provenance"]["validation_cases"] = ["c", "d"]
        return json.dumps(content)

    monkeypatch.setattr(Manifest, "model_dump_json", former)
    provenance = Provenance(training_cases=("a", "b"), scores={"pancreas": 0.75})
    write_model(path, ModelFile.of(PLAN, Member(NETWORK, weights()), provenance=provenance))
    with zipfile.ZipFile(path) as archive:
        assert b"validation_cases" in archive.read("manifest.json")
    read = read_model(path).provenance
    assert (read.training_cases, read.monitor_cases, read.test_cases) == (
        ("a", "b"),
        ("c", "d"),
        (),
    )
    assert read.scores == {"pancreas": 0.75}


def test_an_entry_that_swells_beyond_reason_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.leanseg"
    write_model(path, single(exported=Exported(bytes(200 << 20), ExportRecord(opset=20))))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(ModelFileError, match="would swell to 209"):
        read_model(path)


def sealed(body: bytes) -> bytes:
    """Anybody can seal anything."""
    return body[:-64] + hashlib.sha256(body[:-64]).hexdigest().encode()


def rewritten(model: Path, change) -> bytes:
    """The model file with other entries: `change` gets name to (content, method)."""
    with zipfile.ZipFile(model) as archive:
        entries = [(name, archive.read(name), zipfile.ZIP_STORED) for name in archive.namelist()]
        comment = archive.comment
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, content, method in change(entries):
            archive.writestr(name, content, method)
        archive.comment = comment
    return sealed(buffer.getvalue())


def with_manifest(text: str):
    def change(entries):
        yield ("manifest.json", text, zipfile.ZIP_DEFLATED)
        yield from entries[1:]

    return change


def other_weights(entries):
    changed = {**weights(), "bn.bias": np.ones(4, np.float32)}
    yield entries[0]
    yield (entries[1][0], save_safetensors(changed), zipfile.ZIP_STORED)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (with_manifest(" " * (40 << 20)), "would swell to 419"),
        (with_manifest("[" * 100_000), "recursion|Invalid JSON"),
        (with_manifest('{"version": ' + "9" * 5000 + "}"), "version"),
        (with_manifest("\xff\0"), "Invalid JSON"),
        (with_manifest("{}"), "plan"),
        (lambda entries: entries[:1], "no item named 'main/0/weights.safetensors'"),
        (lambda entries: [*entries, entries[1]], "same name"),
        (lambda entries: [(n, c, zipfile.ZIP_LZMA) for n, c, _ in entries], "packed in a way"),
        (lambda entries: [entries[0], (entries[1][0], b"x" * 99, 0)], "header too large"),
        (other_weights, "are not those whose SHA-256"),
    ],
)
def test_sealed_by_somebody_else(model: Path, change, why: str) -> None:
    model.write_bytes(rewritten(model, change))
    with pytest.raises(ModelFileError, match=why) as caught:
        read_model(model)
    assert str(caught.value).startswith(f"{model}: is sealed")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


def test_an_entry_that_shares_its_bytes_with_thousands_is_not_unpacked(model: Path) -> None:
    """Each of them swells by less than is refused for one."""
    entries = [(f"{n}", bytes(1 << 20), zipfile.ZIP_DEFLATED) for n in range(60)]
    model.write_bytes(rewritten(model, lambda old: [*old, *entries]))
    with pytest.raises(ModelFileError, match="would swell"):
        read_model(model)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_no_damage_that_is_sealed_again_does_harm(model: Path, tmp_path: Path, data) -> None:
    """Flags, methods, offsets, names: refused in a sentence, or read as it was."""
    content = bytearray(model.read_bytes())
    # Most of what zipfile believes lies in the directory at the end.
    ends = st.integers(len(content) - 320, len(content) - 65) | st.integers(4, len(content) - 65)
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(ends)] = data.draw(
            st.sampled_from([0, 1, 127, 255]) | st.integers(0, 255)
        )
    path = tmp_path / "changed.leanseg"
    path.write_bytes(sealed(bytes(content)))
    try:
        read = read_model(path)
    except ModelFileError as error:
        assert "\n" not in str(error)
    else:
        for name, array in weights().items():
            np.testing.assert_array_equal(read.members[0].weights[name], array)


def test_neither_a_device_nor_another_zip_file_is_a_model_file(tmp_path: Path) -> None:
    """A checkpoint of PyTorch is a zip file too."""
    with zipfile.ZipFile(tmp_path / "weights.pth", "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    with pytest.raises(ModelFileError, match="is not a leanseg model file"):
        read_model(tmp_path / "weights.pth")
    with pytest.raises(ModelFileError, match="it is a pipe or a device, not a file"):
        read_model(Path("/dev/zero"))


def test_robustness_goes_with_the_model_and_without_it_files_are_as_they_were(
    model: Path, tmp_path: Path
) -> None:
    record = RobustnessRecord(
        data_name="Task99",
        data_fingerprint="ab" * 32,
        n_cases=3,
        seed=0,
        dice={"pancreas": 0.8},
        differences={"noise": {"pancreas": {"20 HU": -0.1, "40 HU": None}}},
    )
    plain = read_model(model)
    told = replace(plain, provenance=plain.provenance.model_copy(update={"robustness": record}))
    write_model(tmp_path / "told.leanseg", told)
    again = read_model(tmp_path / "told.leanseg")
    assert again.provenance.robustness == record
    assert '"robustness"' not in plain.manifest.model_dump_json()
    bare = replace(again, provenance=again.provenance.model_copy(update={"robustness": None}))
    write_model(tmp_path / "bare.leanseg", bare)
    assert (tmp_path / "bare.leanseg").read_bytes() == model.read_bytes()
