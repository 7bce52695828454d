"""Phases: a series that images the same places more than once, taken apart."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np

from leanseg.errors import GeometryError
from leanseg.volumes.dicom.frames import PHASE_NAMES, Frame, Key
from leanseg.volumes.dicom.geometry import SAME_PLACE_MM, heights, normal_of, position_name
from leanseg.volumes.dicom.pixels import stored_bytes


def separated(frames: Sequence[Frame], name: str) -> tuple[dict[str, list[Frame]], int]:
    """Take a series apart into phases, dropping copies of the same slice.

    Copies are frames in the same place with the same voxels, unless a phase, echo or acquisition
    number tells them apart.

    Args:
        frames: Parallel ones.
        name: Of the series, for messages.

    Returns:
        The frames of each phase by its name, such as "echo 2", in ascending order of what tells
        them apart ("" where there is one phase alone), and the number of copies dropped.

    Raises:
        GeometryError: If two different slices lie in the same place and nothing tells why.
    """
    unique = [frame for place in _places(frames) for frame in _once(place)]
    places = _places(unique)
    phases = _split(places)
    if phases is None:
        raise _ambiguous(next(place for place in places if len(place) > 1), name)
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


def _once(place: list[Frame]) -> list[Frame]:
    """The frames of one place without copies."""
    kept: list[Frame] = []
    for frame in place:
        if not any(_is_copy(frame, other) for other in kept):
            kept.append(frame)
    return kept


def _is_copy(one: Frame, other: Frame) -> bool:
    values = [(f.slope, f.intercept, f.position, f.file.syntax, f.keys) for f in (one, other)]
    return values[0] == values[1] and stored_bytes(one) == stored_bytes(other)


def _split(places: list[list[Frame]]) -> dict[str, list[Frame]] | None:
    """Phases by the first key, or pair of keys, that tells all frames of every place apart.

    None where there is no such key.
    """
    n_phases = max(len(place) for place in places)
    frames = [frame for place in places for frame in place]
    if n_phases == 1:
        return {"": frames}
    known = [key for key in PHASE_NAMES if all(key in frame.keys for frame in frames)]
    known += sorted(set.intersection(*(set(frame.keys) for frame in frames)) - set(known))
    varying = [key for key in known if len({frame.keys[key] for frame in frames}) > 1]
    for wanted in (*((key,) for key in varying), *combinations(varying, 2)):
        values_of = {frame: tuple(frame.keys[key] for key in wanted) for frame in frames}
        distinct = all(len(place) == len({values_of[f] for f in place}) for place in places)
        if distinct and len(set(values_of.values())) == n_phases:
            phases: dict[str, list[Frame]] = {}
            for frame in sorted(frames, key=values_of.__getitem__):
                phases.setdefault(_name(wanted, values_of[frame]), []).append(frame)
            return phases
    return None


def _name(keys: Sequence[str], values: Sequence[Key]) -> str:
    texts = (f"{value:g}" if isinstance(value, float) else value for value in values)
    return ", ".join(f"{PHASE_NAMES.get(k, k)} {v}" for k, v in zip(keys, texts, strict=True))


def _ambiguous(place: list[Frame], name: str) -> GeometryError:
    first, second = place[0], place[1]
    where = position_name(first.position, normal_of(first))
    return GeometryError(
        f"{name}: {first.file.shown.name} and {second.file.shown.name} lie in the same place "
        f"({where}) with different content, and no phase, echo or acquisition number tells them "
        "apart; remove what does not belong to the scan"
    )
