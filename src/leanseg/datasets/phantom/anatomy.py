"""Virtual patients: the organs of `anatomy.yaml`, with every random number that they need."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from leanseg.datasets.phantom.shapes import Array, SmoothField, smooth_curve

LABELS: dict[str, int] = {
    "liver": 1,
    "spleen": 2,
    "right_kidney": 3,
    "left_kidney": 4,
    "stomach": 5,
    "aorta": 6,
    "pancreas": 7,
    "pancreatic_tumour": 8,
}
# Length in mm over which each random field varies.
_FIELD_MM = {
    **{"warp_x": 75.0, "warp_y": 75.0, "warp_z": 75.0, "lumps": 26.0, "lobules": 7.0},
    **{"loops": 13.0, "vessels": 17.0, "vessels_too": 17.0, "grain": 3.4},
}


@dataclass(frozen=True)
class Part:
    """A tube along points (n, 3) with radii (n,), or an ellipsoid: one point, three radii."""

    points: Array
    radii: Array
    carved: bool = False


@dataclass(frozen=True)
class Organ:
    """A row of `anatomy.yaml`, which explains the fields, with its parts placed and `gas` drawn."""

    name: str
    tissue: str
    parts: tuple[Part, ...]
    label: int = 0
    gap_mm: float = 0.0
    lumps_mm: float = 0.0
    lobules_mm: float = 0.0
    flatten: float = 1.0
    blend_mm: float = 0.0
    inside: str = ""
    wall_mm: float = 0.0
    content: str = ""
    gas: float | None = None
    core: str = ""
    vessels_mm: float = 0.0


@dataclass(frozen=True)
class Patient:
    """A virtual patient.

    Attributes:
        size: Length of everything inside, relative to the average.
        fat_mm: Mean thickness of the fat under the skin.
        muscle: Thickness of muscles, relative to the average.
        tissues: Grey value in HU of each tissue, and how much fine and coarse fields change it.
        organs: Where they are in this patient, in mm of the average one; gas levels drawn.
        fields: Random functions of position.
    """

    size: float
    fat_mm: float
    muscle: float
    tissues: dict[str, tuple[float, float, float]]
    organs: tuple[Organ, ...]
    fields: dict[str, SmoothField]

    def with_tumour(self, generator: np.random.Generator, diameter_mm: float) -> Patient:
        """The patient with a lobulated, poorly enhancing mass, mostly in the pancreas."""
        names = [organ.name for organ in self.organs]
        gland = self.organs[names.index("pancreas")].parts[0]
        axis, _ = smooth_curve(gland.points, gland.radii, 4.0)
        along = generator.choice([0.16, 0.55, 0.82], p=[0.6, 0.25, 0.15])
        along += generator.uniform(-0.05, 0.05)
        radius = diameter_mm / 2 / self.size
        # Off the axis, forward: behind the gland lie the large vessels.
        off = generator.normal(0, 0.12, 3) * radius + np.array([0.0, -0.3 * radius, 0.0])
        mass = Part((axis[int(along * len(axis))] + off)[None], np.full(3, radius))
        tumour = Organ(
            "pancreatic_tumour",
            "tumour",
            (mass,),
            LABELS["pancreatic_tumour"],
            lobules_mm=min(0.055 * diameter_mm, 1.5),
            core="necrosis",
        )
        before = names.index("renal_arteries")
        return replace(self, organs=(*self.organs[:before], tumour, *self.organs[before:]))


@cache
def _average() -> dict[str, Any]:
    import yaml

    text = Path(__file__).with_name("anatomy.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def draw_patient(generator: np.random.Generator) -> Patient:
    """Draw a patient; everything about the scan itself is drawn elsewhere."""
    uniform = generator.uniform
    size, muscle = float(uniform(0.9, 1.06)), float(uniform(0.85, 1.15))
    fat_mm = float(generator.choice([uniform(7, 14), uniform(12, 24), uniform(22, 34)]))
    tissues: dict[str, tuple[float, float, float]] = {}
    for name, row in _average()["tissues"].items():
        base = tissues[row["relative_to"]][0] if "relative_to" in row else 0.0
        grey = base + float(uniform(*row["hu"]))
        tissues[name] = (grey, row.get("grain", 4.0), row.get("lumps", 2.0))
    shifts = {"skeleton": np.zeros(3)}
    organs = tuple(_draw_organ(generator, row, shifts) for row in _average()["organs"])
    fields = {name: SmoothField(generator, mm) for name, mm in _FIELD_MM.items()}
    return Patient(size, fat_mm, muscle, tissues, organs, fields)


def _draw_organ(
    generator: np.random.Generator, row: dict[str, Any], shifts: dict[str, Array]
) -> Organ:
    fixed = dict(row)
    group = fixed.pop("moves", row["name"])
    if group not in shifts:
        shifts[group] = np.clip(generator.normal(0, (3.0, 3.0, 6.0)), -9, 9)
    scale = generator.uniform(*fixed.pop("scale", (1.0, 1.0)))
    jitter_mm, sides = fixed.pop("jitter_mm", 0.0), (1, -1) if fixed.pop("mirror", False) else (1,)
    count, step_mm = fixed.pop("repeat", (1, 0.0))
    parts: list[Part] = []
    for part in fixed.pop("parts"):
        points = np.array(part["points"], dtype=float) + shifts[group]
        points += generator.normal(0, 1, points.shape) * jitter_mm
        radii = np.array(part["radii"], dtype=float) * scale
        parts += [
            Part(points * (side, 1, 1) + (0, 0, n * step_mm), radii, part.get("carved", False))
            for side in sides
            for n in range(count)
        ]
    if "gas" in fixed:
        fixed["gas"] = float(generator.uniform(*fixed["gas"]))
    return Organ(parts=tuple(parts), **fixed)
