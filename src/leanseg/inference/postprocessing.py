"""What happens to a label map after the network, as the plan says."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from leanseg.preprocessing import Plan


def keep_largest_component(labels: NDArray[Any], number: int) -> None:
    """Set all voxels of a label but those of its largest connected component to 0, in place.

    Components touch by faces (6-neighbourhood); of equally large ones the one that comes first
    in index order stays.

    Args:
        labels: Label map of three axes, uint8 or uint16, in any storage order.
        number: The label.
    """
    from leanseg.inference.components import keep_largest

    keep_largest(labels, number, number)


def postprocess(labels: NDArray[Any], plan: Plan, max_bytes: int | None = None) -> NDArray[Any]:
    """Apply the plan's post-processing to a label map, in place.

    Args:
        labels: (slice, row, column) in plan orientation, uint8 or uint16, so that a scan's own
            storage order does not decide between components of equal size.
        plan: Its `postprocessing` and `labels` are used.
        max_bytes: About how much memory may be used besides; None is without limit.

    Returns:
        The same array.

    Raises:
        MemoryCeilingError: If the map is too noisy for that.
    """
    if plan.postprocessing.largest_component:
        from leanseg.inference.components import keep_largest

        keep_largest(labels, 1, len(plan.labels), max_bytes)
    return labels
