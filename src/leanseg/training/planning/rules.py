"""The rules of the planner, in one place; docs/quality.md has the study behind each.

A rule speaks of sizes, spacings, grey values and time, never of an organ or a dataset.

In short: a small 3-D U-Net that sees the whole structure with what is around it at once, as coarse
as the budget demands and no coarser. What a budget buys is voxels; a network that takes too few
steps learns nothing, however fine its voxels are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from leanseg.frames.fingerprint import ORIENTATION, Fingerprint, Shape, along
from leanseg.training.recipe import LEAST_CASES

# Steps that a budget has room for at least, if need be with coarser voxels.
LEAST_STEPS: Final = 700
# Bounds of a patch's voxels; slices have fewer, and more of them are in a batch.
PATCH_VOXELS: Final = {3: (24**3, 64**3), 2: (48**2, 192**2)}
BATCH_SIZE: Final = {3: 2, 2: 16}
# Filters at full resolution.
BASE_FILTERS: Final = {3: 12, 2: 16}
# Halvings: until about six voxels are left.
HALVINGS: Final = {3: 3, 2: 4}
# Voxels across a class, as a plate's thickness, at least.
VOXELS_ACROSS: Final = 3.0
# Where the largest scan leaves fewer than this, a patch holds a median scan instead.
ENOUGH_ACROSS: Final = 4.0
# Where a patch cannot hold the body, it holds so many thicknesses.
PART_CONTEXT: Final = 15.0
# From this ratio of the slices' distance to the spacing within them on, slices are seen alone.
SEPARATE_SLICES: Final = 3.0
# Fewer slices than this make no volume.
LEAST_SLICES: Final = 8
# A scan is left as it is along an axis where it is finer than wanted by less than this: at the
# worst a patch then has twice the voxels that there is room for.
AS_IT_IS: Final = 1.25
# What training takes in voxels of patches a second where nothing is measured.
VOXELS_PER_SECOND: Final = 300_000.0
FOREGROUND_FRACTION: Final = 0.5

CLIP_NORM: Final = 12.0
OPTIMISER: Final = {"name": "AdamW", "options": {"lr": 5e-3, "fused": True}}
# A constant rate, and an average of the weights over about the last ninth of the steps, which
# serves as its fall: as good as a cosine that ends with the budget, and a training may be stopped
# at any moment.
SCHEDULE: Final = {"name": "constant"}
AVERAGE: Final = 0.9999
WARMUP_STEPS: Final = 40
WARMUP_SHARE: Final = 0.05
LOSS: Final[list[dict[str, Any]]] = [
    {"name": "dice", "options": {"smooth": 1e-5}},
    {"name": "cross-entropy"},
]
# Light: stronger was no better, also where few cases are seen often. No mirroring: labels may
# name a side.
AUGMENTATION: Final[list[dict[str, Any]]] = [
    {
        "name": "spatial",
        "options": {"rotation_deg": 15.0, "zoom": [0.85, 1.25], "probability": 0.5},
    },
    {"name": "gamma"},
    {"name": "brightness"},
    {"name": "contrast"},
    {"name": "noise"},
]
# Share of the budget that looks at the monitor cases may take, and the most cases to look at.
MONITOR_SHARE: Final = 0.03
MONITOR_CASES: Final = 8


@dataclass(frozen=True)
class View:
    """What a network sees: the grid of a frame and a patch of it.

    Attributes:
        dimensions: Of the network.
        orientation: Of the frame; slices lie along its last axis.
        spacing_mm: Along the frame's axes; None leaves them to the scan.
        voxels_mm: The voxels that a median scan then has, in mm.
        patch: In voxels.
        why: The reason for it, in words.
    """

    dimensions: Literal[2, 3]
    orientation: str
    spacing_mm: tuple[float | None, ...]
    voxels_mm: tuple[float, ...]
    patch: tuple[int, ...]
    why: str

    def __str__(self) -> str:
        patch = " x ".join(str(n) for n in self.patch[: self.dimensions])
        mm = " x ".join(f"{each:.3g}" for each in self.voxels_mm)
        return f"{self.dimensions}-D patches of {patch}, voxels of {mm} mm"

    @property
    def n_voxels(self) -> int:
        """Of a patch."""
        return math.prod(self.patch)

    @property
    def batch_voxels(self) -> int:
        """Of a step."""
        return self.n_voxels * BATCH_SIZE[self.dimensions]


def views(
    found: Fingerprint, seconds: float | None, voxels_per_second: float, most: int | None = None
) -> list[View]:
    """What a network could see, the best first.

    Args:
        found: The fingerprint.
        seconds: Of training; None where it is counted in steps.
        voxels_per_second: Of patches, that training takes in.
        most: Voxels of a patch that memory has room for; None where it has enough.
    """
    order = sorted(range(3), key=lambda axis: found.spacing_mm[axis] > 1.5 * min(found.spacing_mm))
    chosen = _view_3d(found, order, _room(3, seconds, voxels_per_second, most))
    flat = _view_2d(found, order, _room(2, seconds, voxels_per_second, most))
    in_plane = max(chosen.voxels_mm[:2])
    n_slices = found.shape[order[2]]
    if n_slices < LEAST_SLICES or chosen.voxels_mm[2] > SEPARATE_SLICES * in_plane:
        return [flat, chosen]
    return [chosen, flat]


class _Room(NamedTuple):
    """Voxels of a patch: those that leave the budget enough steps, and the most there may be."""

    wanted: int
    most: int


def _room(
    dimensions: Literal[2, 3], seconds: float | None, voxels_per_second: float, most: int | None
) -> _Room:
    low, high = PATCH_VOXELS[dimensions]
    high = high if most is None else max(min(high, most), low)
    if seconds is None:
        return _Room(high // 2, high)
    fitting = seconds * voxels_per_second / (LEAST_STEPS * BATCH_SIZE[dimensions])
    return _Room(int(min(max(fitting, low), high)), high)


def _view_3d(found: Fingerprint, order: list[int], room: _Room) -> View:
    context = _context(found)
    spacing = _spacing(found, range(3), context, room)
    if _thickness(found) < ENOUGH_ACROSS * spacing:
        finer = _spacing(found, range(3), found.body_mm, room)
        if finer < spacing and _fits(found, range(3), found.body_mm, finer, room):
            context, spacing = found.body_mm, finer
    own = _own_spacing(found, spacing)
    holds_all = _fits(found, range(3), context, spacing, room)
    patch = _fitting_patch(context, own, room.most if holds_all else room.wanted, _divisor(3))
    whole = all(n * mm >= 0.9 * length for n, mm, length in zip(patch, own, context, strict=True))
    why = "sees the structure and what is around it at once" if whole else "sees a part at a time"
    return _view(3, found, order, own, patch, why)


def _view_2d(found: Fingerprint, order: list[int], room: _Room) -> View:
    context = _context(found)
    in_plane = order[:2]
    own = list(_own_spacing(found, _spacing(found, in_plane, context, room)))
    own[order[2]] = found.spacing_mm[order[2]]
    divisor = _divisor(2)
    patch = [1, 1, 1]
    length = math.sqrt(room.wanted)
    for axis in in_plane:
        wanted = min(context[axis] / own[axis], 1.5 * length)
        patch[axis] = max(divisor * round(wanted / divisor), 2 * divisor)
    return _view(2, found, order, (own[0], own[1], own[2]), patch, "sees slices one by one")


def _context(found: Fingerprint) -> Shape:
    """What a patch should hold, in mm along each axis: all that is not air, of large scans too.

    Where things lie in the scan is half of what there is to know.
    """
    return found.largest_body_mm


def _spacing(found: Fingerprint, axes: Sequence[int], context: Shape, room: _Room) -> float:
    """As fine as there is room for along some axes, for the whole body or else for a part of it."""
    finest = min(found.spacing_mm[axis] for axis in axes)
    thickness = _thickness(found)
    # A patch of a part holds what is next to a structure.
    surroundings = PART_CONTEXT * thickness / room.wanted ** (1 / len(axes))
    part = max(min(thickness / VOXELS_ACROSS, surroundings), finest)
    spacing = finest
    while spacing < part:
        if _fits(found, axes, context, spacing, room):
            return spacing
        spacing *= 1.02
    return part


def _fits(
    found: Fingerprint, axes: Sequence[int], context: Shape, spacing_mm: float, room: _Room
) -> bool:
    """Whether there is room for the context along some axes, in voxels as fine as wanted."""
    # What of a scan is left as it is may be finer than wanted.
    own = _own_spacing(found, spacing_mm)
    wanted = [max(mm, spacing_mm) for mm in found.spacing_mm]
    return all(
        math.prod(context[axis] / voxels[axis] for axis in axes) <= limit
        for voxels, limit in ((wanted, room.wanted), (own, room.most))
    )


def _thickness(found: Fingerprint) -> float:
    """Of the classes in mm, their geometric mean: neither the thinnest nor the thickest decides."""
    thick = [facts.thickness_mm for facts in found.classes.values() if facts.cases]
    return math.exp(sum(map(math.log, thick)) / len(thick))


def _own_spacing(found: Fingerprint, spacing_mm: float) -> Shape:
    """Voxels of the frame: as wanted, or the scan's own where these are not much finer."""
    i, j, k = (mm if mm * AS_IT_IS > spacing_mm else spacing_mm for mm in found.spacing_mm)
    return i, j, k


