"""Throughput of a MoNet training step on the CPU, setting by setting.

Every setting runs in a process of its own (the allocator's settings hold for a process), and
the processes take turns, one step each, so that what else the machine does falls on all alike.
Prints a Markdown table of medians.

    python benchmarks/bench_training_step.py [--threads 2] [--batch 8] [--size 256] [--rounds 7]
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import os
import platform
import statistics
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

# glibc's numbers for mallopt (malloc.h).
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
LARGEST_INT = 2**31 - 1

SETTINGS: dict[str, dict[str, bool]] = {
    "default": {},
    "mallopt": {"keep_blocks": True},
    "mallopt, channels last": {"keep_blocks": True, "channels_last": True},
    "mallopt, channels last, bf16": {"keep_blocks": True, "channels_last": True, "bf16": True},
    "mallopt, channels last, bf16, compile": {
        "keep_blocks": True,
        "channels_last": True,
        "bf16": True,
        "compiled": True,
    },
}


def keep_large_blocks(top_pad: int = 64 * 2**20) -> bool:
    """Tell glibc to serve large blocks from the heap and not to hand freed ones back."""
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    wanted = {
        M_MMAP_THRESHOLD: LARGEST_INT,
        M_TRIM_THRESHOLD: LARGEST_INT,
        M_TOP_PAD: top_pad,
    }
    return all(mallopt(name, value) == 1 for name, value in wanted.items())


def make_step(options: dict[str, Any], batch: int, size: int, network: str) -> Any:
    """A function without arguments that does one training step."""
    import torch

    from leanseg.losses import build_loss
    from leanseg.networks import build

    generator = torch.Generator().manual_seed(0)
    model = build(network, generator=generator).train()
    layout = torch.channels_last if options.get("channels_last") else torch.contiguous_format
    model = model.to(memory_format=layout)
    images = torch.randn(batch, 1, size, size, generator=generator).to(memory_format=layout)
    target = (torch.rand(batch, size, size, generator=generator) > 0.9).to(torch.uint8)
    loss_function = build_loss("dice")
    optimiser = torch.optim.NAdam(model.parameters(), lr=5e-4, foreach=True)
    forward = torch.compile(model) if options.get("compiled") else model

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bool(options.get("bf16"))):
            logits = forward(images)
        loss_function(logits, target).backward()
        optimiser.step()

    return step


def serve(
    pipe: Connection, options: dict[str, Any], threads: int, batch: int, size: int, network: str
) -> None:
    """Do a step whenever asked and answer with its seconds."""
    if options.get("keep_blocks"):
        keep_large_blocks()
    import torch

    torch.set_num_threads(threads)
    step = make_step(options, batch, size, network)
    while pipe.recv():
        start = time.perf_counter()
        step()
        pipe.send(time.perf_counter() - start)


def interleave(
    settings: dict[str, dict[str, Any]], arguments: argparse.Namespace
) -> dict[str, list[float]]:
    """Seconds per step, setting by setting, after two steps of warming up."""
    context = multiprocessing.get_context("spawn")
    pipes, workers = {}, []
    for name, options in settings.items():
        pipes[name], far_end = context.Pipe()
        values = (arguments.threads, arguments.batch, arguments.size, arguments.network)
        worker = context.Process(target=serve, args=(far_end, options, *values), daemon=True)
        worker.start()
        far_end.close()
        workers.append(worker)
    seconds: dict[str, list[float]] = {name: [] for name in settings}
    for turn in range(arguments.rounds + 2):
        for name, pipe in pipes.items():
            pipe.send(True)
            elapsed = pipe.recv()
            if turn >= 2:
                seconds[name].append(elapsed)
    for pipe, worker in zip(pipes.values(), workers, strict=True):
        pipe.send(False)
        worker.join(10)
    return seconds


def machine() -> str:
    """Processor, cores, its bf16 instructions, torch."""
    import torch

    model, flags = platform.processor() or platform.machine(), ""
    about = Path("/proc/cpuinfo")
    if about.exists():
        lines = about.read_text().splitlines()
        facts = dict(line.split(":", 1) for line in lines if ":" in line)
        facts = {key.strip(): value.strip() for key, value in facts.items()}
        model, flags = facts.get("model name", model), facts.get("flags", "")
    kinds = [kind for kind in ("avx512f", "avx512_bf16", "amx_bf16") if kind in flags.split()]
    return f"{model}, {os.cpu_count()} cores, {', '.join(kinds)}; torch {torch.__version__}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--network", default="monet")
    parser.add_argument("--without-compile", action="store_true")
    arguments = parser.parse_args()
    settings = {
        name: options
        for name, options in SETTINGS.items()
        if not (arguments.without_compile and options.get("compiled"))
    }
    seconds = interleave(settings, arguments)
    print(f"Machine: {machine()}, {arguments.threads} threads.\n")
    print(
        f"| {arguments.network}, {arguments.batch} x {arguments.size} x {arguments.size} "
        "| s per step (median) | fastest | images/s | against default |"
    )
    print("|---|---|---|---|---|")
    slowest = statistics.median(seconds["default"])
    for name, values in seconds.items():
        middle = statistics.median(values)
        print(
            f"| {name} | {middle:.3f} | {min(values):.3f} | {arguments.batch / middle:.1f} "
            f"| {slowest / middle:.2f}x |"
        )


if __name__ == "__main__":
    main()
