"""Networks' maps as the input of another network: grids, regions, memory, what is empty."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from leanseg.inference import Pipeline
from leanseg.inference.maps import resample
from leanseg.inference.memory import Way, need_bytes
from leanseg.inference.stage_run import Settings
from leanseg.plan import Around, HounsfieldWindow, Plan, Stage
from leanseg.volumes import Volume
from leanseg.volumes.resize import resize_array
from plans import patches, slices, whole

AFFINE = np.diag([-1.0, -1.5, 2.0, 1.0])
SHAPE = (30, 28, 16)


def scan(rng) -> Volume:
    array = rng.integers(0, 100, SHAPE).astype(np.float32)
    array[0, 0, 0], array[1, 0, 0] = 0, 100
    return Volume(np.asfortranarray(array), AFFINE)


def stage(plan: Plan, name: str, **update) -> Stage:
    return plan.final.model_copy(update={"name": name, **update})


def stacked(*members: Stage, combiner: Stage | None = None) -> Plan:
    """Members and a combiner in the scan's own grid."""
    own = combiner or stage(slices(SHAPE[:2], ("organ", "spot")), "stack")
    last = own.model_copy(update={"inputs": tuple(each.name for each in members)})
    return Plan(stages=(*members, last))


def softmax(batch: np.ndarray) -> np.ndarray:
    """Three outputs that add up to one, from the grey value."""
    grey = batch[:, :1]
    return np.concatenate([1 - grey, grey * 0.25, grey * 0.75], axis=1)


class Recorder:
    """A combiner that keeps what it sees: one slice at a time."""

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        self.seen.append(batch)
        background = np.full_like(batch[:, :1], 0.5)
        return np.concatenate([background, batch[:, :1], 0 * background], axis=1)


def run(plan: Plan, volume: Volume, known_engine, answers: dict) -> tuple[np.ndarray, Volume]:
    """What the combiner saw (k, channel, i, j), and the label map."""
    recorder = Recorder()
    engines = {
        name: known_engine(function, batch_size=1)
        for name, function in {**answers, "stack": recorder}.items()
    }
    pipeline = Pipeline(plan, engines)
    pipeline.settings = Settings(threads=1, batch_size=1)
    found = pipeline.predict(volume)
    return np.concatenate(recorder.seen) if recorder.seen else np.empty(0), found.labels


def test_maps_of_the_same_grid_come_as_they_are(rng, known_engine) -> None:
    volume = scan(rng)
    member = stage(slices(SHAPE[:2], ("a", "b")), "member")
    plan = stacked(member)
    assert plan.input_shape(plan.final) == (3, *SHAPE[:2])
    seen, labels = run(plan, volume, known_engine, {"member": softmax})
    grey = np.moveaxis(volume.array / np.float32(100), 2, 0)
    expected = softmax(grey[:, None]).astype(np.float16).astype(np.float32)
    np.testing.assert_allclose(seen, expected, atol=1e-3)
    # In the scan's grid: where the first map, the background, is above one half.
    np.testing.assert_array_equal(labels.array == 1, np.moveaxis(seen[:, 0] > 0.5, 0, 2))


@pytest.mark.parametrize("codes", ["LPS", "RAI", "SAL"])
@pytest.mark.parametrize("own", ["LPS", "PSR"])
def test_maps_of_another_grid_are_resized_linearly(
    rng, known_engine, stored_as, codes, own
) -> None:
    """A 2-D and a 3-D member, against the separable resizing of whole arrays (oracle: matrices)."""
    volume = scan(rng)
    flat = stage(slices((12, 40), ("a",), orientation=own), "flat")
    solid = stage(whole((20, 14, 8), ("a", "b"), orientation="RAS"), "solid")
    plan = stacked(flat, solid)
    assert plan.n_channels(plan.final) == 4
    recorded: dict[str, list[np.ndarray]] = {"flat": [], "solid": []}

    def told(name, function):
        def tell(batch):
            recorded[name].append(batch.copy())
            return function(batch)

        return tell

    answers = {
        "flat": told("flat", lambda batch: batch[:, :1].copy()),
        "solid": told("solid", softmax),
    }
    seen, _ = run(plan, stored_as(volume, codes), known_engine, answers)
    of_flat = np.concatenate(recorded["flat"])[:, 0].transpose(1, 2, 0)  # (i, j, k) of its frame
    if own == "PSR":
        of_flat = of_flat[:, :, ::-1].transpose(2, 0, 1)
    expected = [of_flat]
    solid_maps = softmax(recorded["solid"][0])[0][:, ::-1, ::-1]
    expected += list(solid_maps)
    for channel, maps in enumerate(expected):
        resized = resize_array(np.ascontiguousarray(maps, dtype=np.float32), SHAPE)
        np.testing.assert_allclose(seen[:, channel].transpose(1, 2, 0), resized, atol=2e-3)


def test_enlarging_is_scipys_linear_interpolation(rng) -> None:
    own = rng.random((4, 2, 5, 6)).astype(np.float16)
    out = np.zeros((8, 2, 10, 12), np.float16)
    resample(own, out)
    for channel in range(2):
        expected = ndimage.zoom(
            own[:, channel].astype(float), 2, order=1, mode="nearest", grid_mode=True
        )
        np.testing.assert_allclose(out[:, channel], expected, atol=2e-3)


