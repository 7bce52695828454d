"""Fetch NiiVue, the viewer of the reports, from npm: one version, known by its hash.

Its script goes beside the page templates, where git ignores it and wheels take it along. Without
it (no npm, no network) everything works, and reports show pictures alone.
"""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "@niivue/niivue@0.69.0"
SHA512 = "YMjQvJgD1W2b7DuoxkwlC4VxbrgIePRJ5qyQzXKxi2v2MBVg285P/CIQyg46oDDGDIcaNlbd+MhtO/edMbXJkA=="
SCRIPT = "package/dist/niivue.umd.js"
TARGET = Path(__file__).resolve().parents[1] / "src/leanseg/reports/niivue/niivue.umd.js"


def fetch(target: Path = TARGET) -> None:
    """Write the script, unless it is there.

    Raises:
        OSError: npm is not installed.
        subprocess.SubprocessError: npm cannot fetch the package.
        ValueError: It is not the package that is expected.
    """
    if target.exists():
        return
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            ["npm", "pack", PACKAGE, "--silent", "--fetch-retries=1", "--pack-destination", folder],
            check=True,
            timeout=120,
            stdout=subprocess.DEVNULL,
        )
        (archive,) = Path(folder).iterdir()
        found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if found != SHA512:
            raise ValueError(f"{PACKAGE} has the SHA-512 {found}, not {SHA512}")
        with tarfile.open(archive) as packed:
            member = packed.extractfile(SCRIPT)
            assert member is not None  # the hash says so
            content = member.read()
    target.parent.mkdir(exist_ok=True)
    part = target.with_suffix(".part")
    part.write_bytes(content)
    part.replace(target)


def main() -> None:
    """Fetch it, or say why not and go on."""
    try:
        fetch()
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        print(
            f"NiiVue is not fetched ({error}); reports will show pictures without a viewer",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
