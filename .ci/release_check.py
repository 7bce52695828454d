"""Build leanseg, install the wheel into fresh environments as a user would, and predict there.

    python .ci/release_check.py [--python PYTHON] [--only {lowest,newest}]

Needs `build` and `uv`. The environments hold what `pip install leanseg` brings, once with the
lowest versions that pyproject.toml allows and once with the newest; wheels only, no PyTorch.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
MODEL = PROJECT / "tests" / "modelfile" / "tiny.leanseg"
RESOLUTIONS = {"lowest": "lowest-direct", "newest": "highest"}
# What runs in the environment. The names are those of folders in a hospital.
TRY = """
import importlib.metadata, importlib.util, pathlib, sys
import nibabel, numpy
import leanseg
from leanseg.cli.main import run
model, folder = map(pathlib.Path, sys.argv[1:])
assert leanseg.__version__ == importlib.metadata.version("leanseg"), leanseg.__version__
assert importlib.util.find_spec("torch") is None
scan, masks = folder / "Müller, Jörg" / "CT 1.nii.gz", folder / "Masken für alle"
scan.parent.mkdir()
array = numpy.random.default_rng(0).normal(50, 200, (36, 30, 8)).astype(numpy.int16)
nibabel.save(nibabel.Nifti1Image(array, numpy.diag([-0.8, -0.8, 2.5, 1])), scan)
for command in (
    ["--version"],
    ["info", str(scan)],
    ["check", str(scan.parent)],
    ["predict", str(model), str(scan), "--output", str(masks)],
    ["evaluate", str(masks / scan.name), str(masks / scan.name), "--labels", "organ=1"],
):
    try:
        run(command)
    except SystemExit as ended:
        # 1: `check` found something remarkable, as in every dataset without labels.
        assert not ended.code or command[0] == "check" and ended.code == 1, (command, ended.code)
mask = numpy.asarray(nibabel.load(masks / scan.name).dataobj)
assert 0 < mask.mean() < 1
numpy.save(folder / "mask.npy", mask)
"""
COMPARE = """
import sys, numpy
one, other = map(numpy.load, sys.argv[1:])
assert (one == other).mean() > 0.999
"""


def call(*command: str | Path) -> None:
    """Run a command, which is printed, and end where it fails."""
    print("$", *command if len(str(command[-1])) < 200 else command[:2], flush=True)
    subprocess.run([str(part) for part in command], check=True)


def build(folder: Path) -> Path:
    """The sdist, and the wheel that is built from it."""
    call(sys.executable, "-m", "build", "--installer", "uv", "--outdir", folder, PROJECT)
    (wheel,) = folder.glob("*.whl")
    listed = subprocess.run(
        ["git", "-C", PROJECT / "src", "ls-files", "-z", "leanseg"],
        capture_output=True,
        text=True,
        check=True,
    )
    missing = {*filter(None, listed.stdout.split("\0"))} - {*zipfile.ZipFile(wheel).namelist()}
    if missing:
        sys.exit(f"the wheel lacks {sorted(missing)}; see package-data in pyproject.toml")
    return wheel


def size_mb(folder: Path) -> float:
    """All that lies in a folder, in MB (10^6 bytes)."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def environment(kind: str, python: str, wheel: Path, folder: Path) -> Path:
    """Python of a fresh environment with the wheel, in which a prediction went well."""
    uv = (sys.executable, "-m", "uv", "--quiet")
    wheels = ("--only-binary", ":all:")
    pinned, venv = folder / "requirements.txt", folder / "venv"
    resolution = ("--resolution", RESOLUTIONS[kind], "--no-header", "--no-annotate")
    call(*uv, "venv", "--python", python, venv)
    inside = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    project = PROJECT / "pyproject.toml"
    call(*uv, "pip", "compile", project, *resolution, *wheels, "--python", inside, "-o", pinned)
    call(*uv, "pip", "install", *wheels, "--python", inside, "-r", pinned)
    call(*uv, "pip", "install", "--no-deps", "--python", inside, wheel)
    (site,) = (venv / "Lib" if os.name == "nt" else venv / "lib").rglob("site-packages")
    print(f"{kind}: site-packages has {size_mb(site):.0f} MB", flush=True)
    call(inside, "-I", "-c", TRY, MODEL, folder)
    return inside


def main() -> None:
    """Build once, then try each set of versions."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--python", default=sys.executable, help="a version or a path")
    parser.add_argument("--only", choices=RESOLUTIONS)
    given = parser.parse_args()
    kinds = [given.only] if given.only else list(RESOLUTIONS)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        wheel = build(place / "dist")
        print(f"{wheel.name} has {wheel.stat().st_size / 1e6:.2f} MB", flush=True)
        for kind in kinds:
            (place / kind).mkdir()
            python = environment(kind, given.python, wheel, place / kind)
        if len(kinds) == 2:
            call(python, "-c", COMPARE, *(place / kind / "mask.npy" for kind in kinds))
        shutil.rmtree(PROJECT / "dist", ignore_errors=True)
        shutil.copytree(place / "dist", PROJECT / "dist")
    print("release check passed: the sdist and the wheel are in dist/")


if __name__ == "__main__":
    main()
