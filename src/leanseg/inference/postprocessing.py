"""What happens to a label map after the network, as the plan says."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from leanseg.preprocessing import Plan


def keep_largest_component(labels: NDArray[Any], number: int) -> None:
    """Set all voxels of a label but those of its largest connected component to 0, in place.

    Components touch by faces (6-neighbourhood); of equally large ones the first in storage
    order stays.

    Args:
        labels: Label map (i, j, k).
        number: The label.
    """
    boxes = ndimage.find_objects((labels == number).view(np.uint8))
    if not boxes or boxes[0] is None:
        return
    # Only the label's bounding box is searched: the int32 component map stays small.
    part = labels[boxes[0]]
    mask = part == number
    components, count = ndimage.label(mask)
    if count < 2:
        return
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    part[mask & (components != sizes.argmax())] = 0


def postprocess(labels: NDArray[Any], plan: Plan) -> NDArray[Any]:
    """Apply the plan's post-processing to a label map in the scan's grid, in place."""
    if plan.postprocessing.largest_component:
        for number in range(1, len(plan.labels) + 1):
            keep_largest_component(labels, number)
    return labels
