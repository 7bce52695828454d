"""What a run was made with, for `environment.json` and a model's provenance."""

from __future__ import annotations

import os
import platform
from typing import Any

from leanseg.machine import installed_versions, processor

_LIBRARIES = ("torch", "lightning-fabric", "numpy", "scipy", "nibabel", "SimpleITK", "safetensors")


def versions() -> dict[str, str]:
    """Versions of leanseg, Python and the libraries that shape a result."""
    import leanseg

    return {"leanseg": leanseg.__version__, **installed_versions(_LIBRARIES)}


def describe_environment() -> dict[str, Any]:
    """Versions and machine: processor, cores, memory, operating system, GPUs."""
    import psutil
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "versions": versions(),
        "machine": {
            "processor": processor()[0],
            "cores": os.cpu_count(),
            "torch_threads": torch.get_num_threads(),
            "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
            "system": platform.platform(),
            "gpus": gpus,
        },
    }
