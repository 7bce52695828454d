"""The deployment install: an environment in which there is no PyTorch, and less else.

The environment holds what the dependencies of `leanseg[dicom]` in pyproject.toml bring, by the
metadata of what is installed here, and nothing more. So what runs in it runs after
`pip install 'leanseg[dicom]'` on a bare machine.
"""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dicom_writer import write_series

PROJECT = Path(__file__).resolve().parents[1]
SOURCE = PROJECT / "src" / "leanseg"
AFFINE = np.array([[-0.8, 0, 0, 14.0], [0, -0.8, 0, 12.0], [0, 0, 2.5, -20.0], [0, 0, 0, 1.0]])
# What must not be there: PyTorch, what brings it, and what only training and export need.
ABSENT = ("torch", "lightning_fabric", "monai", "onnx", "onnxscript", "onnxruntime", "tensorboard")
# What the core install promises.
COMMANDS = ("predict", "evaluate", "info", "check")
# A command takes seconds; one that waits for itself for ever should not wait for the test's end.
LONGEST_S = 120


def project() -> dict:
    return tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def requirements(extra: str | None = None) -> list[Requirement]:
    listed = project()["dependencies"] if extra is None else extras()[extra]
    return [Requirement(text) for text in listed]


def extras() -> dict[str, list[str]]:
    return project()["optional-dependencies"]


def closure(wanted: Iterable[Requirement]) -> set[str]:
    """Names of the distributions that pip would install for some requirements."""
    found: set[str] = set()
    waiting = [(each, extra) for each in wanted for extra in ("", *each.extras)]
    done = set()
    while waiting:
        requirement, extra = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (name, extra) in done:
            continue
        done.add((name, extra))
        found.add(name)
        for text in distribution(name).requires or ():
            inner = Requirement(text)
            if inner.marker is None or inner.marker.evaluate({"extra": extra}):
                waiting += [(inner, each) for each in ("", *inner.extras)]
    return found


