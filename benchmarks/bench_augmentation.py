"""Cost of augmenting a batch, as a ratio to the MoNet training step that consumes it.

Both take turns in one process with the allocator, memory layout and precision that training
uses. Prints a Markdown table of medians.

    python benchmarks/bench_augmentation.py [--threads 2] [--batch 8] [--size 256] [--rounds 9]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from bench_training_step import keep_large_blocks, machine, make_step

from leanseg.augmentation import AUGMENTATIONS, build_augmentation


def seconds_of(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    keep_large_blocks()
    torch.set_num_threads(arguments.threads)
    batch, size = arguments.batch, arguments.size

    image = torch.rand(batch, 1, size, size)
    label = (torch.rand(batch, size, size) > 0.9).to(torch.uint8)
    names = list(AUGMENTATIONS)

    def augmenting(name: str) -> Callable[[], object]:
        augmentation = build_augmentation(name)
        return lambda: augmentation.apply(image, label, augmentation.draw(range(batch)))

    steps: dict[str, Callable[[], object]] = {name: augmenting(name) for name in names}
    for title, bf16 in (("float32", False), ("bf16", True)):
        options = {"channels_last": True, "bf16": bf16}
        steps[title] = make_step(options, batch, size, "monet")
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(arguments.rounds + 2):
        for name, step in steps.items():
            elapsed = seconds_of(step)
            if turn >= 2:
                seconds[name].append(elapsed)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"Machine: {machine()}, {arguments.threads} threads.\n")
    print(
        f"| augmentation, {batch} x 1 x {size} x {size} | ms per batch | of a float32 step "
        "| of a bf16 step |"
    )
    print("|---|---|---|---|")
    for name in names:
        print(
            f"| {name} | {1e3 * medians[name]:.1f} | {medians[name] / medians['float32']:.2%} "
            f"| {medians[name] / medians['bf16']:.2%} |"
        )


if __name__ == "__main__":
    main()
