"""Reading a case for a check: every source by itself, going on past whatever is broken."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from leanseg.datasets.case import Case
from leanseg.datasets.check.facts import CaseFacts, GridFacts, is_ct
from leanseg.datasets.check.image import measure_channel
from leanseg.datasets.check.label import lay_over, measure_labels
from leanseg.datasets.check.thumbnail import shrink, thumbnail
from leanseg.datasets.readers import read_source
from leanseg.datasets.sources import LabelPart, VolumeSource
from leanseg.errors import GeometryError, LeansegError, MissingDependencyError, SpacingError
from leanseg.volumes import Volume, corners_apart_mm, is_volume_path, reorient, same_grid

# Before a digest of a patient out of a DICOM header; the identifier itself is never kept.
PATIENT_PREFIX = "DICOM "
# Soft tissue, as abdominal scans are usually looked at.
_CT_WINDOW_HU = (-160.0, 240.0)


def read_case(case: Case, channels: tuple[str, ...], *, thumbnails: bool) -> CaseFacts:
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
    facts = CaseFacts(case.name, has_labels=bool(case.label_parts))
    facts.patient = case.metadata.get("patient")
    facts.annotated = None if case.annotated is None else sorted(case.annotated)
    scan, small = _read_images(case, facts, is_ct(channels[0]) if thumbnails else None)
    layers: list[Volume] = []
    for part in case.label_parts:
        with _survived(part.source, facts):
            _read_label(part, facts, scan, layers)
    facts.labels = measure_labels(layers)
    if small is not None:
        facts.thumbnail = thumbnail(small, layers, facts.labels)
    return facts


def _read_images(
    case: Case, facts: CaseFacts, as_ct: bool | None
) -> tuple[Volume | None, Volume | None]:
    """Measure the images of a case.

    Returns:
        The first one, with voxels that take no memory, and its slices as small pictures (shown
        as CT or not; none for None).
    """
    scan = small = None
    for source in case.images:
        with _survived(source, facts):
            volume = read_source(source)
            array = volume.array.reshape(*volume.shape, -1)
            measured = [
                measure_channel(array[..., n], volume.affine) for n in range(array.shape[3])
            ]
            if as_ct is not None and small is None:
                window = _CT_WINDOW_HU if as_ct else (measured[0].p1, measured[0].p99)
                small = shrink(array[..., 0], volume.affine, window)
            notes, patient = _series_facts(source)
            facts.patient = facts.patient or patient
            grid = _grid_facts(source, volume, scan)
            # Those on a series are told with what lies beside it.
            told = () if notes else grid.header_notes
            facts.images.append(replace(grid, notes=notes, header_notes=told))
            facts.channels += measured
            if scan is None:
                no_voxels = np.broadcast_to(np.zeros((), dtype=volume.array.dtype), volume.shape)
                scan = volume.with_array(no_voxels)
    if len(facts.images) == len(case.images):
        facts.n_channels = len(facts.channels)
    return scan, small


def _read_label(
    part: LabelPart, facts: CaseFacts, scan: Volume | None, layers: list[Volume]
) -> None:
    volume = read_source(part.source, scan)
    if volume.array.ndim == 4:
        msg = f"{part.source.path}: a label map has one value per voxel, found shape "
        raise GeometryError(f"{msg}{volume.array.shape}; merge it")
    grid = _grid_facts(part.source, volume, scan)
    faults = lay_over(layers, part, volume)
    facts.label_grids.append(replace(grid, **faults))


@contextmanager
def _survived(source: VolumeSource, facts: CaseFacts) -> Iterator[None]:
    """Turn whatever goes wrong with one source into a failure."""
    kind = "file-unreadable"
    try:
        yield
        return
    except MissingDependencyError:
        # Nothing is wrong with the case; nothing can be said of any other one either.
        raise
    except LeansegError as error:
        message = str(error)
        if isinstance(error, GeometryError):
            kind = "spacing-zero" if isinstance(error, SpacingError) else "geometry-invalid"
    except MemoryError:
        message = f"{source.path}: needs more memory than there is; free some, or use fewer workers"
    except Exception as error:
        # A reader's own mistake must not hide what is wrong with the other cases. Its text is
        # left out: it might quote a header.
        message = f"{source.path}: cannot be read ({type(error).__name__}); export it again"
    facts.failures.append((kind, message))


def _grid_facts(source: VolumeSource, volume: Volume, reference: Volume | None) -> GridFacts:
    apart_mm, turned = None, False
    if reference is not None and not same_grid(reference, volume):
        upright = reorient(volume, reference.orientation)
        turned = same_grid(reference, upright)
        if not turned:
            apart_mm = min(corners_apart_mm(reference, either) for either in (volume, upright))
    return GridFacts(
        path=str(source.path),
        shape=volume.shape,
        spacing_mm=volume.spacing_mm,
        orientation=volume.orientation,
        dtype=str(volume.array.dtype),
        apart_mm=apart_mm,
        turned=turned,
        header_notes=volume.notes,
    )


def _series_facts(source: VolumeSource) -> tuple[tuple[str, ...], str | None]:
    """What the headers of a DICOM series tell besides its voxels.

    Returns:
        Sentences without identifiers, and a digest that cases of one patient share; nothing where
        the source is no DICOM or its headers name nobody.
    """
    if source.reader != "volume" or is_volume_path(source.path):
        return (), None
    from leanseg.volumes.dicom import choose_series, find_series, is_dicom

    if not is_dicom(source.path):
        return (), None
    inventory, options = find_series(source.path), source.options
    series = choose_series(inventory, options.get("series"), options.get("modality"))
    notes = list(series.notes)
    if series.missing:
        shown = ", ".join(series.missing[:3]) + (", ..." if len(series.missing) > 3 else "")
        notes.append(f"{len(series.missing)} slices are missing and were interpolated ({shown})")
    if inventory.skipped:
        notes.append(f"{len(inventory.skipped)} files beside it are no images")
    if not series.patient:
        return tuple(notes), None
    digest = hashlib.blake2b(series.patient.encode(), digest_size=8).hexdigest()
    return tuple(notes), PATIENT_PREFIX + digest
