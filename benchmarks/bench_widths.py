"""A training step of the planned 3-D network by its width: the table in docs/quality.md.

python benchmarks/bench_widths.py --widths 8 12 16 24 32
"""

from __future__ import annotations

import argparse
import time

import torch
from torch.nn import functional

from leanseg.networks import build
from leanseg.runtime import keep_large_blocks

_SHAPE, _BATCH_SIZE = (40, 40, 48), 2


def step_s(width: int, memory_format: torch.memory_format, *, reduced: bool, repeats: int) -> float:
    """Processor seconds of forward and backward, the quickest of some."""
    network = build("nnunet-3d", out_channels=2, base_filters=width, shape=_SHAPE, max_pools=3)
    network = network.to(memory_format=memory_format).train()  # type: ignore[call-overload]
    image = torch.randn(_BATCH_SIZE, 1, *_SHAPE).contiguous(memory_format=memory_format)
    classes = torch.randint(0, 2, (_BATCH_SIZE, *_SHAPE))
    times = []
    for _ in range(repeats + 1):
        started = time.process_time()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=reduced):
            logits = network(image)
        functional.cross_entropy(logits.float(), classes).backward()
        times.append(time.process_time() - started)
    return min(times[1:])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", type=int, nargs="+", default=[8, 12, 16, 24, 32])
    parser.add_argument("--repeats", type=int, default=4)
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_large_blocks()
    print("| filters | bf16, channels last, s | bf16 | float32, channels last |\n|--:|--:|--:|--:|")
    for width in given.widths:
        last, first = torch.channels_last_3d, torch.contiguous_format
        times = [
            step_s(width, kind, reduced=reduced, repeats=given.repeats)
            for kind, reduced in ((last, True), (first, True), (last, False))
        ]
        print(f"| {width} | " + " | ".join(f"{each:.2f}" for each in times) + " |", flush=True)


if __name__ == "__main__":
    main()
