"""From a virtual patient to a scan: field of view, slices, noise, orientation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.datasets.phantom.anatomy import LABELS, Patient, draw_patient
from leanseg.datasets.phantom.painting import Canvas, paint_patient
from leanseg.datasets.phantom.shapes import Array
from leanseg.errors import RecipeError
from leanseg.volumes import LPS_TO_RAS, Volume, reorient

# Voxels painted at once; bounds memory at about 40 arrays of this size.
_SLAB_VOXELS = 3_000_000


@dataclass(frozen=True)
class PhantomOptions:
    """What a phantom scan looks like; None draws a value for every case.

    Attributes:
        size: Rows and columns, 64 to 512.
        slices: Number of slices, 20 to 120.
        slice_mm: Distance between slices, 1 to 5 mm.
        tumour_mm: Diameter of the tumour of the pancreas, 5 to 40 mm; 0 for none.
        orientation: "LPS", "RAS", "LAS" or "RPS".
        noise_hu: Standard deviation of the noise in the middle of the body.

    Raises:
        RecipeError: If a value is out of its range.
    """

    size: int = 256
    slices: int | None = None
    slice_mm: float | None = None
    tumour_mm: float | None = None
    orientation: str | None = None
    noise_hu: float | None = None

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if value is None or low <= value <= high or (name == "tumour_mm" and value == 0):
                continue
            msg = f"phantom option {name} is {value}; choose a value from {low} to {high}"
            raise RecipeError(msg)
        if self.orientation is not None and self.orientation not in _ORIENTATIONS:
            known = ", ".join(_ORIENTATIONS)
            msg = f"phantom option orientation is {self.orientation!r}; choose one of {known}"
            raise RecipeError(msg)


RANGES: dict[str, tuple[float, float]] = {
    "size": (64, 512),
    "slices": (20, 120),
    "slice_mm": (1.0, 5.0),
    "tumour_mm": (5.0, 40.0),
    "noise_hu": (0.0, 60.0),
}

# Most scans come as DICOM has them; some archives turn them round.
_ORIENTATIONS: dict[str, float] = {"LPS": 0.5, "RAS": 0.2, "LAS": 0.2, "RPS": 0.1}


@dataclass(frozen=True)
class _Scan:
    """How a scanner takes a patient: its grid (left, posterior, superior), turned and noisy."""

    axes: tuple[Array, Array, Array]
    spacing_mm: tuple[float, float, float]
    origin_mm: Array
    orientation: str
    noise_hu: float

    def volume(self, array: NDArray[Any]) -> Volume:
        """Voxels in the order of the axes as a volume in the scanner's world."""
        affine = np.diag([*self.spacing_mm, 1.0])
        affine[:3, 3] = self.origin_mm
        volume = reorient(Volume(array, LPS_TO_RAS @ affine), self.orientation)
        return volume.with_array(np.ascontiguousarray(volume.array))


def make_phantom(
    generator: np.random.Generator, options: PhantomOptions | None = None
) -> tuple[Volume, Volume]:
    """A synthetic abdominal CT scan of a virtual patient, and its exact label map.

    Args:
        generator: Everything random comes from it; the same state gives the same scan.
        options: Fixes some of what would be drawn.

    Returns:
        Image (i, j, k) int16 in HU, and label map (i, j, k) uint8 with the values of `LABELS`.
        A voxel has the label of the tissue at its centre.

    Example:
        >>> import numpy as np
        >>> from leanseg.datasets import PhantomOptions, make_phantom
        >>> image, label = make_phantom(
        ...     np.random.default_rng(0), PhantomOptions(size=64, slices=20)
        ... )
        >>> image.shape, str(image.dtype), int(label.array.max()) <= 8
        ((64, 64, 20), 'int16', True)
    """
    options = PhantomOptions() if options is None else options
    anatomy, acquisition = generator.spawn(2)
    patient = draw_patient(anatomy)
    scan = _draw_scan(acquisition, options, patient)
    # Drawn whether or not it is there: fixing one value changes no other.
    diameter = float(anatomy.uniform(5, 40)) * float(anatomy.uniform() < 0.65)
    diameter = diameter if options.tumour_mm is None else options.tumour_mm
    if diameter:
        patient = patient.with_tumour(anatomy, diameter)
    image, label = _paint(patient, scan.axes)
    _drop_fragments(label)
    return scan.volume(_acquire(acquisition, image, scan)), scan.volume(label)


