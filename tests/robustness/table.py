"""Damages inputs of every reader and prints what came of them, by reader.

    python tests/robustness/table.py                        everything: over 20,000 inputs, minutes
    python tests/robustness/table.py --step 20              every twentieth of them
    python tests/robustness/table.py --small                those of `make test`
    python tests/robustness/table.py --only RTSTRUCT -n 50  some inputs of some readers
    python tests/robustness/table.py --only NIfTI --number 17 --keep one   one input, its files
    --failures                                              each kind of failure once, with a number

`answered` agrees with the other library; `unchecked` answers have nobody to agree with; `refused`
is one sentence that names the file. All else is a mistake: `wrong` (another library reads
something else), `unclear` (a refusal that is no such sentence), `traceback`, `crash`, `hang`. The
reader's name and the number decide what an input is (in run folders, times differ).
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from robustness.harness import GOOD, OUTCOMES, Result, Target, run


def warm() -> None:
    """Import what readers need, once, before any fork."""
    import highdicom  # noqa: F401
    import onnxruntime  # noqa: F401
    import openvino  # noqa: F401
    import SimpleITK as sitk  # noqa: N813
    import torch

    import leanseg.inference
    import leanseg.reports
    import leanseg.training.finish
    import leanseg.training.loop
    import leanseg.training.run  # noqa: F401

    torch.set_num_threads(1)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


def table(results: Sequence[Result]) -> str:
    """Counts by reader, in Markdown."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for result in results:
        counts[result.target][result.outcome] += 1
        counts["all"][result.outcome] += 1
    counts["all"] = counts.pop("all")
    lines = ["| reader | inputs | " + " | ".join(OUTCOMES) + " |", "|---|" + "--:|" * 9]
    for name, of in counts.items():
        cells = [name, sum(of.values()), *(of[outcome] for outcome in OUTCOMES)]
        lines.append("| " + " | ".join(f"{c:,}" if isinstance(c, int) else c for c in cells) + " |")
    return "\n".join(lines)


def failures(results: Sequence[Result]) -> list[str]:
    """Each kind of failure once: how often, the first number, and why."""
    kinds: dict[tuple[str, ...], list[Result]] = defaultdict(list)
    for result in results:
        if result.outcome not in GOOD:
            stem = re.sub(r"[\d.]+|'[^']*'|/\S+", "#", result.detail)[:90]
            kinds[result.target, result.outcome, stem].append(result)
    return [
        f"{target} {outcome} x{len(found)}, number {found[0].number}: {found[0].detail[:400]}"
        for (target, outcome, _), found in sorted(kinds.items())
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="readers whose names have this in them")
    parser.add_argument("-n", type=int, help="inputs of each reader")
    parser.add_argument("--step", type=int, default=1, help="only every so-many-th input")
    parser.add_argument("--small", action="store_true", help="the few of the fast tests")
    parser.add_argument("--number", type=int, help="this input alone, in this process")
    parser.add_argument("--keep", type=Path, help="with --number: an empty folder for its files")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--limit", type=float, help="seconds that one input may take")
    parser.add_argument("--failures", action="store_true", help="list each kind of failure")
    parser.add_argument("--refusals", action="store_true", help="list every refusal")
    given = parser.parse_args()
    warm()
    from robustness import commands, shipped
    from robustness.targets import TARGETS

    every = (*TARGETS, commands.TARGET, shipped.TARGET)
    chosen = [target for target in every if given.only in target.name]
    if given.limit:
        chosen = [replace(target, limit_s=given.limit) for target in chosen]
    if given.number is not None:
        # The same way as among others, so that paths within files are of the same length.
        (result,) = run(chosen[:1], lambda target: [given.number], 1, given.keep)
        print(result)
        return 0
    start = time.perf_counter()
    if given.small:
        chosen = [target for target in chosen if target.small]

    def numbers(target: Target) -> range:
        step = target.share // target.small if given.small else given.step
        return range(0, given.n or target.share, step)

    results = run(chosen, numbers, given.processes)
    print(table(results))
    print(f"\n{len(results):,} inputs in {time.perf_counter() - start:.0f} s")
    seconds: Counter[str] = Counter()
    for result in results:
        seconds[result.target] += result.seconds
    print("slowest:", ", ".join(f"{n} {s:.0f} s" for n, s in seconds.most_common(6)))
    if given.failures:
        print("\n".join(failures(results)))
    if given.refusals:
        print("\n".join(sorted({r.detail for r in results if r.outcome == "refused"})))
    return int(any(result.outcome not in GOOD for result in results))


if __name__ == "__main__":
    raise SystemExit(main())
