"""Lists of published models and what they list: signatures against OpenSSL, a server that fails."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from leanseg.errors import LeansegError
from leanseg.modelfile import find_model
from leanseg.modelfile.published import PublishedFile, fetch_file, read_index

CONTENT = bytes(range(256)) * 1000


class Handler(BaseHTTPRequestHandler):
    """A file, and what goes wrong on the way to it."""

    def do_GET(self):
        if self.path == "/moved":
            return self.redirect("/file")
        if self.path == "/elsewhere":
            return self.redirect("http://example.org/file")
        if self.path == "/absent":
            return self.send_error(404)
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        body = {"/short": CONTENT[:70_000], "/longer": CONTENT + b"more"}.get(self.path, CONTENT)
        self.wfile.write(body)
        return None

    def redirect(self, where):
        self.send_response(302)
        self.send_header("Location", where)
        self.end_headers()

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        threading.Thread(target=partial(served.serve_forever, 0.01), daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


def listed(url: str, content: bytes = CONTENT, **changes) -> PublishedFile:
    facts = {
        "name": "a.bin",
        "url": url,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    return PublishedFile(**{**facts, **changes})


@pytest.mark.parametrize("path", ["file", "moved"])
def test_a_file_comes_whole(server, tmp_path, path):
    steps: list[int] = []
    target = tmp_path / "a"
    fetch_file(listed(f"{server}/{path}"), target, on_progress=lambda n, of: steps.append(n))
    assert target.read_bytes() == CONTENT
    assert steps == sorted(steps)
    assert steps[-1] == len(CONTENT)


@pytest.mark.parametrize(
    ("path", "changes", "said"),
    [
        ("absent", {}, "HTTP 404 Not Found"),
        ("short", {}, "ended after 70000 of 256000 bytes"),
        ("file", {"bytes": len(CONTENT) - 1}, "more than the 255999 bytes"),
        ("file", {"sha256": "0" * 64}, "not the 0000"),
        ("elsewhere", {}, "leads to http://example.org/file, which is not https"),
    ],
)
def test_what_goes_wrong_is_said(server, tmp_path, path, changes, said):
    with pytest.raises(LeansegError, match=said) as error:
        fetch_file(listed(f"{server}/{path}", **changes), tmp_path / "a")
    assert f"{server}/{path}: " in str(error.value)


def test_no_server(tmp_path):
    with pytest.raises(LeansegError, match=r"cannot be fetched .*refused.*--from"):
        fetch_file(listed("http://127.0.0.1:9/a"), tmp_path / "a")
    with pytest.raises(LeansegError, match=r"a\.bin: cannot be fetched \(No such file"):
        fetch_file(listed("https://example.org/a"), tmp_path / "a", tmp_path)


@pytest.mark.parametrize("url", ["http://example.org/a", "file:///etc/passwd", "ftp://127.0.0.1/a"])
def test_others_must_not_listen(url):
    with pytest.raises(ValueError, match="https://"):
        listed(url)


def test_a_name_stays_in_its_folder():
    for name in ("../a", "a/b", ".hidden", ""):
        with pytest.raises(ValueError, match="name"):
            listed("https://example.org/a", name=name)


MODEL = {
    "name": "liver-ours",
    "organs": ["liver"],
    "modality": "CT",
    "licence": "CC BY 4.0",
    "source": "https://example.org",
    "paper": "none",
    "files": [{"name": "m", "url": "https://example.org/m", "bytes": 3, "sha256": "a" * 64}],
}


def openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def make_key(folder: Path, name: str, kind: str = "ed25519") -> tuple[Path, Path]:
    """A private and a public key, by OpenSSL alone, as the docs say."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl")
    private, public = folder / f"{name}.key", folder / f"{name}.pub"
    openssl("genpkey", "-algorithm", kind, "-out", private)
    openssl("pkey", "-in", private, "-pubout", "-out", public)
    return private, public


def sign(index: Path, private: Path) -> None:
    signature = f"{index}.sig"
    openssl("pkeyutl", "-sign", "-rawin", "-inkey", private, "-in", index, "-out", signature)


@pytest.fixture
def index(tmp_path) -> Path:
    pytest.importorskip("cryptography")
    path = tmp_path / "models.json"
    content = {"format": "leanseg-models", "version": 1, "models": [MODEL]}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_a_signed_list_is_read_and_any_other_refused(index):
    private, public = make_key(index.parent, "ours")
    _, others = make_key(index.parent, "theirs")
    with pytest.raises(LeansegError, match="public key with --key"):
        read_index(index)
    with pytest.raises(LeansegError, match=r"models.json.sig: cannot be read.*have to be signed"):
        read_index(index, public)
    sign(index, private)
    assert read_index(index, public)["liver-ours"].organs == ("liver",)
    with pytest.raises(LeansegError, match=r"is not what the owner of .*theirs\.pub signed"):
        read_index(index, others)
    for wrong in (private, index, make_key(index.parent, "x", "x25519")[1]):
        with pytest.raises(LeansegError, match="is not a public Ed25519 key"):
            read_index(index, wrong)
    index.write_text(index.read_text().replace("liver", "lever"), encoding="utf-8")
    with pytest.raises(LeansegError, match="the list was changed"):
        read_index(index, public)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{format: leanseg-models, version: 2, models: []}", "'version': Input should be 1"),
        ("{format: [", "damaged"),
        ("hello", "valid dictionary"),
    ],
)
def test_a_signed_list_that_is_none(index, text, said):
    private, public = make_key(index.parent, "ours")
    index.write_text(text, encoding="utf-8")
    sign(index, private)
    with pytest.raises(LeansegError, match=said) as error:
        read_index(index, public)
    assert "update leanseg" in str(error.value)


def test_the_built_in_list_is_of_the_real_files(shared_data, tmp_path):
    folder = shared_data.parent / "reference" / "obelisk" / "weights"
    if not folder.is_dir():
        pytest.skip(f"the published weights are not at {folder}")
    model = read_index()["obelisk-tcia"]
    assert model.licence_text.strip() == (folder / "LICENSE").read_text().strip().replace(
        "2018 ", "2018"
    )
    for file in model.files:
        fetch_file(file, tmp_path / file.name, folder)
        assert (tmp_path / file.name).read_bytes() == (folder / file.name).read_bytes()
        assert file.url.endswith(f"/models/{file.name}")


def test_a_name_means_the_fetched_file_unless_there_is_a_path(tmp_path, monkeypatch):
    monkeypatch.setattr("leanseg.modelfile.names.model_folder", lambda: tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    fetched = tmp_path / "models" / "a-1.0.leanseg"
    assert find_model("a-1.0") == Path("a-1.0")
    fetched.parent.mkdir()
    fetched.touch()
    assert find_model("a-1.0") == fetched
    assert find_model("b/a-1.0") == Path("b/a-1.0")
    assert find_model("a" * 300) == Path("a" * 300)
    Path("a-1.0").touch()
    assert find_model("a-1.0") == Path("a-1.0")
