"""What nnU-Net v2 plans for a CT dataset such as the Decathlon's pancreas, and its tiles.

nnU-Net has no plans without a dataset: its planner derives them from a fingerprint. The one here
is the pancreas dataset's: 281 training scans whose median is 96 slices of 512 x 512, 2.5 x 0.80 x
0.80 mm apart. It is given to nnU-Net's own planner; nothing of the planner is repeated here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from leanseg.errors import RecipeError

CONFIGURATIONS = ("2d", "3d_fullres")
MIRRORING = ("on", "off", "both")
# nnU-Net's own default: the next tile begins half a tile further.
STEP = 0.5


@dataclass(frozen=True)
class Fingerprint:
    """What the planner is told of the dataset.

    Attributes:
        shape: Median shape (slice, row, column), as nnU-Net orders axes.
        spacing_mm: Median spacing, same order.
        cases: Number of training scans.
    """

    shape: tuple[int, int, int] = (96, 512, 512)
    spacing_mm: tuple[float, float, float] = (2.5, 0.80272102355957, 0.80272102355957)
    cases: int = 281

    def as_dict(self, channels: int = 1) -> dict[str, Any]:
        """As nnU-Net's `dataset_fingerprint.json`."""
        # The intensities are those of an abdominal CT with contrast; they cost nothing.
        intensity = {
            "mean": 78.0,
            "median": 80.0,
            "std": 75.0,
            "min": -997.0,
            "max": 3071.0,
            "percentile_00_5": -96.0,
            "percentile_99_5": 215.0,
        }
        return {
            "spacings": [list(self.spacing_mm)] * self.cases,
            "shapes_after_crop": [list(self.shape)] * self.cases,
            "foreground_intensity_properties_per_channel": {
                str(number): intensity for number in range(channels)
            },
            "median_relative_size_after_cropping": 1.0,
        }


def dataset_description(labels: int, channels: int, cases: int, ending: str) -> dict[str, Any]:
    """nnU-Net's `dataset.json` of CT scans with so many classes and channels.

    Args:
        labels: Foreground classes.
        channels: Input channels.
        cases: Number of training scans, of which one is named.
        ending: Of the scans' file names.
    """
    return {
        "channel_names": {str(number): "CT" for number in range(channels)},
        "labels": {"background": 0, **{f"class {n}": n for n in range(1, labels + 1)}},
        "numTraining": cases,
        "file_ending": ending,
        "overwrite_image_reader_writer": "SimpleITKIO",
        "dataset": {"case": {"images": [f"case_0000{ending}"], "label": f"case{ending}"}},
    }


def check_choice(kind: str, given: Sequence[str], known: Sequence[str]) -> None:
    """Refuse what nnU-Net's part does not offer.

    Raises:
        RecipeError: Naming what there is.
    """
    for name in given:
        if name not in known:
            msg = f"{kind} {name!r} is not known; choose one of: {', '.join(known)}"
            raise RecipeError(msg)


def resampled_shape(
    shape: Sequence[int], spacing_mm: Sequence[float], target_mm: Sequence[float]
) -> tuple[int, ...]:
    """Shape of a scan after nnU-Net's resampling; a 2-D target leaves the slices alone.

    Args:
        shape: (slice, row, column).
        spacing_mm: Same order.
        target_mm: Of the configuration: three lengths, or two in the plane.
    """
    wanted = [*spacing_mm[: len(shape) - len(target_mm)], *target_mm]
    return tuple(
        round(have / want * length)
        for have, want, length in zip(spacing_mm, wanted, shape, strict=True)
    )


def count_tiles(shape: Sequence[int], patch: Sequence[int], step: float = STEP) -> int:
    """How many tiles nnU-Net runs for a scan.

    A tile starts at most `step` tiles after the one before; what is smaller than a tile is
    padded to one. With a 2-D tile every slice is tiled.

    Args:
        shape: (slice, row, column) after resampling.
        patch: Of the configuration.
        step: In tiles.
    """
    flat = len(shape) - len(patch)
    tiles = math.prod(shape[:flat])
    for length, side in zip(shape[flat:], patch, strict=True):
        tiles *= math.ceil((max(length, side) - side) / (side * step)) + 1
    return tiles


def passes_per_tile(dimensions: int, mirroring: bool) -> int:
    """Network passes: with mirroring one for every combination of axes."""
    return 2**dimensions if mirroring else 1


def whole_seconds(
    measured_s: float, tile_s: Sequence[float], tiles: int, warm_up: int = 1
) -> tuple[float, bool]:
    """Seconds that all tiles take where some were run and the rest skipped.

    Args:
        measured_s: Everything as it was run.
        tile_s: Seconds of each tile that was run.
        tiles: How many there are.
        warm_up: First tiles that do not stand for the rest, if there are others.

    Returns:
        Seconds, and whether they are extrapolated.
    """
    skipped = tiles - len(tile_s)
    if skipped <= 0:
        return measured_s, False
    typical = tile_s[warm_up:] or tile_s
    return measured_s + skipped * sum(typical) / len(typical), True