def link_environment(folder: Path, distributions: Iterable[str]) -> None:
    """A site-packages folder of links to the files of some distributions, and to leanseg."""
    folder.mkdir()
    for name in distributions:
        installed = distribution(name)
        tops = {file.parts[0] for file in installed.files or () if file.parts[0] != ".."}
        for top in tops - {"__pycache__"}:
            link = folder / top
            if not link.exists():
                link.symlink_to(Path(str(installed.locate_file(top))))
    (folder / "leanseg").symlink_to(SOURCE)


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run code, or a command of leanseg, in the environment without PyTorch."""
    site = tmp_path_factory.mktemp("bare") / "site-packages"
    link_environment(site, closure([*requirements(), *requirements("dicom")]))

    def run(*arguments: object, code: str = "") -> Outcome:
        command = f"from leanseg.cli.main import run\nrun({list(map(str, arguments))!r})"
        # -I: no user packages, no PYTHONPATH; -S: not this environment's packages either.
        script = f"import sys\nsys.path.append({str(site)!r})\n{code or command}"
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", script],
            capture_output=True,
            text=True,
            check=False,
            timeout=LONGEST_S,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow MoNet with random weights, packaged by an earlier version."""
    kept = PROJECT / "tests" / "modelfile" / "tiny.leanseg"
    return Path(shutil.copy(kept, tmp_path_factory.mktemp("model") / "organ.leanseg"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same scan as NIfTI and as a DICOM series."""
    folder = tmp_path_factory.mktemp("data")
    array = np.random.default_rng(0).normal(50, 200, (36, 30, 8)).astype(np.int16)
    (folder / "nifti").mkdir()
    nib.save(nib.Nifti1Image(array, AFFINE), folder / "nifti" / "ct.nii.gz")
    write_series(folder / "series", array, AFFINE)
    return folder


def in_full(*arguments: object) -> None:
    """A command in this environment, which has everything."""
    from leanseg.cli.main import run

    try:
        run([str(argument) for argument in arguments])
    except SystemExit as error:
        assert not error.code


def test_pytorch_is_not_there(bare: Run) -> None:
    code = (
        "from importlib.util import find_spec\n"
        f"print([name for name in {ABSENT!r} if find_spec(name)])\n"
        "import openvino, leanseg.inference"
    )
    outcome = bare(code=code)
    assert (outcome.status, outcome.out) == (0, "[]\n")


def test_help(bare: Run) -> None:
    outcome = bare("--help")
    assert outcome.status == 0, outcome.err
    code = (
        "from leanseg.cli.main import run\n"
        f"for command in {COMMANDS!r}:\n"
        "    try:\n"
        "        run([command, '--help'])\n"
        "    except SystemExit as ended:\n"
        "        assert not ended.code"
    )
    helped = bare(code=code)
    assert helped.status == 0, helped.err
    for command in COMMANDS:
        assert command in outcome.out
        assert f"Usage: leanseg {command}" in helped.out


@pytest.mark.parametrize(
    ("scans", "form"),
    [(("nifti/ct.nii.gz", "series"), "nifti"), (("series",), "dicom-seg")],
)
def test_predict(bare: Run, model: Path, data: Path, tmp_path: Path, capfd, scans, form) -> None:
    given = [model, *(data / scan for scan in scans), "--precision", "f32", "--format", form]
    outcome = bare("predict", *given, "--output", tmp_path / "bare")
    assert outcome.status == 0, outcome.err
    assert "openvino in f32" in outcome.out
    in_full("predict", *given, "--output", tmp_path / "full")
    found = [path for path in (tmp_path / "bare").iterdir() if path.name != "predictions.json"]
    assert len(found) == len(scans)
    for path in found:
        expected = tmp_path / "full" / path.name
        if form == "nifti":
            # The same mask is the same file.
            assert path.read_bytes() == expected.read_bytes()
            assert 0 < np.asarray(nib.load(path).dataobj).mean() < 1
        else:
            np.testing.assert_array_equal(frames(path), frames(expected))
            assert frames(path).any()
    if form == "nifti":  # both forms of the scan give the same mask
        np.testing.assert_array_equal(*(np.asarray(nib.load(path).dataobj) for path in found))


def frames(path: Path) -> np.ndarray:
    import highdicom

    return highdicom.seg.segread(path).pixel_array


def test_predict_in_python(bare: Run, model: Path, data: Path) -> None:
    code = (
        "import leanseg, numpy\n"
        f"mask = leanseg.load_model({str(model)!r}, tta='flips').predict("
        f"{str(data / 'nifti' / 'ct.nii.gz')!r})\n"
        "print(mask.array.dtype, mask.array.shape)\n"
        "assert 'torch' not in sys.modules"
    )
    outcome = bare(code=code)
    assert outcome.status == 0, outcome.err
    assert outcome.out.split(maxsplit=1) == ["uint8", "(36, 30, 8)\n"]


def test_evaluate(bare: Run, tmp_path: Path) -> None:
    mask = np.zeros((36, 30, 8), dtype=np.uint8)
    mask[10:20, 10:20, 2:6] = 1
    nib.save(nib.Nifti1Image(mask, AFFINE), tmp_path / "ct.nii.gz")
    outcome = bare("evaluate", tmp_path, tmp_path, "--labels", "organ=1")
    assert outcome.status == 0, outcome.err
    assert "1.000" in outcome.out


def test_info(bare: Run, model: Path, data: Path) -> None:
    paths = [str(path) for path in (model, data / "nifti" / "ct.nii.gz", data)]
    code = (
        "from leanseg.cli.main import run\n"
        f"for path in {paths!r}:\n"
        "    try:\n"
        "        run(['info', path])\n"
        "    except SystemExit as ended:\n"
        "        assert not ended.code, path"
    )
    outcome = bare(code=code)
    assert outcome.status == 0, outcome.err
    for said in ("monet", "LPS"):
        assert said in outcome.out
    outcome = bare("info", data / "series", "--json")
    assert json.loads(outcome.out)["series"][0]["shape"] == [36, 30, 8]


def test_check(bare: Run, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "labelsTr").mkdir()
    shutil.copy(data / "nifti" / "ct.nii.gz", folder / "imagesTr" / "a.nii.gz")
    label = np.zeros((36, 30, 8), dtype=np.uint8)
    label[10:20, 10:20, 2:6] = 1
    nib.save(nib.Nifti1Image(label, AFFINE), folder / "labelsTr" / "a.nii.gz")
    listing = {
        "name": "tiny",
        "labels": {"0": "background", "1": "organ"},
        "modality": {"0": "CT"},
        "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}],
    }
    (folder / "dataset.json").write_text(json.dumps(listing))
    outcome = bare("check", folder)
    # 1: something about so small a dataset is remarkable.
    assert outcome.status in (0, 1), outcome.err
    assert "Traceback" not in outcome.err
    assert "tiny" in outcome.out or "a" in outcome.out.split()


def test_what_needs_pytorch_says_so(bare: Run, model: Path, data: Path) -> None:
    given = {
        "train": ("monet-ct",),
        "show": ("monet-ct", data),
        "networks": (),
        "activations": (model, data / "nifti" / "ct.nii.gz"),
        "import-weights": ("obelisk", data / "a.pth", "--output", data / "x.leanseg"),
        "export": (model,),
    }
    commands = [[name, *map(str, arguments)] for name, arguments in given.items()]
    code = (
        "from leanseg.cli.main import run\n"
        f"for command in {commands!r}:\n"
        "    try:\n"
        "        run(command)\n"
        "    except SystemExit as ended:\n"
        "        assert ended.code == 2, command"
    )
    outcome = bare(code=code)
    assert outcome.status == 0, outcome.err
    lines = outcome.err.splitlines()
    assert [line.split()[2] for line in lines] == [*given]
    assert all("pip install 'leanseg[train]'" in line for line in lines)


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_an_engine_that_is_not_there(bare: Run, model, data, tmp_path: Path, engine) -> None:
    scan = data / "nifti" / "ct.nii.gz"
    outcome = bare("predict", model, scan, "--output", tmp_path / "out", "--engine", engine)
    assert outcome.status == 2
    extra = {"torch": "train", "onnxruntime": "onnx"}[engine]
    assert f"pip install 'leanseg[{extra}]'" in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


# --- Is the list of dependencies enough? ---------------------------------------------------------

# Modules and folders that the core install runs; those of the commands import the rest on demand.
CORE = (
    *("errors", "plan", "progress", "registry", "runtime", "kernels", "volumes"),
    *("datasets", "modelfile", "evaluation", "frames", "inference", "__init__"),
    *(f"cli/{name}" for name in ("main", "options", "output", *COMMANDS)),
)


def core_files() -> Iterator[Path]:
    for name in CORE:
        folder = SOURCE / name
        yield from sorted(folder.rglob("*.py")) if folder.is_dir() else [SOURCE / f"{name}.py"]


def third_party_imports(path: Path) -> set[str]:
    """Top-level packages that a file imports anywhere but for the type checker."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for child in node.orelse:
                visit(child)
            return
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module).partition(".")[0])
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found - set(sys.stdlib_module_names) - {"leanseg"}


