"""What happens to a label map after the network, as the plan says."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from leanseg.preprocessing import Plan


def keep_largest_component(labels: NDArray[Any], number: int) -> None:
    """Set all voxels of a label but those of its largest connected component to 0, in place.

    Components touch by faces (6-neighbourhood); of equally large ones the one that comes first
    in index order stays.

    Args:
        labels: Label map of three axes, in any storage order.
        number: The label.
    """
    mask = labels == number
    components, count = ndimage.label(mask)
    if count < 2:
        return
    sizes = np.bincount(components.ravel(order="K"))
    sizes[0] = 0
    labels[mask & (components != sizes.argmax())] = 0


def postprocess(labels: NDArray[Any], plan: Plan) -> NDArray[Any]:
    """Apply the plan's post-processing to a label map, in place.

    Args:
        labels: (slice, row, column) in plan orientation, so that a scan's own storage order
            does not decide between components of equal size.
        plan: Its `postprocessing` and `labels` are used.

    Returns:
        The same array.
    """
    if plan.postprocessing.largest_component:
        for number, box in enumerate(_boxes(labels, len(plan.labels)), start=1):
            # Only a label's bounding box is searched: the int32 component map stays small.
            if box is not None:
                keep_largest_component(labels[box], number)
    return labels


def _boxes(labels: NDArray[Any], n_labels: int) -> list[tuple[slice, ...] | None]:
    """Bounding box of every label, None where it is absent."""
    # Ten times faster when the last axis is the one whose voxels are neighbours in memory.
    order = sorted(range(labels.ndim), key=lambda axis: -abs(labels.strides[axis]))
    place = [order.index(axis) for axis in range(labels.ndim)]
    found = ndimage.find_objects(labels.transpose(order), max_label=n_labels)
    return [None if box is None else tuple(box[n] for n in place) for box in found]
