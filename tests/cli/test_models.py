"""`leanseg models`: a list, a model fetched from a folder, and its name in other commands."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from leanseg.volumes import read_volume

ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")


@pytest.fixture
def models(tmp_path, monkeypatch) -> Path:
    """This user's own folder for models, which is not there yet."""
    folder = tmp_path / "user" / "models"
    monkeypatch.setattr("leanseg.modelfile.names.model_folder", lambda: folder)
    monkeypatch.setattr("leanseg.modelfile.model_folder", lambda: folder)
    return folder


def signed(folder: Path, file: Path, **changes) -> tuple[str, Path, str, Path, str, Path]:
    """Options for a signed list of one model file."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    content = file.read_bytes()
    listed = {
        "name": file.name,
        "url": "https://example.org/m",
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    listing = {
        "name": "ours",
        "organs": ["pancreas"],
        "modality": "CT",
        "licence": "CC BY 4.0",
        "source": "https://example.org",
        "paper": "none",
        "files": [listed | changes],
    }
    index, key = folder / "list.json", folder / "list.pub"
    text = json.dumps({"format": "leanseg-models", "version": 1, "models": [listing]}).encode()
    private = ed25519.Ed25519PrivateKey.generate()
    public = private.public_key()
    index.write_bytes(text)
    (folder / "list.json.sig").write_bytes(private.sign(text))
    key.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return "--index", index, "--key", key, "--from", file.parent


def test_the_list_says_what_there_is(leanseg, models):
    outcome = leanseg("models")
    assert outcome.status == 0
    for said in ("obelisk-tcia", "duodenum", "MIT", "3.8 MB", "github.com", "not fetched", "4337"):
        assert said in outcome.out
    assert not models.parent.exists()


def test_a_fetched_model_goes_by_its_name(leanseg, models, model, make_scan, tmp_path):
    options = signed(tmp_path, model)
    outcome = leanseg("models", "get", "ours", *options)
    assert outcome.status == 0, outcome.err
    assert "CC BY 4.0" in outcome.out
    assert [path.name for path in models.iterdir()] == ["ours.leanseg"]
    assert (models / "ours.leanseg").read_bytes() == model.read_bytes()
    assert str(models) in leanseg("models", *options).out

    scan = make_scan(tmp_path / "ct.nii.gz")
    for given, folder in (("ours", "a"), (model, "b")):
        assert leanseg("predict", given, scan, "--output", tmp_path / folder).status == 0
    by_name, by_path = (read_volume(tmp_path / folder / "ct.nii.gz").array for folder in "ab")
    np.testing.assert_array_equal(by_name, by_path)
    assert "ours.leanseg" in leanseg("info", "ours").out
    leanseg("models", "get", "ours", *options).assert_refused("ours.leanseg: already exists")
    # Elsewhere, for a computer that several use.
    assert leanseg("models", "get", "ours", *options, "--models", tmp_path / "all").status == 0
    assert (tmp_path / "all" / "ours.leanseg").exists()


def test_what_is_wrong_leaves_nothing(leanseg, models, model, tmp_path):
    newer = tmp_path / "newer" / "m.leanseg"
    newer.parent.mkdir()
    _as_version_2(model, newer)
    cut = tmp_path / "cut" / model.name
    cut.parent.mkdir()
    cut.write_bytes(model.read_bytes()[:-1])
    for file, changes, said in (
        (newer, {}, "m.leanseg: is sealed as a model file but this version of leanseg cannot"),
        (model, {"sha256": "0" * 64}, "nothing was kept"),
        (cut, {}, "no seal"),
    ):
        outcome = leanseg("models", "get", "ours", *signed(tmp_path, file, **changes))
        assert outcome.status == 2
        assert said in outcome.err
        assert ".writing" not in outcome.err
        assert len(outcome.err.splitlines()) == 1
        assert not models.exists() or not list(models.iterdir())


def _as_version_2(model: Path, path: Path) -> None:
    """A sealed model file whose manifest is of another version."""
    content = model.read_bytes()
    assert content.count(b'"version": 1,\n  "plan"') == 1
    body = content.replace(b'"version": 1,\n  "plan"', b'"version": 2,\n  "plan"')[:-64]
    # The archive's own checksum of the manifest, in both of its headers.
    import zipfile
    import zlib

    with zipfile.ZipFile(model) as archive:
        manifest, old = archive.read("manifest.json"), archive.getinfo("manifest.json").CRC
    changed = manifest.replace(b'"version": 1,\n  "plan"', b'"version": 2,\n  "plan"')
    crc = zlib.crc32(changed).to_bytes(4, "little")
    body = body.replace(old.to_bytes(4, "little"), crc)
    path.write_bytes(body + hashlib.sha256(body).hexdigest().encode())


def test_names_that_are_not_there(leanseg, models):
    leanseg("models", "get", "obelisk").assert_refused("choose one of obelisk-tcia")
    leanseg("models", "got", "obelisk-tcia").assert_refused("'got'")
    leanseg("models", "get").assert_refused("which model")
    outcome = leanseg("predict", "obelisk-tcia", "x.nii.gz", "--output", models)
    outcome.assert_refused("leanseg models get obelisk-tcia")


@pytest.mark.slow
def test_the_published_ensemble_finds_the_liver(leanseg, models, shared_data, tmp_path):
    weights = shared_data.parent / "reference" / "obelisk" / "weights"
    if not weights.is_dir():
        pytest.skip(f"the published weights are not at {weights}")
    outcome = leanseg("models", "get", "obelisk-tcia", "--from", weights)
    assert outcome.status == 0, outcome.err
    assert [path.name for path in models.iterdir()] == ["obelisk-tcia.leanseg"]
    scan = shared_data / "abdomen_ircad01"
    outcome = leanseg("predict", "obelisk-tcia", scan / "ct.nii.gz", "--output", tmp_path / "out")
    assert outcome.status == 0, outcome.err
    found = read_volume(tmp_path / "out" / "ct.nii.gz").array == 6
    liver = np.isin(read_volume(scan / "labels.nii.gz").array, (1, 2))
    assert 2 * (found & liver).sum() / (found.sum() + liver.sum()) > 0.9
