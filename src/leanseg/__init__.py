"""leanseg: compact networks that segment organs and tumours in CT and MR volumes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["LeansegError", "Volume", "__version__", "check", "load_model", "read_volume"]

if TYPE_CHECKING:
    from leanseg.datasets.check import check
    from leanseg.errors import LeansegError
    from leanseg.inference import load_model
    from leanseg.volumes import Volume, read_volume

# The public names are loaded on first use, so that `import leanseg` costs nothing.
_HOMES = {
    "LeansegError": "leanseg.errors",
    "Volume": "leanseg.volumes",
    "read_volume": "leanseg.volumes",
    "check": "leanseg.datasets.check",
    "load_model": "leanseg.inference",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    msg = f"module 'leanseg' has no attribute {name!r}"
    raise AttributeError(msg)
