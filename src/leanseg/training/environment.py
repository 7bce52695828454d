"""What a run was made with, for `environment.json` and a model's provenance."""

from __future__ import annotations

import os
import platform
import re
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "lightning-fabric", "numpy", "scipy", "nibabel", "SimpleITK", "safetensors")


def versions() -> dict[str, str]:
    """Versions of leanseg, Python and the libraries that shape a result."""
    import leanseg

    found = {"leanseg": leanseg.__version__, "python": platform.python_version()}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def describe_environment() -> dict[str, Any]:
    """Versions and machine: processor, cores, memory, operating system, GPUs."""
    import psutil
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "versions": versions(),
        "machine": {
            "processor": _processor_name(),
            "cores": os.cpu_count(),
            "torch_threads": torch.get_num_threads(),
            "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
            "system": platform.platform(),
            "gpus": gpus,
        },
    }


def _processor_name() -> str:
    listing = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", listing.read_text()) if listing.is_file() else None
    return found[1] if found else platform.processor() or platform.machine()
