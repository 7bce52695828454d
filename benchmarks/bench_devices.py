"""Training steps on the processor: one process with all threads against several with their share.

The two take turns, so that what else the machine does falls on both alike. Prints images a second
and processor seconds an image of each round, and the ratios of the medians.

    python benchmarks/bench_devices.py [--processes 2] [--threads 2] [--batch 8] [--rounds 3]
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import time


def work(arguments: argparse.Namespace) -> None:
    """Steps of MoNet on this process's share of the batch; the first process prints the rate."""
    import torch

    from leanseg.losses import build_loss
    from leanseg.networks import build
    from leanseg.runtime import keep_large_blocks
    from leanseg.training import joint, ranks

    keep_large_blocks()
    with ranks.together(None):
        network = build("monet", in_channels=1, out_channels=2).train()
        network.to(memory_format=torch.channels_last)
        joint.join_normalisation(network)
        loss, optimiser = build_loss("dice"), torch.optim.NAdam(network.parameters())
        share = arguments.batch // ranks.n_ranks()
        image = torch.randn(share, 1, arguments.size, arguments.size)
        image = image.contiguous(memory_format=torch.channels_last)
        classes = (image[:, 0] > 1).long()
        seconds, cpu_seconds = [], []
        for _ in range(arguments.steps + 1):
            started, cpu_started = time.perf_counter(), time.process_time()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = joint.joint(network(image))
            loss(logits, joint.joint(classes)).backward()
            joint.sum_gradients(network.parameters())
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            seconds.append(time.perf_counter() - started)
            cpu_seconds.append(time.process_time() - cpu_started)
        if not ranks.rank():
            # The first step warms up.
            step, cpu_step = statistics.median(seconds[1:]), statistics.median(cpu_seconds[1:])
            print(arguments.batch / step, cpu_step / share)


def measure(processes: int, threads: int) -> tuple[float, float]:
    """Images a second of so many processes, and processor seconds of an image."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    given["OMP_NUM_THREADS"] = str(threads)
    started = [
        subprocess.Popen(
            [sys.executable, *sys.argv, "--work"],
            env={**os.environ, **given, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    first, *_ = [process.communicate()[0] for process in started]
    rate, cpu_seconds = map(float, first.split())
    return rate, cpu_seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in {
        "processes": 2,
        "threads": 2,
        "batch": 8,
        "size": 256,
        "steps": 4,
        "rounds": 3,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments)
        return
    n, threads = arguments.processes, arguments.threads
    kinds = {"1 process": (1, threads), f"{n} processes": (n, threads // n)}
    found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
    for _ in range(arguments.rounds):
        for kind, given in kinds.items():
            found[kind].append(measure(*given))
            rate, cpu_seconds = found[kind][-1]
            print(f"{kind}: {rate:.2f} images/s, {cpu_seconds:.3f} processor s an image")
    one, several = ([*map(statistics.median, zip(*each, strict=True))] for each in found.values())
    print(
        f"{n} processes: {several[0] / one[0]:.2f} of the images a second of one, "
        f"{several[1] / one[1]:.2f} of its processor time"
    )


if __name__ == "__main__":
    main()
