"""Models that others published: lists of them, and fetching what they list.

Nothing is fetched unasked. What is fetched has the size and the SHA-256 that its list gives, or is
not kept; a list that does not come with leanseg has to be signed (Ed25519, RFC 8032).
"""

from __future__ import annotations

import hashlib
import http.client
import ssl
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import IO, Annotated, Any, Literal
from urllib import error, request
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from leanseg.errors import LeansegError, require_package
from leanseg.files import read_parsed, require_file

SIGNATURE_SUFFIX = ".sig"
_BUILT_IN = "published.yaml"
_CHUNK_BYTES = 1 << 16
_TIMEOUT_S = 30
_MEANT = "the list gives; nothing was kept, ask the list's maintainer which is right"
# Here nobody listens in between.
_THIS_COMPUTER = ("127.0.0.1", "::1", "localhost")


def _is_secure(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _THIS_COMPUTER)


def _secure(url: str) -> str:
    if not _is_secure(url):
        raise ValueError("it does not begin with https://")
    return url


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PublishedFile(_Record):
    """A file of a published model.

    Attributes:
        name: What it is called in a folder (`--from`).
        url: Where its authors keep it.
        bytes: Its size.
        sha256: Of its content, in hexadecimal.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")
    url: Annotated[str, AfterValidator(_secure)]
    bytes: int = Field(gt=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class PublishedModel(_Record):
    """A model of a list.

    Attributes:
        name: By which commands know it once it is here.
        organs: What it labels.
        modality: What it was trained on.
        licence: Its short name.
        licence_text: All of it.
        source: The page of its authors' repository.
        paper: Where it is described.
        kind: "leanseg" for a model file; "obelisk" for checkpoints of the public OBELISK code.
        files: The model file, or the checkpoints, several of which become one ensemble.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    organs: tuple[str, ...]
    modality: str
    licence: str
    licence_text: str = ""
    source: str
    paper: str
    kind: Literal["leanseg", "obelisk"] = "leanseg"
    files: tuple[PublishedFile, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _is_one_file(self) -> PublishedModel:
        if self.kind == "leanseg" and len(self.files) > 1:
            raise ValueError("a model of the kind leanseg is one file")
        return self

    @property
    def bytes(self) -> int:
        """Size of all that is fetched."""
        return sum(file.bytes for file in self.files)


class _Index(_Record):
    format: Literal["leanseg-models"]
    version: Literal[1]
    models: tuple[PublishedModel, ...]


def read_index(path: Path | None = None, key: Path | None = None) -> dict[str, PublishedModel]:
    """The models of a list, by name.

    Args:
        path: The list (YAML or JSON), with its signature beside it in `NAME.sig`: 64 bytes, as
            `openssl pkeyutl -sign -rawin` writes them. None is the list that comes with leanseg.
        key: Public key of whoever signed it, PEM.

    Raises:
        LeansegError: If the list is not signed with that key, cannot be read, or is not one.
        MissingDependencyError: If cryptography is not installed.
    """
    if path is None:
        path = Path(_BUILT_IN)
        content = (resources.files("leanseg.modelfile") / _BUILT_IN).read_bytes()
        return {model.name: model for model in _parsed(content.decode()).models}
    if key is None:
        msg = f"{path}: lists from elsewhere have to be signed; give their signer's public key"
        raise LeansegError(f"{msg} with --key")
    content = _bytes_of(path, "give a list of models")
    _check_signature(path, content, key)
    # What was signed, whatever the file holds by now.
    index = read_parsed(
        path, lambda _: _parsed(content.decode()), "correct or update it, or update leanseg"
    )
    return {model.name: model for model in index.models}


def _parsed(text: str) -> _Index:
    try:
        return _Index.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as failure:
        raise ValueError(" ".join(str(failure).split())) from failure


def _bytes_of(path: Path, remedy: str) -> bytes:
    try:
        return require_file(path).read_bytes()
    except OSError as failure:
        msg = f"{path}: cannot be read ({failure.strerror}); {remedy}"
        raise LeansegError(msg) from failure


def _check_signature(path: Path, content: bytes, key: Path) -> None:
    require_package("cryptography", "checking the signature of a list", "leanseg[signed]")
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    beside = path.with_name(path.name + SIGNATURE_SUFFIX)
    signature = _bytes_of(beside, "lists from elsewhere have to be signed; ask for the signature")
    wrong_key = f"{key}: is not a public Ed25519 key in PEM; ask the list's signer for it"
    try:
        public = load_pem_public_key(_bytes_of(key, "give the signer's public key"))
    except LeansegError:
        raise
    except Exception as failure:  # what damaged keys raise differs between kinds of keys
        raise LeansegError(wrong_key) from failure
    if not isinstance(public, Ed25519PublicKey):
        raise LeansegError(wrong_key)
    try:
        public.verify(signature, content)
    except InvalidSignature as failure:
        raise LeansegError(
            f"{path}: is not what the owner of {key} signed: the list was changed, or somebody "
            "else signed it; do not use it, and ask for it again"
        ) from failure


class _SecureRedirects(request.HTTPRedirectHandler):
    """Follows no redirect to where others may listen."""

    def redirect_request(
        self, req: request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> request.Request | None:
        if not _is_secure(newurl):
            raise error.URLError(f"it leads to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch_file(
    file: PublishedFile,
    target: Path,
    folder: Path | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Fetch a file and check it.

    Args:
        file: What to fetch.
        target: Where to write it; the caller removes it when something goes wrong.
        folder: Where the file lies already; None fetches it from its address, over https with
            the certificate checked.
        on_progress: Called with (bytes so far, bytes in all).

    Raises:
        LeansegError: If it cannot be fetched, or is not the file that the list means.
    """
    place = file.url if folder is None else str(folder / file.name)
    digest, n = hashlib.sha256(), 0
    try:
        with _opened(file, folder) as source, target.open("wb") as kept:
            while n <= file.bytes and (chunk := source.read(_CHUNK_BYTES)):
                kept.write(chunk)
                digest.update(chunk)
                n += len(chunk)
                on_progress(n, file.bytes)
    except (OSError, http.client.HTTPException) as failure:
        reason = getattr(failure, "reason", None) or getattr(failure, "strerror", None) or failure
        remedy = (
            "check the network, or copy the files here and give their folder with --from"
            if folder is None
            else "put the files of the list there"
        )
        told = f"HTTP {failure.code} {reason}" if isinstance(failure, error.HTTPError) else reason
        raise LeansegError(f"{place}: cannot be fetched ({told}); {remedy}") from failure
    if n < file.bytes:
        raise LeansegError(
            f"{place}: ended after {n} of {file.bytes} bytes; nothing was kept, fetch it again"
        )
    if n > file.bytes:
        raise LeansegError(f"{place}: has more than the {file.bytes} bytes that {_MEANT}")
    if digest.hexdigest() != file.sha256:
        raise LeansegError(
            f"{place}: has the SHA-256 {digest.hexdigest()}, not the {file.sha256} that {_MEANT}"
        )


def _opened(file: PublishedFile, folder: Path | None) -> IO[bytes]:
    if folder is not None:
        return require_file(folder / file.name).open("rb")
    secured = request.HTTPSHandler(context=ssl.create_default_context())
    opener = request.build_opener(_SecureRedirects, secured)
    opened: IO[bytes] = opener.open(file.url, timeout=_TIMEOUT_S)
    return opened
