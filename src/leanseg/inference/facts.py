"""Plain facts of a scan and of a result on it, by which both are compared with known ones.

They are taken from a thin copy of the scan, so that they cost little. Axes are those of the frame
of the model's last stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from leanseg.frames.view import Scan, ScanView, coarse_voxels
from leanseg.plan import Plan
from leanseg.volumes import Volume, reoriented_view

# Voxels along an axis of the thin copy, and of the thinner one for what fills the scan.
_MOST_ALONG, _FEWER_ALONG = 64, 32
# Air lies below in CT; tissue above the one, and nothing but CT reaches below the other.
_TISSUE_HU, _AIR_HU = -500, -200
_QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)
_LEAST_SHARE: Final = 0.01
# Classes up to this number are counted one by one, which is faster than all of them at once.
_FEW_CLASSES = 32


class Fact(NamedTuple):
    """A number that is compared.

    Attributes:
        words: What it is, for the user.
        unit: Of its value.
        least: By how much values may differ before that says anything; of logarithms a factor.
        is_log: Whether it is compared by its logarithm.
    """

    words: str
    unit: str = ""
    least: float = 0.05
    is_log: bool = False

    @property
    def spread(self) -> float:
        """The least width of what is usual."""
        return float(np.log(self.least)) if self.is_log else self.least

    def seen(self, value: float) -> float:
        """A value as it is compared."""
        return float(np.log(max(value, 1e-6))) if self.is_log else value


_AXES: Final = ("first", "second", "third")
_PER_CENT: Final = tuple(f"{100 * q:g}" for q in _QUANTILES)
FACTS: Final[Mapping[str, Fact]] = {
    "is_ct": Fact("air as in CT", "", 0.1),
    **{f"spacing_{n}": Fact(f"the voxel size along the {a} axis", "mm", 2.0, is_log=True)
       for n, a in enumerate(_AXES)},
    **{f"extent_{n}": Fact(f"the scan's extent along the {a} axis", "mm", 1.5, is_log=True)
       for n, a in enumerate(_AXES)},
    "body": Fact("the share of the scan that is body", "", 0.1),
    "noise": Fact("the noise, relative to the contrast,", "", 1.5, is_log=True),
    **{f"hu_{q}": Fact(f"the {q} % quantile of the body's grey values", "HU", 20.0)
       for q in _PER_CENT},
    **{f"grey_{q}": Fact(f"the {q} % quantile of the body's grey values, on their own scale,")
       for q in _PER_CENT[1:-1]},
    "volume": Fact("the volume", "ml", 1.2, is_log=True),
    "parts": Fact("the number of parts", "", 2.0, is_log=True),
    "edge": Fact("the share that lies at the scan's edge", "", 0.02),
    **{f"place_{n}": Fact(f"the position in the body along the {a} axis (0 to 1)")
       for n, a in enumerate(_AXES)},
    **{f"inside_hu_{q}": Fact(f"the {q} % quantile of its grey values", "HU", 20.0)
       for q in _PER_CENT[1:-1]},
    **{f"inside_{q}": Fact(f"the {q} % quantile of its grey values, on the body's scale,")
       for q in _PER_CENT[1:-1]},
}  # fmt: skip
Values = dict[str, float]


@dataclass(frozen=True, eq=False)
class Facts:
    """Of a result.

    Attributes:
        scan: Of the scan, by the names in `FACTS`.
        labels: Of each label; empty where no voxel has it.
    """

    scan: Values
    labels: Mapping[str, Values]


class Look:
    """What is kept of a scan to compare it, and later its labels.

    Args:
        scan: The scan, read or to be streamed.
        plan: The model's.
        channel_indices: Which of the scan's channels are the plan's.
        is_ct: Whether the model is for grey values in Hounsfield units.
    """

    def __init__(
        self, scan: Scan, plan: Plan, channel_indices: Sequence[int] | None, *, is_ct: bool
    ) -> None:
        stage = plan.for_scan(scan.orientation).final
        self._stage, self._codes, self._is_ct = stage, stage.frame.orientation, is_ct
        streams = not isinstance(scan, Volume)
        view = ScanView(scan, self._codes, plan.channels, channel_indices, streams=streams)
        self._steps = [-(-n // _MOST_ALONG) for n in view.shape]
        i, j, k = self._steps
        channels = (
            [coarse_voxels(view, self._steps)]
            if streams
            else [channel[::i, ::j, ::k] for channel in view.channels]
        )
        self._grey = [np.ascontiguousarray(channel, dtype=np.float32) for channel in channels]
        self._voxel_ml = float(np.prod(view.spacing_mm)) / 1000
        thin_steps = tuple(-(-n // _FEWER_ALONG) for n in self._grey[0].shape)
        thin = [each[tuple(slice(None, None, n) for n in thin_steps)] for each in self._grey]
        has_air = bool(thin[0].min() < _AIR_HU)
        least = _TISSUE_HU if has_air else 0.1 * float(np.quantile(thin[0], 0.99))
        body = thin[0] > least
        if not body.any():
            body = np.ones_like(body)
        self._body = [
            (int(found[0]) * step, (int(found[-1]) + 1) * step)
            for axis, step in enumerate(thin_steps)
            for found in [np.flatnonzero(body.any(axis=_others(axis)))]
        ]
        self._scales: list[tuple[float, float]] = []
        mm = view.spacing_mm
        facts = {"is_ct": float(has_air), "body": float(body.mean())}
        facts |= {f"spacing_{n}": each for n, each in enumerate(mm)}
        pairs = zip(mm, view.shape, strict=True)
        facts |= {f"extent_{n}": each * size for n, (each, size) in enumerate(pairs)}
        for number, channel in enumerate(thin):
            of_body = np.quantile(channel[body], _QUANTILES)
            low, high = float(of_body[0]), float(of_body[-1])
            self._scales.append((low, max(high - low, 1e-6)))
            facts |= self._of_quantiles(number, "hu_", "grey_", of_body)
        middle = view.shape[2] // 2
        _, planes = next(view.pieces(1, middle, middle + 1))
        for number, plane in enumerate(planes):
            facts[_named("noise", number)] = _noise(plane[..., 0]) / self._scales[number][1]
        self.scan: Values = facts

    def facts(
        self, labels: NDArray[Any], orientation: str, values: Mapping[str, Sequence[int]]
    ) -> Facts:
        """Of a label map on the scan's grid.

        Args:
            labels: (i, j, k) in the scan's own axes.
            orientation: Of these axes.
            values: Of each label.
        """
        turned = reoriented_view(labels, orientation, self._codes)
        i, j, k = self._steps
        thin = np.ascontiguousarray(turned[::i, ::j, ::k])
        found = {}
        counts = voxels_per_class(labels, max(max(own) for own in values.values()) + 1)
        for name, own in values.items():
            n = int(counts[list(own)].sum())
            mask = np.isin(thin, list(own)) if len(own) > 1 else thin == own[0]
            found[name] = self._of_label(mask, n * self._voxel_ml) if n else {}
        return Facts(self.scan, found)

    def _of_label(self, mask: NDArray[np.bool_], volume_ml: float) -> Values:
        from scipy import ndimage

        facts = {"volume": volume_ml}
        places = [np.flatnonzero(mask.any(axis=_others(axis))) for axis in range(3)]
        if not places[0].size:
            # So small that the thin copy has none of it.
            return facts
        box = tuple(slice(int(each[0]), int(each[-1]) + 1) for each in places)
        inner = mask[box]
        numbers, _ = ndimage.label(inner)
        sizes = np.bincount(numbers.ravel())[1:]
        facts["parts"] = float(np.count_nonzero(sizes >= _LEAST_SHARE * sizes.sum()))
        n_edge = 0
        for axis, n in enumerate(mask.shape):
            for end in (0, n - 1):
                n_edge += int(np.count_nonzero(np.take(mask, end, axis=axis)))
        facts["edge"] = n_edge / float(sizes.sum())
        for axis, (own, (first, last)) in enumerate(zip(box, self._body, strict=True)):
            along = np.count_nonzero(inner, axis=_others(axis))
            centre = own.start + float(along @ np.arange(len(along))) / float(along.sum())
            facts[f"place_{axis}"] = (centre - first) / max(last - 1 - first, 1)
        for number, channel in enumerate(self._grey):
            quantiles = np.quantile(channel[box][inner], _QUANTILES)
            facts |= self._of_quantiles(number, "inside_hu_", "inside_", quantiles)
        return facts

    def _of_quantiles(
        self, channel: int, hounsfield: str, relative: str, quantiles: NDArray[np.floating[Any]]
    ) -> Values:
        """Of CT as they are; grey values of other scans have a scale that means nothing."""
        if self._is_ct:
            pairs = zip(_PER_CENT, quantiles, strict=True)
            known = ((f"{hounsfield}{q}", float(value)) for q, value in pairs)
        else:
            low, width = self._scales[channel]
            pairs = zip(_PER_CENT, (quantiles - low) / width, strict=True)
            known = ((f"{relative}{q}", float(value)) for q, value in pairs)
        return {_named(name, channel): value for name, value in known if name in FACTS}


def voxels_per_class(labels: NDArray[Any], n_classes: int) -> NDArray[np.int64]:
    """Voxels (class,) of a label map (i, j, k); values beyond the classes do not count."""
    counts = np.zeros(n_classes, dtype=np.int64)
    for k in range(labels.shape[2]):
        section = labels[:, :, k]
        highest = int(section.max())
        if highest > _FEW_CLASSES:
            # Slice by slice: numpy widens what it counts to 8 bytes a voxel.
            counts += np.bincount(section.ravel(order="K"), minlength=n_classes)[:n_classes]
            continue
        for number in range(1, min(highest + 1, n_classes)):
            counts[number] += np.count_nonzero(section == number)
    return counts


def fact_of(name: str) -> Fact:
    """The fact of a name, which may end in a channel's number: "noise@1"."""
    plain, _, channel = name.partition("@")
    fact = FACTS[plain]
    return fact._replace(words=f"{fact.words} in channel {channel}") if channel else fact


def _named(name: str, channel: int) -> str:
    return f"{name}@{channel}" if channel else name


def _others(axis: int) -> tuple[int, ...]:
    return tuple(each for each in range(3) if each != axis)


def _noise(plane: NDArray[Any]) -> float:
    """Median of second differences along the first axis, where there is tissue or signal."""
    grey = plane.astype(np.float32)
    if grey.shape[0] < 3:
        return 0.0
    second = np.abs(grey[2:] - 2 * grey[1:-1] + grey[:-2])
    inside = second[second > 0]
    return float(np.median(inside)) if inside.size else 0.0
