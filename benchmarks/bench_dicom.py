"""Reading DICOM series against SimpleITK (GDCM): interleaved runs, medians as ratios.

Run with `python benchmarks/bench_dicom.py [--slices 280] [--rounds 5]`; it prints Markdown. A
synthetic CT of 512 x 512 slices is written to a temporary folder in two forms, uncompressed and
JPEG 2000 (lossless). Each reader starts from the folder: it finds the series, reads the headers
and gives voxels in Hounsfield units. Memory is the growth of the resident set at its peak, in
scans of int16.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

SIZE = 512
SPACING_MM = (0.75, 0.75, 1.25)


def scan(n_slices: int) -> np.ndarray:
    """A body of soft tissue with structure and the noise of a scanner, (i, j, k) HU."""
    rng = np.random.default_rng(0)
    i, j = np.mgrid[:SIZE, :SIZE].astype(np.float32) / SIZE - 0.5
    body = ((i / 0.42) ** 2 + (j / 0.3) ** 2) < 1
    texture = gaussian_filter(rng.standard_normal((SIZE, SIZE)).astype(np.float32), 6) * 900
    array = np.empty((SIZE, SIZE, n_slices), np.int16, order="F")
    for k in range(n_slices):
        noise = gaussian_filter(rng.standard_normal((SIZE, SIZE)).astype(np.float32), 0.7) * 25
        array[:, :, k] = np.where(body, 40 + np.roll(texture, k, axis=0) + noise, -1000 + noise / 5)
    return array


def write(folder: Path, array: np.ndarray, syntax: str | None) -> None:
    from dicom_writer import compress, volume_datasets, write_slices

    affine = np.diag([-SPACING_MM[0], -SPACING_MM[1], SPACING_MM[2], 1.0])
    datasets = volume_datasets(array, affine)
    if syntax is not None:
        datasets = [compress(dataset, syntax) for dataset in datasets]
    write_slices(folder, datasets, np.random.default_rng(1))


def ours(folder: Path) -> np.ndarray:
    from leanseg.volumes import read_volume

    return read_volume(folder).array


def simpleitk(folder: Path) -> np.ndarray:
    import SimpleITK as sitk  # noqa: N813

    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return sitk.GetArrayFromImage(reader.Execute()).T


READERS: dict[str, Callable[[Path], np.ndarray]] = {"leanseg": ours, "SimpleITK": simpleitk}


def measure(reader: str, folder: Path) -> tuple[float, float, int]:
    """Seconds, peak growth of memory in bytes, and a checksum, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (reader, folder))


def _measured(reader: str, folder: Path) -> tuple[float, float, int]:
    import pydicom.pixels.decoders  # noqa: F401
    import SimpleITK  # noqa: F401

    import leanseg.volumes.dicom.read  # noqa: F401

    before = peak_bytes()
    start = time.perf_counter()
    array = READERS[reader](folder)
    seconds = time.perf_counter() - start
    return seconds, peak_bytes() - before, int(array.sum(dtype=np.int64))


def peak_bytes() -> float:
    """The largest resident set so far; Linux tells it, elsewhere it is not a number."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    found = [line for line in lines if line.startswith("VmHWM")]
    return float(found[0].split()[1]) * 1024 if found else float("nan")


def machine() -> str:
    """Processor, cores and library versions, in one line."""
    from importlib.metadata import version

    processor = platform.processor() or platform.machine()
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        names = [x for x in listing.read_text().splitlines() if x.startswith("model name")]
        processor = names[0].split(":", 1)[1].strip() if names else processor
    packages = ("numpy", "SimpleITK", "pydicom", "pylibjpeg-openjpeg")
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    return f"{processor}, {os.cpu_count()} cores; Python {platform.python_version()}, {versions}"


def main() -> None:
    from pydicom.uid import JPEG2000Lossless

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=280)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    array = scan(options.slices)
    rows = []
    for name, syntax in (("uncompressed", None), ("JPEG 2000", JPEG2000Lossless)):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            write(folder, array, syntax)
            runs: dict[str, list[tuple[float, float, int]]] = {reader: [] for reader in READERS}
            for _ in range(options.rounds):
                for reader in READERS:
                    runs[reader].append(measure(reader, folder))
            assert {run[2] for found in runs.values() for run in found} == {int(array.sum())}
            base = statistics.median(run[0] for run in runs["leanseg"])
            for reader, found in runs.items():
                seconds = statistics.median(run[0] for run in found)
                scans = statistics.median(run[1] for run in found) / array.nbytes
                rows.append(
                    f"| {name} | {reader} | {seconds:.2f} | {seconds / base:.1f} | {scans:.1f} |"
                )
    print(
        f"{options.slices} slices of {SIZE} x {SIZE}, median of {options.rounds} interleaved runs."
    )
    print(f"{machine()}.\n")
    print("| series | reader | seconds | ratio | memory (scans) |\n|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
