"""The house: which room may import which, and what stays unimported until it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "leanseg"

# From the design: a room imports from its own floor or a lower one. Modules beside the rooms
# (`registry.py`, `runtime.py`) are tools of the ground floor.
FLOORS = {
    "errors": 1, "registry": 1, "runtime": 1, "volumes": 1, "kernels": 1,
    "networks": 1, "losses": 1,
    "datasets": 2, "preprocessing": 2, "augmentation": 2, "modelfile": 2, "evaluation": 2,
    "inference": 3,
    "training": 4,
    "ensembles": 5, "cascade": 5,
    "reports": 6, "recipes": 6, "benchmarking": 6,
    "cli": 7,
}  # fmt: skip
WITHOUT_TORCH = (
    "volumes",
    "kernels",
    "preprocessing",
    "modelfile",
    "inference",
    "evaluation",
    "datasets",
)
TORCH_ENGINE = "inference/engines/"


def rooms() -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        relative = path.relative_to(SOURCE)
        if len(relative.parts) > 1 or not relative.stem.startswith("__"):
            found.setdefault(relative.parts[0].removesuffix(".py"), []).append(path)
    return found


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
    names = {part[1] for part in parts if part[0] == "leanseg" and len(part) > 1}
    return {name for name in names if name in rooms()}


def test_every_room_has_a_floor() -> None:
    assert set(rooms()) <= set(FLOORS)
    # The list would be worthless if nothing were found.
    assert {"volumes", "inference", "cli", "errors"} <= set(rooms())
    assert "volumes" in imported_rooms(SOURCE / "inference" / "predictor.py")


@pytest.mark.parametrize("room", rooms())
def test_no_room_imports_a_higher_floor(room: str) -> None:
    for path in rooms()[room]:
        for other in imported_rooms(path):
            assert FLOORS[other] <= FLOORS[room], f"{path.relative_to(SOURCE)} imports {other}"


def test_there_are_no_circles() -> None:
    graph = {
        room: {other for path in paths for other in imported_rooms(path)} - {room}
        for room, paths in rooms().items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"rooms import one another: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("room", WITHOUT_TORCH)
def test_torch_is_named_nowhere_on_the_prediction_path(room: str) -> None:
    for path in rooms()[room]:
        relative = path.relative_to(SOURCE).as_posix()
        names = {module.split(".")[0] for module in imported_modules(path)}
        allowed = relative.startswith(TORCH_ENGINE)
        assert allowed or not names & {"torch", "lightning_fabric", "monai"}, relative


def loaded_after(code: str) -> set[str]:
    """Top-level modules in a fresh interpreter after some code."""
    script = f"{code}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("room", WITHOUT_TORCH)
def test_importing_a_room_of_the_core_imports_no_torch(room: str) -> None:
    loaded = loaded_after(f"import leanseg.{room}")
    assert "leanseg" in loaded
    assert not loaded & {"torch", "lightning_fabric", "monai"}


def test_importing_leanseg_imports_nothing_heavy() -> None:
    loaded = loaded_after("import leanseg")
    assert "leanseg" in loaded
    heavy = {"numpy", "torch", "scipy", "nibabel", "SimpleITK", "matplotlib", "pydantic", "rich"}
    assert not loaded & heavy


def test_help_imports_nothing_heavy() -> None:
    code = (
        "from leanseg.cli.main import run\n"
        "try:\n    run(['--help'])\nexcept SystemExit as exit:\n    assert not exit.code"
    )
    loaded = loaded_after(code)
    assert "typer" in loaded
    assert not loaded & {"numpy", "torch", "SimpleITK", "scipy", "matplotlib", "pydantic"}


def test_reading_a_volume_does_not_wait_for_other_formats() -> None:
    loaded = loaded_after("import leanseg; leanseg.read_volume")
    assert "numpy" in loaded
    assert not loaded & {"SimpleITK", "matplotlib", "torch"}
