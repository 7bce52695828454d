"""Surface metrics against MONAI and surface-distance: interleaved runs, medians as ratios.

Run with `python benchmarks/bench_surface_metrics.py [--rounds 5] [--threads 1]`; it prints
Markdown. Each library computes the Hausdorff distance, its 95th percentile, the average symmetric
surface distance and surface Dice at 1 mm of one pair of masks of 200 x 512 x 512 voxels.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

SHAPE = (200, 512, 512)
SPACING_MM = (1.5, 0.8, 0.8)
TOLERANCE_MM = 1.0


def blob(seed: int, shift: float) -> np.ndarray:
    """A liver-sized ellipsoid with a rough outline; two seeds differ by some voxels."""
    rng = np.random.default_rng(seed)
    i, j, k = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    radius = np.sqrt(
        ((i - 100 - shift) / 60) ** 2 + ((j - 250 - shift) / 105) ** 2 + ((k - 230) / 120) ** 2
    ).astype(np.float32)
    coarse = gaussian_filter(rng.standard_normal((50, 64, 64)).astype(np.float32), 1.2)
    rough = coarse.repeat(4, 0).repeat(8, 1).repeat(8, 2)
    return radius + 0.15 * gaussian_filter(rough, 3) < 1


def ours(prediction: np.ndarray, reference: np.ndarray) -> tuple[float, ...]:
    from leanseg.evaluation.surface import axes_mm, crop_to_surfaces, distances_between
    from leanseg.evaluation.surfels import surface_dice_between

    crops, axes = crop_to_surfaces(prediction, reference), axes_mm(SPACING_MM)
    assert crops is not None
    distances = distances_between(*crops, axes)
    agreement = surface_dice_between(*crops, axes, TOLERANCE_MM)
    assert distances is not None
    assert agreement is not None
    return distances.hausdorff_mm, distances.hausdorff95_mm, distances.assd_mm, agreement


def ours_distances_only(prediction: np.ndarray, reference: np.ndarray) -> tuple[float, ...]:
    from leanseg.evaluation.surface import axes_mm, crop_to_surfaces, distances_between

    distances = distances_between(*crop_to_surfaces(prediction, reference), axes_mm(SPACING_MM))
    assert distances is not None
    return distances.hausdorff_mm, distances.hausdorff95_mm, distances.assd_mm


def monai_edges_once(prediction: np.ndarray, reference: np.ndarray) -> tuple[float, ...]:
    """MONAI's own building blocks, with edges and distances found once for all three."""
    import torch
    from monai.metrics.utils import get_edge_surface_distance

    _, (forward, backward), _ = get_edge_surface_distance(
        torch.from_numpy(prediction),
        torch.from_numpy(reference),
        spacing=SPACING_MM,
        symmetric=True,
    )
    pooled = torch.cat([forward, backward])
    percentile = max(float(np.percentile(d.numpy(), 95)) for d in (forward, backward))
    return float(pooled.max()), percentile, float(pooled.mean())


def monai(prediction: np.ndarray, reference: np.ndarray) -> tuple[float, ...]:
    """MONAI's four public functions, as its users call them."""
    import torch
    from monai.metrics import (
        compute_average_surface_distance,
        compute_hausdorff_distance,
        compute_surface_dice,
    )

    y_pred = torch.from_numpy(prediction)[None, None]
    y = torch.from_numpy(reference)[None, None]
    options = {"include_background": True, "spacing": SPACING_MM}
    return (
        float(compute_hausdorff_distance(y_pred, y, **options)),
        float(compute_hausdorff_distance(y_pred, y, percentile=95, **options)),
        float(compute_average_surface_distance(y_pred, y, symmetric=True, **options)),
        float(compute_surface_dice(y_pred, y, [TOLERANCE_MM], use_subvoxels=True, **options)),
    )


def deepmind(prediction: np.ndarray, reference: np.ndarray) -> tuple[float, ...]:
    import surface_distance

    found = surface_distance.compute_surface_distances(reference, prediction, SPACING_MM)
    average = surface_distance.compute_average_surface_distance(found)
    return (
        surface_distance.compute_robust_hausdorff(found, 100),
        surface_distance.compute_robust_hausdorff(found, 95),
        sum(average) / 2,
        surface_distance.compute_surface_dice_at_tolerance(found, TOLERANCE_MM),
    )


LIBRARIES: dict[str, Callable[[np.ndarray, np.ndarray], tuple[float, ...]]] = {
    "leanseg, all four": ours,
    "leanseg, the three distances": ours_distances_only,
    "surface-distance, all four": deepmind,
    "MONAI, the three distances from one pass": monai_edges_once,
    "MONAI, all four by its public functions": monai,
}


def machine() -> str:
    """Processor, cores and library versions, in one line."""
    from importlib.metadata import version

    processor = platform.processor() or platform.machine()
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        names = [x for x in listing.read_text().splitlines() if x.startswith("model name")]
        processor = names[0].split(":", 1)[1].strip() if names else processor
    packages = ("numpy", "scipy", "monai", "surface-distance", "torch")
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    return f"{processor}, {os.cpu_count()} cores; Python {platform.python_version()}, {versions}"


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="PyTorch threads")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    prediction, reference = blob(1, 0.0), blob(2, 1.5)
    seconds: dict[str, list[float]] = {name: [] for name in LIBRARIES}
    values: dict[str, tuple[float, ...]] = {}
    for _ in range(options.rounds):
        for name, function in LIBRARIES.items():
            start = time.perf_counter()
            values[name] = function(prediction, reference)
            seconds[name].append(time.perf_counter() - start)
    base = statistics.median(seconds["leanseg, all four"])
    foreground = f"{prediction.sum()} and {reference.sum()} foreground"
    print(f"{' x '.join(map(str, SHAPE))} voxels, {foreground},")
    print(f"median of {options.rounds} interleaved rounds, {options.threads} PyTorch thread(s).")
    print(f"{machine()}.\n")
    print("| | seconds | ratio | Hausdorff, 95 %, ASSD (mm), surface Dice |")
    print("|---|---|---|---|")
    for name, times in seconds.items():
        median = statistics.median(times)
        numbers = ", ".join(f"{value:.4f}" for value in values[name])
        print(f"| {name} | {median:.2f} | {median / base:.1f} | {numbers} |")


if __name__ == "__main__":
    main()