def _divisor(dimensions: Literal[2, 3]) -> int:
    return 2 ** HALVINGS[dimensions]


def _fitting_patch(context: Shape, own: Shape, room: int, divisor: int) -> list[int]:
    """Voxels that hold the context, shortened evenly along its longest axes to the room."""
    # However few voxels there are, the network sees as many as it halves.
    lengths = [max(length / mm, float(divisor)) for length, mm in zip(context, own, strict=True)]
    limit = max(lengths)
    while limit > 2 * divisor and math.prod(min(each, limit) for each in lengths) > room:
        limit *= 0.98
    # All of an axis that fits; of one that does not, the nearest to what there is room for, as a
    # cube of 32 voxels costs more than twice as much as one of 24.
    units = [
        round(limit / divisor) if n > limit else math.ceil(n / divisor - 0.25) for n in lengths
    ]
    return [max(divisor * n, divisor) for n in units]


def _view(
    dimensions: Literal[2, 3],
    found: Fingerprint,
    order: list[int],
    own: Shape,
    patch: list[int],
    why: str,
) -> View:
    kept = [
        None if math.isclose(mm, there) else round(mm, 2)
        for mm, there in zip(own, found.spacing_mm, strict=True)
    ]
    orientation = "".join(ORIENTATION[axis] for axis in order)
    return View(
        dimensions,
        orientation,
        along(orientation, kept),
        along(orientation, own),
        along(orientation, patch),
        why,
    )


