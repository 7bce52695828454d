"""Runs a command in a process of its own and watches how much memory it holds."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np

from leanseg.modelfile import Member, ModelFile, NetworkSpec, write_model
from leanseg.plan import HounsfieldWindow
from plans import slices

NINE = tuple(f"organ {n}" for n in range(1, 9))


@dataclass(frozen=True)
class Watched:
    """What became of a process.

    Attributes:
        status: Its exit status.
        out: What it printed.
        err: What it printed on stderr.
        peak_mb: Peak resident memory in MB (10^6 bytes).
        seconds: Wall clock.
    """

    status: int
    out: str
    err: str
    peak_mb: float
    seconds: float


def watch(*arguments: object) -> Watched:
    """Run `leanseg` with some arguments (Linux)."""
    code = f"from leanseg.cli.main import run; run({list(map(str, arguments))!r})"
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    printed: list[str] = []
    reader = Thread(target=lambda: printed.extend(process.communicate()))
    reader.start()
    peak = 0
    # The system's own record of the peak, which misses nothing between two looks; leanseg
    # starts it anew for each scan, so the largest that is ever seen counts.
    try:
        while reader.is_alive():
            peak = max(peak, _high_water_bytes(process.pid))
            time.sleep(0.003)
    finally:
        # Where the test is given up, its process is too.
        if reader.is_alive():
            process.kill()
    seconds = time.perf_counter() - started
    return Watched(process.returncode, printed[0], printed[1], peak / 1e6, seconds)


def _high_water_bytes(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def write_large_scan(path: Path, shape: tuple[int, int, int], spacing_mm: float = 0.8) -> Path:
    """Write a CT-like scan slice by slice: ellipses and noise, no two slices alike."""
    import nibabel as nib
    from isal import igzip

    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape(shape)
    header.set_sform(np.diag([-spacing_mm, -spacing_mm, 1.0, 1.0]), 1)
    header["magic"], header["vox_offset"] = b"n+1", 352
    rng = np.random.default_rng(0)
    i, j = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape[:2]), indexing="ij")
    # Noise of one slice, moved along: drawing it anew for each would take longer than all else.
    noise = rng.normal(0, 20, shape[:2])
    with igzip.open(path, "wb", 1) as file:
        file.write(header.binaryblock + bytes(4))
        for k in range(shape[2]):
            angle = k / 20
            body = (i / 0.8) ** 2 + (j / 0.6) ** 2 < 1
            organ = (i - 0.3 * np.cos(angle)) ** 2 + (j - 0.3 * np.sin(angle)) ** 2 < 0.05
            values = np.where(body, 40 + 80 * organ + np.roll(noise, 7 * k, axis=0), -1000)
            file.write(values.astype("<i2").tobytes(order="F"))
    return path


def nine_class_model(path: Path, slice_side: int = 256, **options: Any) -> Path:
    """U-Net-16 with random weights and nine outputs, packaged for every engine."""
    import torch

    from leanseg.networks import build
    from leanseg.training import package

    plan = slices((slice_side, slice_side), NINE, window=HounsfieldWindow(), **options)
    generator = torch.Generator().manual_seed(0)
    network = build("unet-16", in_channels=1, out_channels=9, generator=generator)
    spec = NetworkSpec(name="unet-16", in_channels=1, out_channels=9)
    weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    write_model(path, ModelFile.of(plan, Member(spec, weights)))
    package(path)
    return path
