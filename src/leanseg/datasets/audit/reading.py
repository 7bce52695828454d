"""Reading a case for an audit: every source by itself, going on past whatever is broken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from leanseg.datasets.audit.dicom import series_facts
from leanseg.datasets.audit.facts import (
    CaseFacts,
    ChannelFacts,
    Failure,
    GridFacts,
)
from leanseg.datasets.audit.image import Body, Fingerprint, measure_channel, without_voxels
from leanseg.datasets.audit.label import LabelLayers, measure_labels
from leanseg.datasets.audit.thumbnail import SmallScan, shrink, thumbnail
from leanseg.datasets.case import Case
from leanseg.datasets.readers import read_source
from leanseg.datasets.sources import VolumeSource
from leanseg.errors import GeometryError, LeansegError, MissingDependencyError, SpacingError
from leanseg.volumes import Volume, corners_apart_mm, on_grid_of, reorient, same_grid


@dataclass
class _Reading:
    """What has been learned of a case so far."""

    images: list[GridFacts] = field(default_factory=list)
    channels: list[ChannelFacts] = field(default_factory=list)
    n_channels: int = 0
    label_grids: list[GridFacts] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    fingerprint: Fingerprint = field(default_factory=Fingerprint)
    body: Body | None = None
    patient: str | None = None
    grid: Volume | None = None
    small: SmallScan | None = None


def is_ct(channel: str) -> bool:
    """Whether a channel is called CT, alone or among other words ("CT portal venous")."""
    return "ct" in "".join(c if c.isalnum() else " " for c in channel.lower()).split()


def inspect_case(case: Case, channels: tuple[str, ...], *, thumbnails: bool) -> CaseFacts:
    """Facts of a case; never more than one scan or two label maps are in memory.

    Args:
        case: The case.
        channels: Names of the dataset's channels.
        thumbnails: Whether to make a picture.

    Returns:
        The facts; what cannot be read becomes a failure among them.

    Raises:
        MissingDependencyError: If a package is needed to read the case.
    """
    reading, labels = _Reading(), LabelLayers()
    for n, source in enumerate(case.images):
        with _survived(source, reading.failures):
            _read_image(source, channels, reading, picture=thumbnails and n == 0)
    for part in case.label_parts:
        with _survived(part.source, reading.failures):
            # Not kept by a name here: it would be in memory together with the next part.
            labels.add(part, _read_label(part.source, reading))
    picture = None
    if reading.small is not None:
        picture = thumbnail(reading.small, labels.layers)
    complete = bool(reading.images) and len(reading.images) == len(case.images)
    return CaseFacts(
        name=case.name,
        images=tuple(reading.images),
        n_channels=reading.n_channels if complete else 0,
        channels=tuple(reading.channels),
        label_grids=tuple(reading.label_grids),
        has_labels=bool(case.label_parts),
        labels=measure_labels(labels.layers),
        odd_labels=tuple(labels.odd),
        unlisted=tuple(labels.unlisted),
        annotated=None if case.annotated is None else tuple(sorted(case.annotated)),
        failures=tuple(reading.failures),
        digest=reading.fingerprint.same.hexdigest() if complete else None,
        mirror_digest=reading.fingerprint.mirrored.hexdigest() if complete else None,
        body_centre_x_mm=reading.body.centre_x_mm if reading.body else None,
        body_width_mm=reading.body.width_mm if reading.body else None,
        patient=case.metadata.get("patient", reading.patient),
        thumbnail=picture,
    )


@contextmanager
def _survived(source: VolumeSource, failures: list[Failure]) -> Iterator[None]:
    """Turn whatever goes wrong with one source into a failure."""
    try:
        yield
    except MissingDependencyError:
        # Nothing is wrong with the case; nothing can be said of any other one either.
        raise
    except SpacingError as error:
        failures.append(Failure("spacing-zero", str(error)))
    except GeometryError as error:
        failures.append(Failure("geometry-invalid", str(error)))
    except LeansegError as error:
        failures.append(Failure("file-unreadable", str(error)))
    except MemoryError:
        msg = f"{source.path}: needs more memory than there is; free some, or use fewer workers"
        failures.append(Failure("file-unreadable", msg))
    except Exception as error:
        # A reader's own mistake must not hide what is wrong with the other cases. Its text is
        # left out: it might quote a header.
        msg = f"{source.path}: cannot be read ({type(error).__name__}); export it again"
        failures.append(Failure("file-unreadable", msg))


def _read_image(
    source: VolumeSource, channels: tuple[str, ...], reading: _Reading, *, picture: bool
) -> None:
    volume = read_source(source)
    array = volume.array if volume.array.ndim == 4 else volume.array[..., None]
    first = reading.n_channels
    for n in range(array.shape[3]):
        facts, body = measure_channel(array[..., n], volume.affine, reading.fingerprint)
        reading.channels.append(facts)
        if first + n == 0:
            reading.body = body
            name = channels[0] if channels else ""
            if picture:
                reading.small = shrink(array[..., 0], volume.affine, facts, is_ct=is_ct(name))
    reading.n_channels += array.shape[3]
    series = series_facts(source)
    reading.patient = reading.patient or series.patient
    reading.images.append(_grid_facts(source, volume, reading.grid, series.notes))
    if reading.grid is None:
        reading.grid = without_voxels(volume)


def _read_label(source: VolumeSource, reading: _Reading) -> Volume:
    volume = read_source(source, reading.grid)
    reading.label_grids.append(_grid_facts(source, volume, reading.grid))
    if volume.array.ndim == 4:
        msg = f"{source.path}: a label map has one value per voxel, found shape "
        raise GeometryError(f"{msg}{volume.array.shape}; merge it")
    return volume


def _grid_facts(
    source: VolumeSource, volume: Volume, reference: Volume | None, notes: tuple[str, ...] = ()
) -> GridFacts:
    apart_mm, turned = None, False
    if reference is not None and not same_grid(reference, volume):
        try:
            on_grid_of(reference, volume)
            turned = True
        except GeometryError:
            apart_mm = min(
                corners_apart_mm(reference, volume),
                corners_apart_mm(reference, reorient(volume, reference.orientation)),
            )
    return GridFacts(
        path=str(source.path),
        shape=volume.shape,
        spacing_mm=volume.spacing_mm,
        orientation=volume.orientation,
        dtype=str(volume.array.dtype),
        apart_mm=apart_mm,
        turned=turned,
        has_zero_spacing=_has_zero_spacing(volume.header),
        notes=notes,
    )


def _has_zero_spacing(header: Any) -> bool:
    """Whether a NIfTI header without an sform says 0 for a spacing, which readers take for 1."""
    if not isinstance(header, Mapping) and not hasattr(header, "get_zooms"):
        return False
    return int(header["sform_code"]) == 0 and bool((np.asarray(header["pixdim"][1:4]) == 0).any())