def intensity(found: Fingerprint) -> dict[str, Any]:
    """The grey values' part of a plan."""
    if found.modality == "CT":
        # As nnU-Net: Hounsfield units mean the same everywhere.
        low, _, high, mean, sd = found.grey[0]
        sd = max(sd, 1.0)
        return {
            "window": {"kind": "hu", "low": round(low - sd, 1), "high": round(high + sd, 1)},
            "scaling": {"divide_by": round(sd, 2), "add": round(-mean / sd, 3)},
        }
    window = {"kind": "quantile", "low": 0.005, "high": 0.995, "nonzero_only": found.is_stripped}
    return {"window": window, "scaling": "zscore"}


def network(view: View) -> dict[str, Any]:
    """The network's part of a recipe: a slim U-Net with the halvings that nnU-Net's rule gives."""
    dimensions = view.dimensions
    return {
        "name": f"nnunet-{dimensions}d",
        "options": {
            "base_filters": BASE_FILTERS[dimensions],
            "shape": list(view.patch[:dimensions]),
            "spacing_mm": [round(mm, 3) for mm in view.voxels_mm[:dimensions]],
            "max_pools": HALVINGS[dimensions],
        },
    }


def split(n_patients: int, most_monitor: int, *, cross_validate: bool) -> dict[str, Any]:
    """The part of a recipe that divides the cases.

    Args:
        n_patients: With labels.
        most_monitor: Cases that there is time to look at.
        cross_validate: Whether every case tests once.
    """
    n_train = math.floor(0.8 * n_patients)
    n_monitor = min(n_train // 10, most_monitor, MONITOR_CASES)
    if n_monitor < LEAST_CASES:
        # Of fewer nothing is chosen: they are better used to learn from.
        n_monitor = 0
    monitor = round(n_monitor / n_train, 4) if n_monitor else 0.0
    if cross_validate and n_patients > 1:
        return {"kind": "k-fold", "n_folds": min(5, n_patients), "monitor_fraction": monitor}
    train_fraction = 1.0 if n_patients < 2 else max(n_train, 1) / n_patients
    return {"kind": "random", "train_fraction": train_fraction, "monitor_fraction": monitor}
