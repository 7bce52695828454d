"""Phases: a series that images the same places more than once, taken apart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np

from leanseg.errors import GeometryError
from leanseg.volumes.dicom.frames import PHASE_KEYS, Frame, Key
from leanseg.volumes.dicom.geometry import SAME_PLACE_MM, heights, normal_of, position_name
from leanseg.volumes.dicom.pixels import stored_bytes
from leanseg.volumes.dicom.values import text


@dataclass(frozen=True, eq=False, slots=True)
class Phase:
    """Frames that each lie in another place.

    Attributes:
        name: What they have in common, such as "echo 2"; "" where there is one phase alone.
        frames: In any order.
    """

    name: str
    frames: tuple[Frame, ...]


def separated(frames: Sequence[Frame], name: str) -> tuple[tuple[Phase, ...], int]:
    """Take a series apart into phases, dropping copies of the same slice.

    Copies are frames in the same place with the same voxels: of the same instance, or of any
    two where nothing else tells them apart.

    Args:
        frames: Parallel ones.
        name: Of the series, for messages.

    Returns:
        The phases in ascending order of what tells them apart, and the number of copies
        dropped.

    Raises:
        GeometryError: If two different slices lie in the same place and nothing tells why.
    """
    unique = [frame for place in _places(frames) for frame in _once(place, same_instance=True)]
    phases = _split(_places(unique))
    if phases is None:
        unique = [frame for place in _places(unique) for frame in _once(place, same_instance=False)]
        crowded = next((place for place in _places(unique) if len(place) > 1), None)
        if crowded is not None:
            raise _ambiguous(crowded, name)
        phases = (Phase("", tuple(unique)),)
    return phases, len(frames) - len(unique)


def _places(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Frames by their place, in order along the normal."""
    height = heights(frames)
    order = np.argsort(height, kind="stable")
    places: list[list[Frame]] = [[frames[order[0]]]]
    for previous, current in pairwise(order):
        if height[current] - height[previous] >= SAME_PLACE_MM:
            places.append([])
        places[-1].append(frames[current])
    return places


def _once(place: list[Frame], *, same_instance: bool) -> list[Frame]:
    """The frames of one place without copies."""
    kept: list[Frame] = []
    for frame in place:
        if not any(_is_copy(frame, other, same_instance) for other in kept):
            kept.append(frame)
    return kept


def _is_copy(one: Frame, other: Frame, same_instance: bool) -> bool:
    if same_instance and _instance(one) != _instance(other):
        return False
    values = ((f.slope, f.intercept, f.position, f.file.syntax) for f in (one, other))
    return len(set(values)) == 1 and stored_bytes(one) == stored_bytes(other)


def _instance(frame: Frame) -> tuple[str, int]:
    return text(frame.file.header, "SOPInstanceUID"), frame.index


def _split(places: list[list[Frame]]) -> tuple[Phase, ...] | None:
    """Phases by the first key, or pair of keys, that tells all frames of every place apart.

    None where there is no such key.
    """
    n_phases = max(len(place) for place in places)
    frames = [frame for place in places for frame in place]
    if n_phases == 1:
        return (Phase("", tuple(frames)),)
    known = [key for key in PHASE_KEYS if all(key in frame.keys for frame in frames)]
    known += sorted(set.intersection(*(set(frame.keys) for frame in frames)) - set(known))
    varying = [key for key in known if len({frame.keys[key] for frame in frames}) > 1]
    for wanted in (*((key,) for key in varying), *combinations(varying, 2)):
        values_of = {frame: tuple(frame.keys[key] for key in wanted) for frame in frames}
        found: dict[tuple[Key, ...], list[Frame]] = defaultdict(list)
        for frame, values in values_of.items():
            found[values].append(frame)
        distinct = all(len(place) == len({values_of[f] for f in place}) for place in places)
        if len(found) == n_phases and distinct:
            names = [PHASE_KEYS.get(key, key) for key in wanted]
            return tuple(
                Phase(", ".join(map(_named, names, values)), tuple(found[values]))
                for values in sorted(found)
            )
    return None


def _named(name: str, value: Key) -> str:
    return f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"


def _ambiguous(place: list[Frame], name: str) -> GeometryError:
    first, second = place[0], place[1]
    where = position_name(first.position, normal_of(first))
    msg = (
        f"{name}: {first.file.shown.name} and {second.file.shown.name} lie in the same place "
        f"({where}) with different content, and no phase, echo or acquisition number tells them "
        "apart; remove what does not belong to the scan"
    )
    return GeometryError(msg)
