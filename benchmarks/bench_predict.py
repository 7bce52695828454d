"""`leanseg predict` on a 512 x 512 x 150 scan, `.nii.gz` to `.nii.gz`: seconds, memory, agreement.

Every run is a process of its own that runs the command from a real model file; engines and
precisions take turns, so that what else the machine does falls on all alike. The scan is a real
one, padded and tiled, where `../shared/data` (or the folder in LEANSEG_SHARED_DATA) has it, else a
phantom. Networks have random weights: they cost what trained ones cost, but their labels are less
decided, so that the agreement with PyTorch in float32 is a lower bound. Prints Markdown, medians
of the rounds.

    python benchmarks/bench_predict.py [--network monet unet-16 ...] [--engine openvino:bf16 ...]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SHAPE = (512, 512, 150)
STAGES = ("read", "preprocess", "network", "restore", "postprocess", "write")
NETWORKS = ("monet", "unet-16", "unet-64", "attention-unet-64")
ENGINES = ("openvino:bf16", "openvino:f32", "onnxruntime:f32", "torch:f32")
REFERENCE = "torch:f32"
WARM_RUNS = 3


def predict_once(arguments: list[str]) -> None:
    """In a child: the command, and on stderr when its first slice went into the network."""
    from leanseg.cli.main import run
    from leanseg.inference import batch, predictor
    from leanseg.inference.memory import peak_memory_mb

    first: list[float] = []
    original = predictor._Stream._run

    def watched(self: Any, batch: Any) -> Any:
        first.append(time.time())
        return original(self, batch)

    predictor._Stream._run = watched  # type: ignore[method-assign]
    # The peak of the whole process is wanted, not that of each scan.
    batch.reset_peak = lambda: False
    try:
        run(["predict", *arguments])
    finally:
        told = {"first": min(first, default=0.0), "peak": peak_memory_mb()}
        print(json.dumps(told), file=sys.stderr)


def predict_warm(model: Path, scan: Path, engine: str, threads: int) -> None:
    """In a child: predictions of a scan that is in memory already, the model being warm."""
    import leanseg

    name, precision = engine.split(":")
    loaded = leanseg.load_model(model, engine=name, precision=precision, threads=threads)
    volume = leanseg.read_volume(scan)
    loaded.predict(volume)
    seconds = []
    for _ in range(WARM_RUNS):
        started = time.perf_counter()
        loaded.predict(volume)
        seconds.append(time.perf_counter() - started)
    print(json.dumps({"warm": statistics.median(seconds)}), file=sys.stderr)


def child(*arguments: str) -> dict[str, Any]:
    """Run this script in a process of its own: wall clock, processor time, peak memory."""
    started = time.time()
    command = [sys.executable, __file__, "--child", *arguments]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        ended = time.time()
        process.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        text = errors.read()
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{text}")
    found: dict[str, Any] = json.loads(text.splitlines()[-1])
    if "first" in found:
        found["first"] -= started
    return {**found, "whole": ended - started, "cpu": usage.ru_utime + usage.ru_stime}


def measure(model: Path, scan: Path, engine: str, options: argparse.Namespace) -> dict[str, Any]:
    """One whole process."""
    name, precision = engine.split(":")
    with tempfile.TemporaryDirectory() as folder:
        arguments = [str(model), str(scan), "--output", folder, "--engine", name]
        arguments += ["--precision", precision, "--threads", str(options.threads)]
        result = child("command", *arguments)
        records = json.loads((Path(folder) / "predictions.json").read_text())
        result["stages"] = next(iter(records["cases"].values()))["stages"]
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


def make_model(path: Path, name: str = "monet") -> None:
    """Write a network with random weights and statistics, and its export."""
    import torch

    from leanseg.modelfile import Member, ModelFile, NetworkSpec, write_model
    from leanseg.networks import build
    from leanseg.plan import Plan, Stage
    from leanseg.training.export import export_model

    generator = torch.Generator().manual_seed(0)
    network = build(name, generator=generator)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    spec = NetworkSpec(name=name, in_channels=1, out_channels=1)
    plan = Plan(stages=(Stage(labels=("pancreas",)),))
    weights = {key: value.numpy() for key, value in network.state_dict().items()}
    write_model(path, export_model(ModelFile.of(plan, Member(spec, weights))))


def agreement(mask: bytes, reference: bytes) -> float:
    """Share of voxels with the same label."""
    import numpy as np

    from leanseg.volumes import read_volume

    arrays = []
    with tempfile.TemporaryDirectory() as folder:
        for index, content in enumerate((mask, reference)):
            path = Path(folder) / f"{index}.nii.gz"
            path.write_bytes(content)
            arrays.append(read_volume(path).array)
    return float(np.mean(arrays[0] == arrays[1]))


def table(results: dict[str, list[dict[str, Any]]], warm: dict[str, float]) -> list[str]:
    """Markdown: a column for every engine and precision."""
    lines = [f"| seconds | {' | '.join(results)} |", f"|---|{'---|' * len(results)}"]

    def row(name: str, values: list[float], digits: int = 2) -> None:
        lines.append(f"| {name} | {' | '.join(f'{value:.{digits}f}' for value in values)} |")

    def medians(key: str) -> list[float]:
        return [statistics.median(run[key] for run in runs) for runs in results.values()]

    row("first slice in the network", medians("first"))
    for stage in STAGES:
        seconds = [[run["stages"][stage] for run in runs] for runs in results.values()]
        row(stage, [statistics.median(each) for each in seconds])
    row("**whole process**", medians("whole"))
    row("processor time", medians("cpu"))
    row("peak memory (MB)", medians("peak"), 0)
    row("warm, scan in memory", [warm[name] for name in results])
    if REFERENCE in results:
        reference = results[REFERENCE][0]["mask"]
        shares = [100 * agreement(runs[0]["mask"], reference) for runs in results.values()]
        row(f"same label as {REFERENCE} (%)", shares, 4)
    return lines


def main() -> None:
    if sys.argv[1:3] == ["--child", "command"]:
        predict_once(sys.argv[3:])
        return
    if sys.argv[1:3] == ["--child", "warm"]:
        model, scan, engine, threads = sys.argv[3:]
        predict_warm(Path(model), Path(scan), engine, int(threads))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", nargs="+", default=list(NETWORKS))
    parser.add_argument("--model", type=Path, help="a model file, instead of random networks")
    parser.add_argument("--engine", nargs="+", default=list(ENGINES), metavar="ENGINE:PRECISION")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    from leanseg.machine import this_machine

    with tempfile.TemporaryDirectory() as folder:
        scan = Path(folder) / "scan.nii.gz"
        kind = make_scan(scan)
        size = " x ".join(map(str, SHAPE))
        print(f"{size} voxels, int16, {scan.stat().st_size / 1e6:.0f} MB as .nii.gz ({kind});")
        print(f"{options.threads} threads, medians of {options.rounds} interleaved processes.")
        print(this_machine())
        for name in [options.model.name] if options.model else options.network:
            model = options.model or Path(folder) / f"{name}.leanseg"
            if not options.model:
                make_model(model, name)
            results: dict[str, list[dict[str, Any]]] = {each: [] for each in options.engine}
            for _ in range(options.rounds):
                for engine, runs in results.items():
                    runs.append(measure(model, scan, engine, options))
            files = (str(model), str(scan))
            warm = {
                engine: child("warm", *files, engine, str(options.threads))["warm"]
                for engine in results
            }
            print(f"\n{name}\n")
            print("\n".join(table(results, warm)), flush=True)
    if hasattr(os, "getloadavg"):
        print(f"\nLoad average at the end: {os.getloadavg()[0]:.1f}.")


if __name__ == "__main__":
    main()
