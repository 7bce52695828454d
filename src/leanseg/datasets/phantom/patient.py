"""One virtual patient: every random number that the anatomy needs, drawn once and in order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leanseg.datasets.phantom.fields import Array, Point, SmoothField


@dataclass(frozen=True)
class Patient:
    """Build, tissues and random fields of a virtual patient.

    Attributes:
        size: Length of everything inside, relative to the average.
        fat_mm: Mean thickness of the fat under the skin.
        muscle: Thickness of muscles, relative to the average.
        hu: Mean grey value of each tissue, in HU.
        shifts: Displacement in mm of each organ from its average place.
        sizes: Size of each organ, relative to the average.
        warp: Fields that displace the anatomy smoothly.
        lumps: Field with features of 30 to 40 mm, for surfaces and contents.
        lobules: Field with features of 8 mm, for lobulated surfaces.
        grain: Field with features of 4 mm, for tissue texture.
        vessels: Two fields of about 22 mm whose common zeros are winding curves: small vessels.
        twigs: The same at 10 mm.
        fluid_level_mm: Height (posterior, patient mm) of the fluid level in the stomach.
        bowel: Curve (n, 3) of the small bowel's loops, with nan where it leaves the scan.
    """

    size: float
    fat_mm: float
    muscle: float
    hu: dict[str, float]
    shifts: dict[str, Point]
    sizes: dict[str, float]
    warp: tuple[SmoothField, SmoothField, SmoothField]
    warp_mm: float
    lumps: SmoothField
    lobules: SmoothField
    grain: SmoothField
    vessels: tuple[SmoothField, SmoothField]
    twigs: tuple[SmoothField, SmoothField]
    fluid_level_mm: float
    gas: float
    bowel: NDArray[np.float64]

    def displacement(self, x: Array, y: Array, z: Array) -> tuple[Array, Array, Array]:
        """Smooth displacement in mm on the grid that three axes span."""
        dx, dy, dz = (field(x, y, z) * np.float32(self.warp_mm) for field in self.warp)
        return dx, dy, dz

    def place(self, name: str, centre: Point) -> Point:
        """The organ's own place for a point of the average organ."""
        dx, dy, dz = self.shifts[name]
        return centre[0] + dx, centre[1] + dy, centre[2] + dz

    def locate(self, point: Point) -> Point:
        """Patient coordinates in mm of a point of the average anatomy (undoes the warp)."""
        target = np.asarray(point)
        found = target * self.size
        for _ in range(12):
            axes = [np.array([value], np.float32) for value in found]
            shift = np.array([float(d[0, 0, 0]) for d in self.displacement(*axes)])
            found = (target - shift) * self.size
        return float(found[0]), float(found[1]), float(found[2])


ORGANS = ("liver", "spleen", "right_kidney", "left_kidney", "stomach", "pancreas", "colon", "heart")

# Ranges of the tissues' mean grey values in a contrast-enhanced scan, in HU. They overlap on
# purpose: no threshold separates the pancreas from bowel wall, muscle or liver.
TISSUE_HU: dict[str, tuple[float, float]] = {
    "fat": (-112, -96),
    "muscle": (55, 65),
    "liver": (100, 120),
    "spleen": (110, 130),
    "renal_cortex": (172, 196),
    "renal_contrast": (15, 60),
    "pancreas": (84, 108),
    "tumour_contrast": (28, 48),
    "bowel_wall": (74, 104),
    "bowel_content": (20, 55),
    "stomach_wall": (72, 100),
    "stomach_fluid": (5, 35),
    "gall": (4, 16),
    "aorta": (152, 198),
    "portal": (140, 185),
    "cava": (112, 160),
    "marrow": (150, 240),
    "cortical_bone": (420, 640),
    "lung": (-880, -820),
}


def draw_patient(generator: np.random.Generator) -> Patient:
    """Draw a patient; everything about the scan itself is drawn elsewhere."""
    uniform = generator.uniform
    size = float(uniform(0.9, 1.06))
    hu = {name: float(uniform(low, high)) for name, (low, high) in TISSUE_HU.items()}
    shifts = {organ: _shift(generator) for organ in ORGANS}
    sizes = {organ: float(uniform(0.93, 1.07)) for organ in ORGANS}
    # How full the stomach is varies more than how large organs are; livers tend to be large.
    sizes["liver"] = float(uniform(0.95, 1.12))
    sizes["stomach"] = float(uniform(0.72, 1.08))
    warp = (
        SmoothField(generator, 75.0),
        SmoothField(generator, 75.0),
        SmoothField(generator, 75.0),
    )
    return Patient(
        size=size,
        fat_mm=float(generator.choice([uniform(7, 14), uniform(12, 24), uniform(22, 34)])),
        muscle=float(uniform(0.85, 1.15)),
        hu=hu,
        shifts=shifts,
        sizes=sizes,
        warp=warp,
        warp_mm=4.0,
        lumps=SmoothField(generator, 26.0),
        lobules=SmoothField(generator, 7.0),
        grain=SmoothField(generator, 3.5),
        vessels=(SmoothField(generator, 17.0), SmoothField(generator, 17.0)),
        twigs=(SmoothField(generator, 9.0), SmoothField(generator, 9.0)),
        fluid_level_mm=float(uniform(-62, -38)) * size,
        gas=float(uniform(0.4, 1.3)),
        bowel=_bowel_loops(generator),
    )


def _shift(generator: np.random.Generator) -> Point:
    x, y, z = np.clip(generator.normal(0, (3.0, 3.0, 6.0)), -9, 9)
    return float(x), float(y), float(z)


def _bowel_loops(generator: np.random.Generator) -> NDArray[np.float64]:
    """A tour (n, 3) through jittered points of the space for small bowel, nan between parts."""
    spacing = 26.0
    axes = [np.arange(low, high, spacing) for low, high in ((-95, 100), (-88, 20), (-175, 42))]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    # Every second row is offset by half, which packs loops as tightly as real ones.
    grid[:, 0] += spacing / 2 * ((grid[:, 2] - grid[0, 2]) / spacing % 2)
    points = grid + generator.uniform(-5.5, 5.5, grid.shape)
    x, y, z = points.T
    inside = (np.abs(x) / 108) ** 2.5 + (np.abs(y + 14) / 70) ** 2.5 < 1
    spine = (np.abs(x) < 46) & (y > -12)
    pancreas = (np.abs(x + 5) < 48) & (z > -60) & (y > -44)
    liver = (x < -20 + 0.6 * (z + 60)) & (z > -60) & (x < 20)
    stomach = (z > -24) & (y < -20) & (x < 70) & (x > -40)
    high = (z > 8) & (x < 34)
    points = points[inside & ~spine & ~pancreas & ~liver & ~stomach & ~high]
    remaining = list(range(len(points)))
    order = [remaining.pop(int(np.argmax(points[:, 2])))]
    tour: list[NDArray[np.float64]] = [points[order[0]]]
    while remaining:
        distances = np.linalg.norm(points[remaining] - tour[-1], axis=1)
        nearest = int(np.argmin(distances))
        if distances[nearest] > 1.75 * spacing:
            tour.append(np.full(3, np.nan))
        tour.append(points[remaining.pop(nearest)])
    return np.asarray(tour)
