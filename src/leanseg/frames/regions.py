"""The part of a scan that a stage's frame covers: all of it, or a box around something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from leanseg.frames.classes import where_any
from leanseg.frames.view import ScanView
from leanseg.plan import Around, Scout, Stage
from leanseg.volumes import Box, bounding_box

if TYPE_CHECKING:
    from leanseg.frames.abdomen import Look


def find_box(scout: Scout, view: ScanView, stage: Stage, look: Look | None) -> Box | None:
    """What a scout finds in a scan, in voxels of the view; None where it finds nothing.

    Args:
        scout: Says what it looks for.
        view: The scan in the stage's orientation.
        stage: The network that will see the box.
        look: One pass of that network over a box, where it sees a region at once.

    Raises:
        DatasetError: If the scan is not one in which this can be looked for.
    """
    if scout.finds == "abdomen":
        from leanseg.frames.abdomen import find_abdomen

        return find_abdomen(view, stage, look)
    if scout.finds == "nonzero":
        from leanseg.frames.nonzero import find_nonzero

        return find_nonzero(view)
    from leanseg.frames.body import find_body

    return find_body(view)


def box_around(
    region: Around, found: NDArray[Any], labels: Mapping[str, Sequence[int]], view: ScanView
) -> Box | None:
    """The box around what an earlier stage labelled, in voxels of the view; None where nothing is.

    Args:
        region: Which labels, and how far around them.
        found: The earlier stage's label map (i, j, k), in the view's orientation.
        labels: For each of its labels, the values in it that belong to it.
        view: Gives the spacing.
    """
    mask = found != 0
    if region.labels is not None:
        mask = where_any(found, [value for name in region.labels for value in labels[name]])
    return bounding_box(mask, margin_mm=region.margin_mm, spacing_mm=view.spacing_mm)
