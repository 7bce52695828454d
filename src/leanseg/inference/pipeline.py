"""The pipeline: from a scan through a plan's stages to a label map in the scan's own grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.evaluation.calibration import scaled
from leanseg.frames.regions import box_around, find_box
from leanseg.frames.source import CachedSource, ScanSource, Source
from leanseg.frames.view import Scan, ScanView, may_stream
from leanseg.inference.by_group import run_by_group
from leanseg.inference.by_layer import decide_again, run_by_layer, whole_frame
from leanseg.inference.by_slice import run_by_slice
from leanseg.inference.confidence import Confidence
from leanseg.inference.crops import CroppingEngine, engine_of
from leanseg.inference.engines import Engine
from leanseg.inference.maps import Keeper, Maps, fill_background, no_maps
from leanseg.inference.stage_run import Floats, Progress, Settings, StageRun, StageSeconds
from leanseg.plan import Around, HounsfieldWindow, Plan, Scout, Stage, label_dtype
from leanseg.volumes import Box, Volume, reoriented_view

NOTHING = "every voxel of this scan is 0, so all of it is background; check the scan"
NO_BODY = "there is no body in this scan, so all of it is background; check that it is CT in HU"


@dataclass(frozen=True)
class Prediction:
    """A label map in the scan's own grid, and what it took.

    Attributes:
        labels: Classes of the plan (0 background, n + 1 for `plan.labels[n]`), uint8 or uint16,
            with the scan's shape and affine. Of regions that contain each other it has the
            innermost.
        seconds: Time per step.
        slices_skipped: Slices for which a 2-D network did not run: those outside its region, and
            those that hold a single value (their answer is known from the first such slice).
        notes: What the user should know about this scan.
        probabilities: Where they were asked for: (i, j, k, output) on the scan's grid, under the
            plan's temperature.
        confidence: For each label what `leanseg.inference.confidence` says; None where nothing has
            it. It does not look at the temperature.
    """

    labels: Volume
    seconds: StageSeconds = field(default_factory=StageSeconds)
    slices_skipped: int = 0
    notes: tuple[str, ...] = ()
    probabilities: Volume | None = None
    confidence: Mapping[str, float | None] = field(default_factory=dict)


class Pipeline:
    """Takes scans through the stages of a plan.

    Args:
        plan: The plan.
        engines: For each of its networks, by the stage's name, what runs it.

    Attributes:
        settings: How that is done; changes no result.
    """

    def __init__(self, plan: Plan, engines: Mapping[str, Engine]) -> None:
        self.plan = plan
        self.engines = dict(engines)
        self.settings = Settings()

    def predict(
        self,
        scan: Scan,
        channel_indices: Sequence[int] | None = None,
        on_progress: Progress | None = None,
        *,
        probabilities: np.dtype[Any] | None = None,
    ) -> Prediction:
        """Segment a scan.

        Args:
            scan: In memory, or only its header; it is then streamed from its file where the plan
                allows, else read. In any orientation and of any size.
            channel_indices: Which of its channels are the plan's, in order.
            on_progress: Called with (done, in all), ever more done.
            probabilities: Type in which the last stage's probabilities are kept too, in the scan's
                resolution; None if they are not wanted.

        Returns:
            The label map on exactly the scan's grid.

        Raises:
            DatasetError: If the scan does not have the plan's channels, or is not one in which a
                stage's region can be found.
            GeometryError: If a frame would have absurdly many voxels.
        """
        plan = self.plan.for_scan(scan.orientation)
        streams = may_stream(scan, plan)
        scan = scan if streams else scan.read()
        return _Scan(self, plan, scan, channel_indices, streams, on_progress).predict(probabilities)

    def predict_maps(
        self, scan: Scan, stage: Stage, channel_indices: Sequence[int] | None = None
    ) -> Maps:
        """What the last stage's network says of a scan, as the input of another network.

        Args:
            scan: As in `predict`.
            stage: In whose frame.
            channel_indices: As in `predict`.

        Returns:
            Probabilities (k, output, i, j) in that frame, float16: the same as the channels of a
            stage that has this plan's last one as input.

        Raises:
            DatasetError, GeometryError: As `predict`.
        """
        plan = self.plan.for_scan(scan.orientation)
        streams = may_stream(scan, plan)
        scan = scan if streams else scan.read()
        maps = no_maps(scan, stage, plan.final.n_outputs)
        _Scan(self, plan, scan, channel_indices, streams, None).predict(None, (stage, maps))
        return maps

    def predict_source(
        self, source: Source, on_planes: Callable[[int, Floats], None] | None = None
    ) -> NDArray[Any]:
        """Segment a frame that was prepared before, with the last stage's network.

        Args:
            source: The frame.
            on_planes: Called with the first plane and probabilities (plane, output, i, j).

        Returns:
            Classes (i, j, k) of what it covers in the scan's own resolution, in its orientation.
        """
        run = self._last_stage(source)
        run.on_planes = on_planes
        run_stage(run)
        postprocess(run.target, run.stage)
        return run.target

    def decide_source(self, source: Source, planes: Floats) -> NDArray[Any]:
        """As `predict_source`, from probabilities that it gave before: the network does not run.

        Args:
            source: The frame.
            planes: Probabilities (plane, output, i, j) of all of it.

        Returns:
            Classes (i, j, k), the same as of `predict_source`.
        """
        run = self._last_stage(source)
        decide_again(run, planes)
        postprocess(run.target, run.stage)
        return run.target

    def _last_stage(self, source: Source) -> StageRun:
        stage = self.plan.final
        labels = np.zeros(source.region.shape, dtype=label_dtype(len(stage.labels)), order="F")
        return StageRun(
            stage, engine_of(stage, self.plan, self.engines), source, labels, self.settings
        )


def run_stage(run: StageRun) -> None:
    """Slices one by one where a 2-D network sees the scan's own, else by group or layer."""
    of_slices = run.stage.patch_shape[2] == 1
    if of_slices and run.source.shape[2] == run.source.region.shape[2]:
        run_by_slice(run)
    elif run.stage.patch.is_interleaved:
        run_by_group(run)
    else:
        run_by_layer(run)


