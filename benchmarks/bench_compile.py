"""What torch.compile saves of a step of the planned network, and costs before: docs/quality.md.

python benchmarks/bench_compile.py --shape 32 32 32
"""

from __future__ import annotations

import argparse
import os
from statistics import median

import torch
import torch._inductor.config
from torch.nn import functional

from leanseg.networks import build
from leanseg.runtime import keep_large_blocks


def spent() -> float:
    """Processor seconds of this process and of the compilers that it has started and awaited."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main() -> None:
    """Print one line for the eager network, one for the compiled one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=[32, 32, 32])
    parser.add_argument("--steps", type=int, default=30)
    given = parser.parse_args()
    torch.set_num_threads(1)
    # In this process, where its time is counted.
    torch._inductor.config.compile_threads = 1
    keep_large_blocks()
    options = {"base_filters": 12, "shape": given.shape, "max_pools": 3}
    image = torch.randn(2, 1, *given.shape).contiguous(memory_format=torch.channels_last_3d)
    classes = torch.randint(0, 3, (2, *given.shape))
    for name in ("eager", "compiled"):
        network = build("nnunet-3d", out_channels=3, **options).train()
        network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        forward = torch.compile(network) if name == "compiled" else network
        seconds = []
        for _ in range(given.steps + 1):
            began = spent()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = forward(image)
            functional.cross_entropy(logits.float(), classes).backward()
            seconds.append(spent() - began)
        print(
            f"{name}: first step {seconds[0]:.1f} s, then {median(seconds[1:]):.3f} s "
            f"(least {min(seconds[1:]):.3f})"
        )


if __name__ == "__main__":
    main()