# Looking through all that is installed takes half a second.
installed_packages = cache(packages_distributions)


def listed_packages(listed: Iterable[Requirement]) -> set[str]:
    """Top-level packages of the distributions that are listed, not of those they bring along."""
    names = {canonicalize_name(each.name) for each in listed}
    return {
        package
        for package, owners in installed_packages().items()
        if names & {canonicalize_name(owner) for owner in owners}
    }


def test_every_import_of_the_core_is_listed() -> None:
    # The second is the other half of pydantic, which always brings it and documents it as its own.
    core = {*listed_packages(requirements()), "pydantic_core"}
    by_extra = {name: listed_packages(requirements(name)) for name in extras() if name != "dev"}
    everything = "".join(path.read_text(encoding="utf-8") for path in core_files())
    seen = set()
    for path in core_files():
        assert path.exists()
        for package in third_party_imports(path) - core:
            homes = [name for name, packages in by_extra.items() if package in packages]
            assert homes, f"{path.relative_to(SOURCE)} imports {package}, which nothing installs"
            # An extra may be imported where its absence is told.
            told = any(f"leanseg[{name}]" in everything for name in homes)
            assert told, f"{path.relative_to(SOURCE)} imports {package}: no error names {homes}"
            seen.add(package)
    # The check would be worthless if nothing were found.
    assert {"numpy", "nibabel", "openvino"} <= core
    assert {"torch", "pydicom", "onnxruntime"} <= seen


def test_every_listed_package_is_imported() -> None:
    """What nothing imports would be installed for nothing."""
    used = {name for path in SOURCE.rglob("*.py") for name in third_party_imports(path)}
    for requirement in requirements():
        assert listed_packages([requirement]) & used, f"nothing imports {requirement.name}"


def test_the_core_brings_no_pytorch() -> None:
    brought = closure([*requirements(), *requirements("dicom")])
    assert {"numpy", "openvino", "pydicom", "highdicom"} <= brought
    assert not brought & {canonicalize_name(name) for name in ABSENT}


# --- The real thing ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_real_install(model: Path, data: Path, tmp_path: Path, capsys) -> None:
    """`pip install .[dicom]` into a fresh environment, then a prediction."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", str(PROJECT)], check=True)
    bare_mb = installed_mb(tmp_path / "venv")
    subprocess.run([python, "-m", "pip", "install", "-q", f"{PROJECT}[dicom]"], check=True)
    seconds = time.perf_counter() - started
    missing = subprocess.run([python, "-c", "import torch"], capture_output=True, check=False)
    assert missing.returncode == 1
    for scan in ("nifti/ct.nii.gz", "series"):
        command = [tmp_path / "venv" / "bin" / "leanseg", "predict", model, data / scan]
        subprocess.run([*command, "--output", tmp_path / "out", "--precision", "f32"], check=True)
    in_full("predict", model, data / "series", "-o", tmp_path / "full", "--precision", "f32")
    found, expected = (tmp_path / name / "series.nii.gz" for name in ("out", "full"))
    np.testing.assert_array_equal(
        np.asarray(nib.load(found).dataobj), np.asarray(nib.load(expected).dataobj)
    )
    with capsys.disabled():
        print(
            f"\ninstalled in {seconds:.0f} s; {bare_mb:.0f} MB, "
            f"with [dicom] {installed_mb(tmp_path / 'venv'):.0f} MB"
        )


def installed_mb(folder: Path) -> float:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files) / 1e6
