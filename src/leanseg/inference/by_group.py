"""3-D networks whose patches have slices from all over the frame: by interleaved groups.

Trained on random slices of a volume (paper 002, "Image Preprocessing"), a network has to see slices
as far apart as those were; neighbours would be no such sample. So n slices make G = ceil(n / depth)
groups i, i + G, i + 2 G, ..., which together are all slices. That the paper's test saw them so is
our reading: it does not say. The frame is read once, and kept with its probabilities until the last
group is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from leanseg.inference.blend import GaussianBlend, SinglePatch
from leanseg.inference.by_layer import (
    Patch,
    decide_again,
    probabilities_of,
    restoring_values,
)
from leanseg.inference.layer import Layer
from leanseg.inference.stage_run import Floats, Settings, StageRun
from leanseg.inference.tiles import cut_tile
from leanseg.plan import Stage

Group = NDArray[np.intp]


def interleaved_groups(n_slices: int, depth: int) -> list[Group]:
    """Slices of each group, ascending, so many; all slices are in one group and no other.

    A group that has fewer is filled by repeating its slices, each next to itself and as often as
    any other, or once more: 0, 0, 1, 1, 2 of three.
    """
    n_groups = -(-n_slices // depth)
    groups = (np.arange(first, n_slices, n_groups) for first in range(n_groups))
    return [group[np.arange(depth) * len(group) // depth] for group in groups]


def run_by_group(run: StageRun) -> None:
    """Take a stage's region through its network, group by group.

    In-plane, patches overlap and are blended as everywhere. A slice that is there several times has
    the mean of its probabilities.
    """
    (rows, columns, n_planes), stage = run.source.shape, run.stage
    shape = (rows, columns, stage.patch_shape[2])
    layer = Layer.over(shape, stage.patch_shape, stage.patch.overlap, stage.patch.tiling)
    groups = interleaved_groups(n_planes, shape[2])
    planes = np.empty((n_planes, stage.n_outputs, rows, columns), dtype=np.float32)
    blender = _blender(stage, layer)
    found = probabilities_of(run, _patches(run, layer, groups))
    for done, (start, is_last, probabilities) in enumerate(found, start=1):
        with run.seconds.during("restore"):
            blender.add(probabilities, (*start[:2], 0))
            if is_last:
                blender.finish(shape[2])
                _put(blender.planes(0, shape[2]), groups[start[2]], planes)
                blender = _blender(stage, layer)
        if run.on_progress is not None:
            run.on_progress(done, layer.n_patches * len(groups))
    with run.seconds.during("restore"):
        decide_again(replace(run, on_progress=None), planes)


def _blender(stage: Stage, layer: Layer) -> GaussianBlend | SinglePatch:
    """For one group, of which every plane is as good as any other."""
    if layer.is_single:
        return SinglePatch()
    depth = layer.shape[2]
    return GaussianBlend(
        layer.shape,
        layer.patch,
        stage.n_outputs,
        depth,
        along_k=False,
        tiling=stage.patch.tiling,
    )


def _patches(run: StageRun, layer: Layer, groups: Sequence[Group]) -> Iterator[Patch]:
    """Where each patch begins (i, j, its group), whether it is the group's last, and itself."""
    with run.seconds.during("preprocess"):
        frame = run.source.planes(0, run.source.shape[2])
    places = list(layer.in_plane())
    for number, group in enumerate(groups):
        window = frame[group]
        for i, j in places:
            with run.seconds.during("preprocess"):
                patch = _cut(window, layer, i, j)
            yield (i, j, number), (i, j) == places[-1], patch


def _cut(window: Floats, layer: Layer, i: int, j: int) -> Floats:
    """A patch (channel, i, j, k) of planes (k, channel, i, j)."""
    if layer.is_single:
        return np.ascontiguousarray(window.transpose(1, 2, 3, 0))
    patch = np.empty((window.shape[1], *layer.patch), dtype=np.float32)
    cut_tile(window, (i, j, 0), len(window), patch)
    return patch


def _put(found: Floats, group: Group, planes: Floats) -> None:
    """A group's probabilities (k, output, i, j) where its slices are."""
    slices, first, counts = np.unique(group, return_index=True, return_counts=True)
    sums = np.add.reduceat(found, first, axis=0)
    planes[slices] = sums / counts.astype(np.float32)[:, None, None, None]


def memory_bytes(
    stage: Stage,
    frame_shape: tuple[int, int, int],
    region_shape: tuple[int, ...],
    n_channels: int,
    settings: Settings,
    *,
    lanes: int,
    passes: int = 1,
) -> tuple[int, int]:
    """What taking groups through a network holds besides scan, label map and engine.

    Args:
        stage: The stage.
        frame_shape: (i, j, k) of its frame.
        region_shape: (i, j, k) of the region in the scan's resolution.
        n_channels: Of the scan.
        settings: Slices per block.
        lanes: Of the engine.
        passes: Of the engine.

    Returns:
        While the network runs, and while its results are brought to the scan's resolution.
    """
    outputs, depth = stage.n_outputs, stage.patch_shape[2]
    seen, own = frame_shape[0] * frame_shape[1], region_shape[0] * region_shape[1]
    frame, planes = (each * frame_shape[2] * seen for each in (n_channels, outputs))
    # Where their number differs, all slices of the scan that the planes lie between.
    slices = 0 if frame_shape[2] == region_shape[2] else region_shape[2]
    reading = n_channels * slices * seen + 5 * own
    patches = (lanes + 1 + passes) * (n_channels + outputs) * int(np.prod(stage.patch_shape))
    # A group's planes: read, summed up with their weights, taken out of the sums, and their means.
    group = depth * (n_channels + 4 * outputs + 1) * seen
    running = frame + planes + max(reading, patches + group)
    threads = settings.threads_for(lanes)
    return 4 * running, 4 * (planes + threads * restoring_values(stage, seen, own, settings))
