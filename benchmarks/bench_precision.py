"""What reduced precision changes: labels in the network's resolution, over all slices of scans.

    python benchmarks/bench_precision.py MODEL SCAN [SCAN ...]

For models of 2-D networks, with OpenVINO, in every precision that this processor has.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from leanseg.frames import ScanSource, ScanView
from leanseg.inference import make_engine
from leanseg.inference.engines.openvino_engine import precisions
from leanseg.inference.labels import network_labels
from leanseg.modelfile import read_model
from leanseg.volumes import read_volume

ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("scans", type=Path, nargs="+")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    model = read_model(options.model)
    stage = model.plan.final
    engines = {
        precision: make_engine(
            model, name="openvino", precision=precision, threads=options.threads, lanes=1
        )
        for precision in precisions()
    }
    changed = dict.fromkeys(engines, 0)
    worst = dict.fromkeys(engines, 0.0)
    foreground = total = 0
    for scan in options.scans:
        view = ScanView(read_volume(scan), stage.frame.orientation)
        source = ScanSource(view, stage)
        for k in range(view.shape[2]):
            batch = source.planes(k, k + 1)
            labels = {name: network_labels(engine.run(batch)) for name, engine in engines.items()}
            foreground += np.count_nonzero(labels["f32"])
            total += labels["f32"].size
            for name, found in labels.items():
                differing = found != labels["f32"]
                changed[name] += int(differing.sum())
                worst[name] = max(worst[name], float(differing.mean()))
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(ROUNDS):
        for name, engine in engines.items():
            started = time.perf_counter()
            for _ in range(10):
                engine.run(batch)
            seconds[name].append((time.perf_counter() - started) / 10)
    print(
        f"{total} labels, {100 * foreground / total:.1f} % foreground, {options.threads} threads\n"
    )
    print("| precision | labels changed, of 10,000 | in the worst slice | ms a slice |")
    print("|---|---|---|---|")
    for name in engines:
        rates = f"{1e4 * changed[name] / total:.2f} | {1e4 * worst[name]:.1f}"
        print(f"| {name} | {rates} | {1e3 * np.median(seconds[name]):.1f} |")


if __name__ == "__main__":
    main()
