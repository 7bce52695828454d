"""`leanseg check`: seconds and peak memory by dataset and workers, with and without pictures.

Every run is a process of its own, the command itself. Memory is its resident size, sampled 50
times a second.
Without arguments: 24 phantom scans of 512 x 512 x 100, and the sarcoma and brain tumour data where
`../shared/data` (or the folder in LEANSEG_SHARED_DATA) has them. Prints Markdown, medians of the
rounds.

    python benchmarks/bench_check.py [DATASET ...] [--workers 1 2] [--rounds 3]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from leanseg.datasets import open_dataset
from leanseg.datasets.phantom import phantom
from leanseg.volumes import read_volume


def run_once(dataset: Path, workers: int, page: Path | None) -> tuple[float, float]:
    """Seconds and MB of a check."""
    command = [sys.executable, "-m", "leanseg.cli.main", "check", str(dataset)]
    command += ["--workers", str(workers), *(["--html", str(page)] if page else [])]
    started, peak = time.perf_counter(), 0
    done = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    process = psutil.Process(done.pid)
    while done.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            peak = max(peak, process.memory_info().rss)
        time.sleep(0.02)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(command)} ended with status {done.returncode}")
    return time.perf_counter() - started, peak / 1e6


def largest_scan_mb(dataset: Path) -> float:
    """Voxels of the largest scan as read, in MB."""
    cases = open_dataset(dataset).cases
    biggest = max(cases, key=lambda case: case.images[0].path.stat().st_size)
    return read_volume(biggest.images[0].path).array.nbytes / 1e6


def default_datasets(folder: Path) -> list[Path]:
    """The phantom, and the real data that are here."""
    print("writing the phantom", file=sys.stderr)
    made = phantom(folder / "phantom_512", 3, size=512, slices=100).root
    # Each scan under 8 names: reading them takes as long as reading 24, writing does not.
    listing = json.loads((made / "dataset.json").read_text(encoding="utf-8"))
    for entry in list(listing["training"]):
        for number in range(7):
            again = {part: f"{number}".join(file.rsplit("_", 1)) for part, file in entry.items()}
            for part, file in again.items():
                (made / file).symlink_to((made / entry[part]).resolve())
            listing["training"].append(again)
    (made / "dataset.json").write_text(json.dumps(listing), encoding="utf-8")
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    shared = Path(os.environ.get("LEANSEG_SHARED_DATA", beside))
    tasks = (shared / name for name in ("Task101_SarcomaCT", "Task102_BrainTumour"))
    return [made, *(task for task in tasks if task.is_dir())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datasets", nargs="*", type=Path)
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        print("| dataset | cases | largest scan MB | workers | HTML | s | peak MB |")
        print("|---|---|---|---|---|---|---|")
        for dataset in options.datasets or default_datasets(folder):
            n_cases, largest = len(open_dataset(dataset).cases), largest_scan_mb(dataset)
            for workers in options.workers:
                for page in (None, folder / "check.html"):
                    runs = [run_once(dataset, workers, page) for _ in range(options.rounds)]
                    seconds, memory = (
                        statistics.median(column) for column in zip(*runs, strict=True)
                    )
                    print(
                        f"| {dataset.name} | {n_cases} | {largest:.0f} | {workers} | "
                        f"{'yes' if page else 'no'} | {seconds:.1f} | {memory:.0f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