def test_patches_and_progress(rng, known_engine) -> None:
    volume = scan(rng)
    member = stage(patches((8, 8, 8), ("a", "b")), "member")
    plan = stacked(member)
    seen, _ = run(plan, volume, known_engine, {"member": softmax})
    np.testing.assert_allclose(seen[:, 2], 0.0075 * np.moveaxis(volume.array, 2, 0), atol=2e-3)
    engines = {"member": known_engine(softmax), "stack": known_engine(Recorder())}
    told: list[tuple[int, int]] = []
    Pipeline(plan, engines).predict(volume, on_progress=lambda *each: told.append(each))
    shares = [done / total for done, total in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_outside_of_a_members_region_is_background(known_engine) -> None:
    array = np.zeros(SHAPE, np.float32)
    array[8:18, 9:20, 4:11] = 60
    array[0, 0, 0] = 100
    first = stage(slices(SHAPE[:2], ("organ",)), "organ")
    region = Around(stage="organ", margin_mm=0)
    second = stage(whole((10, 11, 7), ("a", "b")), "member")
    second = second.model_copy(update={"frame": second.frame.model_copy(update={"region": region})})
    combiner = stage(slices(SHAPE[:2], ("organ", "spot")), "stack", inputs=("member",))
    plan = Plan(stages=(first, second, combiner))
    answers = {
        "organ": lambda batch: (abs(batch - 0.6) < 0.1).astype(np.float32),
        "member": softmax,
    }
    volume = Volume(array, AFFINE)
    seen, _ = run(plan, volume, known_engine, answers)
    inside = np.zeros(SHAPE, bool)
    inside[8:18, 9:20, 4:11] = True
    inside = np.moveaxis(inside, 2, 0)
    np.testing.assert_allclose(seen[:, 0], np.where(inside, 0.4, 1), atol=2e-3)
    np.testing.assert_allclose(seen[:, 2], np.where(inside, 0.45, 0), atol=2e-3)
    # Nothing found: all of the map is background, and the combiner still answers.
    answers["organ"] = lambda batch: 0 * batch
    seen, _ = run(plan, volume, known_engine, answers)
    assert (seen[:, 0] == 1).all()
    assert (seen[:, 1:] == 0).all()


def test_a_scan_without_a_body_is_background(known_engine) -> None:
    """Networks of an empty scan may say anything; the combiner is not asked."""
    member = stage(slices(SHAPE[:2], ("a",), window=HounsfieldWindow()), "member")
    plan = stacked(member)
    recorder = Recorder()
    engines = {"member": known_engine(lambda batch: batch + 0.9), "stack": known_engine(recorder)}
    empty = Volume(np.full(SHAPE, -1000, np.int16), AFFINE)
    found = Pipeline(plan, engines).predict(empty)
    assert not found.labels.array.any()
    assert len(found.notes) == 1
    assert recorder.seen == []


@pytest.mark.parametrize("threads", [1, 3])
def test_prediction_and_training_see_the_same_bits(rng, known_engine, threads) -> None:
    """`predict_maps`, which makes the input of training, is what the combiner sees."""
    volume = scan(rng)
    volume.array[:, :, 3:6] = 50  # slices of a single value leave gaps
    flat = stage(slices((20, 20), ("a",)), "flat")
    solid = stage(patches((8, 8, 8), ("a", "b"), spacing_mm=(2, 2, 2)), "solid")
    plan = stacked(flat, solid)
    answers = {"flat": lambda batch: batch[:, :1].copy(), "solid": softmax}
    seen, _ = run(plan, volume, known_engine, answers)
    made = []
    for member in (flat, solid):
        pipeline = Pipeline(
            Plan(stages=(member,)), {member.name: known_engine(answers[member.name])}
        )
        pipeline.settings = Settings(threads=threads)
        made.append(pipeline.predict_maps(volume, plan.final))
    np.testing.assert_array_equal(seen, np.concatenate(made, axis=1).astype(np.float32))


def test_members_need_no_label_maps(rng, known_engine) -> None:
    member = stage(slices(SHAPE[:2], ("a",), largest_component=True), "member")
    plan = stacked(member)
    assert not plan.is_labelled(member)
    assert plan.is_labelled(plan.final)


def test_memory_counts_maps_and_what_runs(known_engine) -> None:
    volume = Volume(np.zeros((200, 200, 100), np.int16, order="F"), AFFINE)
    engines = {name: known_engine() for name in ("one", "two", "stack")}

    def need(*members: Stage) -> int:
        last = stage(slices((200, 200), ("organ", "spot")), "stack")
        return need_bytes(Way(1, False), volume, stacked(*members, combiner=last), engines)

    one, two = (stage(slices((200, 200), ("a",)), name) for name in ("one", "two"))
    voxels, slice_bytes = 200 * 200 * 100, 200 * 200 * 200
    more = need(one, two) - need(one)
    # One more map in 16 bits, and one more channel of the slices that run.
    assert 2 * voxels <= more <= 2 * voxels + slice_bytes
    coarse = stage(slices((100, 100), ("a",)), "two")
    assert need(one, coarse) - need(one, two) <= 0.6 * voxels + slice_bytes