@dataclass
class _Scan:
    """One scan on its way through the stages."""

    _pipeline: Pipeline
    _plan: Plan
    _scan: Scan
    _channel_indices: Sequence[int] | None
    _streams: bool
    _on_progress: Progress | None
    _labels: dict[str, NDArray[Any]] = field(default_factory=dict)
    # By the stages that will combine them.
    _maps: dict[str, Maps] = field(default_factory=dict)
    _without_body: set[str] = field(default_factory=set)
    _seconds: StageSeconds = field(default_factory=StageSeconds)
    _skipped: int = 0
    _notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._confidence = Confidence(self._pipeline.plan.final)

    def predict(
        self, probabilities: np.dtype[Any] | None, answer: tuple[Stage, Maps] | None = None
    ) -> Prediction:
        """Through all stages; the last one's map goes to `answer`, in that stage's frame."""
        plan = self._plan
        kept: NDArray[Any] | None = None
        if probabilities is not None:
            shape = (*self._scan.shape, plan.final.n_outputs)
            kept = np.zeros(shape, dtype=probabilities, order="F")
            if plan.final.n_outputs > len(plan.labels):
                kept[..., 0] = 1
        for stage in plan.runs:
            is_last = stage is plan.final
            wanted = [answer] if is_last and answer is not None else self._wanted(stage)
            self._run(stage, kept if is_last else None, wanted)
        labels = self._labels[plan.final.name]
        return Prediction(
            Volume(labels, self._scan.affine, self._scan.path, self._scan.header),
            self._seconds,
            self._skipped,
            tuple(dict.fromkeys(self._notes)),
            None if kept is None else Volume(kept, self._scan.affine, self._scan.path),
            self._confidence.by_label,
        )

    def _wanted(self, stage: Stage) -> list[tuple[Stage, Maps]]:
        """The stages that combine what this one says, and where its map has its place."""
        plan, found = self._plan, []
        for other in plan.networks:
            if stage.name in other.inputs:
                if other.name not in self._maps:
                    self._maps[other.name] = no_maps(self._scan, other, plan.n_channels(other))
                before = other.inputs[: other.inputs.index(stage.name)]
                first = sum(plan.network(name).n_outputs for name in before)
                maps = self._maps[other.name][:, first : first + stage.n_outputs]
                found.append((other, maps))
        return found

    def _run(
        self,
        stage: Stage,
        probabilities: NDArray[Any] | None,
        wanted: Sequence[tuple[Stage, Maps]],
    ) -> None:
        plan, codes = self._plan, stage.frame.orientation
        with self._seconds.during("preprocess"):
            view = ScanView(
                self._scan, codes, plan.channels, self._channel_indices, streams=self._streams
            )
            labels = self._no_labels(stage)
        box = self._region(stage, view)
        if not stage.is_3d:
            self._skipped += view.shape[2] - (box.shape[2] if box else 0)
        if box is None:
            for _, maps in wanted:
                fill_background(maps, stage)
            return
        target = reoriented_view(labels, self._scan.orientation, codes)[box.slices]
        if probabilities is not None:
            turned = reoriented_view(probabilities, self._scan.orientation, codes)
            probabilities = turned[box.slices]
        with self._seconds.during("preprocess"):
            source = self._source(stage, view, box)
        engine = engine_of(stage, plan, self._pipeline.engines)
        settings = self._pipeline.settings
        run = StageRun(stage, engine, source, target, settings, self._progress(stage))
        run.probabilities, run.seconds = probabilities, self._seconds
        run.decides = plan.is_labelled(stage)
        if stage is plan.final:
            run.on_planes = self._confidence.add
            if stage.temperature != 1:
                run.scale = partial(scaled, temperature=stage.temperature, sigmoid=stage.is_sigmoid)
        keepers = [
            Keeper(stage, maps, other.frame.orientation, box, view.shape) for other, maps in wanted
        ]
        for keeper in keepers:
            # Another network's input has no temperature.
            run.scale = None
            keeper.attach(run)
        run_stage(run)
        if keepers:
            # The networks of a stack take their turns; what each keeps would add up.
            engine.release()
        self._skipped += run.slices_skipped
        is_empty = run.is_empty and isinstance(stage.intensity.window, HounsfieldWindow)
        with self._seconds.during("restore"):
            for keeper in keepers:
                if is_empty:
                    fill_background(keeper.maps, stage)
                else:
                    keeper.finish()
        if is_empty:
            if stage.frame.region == "scan":
                self._without_body.add(stage.name)
            self._notes.append(NO_BODY)
            if run.decides:
                labels[...] = 0
            return
        if isinstance(engine, CroppingEngine) and not engine.n_found:
            assert stage.patch.crop is not None
            self._notes.append(_found_nothing(stage.patch.crop.stage, stage.name))
        if run.decides:
            with self._seconds.during("postprocess"):
                postprocess(reoriented_view(labels, self._scan.orientation, codes), stage)

    def _no_labels(self, stage: Stage) -> NDArray[Any]:
        """A label map of zeros; one that nobody asks for takes no memory."""
        shape, dtype = self._scan.shape, label_dtype(len(stage.labels))
        if not self._plan.is_labelled(stage):
            return np.broadcast_to(np.zeros((), dtype=dtype), shape)
        labels = self._labels[stage.name] = np.zeros(shape, dtype=dtype, order="F")
        return labels

    def _source(self, stage: Stage, view: ScanView, box: Box) -> Source:
        if stage.inputs:
            return CachedSource(self._maps.pop(stage.name), box)
        source = ScanSource(view, stage, box)
        assert source.transforms
        return source

    def _region(self, stage: Stage, view: ScanView) -> Box | None:
        """What the stage's frame covers, in voxels of the view; None where there is nothing."""
        region = stage.frame.region
        if not self._without_body.isdisjoint(stage.inputs):
            # What other networks make of nothing is no map of anything.
            return None
        if not isinstance(region, Around):
            return Box((0, 0, 0), view.shape)
        earlier = next(e for e in self._plan.stages if e.name == region.stage)
        if isinstance(earlier, Scout):
            box = find_box(earlier, view, stage, self._look(stage, view))
            if box is None:
                self._notes.append(NOTHING if earlier.finds == "nonzero" else NO_BODY)
            return box
        found = self._labels[earlier.name]
        turned = reoriented_view(found, self._scan.orientation, stage.frame.orientation)
        box = box_around(region, turned, earlier.label_values, view)
        if box is None:
            self._notes.append(_found_nothing(earlier.name, stage.name))
        return box

    def _look(self, stage: Stage, view: ScanView) -> Callable[[Box], Floats] | None:
        """One plain pass of one network over a box, which is enough for a first look."""
        if not stage.sees_all:
            return None
        engine = self._pipeline.engines[stage.name].scout()

        def look(box: Box) -> Floats:
            with self._seconds.during("preprocess"):
                batch = whole_frame(ScanSource(view, stage, box))
            with self._seconds.during("network"):
                return engine.run(batch)[0]

        return look

    def _progress(self, stage: Stage) -> Progress | None:
        """Progress of one stage as a part of all."""
        networks, report = self._plan.runs, self._on_progress
        if report is None:
            return None
        before, n = networks.index(stage), len(networks)
        return lambda done, total: report(before * total + done, n * total)


def _found_nothing(earlier: str, name: str) -> str:
    return (
        f"stage {earlier!r} found nothing, so stage {name!r} did not run and all of its result is "
        "background"
    )


def postprocess(labels: NDArray[Any], stage: Stage) -> None:
    """What a stage does to its label map (i, j, k), in the frame's orientation, in place."""
    if stage.cleaned_labels:
        from leanseg.inference.components import keep_largest_component

        # Of equally large components the first along k stays, whatever the scan's own order.
        planes = np.moveaxis(labels, 2, 0)
        for name in stage.cleaned_labels:
            number = stage.labels.index(name) + 1
            values, parent = stage.label_values[name], stage.parent(number)
            keep_largest_component(planes, values, parent, stage.component_share)