def _draw_scan(generator: np.random.Generator, options: PhantomOptions, patient: Patient) -> _Scan:
    # Every value is drawn whether or not an option fixes it: fixing one changes no other.
    coverage = float(generator.uniform(130, 285))
    thickness = float(generator.choice([1.0, 1.25, 1.5, 2.0, 2.5, 2.5, 3.0, 3.0, 3.75, 5.0]))
    middle = float(generator.uniform(-2, 14)) * patient.size
    roomy = float(generator.uniform(1.02, 1.16))
    shift = generator.uniform((-10, -2), (10, 18))
    offset = generator.uniform((-20, -180, -900), (20, 180, 300))
    orientation = str(generator.choice(list(_ORIENTATIONS), p=list(_ORIENTATIONS.values())))
    noise_hu = float(generator.uniform(8, 17))
    if options.slices is not None:
        thickness = float(np.clip(coverage / options.slices, 1, 5))
    slice_mm = options.slice_mm or thickness
    slices = options.slices or int(np.clip(round(coverage / slice_mm), 20, 120))
    width = 2 * (131 * patient.size + 16 * patient.muscle + patient.fat_mm + 8)
    pixel = float(np.clip(width * roomy, 320, 450)) / options.size
    x, y, z = (
        ((np.arange(n) - (n - 1) / 2) * mm + centre).astype(np.float32)
        for n, mm, centre in (
            (options.size, pixel, shift[0]),
            (options.size, pixel, shift[1]),
            (slices, slice_mm, middle),
        )
    )
    return _Scan(
        (x, y, z),
        (pixel, pixel, slice_mm),
        np.add(offset, (x[0], y[0], z[0])),
        options.orientation or orientation,
        noise_hu if options.noise_hu is None else options.noise_hu,
    )


def _paint(patient: Patient, axes: tuple[Array, Array, Array]) -> tuple[Array, NDArray[np.uint8]]:
    x, y, z = axes
    slabs = []
    step = max(_SLAB_VOXELS // (len(x) * len(y)), 4)
    for start in range(0, len(z), step):
        canvas = Canvas((x, y, z[start : start + step]), patient)
        paint_patient(canvas)
        slabs.append((canvas.grey_values(), canvas.label))
    images, labels = zip(*slabs, strict=True)
    return np.concatenate(images, axis=2), np.concatenate(labels, axis=2)


def _drop_fragments(label: NDArray[np.uint8]) -> None:
    """Keep the largest piece of each organ: slivers cut off by a neighbour are not labelled.

    Pancreas and tumour count as one organ, since a tumour may cross the gland.
    """
    from scipy.ndimage import label as components

    organs = [[value] for name, value in LABELS.items() if not name.startswith("pancrea")]
    for values in (*organs, [LABELS["pancreas"], LABELS["pancreatic_tumour"]]):
        pieces, count = components(np.isin(label, values))
        if count > 1:
            largest = np.bincount(pieces[pieces > 0]).argmax()
            label[(pieces > 0) & (pieces != largest)] = 0


def _acquire(generator: np.random.Generator, image: Array, scan: _Scan) -> NDArray[np.int16]:
    """Blur by the reconstruction kernel, add its correlated noise, round to int16."""
    from scipy.ndimage import gaussian_filter

    pixel, _, slice_mm = scan.spacing_mm
    blur = (0.45 / pixel + 0.25, 0.45 / pixel + 0.25, 0.35)
    gaussian_filter(image, blur, output=image, mode="nearest")
    noise = generator.standard_normal(image.shape, dtype=np.float32)
    grain = (0.75 / pixel, 0.75 / pixel, 0.7 / slice_mm)
    gaussian_filter(noise, grain, output=noise, mode="wrap")
    # Rays through the middle of the body lose most: noise is highest there.
    x, y, _ = scan.axes
    away = (x[:, None] / 170) ** 2 + (y[None, :] / 120) ** 2
    spread = scan.noise_hu / noise.std() * (0.45 + 0.55 * np.exp(-away))
    noise *= spread[:, :, None].astype(np.float32)
    noise += image
    return np.clip(np.rint(noise, out=noise), -1024, 3071).astype(np.int16)
