"""Prediction of a 512 x 512 x 150 scan, `.nii.gz` to `.nii.gz`: seconds by stage, peak memory.

Every run is a process of its own that does what `leanseg predict` does; precisions take turns, so
that what else the machine does falls on all alike. The scan is a real one, padded and tiled, where
`../shared/data` (or the folder in LEANSEG_SHARED_DATA) has it, else a phantom. MoNet has random
weights: they cost what trained ones cost. Prints Markdown, medians of the rounds.

    python benchmarks/bench_predict.py [--threads 2] [--rounds 3] [--precision f32 bf16]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

SHAPE = (512, 512, 150)
STAGES = (
    "start and imports",
    "load model",
    "read",
    "preprocess",
    "network",
    "restore",
    "postprocess",
    "write",
)


def predict_once(model: Path, scan: Path, output: Path, options: argparse.Namespace) -> None:
    """In a child: predict and print the seconds of each stage as JSON."""
    import torch  # noqa: F401

    from leanseg.inference.batch import predict_all
    from leanseg.inference.inputs import collect_tasks
    from leanseg.inference.memory import peak_memory_mb
    from leanseg.inference.model import load_model

    # Wall clock, not a monotonic one: the parent's clock reading started it.
    imported = time.time()
    loaded = load_model(model, precision=options.precision[0], threads=options.threads)
    if options.slices_per_batch:
        loaded.predictor.slices_per_batch = options.slices_per_batch
    ready = time.time()
    before_mb = peak_memory_mb()
    tasks = collect_tasks([scan], loaded.plan)
    result = predict_all(loaded, tasks, output)[0]
    if result.status != "done":
        raise SystemExit(result.message)
    stages = {"start and imports": imported - options.started, "load model": ready - imported}
    peak_mb = max(before_mb, result.peak_memory_mb)
    print(json.dumps({"stages": {**stages, **result.stages}, "peak_mb": peak_mb}))


def cpu_seconds() -> float:
    """Processor time of all children so far: what a busy machine does not lengthen."""
    times = os.times()
    return times.children_user + times.children_system


def measure(model: Path, scan: Path, precision: str, options: argparse.Namespace) -> dict[str, Any]:
    """One whole process."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.time()
        command = [sys.executable, __file__, "--child", str(model), str(scan), folder]
        command += ["--precision", precision, "--threads", str(options.threads)]
        command += ["--started", repr(started)]
        command += ["--slices-per-batch", str(options.slices_per_batch)]
        cpu_before = cpu_seconds()
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        result: dict[str, Any] = json.loads(text.splitlines()[-1])
        result["stages"]["whole process"] = time.time() - started
        result["stages"]["processor time"] = cpu_seconds() - cpu_before
        result["mask"] = (Path(folder) / scan.name).read_bytes()
    return result


def make_scan(path: Path) -> str:
    """Write the scan; says what it is."""
    import numpy as np

    from leanseg.volumes import Volume, read_volume, write_volume

    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    real = Path(os.environ.get("LEANSEG_SHARED_DATA", default)) / "abdomen_ircad01" / "ct.nii.gz"
    if real.is_file():
        source, kind = read_volume(real), "a real abdominal CT, padded with air and tiled"
    else:
        from leanseg.datasets.phantom import PhantomOptions, make_phantom

        options = PhantomOptions(size=512, slices=120)
        source, _ = make_phantom(np.random.default_rng(0), options)
        kind = "a phantom, tiled"
    array = np.full(SHAPE, -1024, dtype=np.int16, order="F")
    rows, columns = (min(n, m) for n, m in zip(source.shape[:2], SHAPE[:2], strict=True))
    indices = np.arange(SHAPE[2]) % source.shape[2]
    array[:rows, :columns] = source.array[:rows, :columns, indices]
    write_volume(path, Volume(array, source.affine))
    return kind


def make_model(path: Path) -> None:
    """Write a MoNet with random weights and statistics."""
    import torch

    from leanseg.modelfile import Manifest, NetworkSpec, write_model
    from leanseg.networks import build
    from leanseg.preprocessing import Plan

    generator = torch.Generator().manual_seed(0)
    network = build("monet", generator=generator)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    spec = NetworkSpec(name="monet", in_channels=1, out_channels=1)
    manifest = Manifest(network=spec, plan=Plan(labels=("pancreas",)))
    write_model(path, manifest, {k: v.numpy() for k, v in network.state_dict().items()})


def machine() -> str:
    """Processor, cores, its instructions for bf16, library versions."""
    name, flags = platform.processor() or platform.machine(), ""
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            elif key.strip() == "flags":
                flags = value
    kinds = [kind for kind in ("avx512f", "avx512_bf16", "amx_bf16") if kind in flags.split()]
    packages = ", ".join(f"{package} {version(package)}" for package in ("torch", "numpy", "isal"))
    load = (
        f"; load average {os.getloadavg()[0]:.1f} at the end" if hasattr(os, "getloadavg") else ""
    )
    return f"{name}, {os.cpu_count()} cores, {', '.join(kinds)}; {packages}{load}"


def agreement(results: list[dict[str, Any]], others: list[dict[str, Any]]) -> float:
    """Share of voxels with the same label."""
    import numpy as np

    from leanseg.volumes import read_volume

    arrays = []
    with tempfile.TemporaryDirectory() as folder:
        for index, result in enumerate((results[0], others[0])):
            path = Path(folder) / f"{index}.nii.gz"
            path.write_bytes(result["mask"])
            arrays.append(read_volume(path).array)
    return float(np.mean(arrays[0] == arrays[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", nargs="+", default=["f32", "bf16"])
    parser.add_argument("--slices-per-batch", type=int, default=0, help="0: leanseg's own choice")
    parser.add_argument("--child", nargs=3, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--started", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        predict_once(*options.child, options)
        return
    results: dict[str, list[dict[str, Any]]] = {precision: [] for precision in options.precision}
    with tempfile.TemporaryDirectory() as folder:
        model, scan = Path(folder) / "monet.leanseg", Path(folder) / "scan.nii.gz"
        make_model(model)
        kind = make_scan(scan)
        megabytes = scan.stat().st_size / 1e6
        for _ in range(options.rounds):
            for precision, runs in results.items():
                runs.append(measure(model, scan, precision, options))
    size = " x ".join(map(str, SHAPE))
    print(f"{size} voxels, int16, {megabytes:.0f} MB as .nii.gz ({kind}); MoNet, PyTorch engine,")
    print(f"{options.threads} threads, medians of {options.rounds} interleaved processes.")
    print(f"{machine()}.\n")
    print(f"| seconds | {' | '.join(results)} |")
    print(f"|---|{'---|' * len(results)}")
    for stage in (*STAGES, "whole process", "processor time"):
        middles = [statistics.median(run["stages"][stage] for run in r) for r in results.values()]
        print(f"| {stage} | {' | '.join(f'{middle:.2f}' for middle in middles)} |")
    peaks = [statistics.median(run["peak_mb"] for run in runs) for runs in results.values()]
    print(f"| peak memory (MB) | {' | '.join(f'{peak:.0f}' for peak in peaks)} |")
    if len(results) > 1:
        first, *others = results.values()
        shares = ", ".join(f"{100 * agreement(first, other):.3f} %" for other in others)
        print(f"\nVoxels with the same label as in {options.precision[0]}: {shares}.")


if __name__ == "__main__":
    main()
