"""What a benchmark ran on."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# What sets one processor apart from another for convolutions, widest last.
_INSTRUCTION_SETS = (
    *("avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_bf16", "amx_int8", "amx_fp16", "asimd", "asimddp", "bf16", "i8mm", "sve"),
)
_PACKAGES = ("leanseg", "numpy", "openvino", "onnxruntime", "torch")


@dataclass(frozen=True)
class Machine:
    """Processor, memory, system and versions.

    Attributes:
        processor: Its name.
        cores: How many this process may use.
        instruction_sets: Of those that matter to convolutions.
        memory_bytes: In all.
        system: Operating system.
        versions: Package -> version, of those that are installed, and "python".
        load_average: Of the last minute.
    """

    processor: str
    cores: int
    instruction_sets: tuple[str, ...]
    memory_bytes: int
    system: str
    versions: dict[str, str]
    load_average: float

    def __str__(self) -> str:
        sets = ", ".join(self.instruction_sets) or "no known extensions"
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        return (
            f"{self.processor}, {self.cores} cores ({sets}), {self.memory_bytes / 1e9:.0f} GB of "
            f"memory, {self.system}; {versions}; load average {self.load_average:.1f}"
        )


def this_machine() -> Machine:
    """The machine that this process runs on."""
    import psutil

    name, flags = processor()
    return Machine(
        processor=name,
        cores=len(usable_cores()),
        instruction_sets=tuple(kind for kind in _INSTRUCTION_SETS if kind in flags),
        memory_bytes=psutil.virtual_memory().total,
        system=platform.platform(),
        versions=installed_versions(_PACKAGES),
        load_average=psutil.getloadavg()[0],
    )


def usable_cores() -> list[int]:
    """Numbers of the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Version of Python, and of those of the packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def processor() -> tuple[str, set[str]]:
    """Its name, and the names of its extensions where the system is Linux."""
    listing, facts = Path("/proc/cpuinfo"), dict[str, str]()
    if listing.exists():
        for line in listing.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            facts.setdefault(key.strip(), value.strip())
    elif platform.system() == "Darwin":
        asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        facts["model name"] = done.stdout.strip()
    name = facts.get("model name") or platform.processor() or platform.machine()
    return name, set(facts.get("flags", facts.get("Features", "")).split())
