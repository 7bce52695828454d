"""Peak memory and time of `leanseg predict` on long scans, with and without a ceiling.

Every run is a process of its own, whose peak is watched from outside; numbers of slices take
turns. The scan is drawn (ellipses and noise), U-Net-16 has random weights and nine outputs: both
cost what real ones cost. Prints Markdown, medians of the rounds.

    python benchmarks/bench_memory.py [--rounds 3] [--max-memory 1GB] [--precision f32]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

SLICES = (206, 412, 824)


def main() -> None:

    from leanseg.machine import this_machine
    from memory_watch import Watched, nine_class_model, watch, write_large_scan

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-memory", default="1GB")
    parser.add_argument("--precision", default="f32")
    parser.add_argument("--side", type=int, default=512)
    options = parser.parse_args()
    ceilings: tuple[tuple[str, list[str]], ...] = (
        (options.max_memory, ["--max-memory", options.max_memory]),
        ("none", []),
    )
    runs: dict[tuple[str, int], list[Watched]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = nine_class_model(folder / "nine.leanseg")
        scans = {
            n: write_large_scan(folder / f"{n}.nii.gz", (options.side, options.side, n))
            for n in SLICES
        }
        for _ in range(options.rounds):
            for n, scan in scans.items():
                for ceiling, extra in ceilings:
                    done = watch(
                        *("predict", model, scan, "--output", folder / "masks", "--overwrite"),
                        *("--precision", options.precision, *extra),
                    )
                    if done.status:
                        raise SystemExit(done.err)
                    runs.setdefault((ceiling, n), []).append(done)
    side = options.side
    print(f"U-Net-16, nine outputs, {side} x {side} x slices, medians of {options.rounds}.")
    print(f"{this_machine()}.\n")
    print("| ceiling | slices | seconds | ratio | seconds a slice | peak memory (MB) |")
    print("|---|---|---|---|---|---|")
    before = 0.0
    for ceiling, _ in ceilings:
        for n in SLICES:
            found = runs[ceiling, n]
            seconds = statistics.median(run.seconds for run in found)
            peak = max(run.peak_mb for run in found)
            ratio = "" if n == SLICES[0] else f"{seconds / before:.2f}"
            cells = (ceiling, n, f"{seconds:.1f}", ratio, f"{seconds / n:.4f}", f"{peak:.0f}")
            print(f"| {' | '.join(map(str, cells))} |")
            before = seconds


if __name__ == "__main__":
    main()
