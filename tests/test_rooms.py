"""The house: which room may import which, and what stays unimported until it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "leanseg"

# A room imports from its own line or from one above it. A name is a folder, or a module beside
# the folders.
HOUSE = (
    (
        *("errors", "executors", "files", "machine", "progress", "registry", "runtime"),
        *("scratch", "kernels", "version"),
    ),
    ("volumes",),
    ("networks", "losses", "augmentation"),
    ("plan",),
    ("datasets", "modelfile"),
    ("evaluation",),
    ("frames",),
    ("inference",),
    ("training",),
    ("benchmarking", "reports", "recipes"),
    ("studies",),
    ("cli",),
)
LINES = {room: number for number, rooms in enumerate(HOUSE) for room in rooms}
# What predicts, evaluates and checks works without PyTorch; one of the engines is PyTorch.
WITHOUT_TORCH = {
    "kernels", "volumes", "plan", "datasets", "modelfile",
    "evaluation", "frames", "inference",
}  # fmt: skip
# Where PyTorch does the work, or is what the user brings.
OF_TORCH = ("inference/engines/", "inference/sliding.py")
OF_TRAINING = {"torch", "lightning_fabric", "monai"}
HEAVY = {
    "torch", "numba", "scipy", "matplotlib", "SimpleITK", "pydicom", "highdicom", "jinja2",
    "openvino", "nibabel",
}  # fmt: skip


def _rooms() -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        relative = path.relative_to(SOURCE)
        if len(relative.parts) > 1 or not relative.stem.startswith("__"):
            found.setdefault(relative.parts[0].removesuffix(".py"), []).append(path)
    return found


ROOMS = _rooms()


def imported_modules(path: Path) -> set[str]:
    """Modules that a file imports anywhere, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide which room is meant"
            found.add(str(node.module))
            if node.module == "leanseg":
                found.update(f"leanseg.{alias.name}" for alias in node.names)
    return found


def imported_rooms(path: Path) -> set[str]:
    parts = (module.split(".") for module in imported_modules(path))
    return {part[1] for part in parts if part[0] == "leanseg" and len(part) > 1} & set(ROOMS)


def test_every_room_has_its_place() -> None:
    assert set(ROOMS) <= set(LINES)
    # What follows would be worthless if nothing were found.
    assert {"volumes", "inference", "cli", "errors"} <= set(ROOMS)
    assert "cli" not in {room for path in ROOMS["cli"] for room in imported_rooms(path)} - {"cli"}
    assert "evaluation" in {room for path in ROOMS["cli"] for room in imported_rooms(path)}


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_imports_one_below_it(room: str) -> None:
    wrong = [
        f"{path.relative_to(SOURCE)} imports {other}"
        for path in ROOMS[room]
        for other in imported_rooms(path)
        if LINES[other] > LINES[room]
    ]
    assert not wrong


def test_there_are_no_circles_of_rooms() -> None:
    graph = {
        room: {other for path in paths for other in imported_rooms(path)} - {room}
        for room, paths in ROOMS.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"rooms import one another: {' -> '.join(error.args[1])}")


def _loaded_at_import(path: Path) -> set[Path]:
    """Files that a file imports when it is itself imported."""
    found: set[Path] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.ImportFrom) or not str(node.module).startswith("leanseg"):
            continue
        module = SOURCE.parent.joinpath(*str(node.module).split("."))
        names = (module / f"{alias.name}.py" for alias in node.names)
        inside = [name for name in names if name.is_file()]
        file = module.with_suffix(".py")
        found |= {*inside} or {file if file.is_file() else module / "__init__.py"}
    return found


def test_there_are_no_circles_of_files() -> None:
    files = [path for paths in ROOMS.values() for path in paths]
    graph = {path: _loaded_at_import(path) - {path} for path in files}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        names = [str(path.relative_to(SOURCE)) for path in error.args[1]]
        pytest.fail(f"files import one another: {' -> '.join(names)}")


@pytest.mark.parametrize("room", sorted(WITHOUT_TORCH & set(ROOMS)))
def test_torch_is_named_nowhere_on_the_prediction_path(room: str) -> None:
    for path in ROOMS[room]:
        relative = path.relative_to(SOURCE).as_posix()
        names = {module.split(".")[0] for module in imported_modules(path)}
        assert relative.startswith(OF_TORCH) or not names & OF_TRAINING, relative


def loaded_after(code: str) -> set[str]:
    """Top-level modules in a fresh interpreter after some code."""
    script = f"{code}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


def test_importing_the_rooms_of_prediction_imports_no_torch() -> None:
    rooms = sorted(WITHOUT_TORCH & set(ROOMS))
    loaded = loaded_after("\n".join(f"from leanseg.{room} import *" for room in rooms))
    assert "numpy" in loaded
    assert not loaded & OF_TRAINING


@pytest.mark.parametrize(
    ("code", "seen"),
    [
        ("import leanseg", "leanseg"),
        (
            "from leanseg.cli.main import run\n"
            "try:\n    run(['--help'])\nexcept SystemExit as exit:\n    assert not exit.code",
            "typer",
        ),
    ],
)
def test_a_quick_start_loads_nothing_heavy(code: str, seen: str) -> None:
    loaded = loaded_after(code)
    assert seen in loaded
    assert not loaded & {*HEAVY, "numpy", "pydantic"}


def test_what_predicts_is_loaded_without_scipy() -> None:
    """30 MB that a model of slices does not need."""
    assert "scipy" not in loaded_after("import leanseg.inference.model, leanseg.cli.predict")


def test_reading_a_volume_does_not_wait_for_other_formats() -> None:
    loaded = loaded_after("import leanseg; leanseg.read")
    assert "numpy" in loaded
    assert not loaded & {"SimpleITK", "matplotlib", "torch", "pydicom"}
