"""Controlled changes of a labelled scan: what `leanseg robustness` varies, and how far.

Scans come in the orientation of the model's frame, so that slices lie along the third axis. Every
change gets a generator, is the same for the same one, and says None where a scan is too small.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import LeansegError
from leanseg.volumes import Box, Volume, crop, reorient, resize_array
from leanseg.volumes.resample import resized_affine

# Of a channel's grey values: the range is that between these percentiles.
_RANGE_PERCENT: Final = (1, 99)


class Labelled(NamedTuple):
    """A scan (i, j, k) or (i, j, k, channel), and its label map (i, j, k) on the same grid."""

    image: Volume
    label: Volume

    def each(self, change: Callable[[Volume], Volume]) -> Labelled:
        """The same done to both."""
        return Labelled(change(self.image), change(self.label))

    def grey(self, change: Callable[[NDArray[np.float32]], Any]) -> Labelled:
        """Other grey values, float32, and the same labels."""
        array = np.asarray(change(self.image.array.astype(np.float32)), dtype=np.float32)
        return self._replace(image=self.image.with_array(array))


Change = Callable[[Labelled, float, np.random.Generator], Labelled | None]


@dataclass(frozen=True)
class Factor:
    """One thing that is changed.

    Attributes:
        change: Makes the changed scan of scan, value and generator; None of one too small for it.
        levels: What a level is called, to its value.
        unit: Of the values.
        definition: What is done, in words.
        unchanged: The value of a scan as it is; None where values are but numbers of ways.
        measure: Gives the value of any scan, where that is to be had from the scan itself.
    """

    change: Change
    levels: Mapping[str, float]
    unit: str
    definition: str
    unchanged: float | None = None
    measure: Callable[[Volume], float] | None = None

    def value(self, image: Volume, level: str | None = None) -> float | None:
        """The value of a scan that has been changed by a level, or by none."""
        if self.measure is not None:
            return self.measure(image)
        if self.unchanged is None or level is None:
            return self.unchanged
        return self.levels[level]

    @property
    def has_slope(self) -> bool:
        """Whether values are a quantity, against which Dice has a slope."""
        return self.unchanged is not None or self.measure is not None

    @property
    def sides(self) -> tuple[str, ...]:
        """Parts of the values that have a slope each: those on either side of no change."""
        if not self.has_slope:
            return ()
        values = self.levels.values()
        is_between = self.unchanged is not None and min(values) < self.unchanged < max(values)
        return ("below", "above") if is_between else ("all",)


def choose_factors(names: Sequence[str] | None, *, hounsfield: bool) -> dict[str, Factor]:
    """The factors to vary.

    Args:
        names: Some of `FACTORS`; None for all.
        hounsfield: Whether grey values are Hounsfield units, which have fixed steps; else these
            are shares of what the scan's own grey values span.

    Raises:
        LeansegError: If one is not known.
    """
    known = FACTORS if hounsfield else {**FACTORS, **_OF_ANY_UNIT}
    for name in names or ():
        if name not in known:
            msg = f"factor {name!r} is not known; choose among {', '.join(known)}"
            raise LeansegError(msg)
    return {name: known[name] for name in (known if names is None else dict.fromkeys(names))}


def _thickness(scan: Labelled, mm: float, _: np.random.Generator) -> Labelled | None:
    *plane, n = scan.image.shape
    n_new = int(np.rint(n * _slice_mm(scan.image) / mm))
    if n < 2 or n_new < 1:
        return None
    # Thinner slices that are whole parts of the new ones, whose means those are.
    parts = -(-n // n_new)
    fine = resize_array(scan.image.array, (n_new * parts,), "linear", axes=(2,))
    means = fine.reshape(*plane, n_new, parts, *fine.shape[3:]).mean(axis=3)
    labels = resize_array(scan.label.array, (n_new,), "nearest", axes=(2,))
    affine = resized_affine(scan.image.affine, (*plane, n), (*plane, n_new))
    return Labelled(*(Volume(array, affine, scan.image.path) for array in (means, labels)))


def _slice_mm(image: Volume) -> float:
    return image.spacing_mm[2]


def _dropped(scan: Labelled, share: float, _: np.random.Generator) -> Labelled | None:
    step = round(1 / share)
    lost = range(step - 1, scan.image.shape[2], step)
    if not lost:
        return None
    return scan.each(lambda one: one.with_array(np.delete(one.array, lost, axis=2)))


def _border(scan: Labelled, share: float, _: np.random.Generator) -> Labelled | None:
    i, j, k = scan.image.shape
    cut = round(share * i), round(share * j)
    if min(cut) < 1 or 2 * cut[0] >= i or 2 * cut[1] >= j:
        return None
    box = Box((*cut, 0), (i - cut[0], j - cut[1], k))
    return scan.each(lambda one: crop(one, box))


def _end(scan: Labelled, which: float, _: np.random.Generator) -> Labelled | None:
    i, j, k = scan.image.shape
    third = k // 3
    if not third:
        return None
    box = Box((0, 0, third), (i, j, k)) if which == 0 else Box((0, 0, 0), (i, j, k - third))
    return scan.each(lambda one: crop(one, box))


def _offset(scan: Labelled, grey: float, _: np.random.Generator) -> Labelled:
    return scan.grey(lambda array: array + grey)


def _offset_share(scan: Labelled, share: float, _: np.random.Generator) -> Labelled:
    low, high = np.percentile(scan.image.array, _RANGE_PERCENT, axis=(0, 1, 2))
    return scan.grey(lambda array: array + share * (high - low))


def _scale(scan: Labelled, factor: float, _: np.random.Generator) -> Labelled:
    return scan.grey(lambda array: array * factor)


def _noise(scan: Labelled, sd: float, generator: np.random.Generator) -> Labelled:
    noise = generator.standard_normal(scan.image.array.shape, dtype=np.float32)
    return scan.grey(lambda array: array + sd * noise)


def _noise_share(scan: Labelled, share: float, generator: np.random.Generator) -> Labelled:
    sd = scan.image.array.std(axis=(0, 1, 2), dtype=np.float64)
    noise = generator.standard_normal(scan.image.array.shape, dtype=np.float32)
    return scan.grey(lambda array: array + share * sd * noise)


def _rotation(scan: Labelled, degrees: float, _: np.random.Generator) -> Labelled:
    turned = _rotated(scan.label, degrees, order=0, fill=0)
    array = scan.image.array
    fill = array.min(axis=(0, 1, 2))
    return Labelled(_rotated(scan.image, degrees, order=1, fill=fill), turned)


def _rotated(volume: Volume, degrees: float, *, order: int, fill: Any) -> Volume:
    """Slices turned around their centre, in mm: pixels need not be square.

    Args:
        volume: Linear interpolation of it is float32.
        degrees: From the first axis to the second.
        order: 0 for nearest neighbours, 1 for linear interpolation.
        fill: Of what came from outside, for each channel.
    """
    from scipy.ndimage import affine_transform

    array = volume.array if order == 0 else volume.array.astype(np.float32)
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    mm = np.diag(volume.spacing_mm[:2])
    # Where a pixel of the result comes from.
    matrix = np.linalg.inv(mm) @ np.array([[c, s], [-s, c]]) @ mm
    centre = (np.array(volume.shape[:2]) - 1) / 2
    planes = array.reshape(*volume.shape[:2], -1)
    fills = np.broadcast_to(fill, array.shape[2:]).ravel()
    turned = np.empty_like(planes)
    for n, value in enumerate(fills):
        turned[:, :, n] = affine_transform(
            planes[:, :, n], matrix, centre - matrix @ centre, order=order, cval=value
        )
    return volume.with_array(turned.reshape(array.shape))


_OPPOSITE: Final = str.maketrans("LRPAIS", "RLAPSI")


def _orientation(scan: Labelled, way: float, _: np.random.Generator) -> Labelled:
    own = scan.image.orientation
    rolled = own[1:] + own[:1]
    codes = (own.translate(_OPPOSITE), rolled, rolled[::-1].translate(_OPPOSITE))[int(way)]
    # As another file would hold it.
    return scan.each(
        lambda one: (turned := reorient(one, codes)).with_array(np.asfortranarray(turned.array))
    )


def _levels(*values: float, unit: str = "") -> dict[str, float]:
    return {f"{value:g}{unit}": value for value in values}


FACTORS: Final[Mapping[str, Factor]] = {
    "thickness": Factor(
        _thickness,
        _levels(1, 2, 3, 5, 8, unit=" mm"),
        "mm",
        "slices of another thickness over the same extent: means of thinner ones, by linear "
        "interpolation where those are not whole parts; labels of the nearest slice. The value is "
        "the distance of slices that comes of it, as their number is whole; unchanged the scan's "
        "own",
        measure=_slice_mm,
    ),
    "dropped": Factor(
        _dropped,
        {"every 10th": 0.1, "every 5th": 0.2, "every 3rd": 1 / 3},
        "share of slices",
        "slices that are missing, the others moved together, as where a lost file went unnoticed",
        unchanged=0,
    ),
    "border": Factor(
        _border,
        {"5 %": 0.05, "10 %": 0.1, "20 %": 0.2},
        "share of the width",
        "a field of view cut in the plane, by this share of its width on each of the four sides",
        unchanged=0,
    ),
    "end": Factor(
        _end,
        {"first third": 0, "last third": 1},
        "",
        "a third of the slices cut at one end, along the third axis of the model's frame",
    ),
    "offset": Factor(
        _offset, _levels(-50, -20, 20, 50, unit=" HU"), "HU", "added to grey values", unchanged=0
    ),
    "scale": Factor(_scale, _levels(0.9, 1.1), "1", "grey values times this", unchanged=1),
    "noise": Factor(
        _noise,
        _levels(10, 20, 40, unit=" HU"),
        "HU",
        "Gaussian noise of this standard deviation in every voxel",
        unchanged=0,
    ),
    "rotation": Factor(
        _rotation,
        _levels(4, 8, 16, unit=" degrees"),
        "degrees",
        "slices turned in the plane, linearly, labels by nearest neighbours; what comes from "
        "outside has the scan's lowest value",
        unchanged=0,
    ),
    "orientation": Factor(
        _orientation,
        {"reversed": 0, "rolled": 1, "rolled, reversed": 2},
        "",
        "the same voxels stored along other axes: each axis reversed; the axes moved on by one; "
        "these in reverse order, each reversed. No label should change",
    ),
}
_OF_ANY_UNIT: Final[Mapping[str, Factor]] = {
    "offset": replace(
        FACTORS["offset"],
        change=_offset_share,
        levels={"-5 %": -0.05, "-2 %": -0.02, "2 %": 0.02, "5 %": 0.05},
        unit="share of the range",
        definition="added to grey values, as a share of the range of each channel (from its 1st to "
        "its 99th percentile)",
    ),
    "noise": replace(
        FACTORS["noise"],
        change=_noise_share,
        levels={"10 %": 0.1, "20 %": 0.2, "40 %": 0.4},
        unit="share of the SD",
        definition="Gaussian noise in every voxel, its standard deviation as a share of that of "
        "each channel's grey values",
    ),
}
