from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leanseg.errors import FileFormatError
from leanseg.networks import build
from leanseg.networks.blocks import resized
from leanseg.networks.obelisk_import import LAYOUTS, read_obelisk_checkpoint
from leanseg.networks.obelisk_layer import halved
from obelisk_checkpoint import checkpoint


@pytest.fixture(scope="session")
def reference(shared_data: Path) -> Path:
    """The authors' checkpoints and what their code computes with them."""
    folder = shared_data.parent / "reference" / "obelisk"
    if not folder.is_dir():
        pytest.skip(f"the reference outputs are not at {folder}")
    return folder


def published_input(folder: Path, name: str) -> torch.Tensor:
    """What the authors' networks read: HU scaled (README of the reference)."""
    if "tcia" in name:
        scan = nib.load(folder / "ircad01" / "input_144.nii.gz")
        return torch.from_numpy(np.asarray(scan.dataobj, dtype=np.float32))[None, None] / 1024 + 1
    scan = np.load(folder / "ircad01" / "input_visceral.npz")["hu"].astype(np.float32)
    return torch.from_numpy(scan)[None, None] / (1000 if "hybrid" in name else 500)


@pytest.mark.parametrize(
    "name",
    [
        "obeliskhybrid_tcia_fold1",
        # The same layout with other weights.
        *(
            pytest.param(f"obeliskhybrid_tcia_fold{fold}", marks=pytest.mark.slow)
            for fold in (2, 3, 4)
        ),
        "obeliskhybrid_visceral_fold1",
        "obelisk_visceral_fold1",
    ],
)
def test_published_networks_give_the_published_outputs(reference, name):
    network, options, weights = read_obelisk_checkpoint(reference / "weights" / f"{name}.pth")
    model = build(network, **options).eval()
    model.load_state_dict(weights)
    images = published_input(reference, name)
    with torch.inference_mode():
        if network == "obelisk":  # the authors stop at half the resolution
            quarter = model.on(images, halved(images.shape[2:], 2))
            logits = resized(quarter, halved(images.shape[2:]))[0].numpy()
        else:
            logits = model(images)[0].numpy()
    with np.load(reference / "ircad01" / f"{name}.npz") as expected:
        assert np.mean(logits.argmax(0) == expected["labels"]) >= 0.9999
        step = int(expected["stride"])
        np.testing.assert_allclose(
            logits[:, ::step, ::step, ::step], expected["logits"], rtol=0, atol=1e-3
        )


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.network)
def test_every_layout_is_recognised_and_complete(layout, tmp_path):
    state, network = checkpoint(layout)
    torch.save(state, tmp_path / "some.pth")
    name, options, weights = read_obelisk_checkpoint(tmp_path / "some.pth")
    assert (name, options["out_channels"]) == (layout.network, 3)
    torch.testing.assert_close(weights, dict(network.state_dict()), rtol=0, atol=0)
    build(name, **options).load_state_dict(weights)


class Harmful:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_pickle_with_code_is_refused_and_not_run(tmp_path):
    state, _ = checkpoint(LAYOUTS[2])
    mark = tmp_path / "harm"
    torch.save({**state, "extra": Harmful(mark)}, tmp_path / "bad.pth")
    with pytest.raises(FileFormatError, match=r"bad\.pth is refused.*more than tensors"):
        read_obelisk_checkpoint(tmp_path / "bad.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Harmful(mark)))
    with pytest.raises(FileFormatError, match=r"plain\.pth"):
        read_obelisk_checkpoint(tmp_path / "plain.pth")
    assert not mark.exists()


def test_whole_module_is_refused(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(FileFormatError, match="save its state_dict alone"):
        read_obelisk_checkpoint(tmp_path / "module.pth")


def changed(**entries):
    state, _ = checkpoint(LAYOUTS[2])
    for key, value in entries.items():
        key = key.replace("__", ".")
        if value is None:
            del state[key]
        else:
            state[key] = value
    return state


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "none of the published OBELISK networks"),
        ({"conv1.weight": torch.zeros(2)}, "begin with conv1.*obelisk-hybrid-tcia"),
        (torch.zeros(3), "does not hold named tensors"),
        ({"epoch": 3}, "does not hold named tensors"),
        (changed(LIN2__weight=torch.zeros(128, 200, 1, 1, 1)), r"'LIN2\.weight'.*128, 200"),
        (changed(offset1=torch.zeros(1, 1024, 1, 1, 3)), r"'offset1' has the shape"),
        (changed(BN1__running_mean=None), "lacks entries.*norm1.running_mean"),
        (changed(LIN4__bias=None), "out|lacks|shape"),
        (changed(BN1__other=torch.zeros(1)), r"'BN1\.other'.*no such entry"),
        (changed(LIN4__bias=torch.zeros(())), "shape"),
    ],
)
def test_other_checkpoints(state, message, tmp_path):
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(FileFormatError, match=message):
        read_obelisk_checkpoint(tmp_path / "other.pth")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (changed(LIN4__bias=torch.zeros(3, dtype=torch.int64)), "int64"),
        (changed(BN1__num_batches_tracked=torch.tensor(0.5)), "float32"),
        (changed(LIN4__bias=torch.zeros(3).to_sparse()), "does not hold named tensors"),
        (changed(LIN4__bias=torch.zeros(8, device="meta")), "does not hold named tensors"),
    ],
)
def test_tensors_of_other_kinds(state, message, tmp_path):
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(FileFormatError, match=message):
        read_obelisk_checkpoint(tmp_path / "other.pth")


def test_a_checkpoint_that_swells_is_not_unpacked(tmp_path):
    torch.save({"LIN4.bias": torch.zeros(10**6)}, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    with pytest.raises(FileFormatError, match=r"bomb\.pth cannot be read"):
        read_obelisk_checkpoint(tmp_path / "bomb.pth")


def test_no_file(tmp_path):
    with pytest.raises(FileFormatError, match=r"none\.pth is not a file"):
        read_obelisk_checkpoint(tmp_path / "none.pth")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damaged_files_are_refused_in_one_sentence(data, tmp_path):
    path = tmp_path / "damaged.pth"
    torch.save({"LIN4.bias": torch.zeros(8)}, path)
    content = bytearray(path.read_bytes())
    kind = data.draw(st.sampled_from(["cut", "bytes", "noise"]))
    if kind == "cut":
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    elif kind == "noise":
        content = bytearray(data.draw(st.binary(max_size=200)))
    else:
        for _ in range(data.draw(st.integers(1, 8))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"damaged\.pth"):
        read_obelisk_checkpoint(path)
