"""What a command needs beyond the core install."""

from __future__ import annotations

from importlib.util import find_spec

from leanseg.errors import MissingDependencyError


def require_torch(command: str) -> None:
    """Refuse to start without the `train` extra.

    Raises:
        MissingDependencyError: If PyTorch or Lightning Fabric is not installed.
    """
    for package in ("torch", "lightning_fabric"):
        if find_spec(package) is None:
            msg = f"{command} needs {package}; install it with: pip install 'leanseg[train]'"
            raise MissingDependencyError(msg)
