"""What a benchmark ran on."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# What sets one processor apart from another for convolutions, widest last.
_INSTRUCTION_SETS = (
    *("avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_bf16", "amx_int8", "amx_fp16"),
    *("asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve", "sve2"),
)
PACKAGES = ("numpy", "openvino", "onnxruntime", "torch")


def describe_machine(packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """Processor, cores, instruction sets, memory, operating system and versions.

    Args:
        packages: Whose versions to give; those that are not installed are None.

    Returns:
        As JSON has it: "processor", "cores" (that this process may use), "physical_cores",
        "instruction_sets", "memory_bytes", "system", "versions", "load_average" (of the last
        minute; None where the system has none).
    """
    import psutil

    from leanseg import __version__

    name, flags = _processor()
    installed: dict[str, str | None] = {"python": platform.python_version()}
    installed["leanseg"] = __version__
    for package in packages:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            installed[package] = None
    return {
        "processor": name,
        "cores": len(usable_cores()),
        "physical_cores": psutil.cpu_count(logical=False),
        "instruction_sets": [kind for kind in _INSTRUCTION_SETS if kind in flags],
        "memory_bytes": psutil.virtual_memory().total,
        "system": _system(),
        "versions": installed,
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def usable_cores() -> list[int]:
    """Numbers of the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def machine_line(machine: dict[str, Any]) -> str:
    """The machine in one line."""
    kinds = ", ".join(machine["instruction_sets"]) or "no known extensions"
    packages = ", ".join(
        f"{name} {number}" for name, number in machine["versions"].items() if number
    )
    load = machine["load_average"]
    busy = "" if load is None else f"; load average {load:.1f} before the start"
    return (
        f"{machine['processor']}, {machine['cores']} cores ({kinds}), "
        f"{machine['memory_bytes'] / 1e9:.0f} GB of memory, {machine['system']}; {packages}{busy}"
    )


def _system() -> str:
    if hasattr(platform, "freedesktop_os_release"):
        try:
            name = platform.freedesktop_os_release()["PRETTY_NAME"]
        except (OSError, KeyError):
            return platform.platform()
        return f"{name}, {platform.system()} {platform.release()}"
    return platform.platform()


def _processor() -> tuple[str, set[str]]:
    """Its name, and the names of its extensions as Linux has them."""
    listing = Path("/proc/cpuinfo")
    name, flags = "", set[str]()
    if listing.exists():
        for line in listing.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = (part.strip() for part in line.partition(":"))
            if key == "model name":
                name = name or value
            elif key in ("flags", "Features"):
                flags = flags or set(value.split())
    elif platform.system() == "Darwin":
        asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        name = done.stdout.strip()
    return name or platform.processor() or platform.machine(), flags
