"""Slices through engines whose answer is known, against plain computation on whole maps."""

from __future__ import annotations

import contextlib
import threading
import tracemalloc
from dataclasses import asdict

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from leanseg.errors import DatasetError
from leanseg.frames import ScanSource, ScanView
from leanseg.inference import Pipeline, Settings
from leanseg.inference.decide import decide_slice
from leanseg.plan import HounsfieldWindow, Plan
from leanseg.volumes import Volume, reoriented_view
from plans import patches
from plans import slices as plan

OBLIQUE = np.array(
    [[-0.7, 0.05, 0.1, 90.123], [-0.04, -0.71, 0.2, 80.7], [0.03, 0.1, 2.9, -300.3], [0, 0, 0, 1]]
)


def pipeline(engine, scheme: Plan, batch_size: int | None = None, threads: int | None = None):
    found = Pipeline(scheme, {"main": engine})
    found.settings = Settings(threads=threads, batch_size=batch_size)
    return found


def smooth(rng, shape: tuple[int, ...], affine: np.ndarray = OBLIQUE) -> Volume:
    """Values from 0 to 1 (so that min-max scaling leaves them), smooth as organs are."""
    array = ndimage.gaussian_filter(rng.random(shape), 2).astype(np.float32)
    array -= array.min()
    array /= array.max()
    return Volume(np.asfortranarray(array), affine)


def resized(stack: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(n, c, H, W) by PyTorch."""
    tensor = torch.from_numpy(np.ascontiguousarray(stack, dtype=np.float32))
    options = {"mode": "bilinear", "antialias": True, "align_corners": False}
    return torch.nn.functional.interpolate(tensor, size=shape, **options).numpy()


def test_at_the_networks_own_size_the_mask_is_the_threshold(rng, known_engine) -> None:
    volume = smooth(rng, (32, 24, 9))
    found = pipeline(known_engine(), plan((32, 24))).predict(volume).labels
    assert found.array.dtype == np.uint8
    np.testing.assert_array_equal(found.array, volume.array > 0.5)
    np.testing.assert_array_equal(found.affine, volume.affine)


def test_exactly_one_half_is_background(known_engine) -> None:
    array = np.array([0, 0.5, 0.5 + 2**-20, 1], dtype=np.float32).repeat(16)
    volume = Volume(array.reshape(8, 8, 1), OBLIQUE)
    found = pipeline(known_engine(), plan((8, 8))).predict(volume).labels
    np.testing.assert_array_equal(found.array, volume.array > 0.5)


@pytest.mark.parametrize("shape", [(37, 41, 11), (64, 51, 5), (9, 130, 3), (33, 33, 1)])
def test_odd_sizes_against_whole_maps(rng, known_engine, shape) -> None:
    volume = smooth(rng, shape)
    found = pipeline(known_engine(), plan((32, 32))).predict(volume).labels.array
    stack = volume.array.transpose(2, 0, 1)[:, None]
    probability = resized(resized(stack, (32, 32)), shape[:2])[:, 0].transpose(1, 2, 0)
    clear = np.abs(probability - 0.5) > 1e-5
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(found[clear], (probability > 0.5)[clear])


def classes_engine(n_classes: int):
    """Softmax over bumps along the grey value: class n where the value is near n / n_classes."""

    def function(batch: np.ndarray) -> np.ndarray:
        centres = (np.arange(n_classes) / (n_classes - 1)).reshape(1, -1, 1, 1)
        scores = np.exp(-80 * (batch[:, :1] - centres) ** 2)
        return scores / scores.sum(axis=1, keepdims=True)

    return function


@pytest.mark.parametrize("n_labels", [2, 5])
def test_several_classes_against_argmax_of_whole_maps(rng, known_engine, n_labels) -> None:
    volume = smooth(rng, (45, 39, 10))
    function = classes_engine(n_labels + 1)
    scans = pipeline(known_engine(function), plan((32, 32), n_labels))
    found = scans.predict(volume).labels.array
    stack = resized(volume.array.transpose(2, 0, 1)[:, None], (32, 32))
    probabilities = resized(function(stack), (45, 39))
    ordered = np.sort(probabilities, axis=1)
    clear = ordered[:, -1] - ordered[:, -2] > 1e-5
    assert clear.mean() > 0.99
    expected = probabilities.argmax(axis=1)
    assert set(np.unique(expected)) == set(range(n_labels + 1))
    np.testing.assert_array_equal(found.transpose(2, 0, 1)[clear], expected[clear])


def test_of_equal_probabilities_the_first_class_wins(known_engine) -> None:
    """As argmax does."""
    engine = known_engine(lambda batch: np.full((len(batch), 4, 8, 8), 0.25))
    volume = Volume(np.zeros((8, 8, 2), dtype=np.int16), OBLIQUE)
    assert not pipeline(engine, plan((8, 8), 3)).predict(volume).labels.array.any()


def test_labels_past_255(rng, known_engine) -> None:
    volume = Volume(np.arange(301, dtype=np.int16).repeat(64).reshape(301, 8, 8), OBLIQUE)

    def function(batch: np.ndarray) -> np.ndarray:
        classes = np.rint(batch[:, 0] * 300).astype(int)
        return np.moveaxis(np.eye(301, dtype=np.float32)[classes], 3, 1)

    scans = pipeline(known_engine(function), plan((301, 8), 300))
    found = scans.predict(volume).labels.array
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, volume.array)


@pytest.mark.parametrize("n_labels", [1, 3])
def test_the_mask_follows_in_all_48_orientations(
    rng, known_engine, all_48, stored_as, n_labels
) -> None:
    volume = smooth(rng, (31, 27, 12))
    function = classes_engine(n_labels + 1) if n_labels > 1 else lambda batch: batch[:, :1]
    settings = plan((24, 40), n_labels, largest_component=True)
    scans = pipeline(known_engine(function), settings)
    expected = scans.predict(volume).labels
    assert len(np.unique(expected.array)) == n_labels + 1
    assert len(set(all_48)) == 48
    for codes in all_48:
        scan = stored_as(volume, codes)
        assert "".join(nib.aff2axcodes(scan.affine)) == codes
        found = scans.predict(scan).labels
        assert found.affine.tobytes() == scan.affine.tobytes()
        np.testing.assert_array_equal(found.array, stored_as(expected, codes).array, err_msg=codes)


@pytest.mark.parametrize("codes", ["RAS", "SRA", "AIL"])
def test_slices_lie_along_the_plans_third_axis(rng, known_engine, stored_as, codes) -> None:
    """An engine that marks the first slice it sees marks the plan's first plane of the world."""
    engine = known_engine()
    engine.function = lambda batch: np.full_like(batch, float(len(engine.batches) == 1))
    volume = smooth(rng, (14, 12, 10))
    scans = pipeline(engine, plan((16, 16), orientation=codes), batch_size=1, threads=1)
    marked = stored_as(scans.predict(volume).labels, codes).array
    assert marked[:, :, 0].all()
    assert not marked[:, :, 1:].any()


def test_several_channels_reach_the_engine_in_the_plans_order(rng, known_engine) -> None:
    array = rng.random((16, 16, 4, 3), dtype=np.float32)
    array[0, 0, 0], array[-1, -1, -1] = 0, 1
    volume = Volume(np.asfortranarray(array), OBLIQUE)
    engine = known_engine(lambda batch: batch[:, 1:2] * (batch[:, :1] > 0.2))
    scans = pipeline(engine, plan((16, 16), channels=("c", "a")))
    found = scans.predict(volume, (2, 0)).labels
    expected = (array[..., 0] > 0.5) & (array[..., 2] > 0.2)
    np.testing.assert_array_equal(found.array, expected)
    assert found.array.ndim == 3
    with pytest.raises(DatasetError, match="3 channel"):
        scans.predict(volume)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 8, 11, 100])
def test_batches_and_threads_do_not_show(rng, known_engine, batch_size, threads) -> None:
    volume = smooth(rng, (16, 16, 11))
    engine = known_engine(lanes=3)
    seen: list[tuple[int, int]] = []
    scans = pipeline(engine, plan((16, 16)), batch_size, threads)
    found = scans.predict(volume, on_progress=lambda *progress: seen.append(progress))
    np.testing.assert_array_equal(found.labels.array, volume.array > 0.5)
    assert sum(engine.batches) == 11
    assert max(engine.batches) <= batch_size
    done = [n for n, total in seen if total == 11]
    assert done == sorted(set(done))
    assert (len(done), done[-1]) == (len(engine.batches), 11)


def test_largest_component_is_an_option_of_the_plan(known_engine) -> None:
    array = np.zeros((16, 16, 6), dtype=np.float32)
    array[1:4, 1:4, 1:3] = 1
    array[8:14, 8:14, 2:5] = 1
    for wanted in (False, True):
        settings = plan((16, 16), largest_component=wanted)
        found = pipeline(known_engine(), settings).predict(Volume(array, OBLIQUE)).labels
        assert found.array[2, 2, 2] == (not wanted)
        assert found.array[10, 10, 3] == 1


@pytest.mark.parametrize("chosen", [["organ 2"], ["organ 3", "organ 1"], True])
def test_largest_components_of_some_labels(rng, known_engine, chosen) -> None:
    """Of a random map of three labels, against scipy's components of each that is chosen."""
    truth = rng.choice(4, size=(16, 16, 6), p=[0.4, 0.3, 0.2, 0.1])

    def certain(batch: np.ndarray) -> np.ndarray:
        return (np.rint(3 * batch) == np.arange(4).reshape(1, 4, 1, 1)).astype(np.float32)

    settings = plan((16, 16), 3, largest_component=chosen)
    volume = Volume(np.asfortranarray(truth.astype(np.int16)), np.diag([-1.0, -1, 1, 1]))
    found = pipeline(known_engine(certain), settings).predict(volume).labels.array
    expected = truth.copy()
    for number, name in enumerate(("organ 1", "organ 2", "organ 3"), start=1):
        if chosen is True or name in chosen:
            components, _ = ndimage.label(truth == number)
            sizes = np.bincount(components.ravel())[1:]
            # Equals are told apart along the slices first.
            largest = np.isin(components, np.flatnonzero(sizes == sizes.max()) + 1)
            kept = components.transpose(2, 0, 1)[largest.transpose(2, 0, 1)][0]
            expected[(truth == number) & (components != kept)] = 0
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.85])
def test_a_threshold_of_the_plan(rng, known_engine, threshold) -> None:
    """At the network's resolution, and where slices are resized."""
    grey = ndimage.gaussian_filter(rng.normal(size=(16, 16, 6)), 1)
    volume = Volume(np.asfortranarray(grey.astype(np.float32)), np.diag([-1.0, -1, 1, 1]))
    settings = plan((16, 16), threshold=threshold)
    found = pipeline(known_engine(), settings).predict(volume, probabilities=np.dtype("f4"))
    probability = found.probabilities.array[..., 0]
    np.testing.assert_array_equal(found.labels.array, probability > np.float32(threshold))
    found = pipeline(known_engine(), plan((11, 20), threshold=threshold)).predict(
        volume, probabilities=np.dtype("f4")
    )
    probability = found.probabilities.array[..., 0]
    np.testing.assert_array_equal(found.labels.array, probability > np.float32(threshold))
    assert 0 < found.labels.array.mean() < 1


def test_the_scan_is_left_alone(rng, known_engine) -> None:
    volume = Volume(rng.integers(-1000, 1000, (20, 20, 5)).astype(np.int16), OBLIQUE)
    before = volume.array.copy()
    settings = plan((16, 16), window=HounsfieldWindow(), scaling="zscore")
    pipeline(known_engine(), settings).predict(volume)
    np.testing.assert_array_equal(volume.array, before)


def test_no_float_map_of_the_whole_scan(rng, known_engine) -> None:
    """Peak memory: the label map, and a few batches; the class probabilities would be 134 MB."""
    n_labels, shape = 8, (256, 256, 56)
    array = np.asfortranarray(rng.integers(-1000, 1000, shape).astype(np.int16))
    volume = Volume(array, OBLIQUE)
    scans = pipeline(known_engine(classes_engine(9)), plan((64, 64), n_labels))
    scans.predict(Volume(volume.array[:, :, :4], OBLIQUE))
    tracemalloc.start()
    try:
        found = scans.predict(volume).labels
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    slice_bytes = 256 * 256 * 4
    assert found.array.nbytes == np.prod(shape)
    # Of each thread: the slice, its resizing and comparison; and what the engine above holds.
    assert peak < found.array.nbytes + 2 * 14 * slice_bytes
    # One float map of the scan, let alone one a class, would not have fitted.
    assert peak < 56 * slice_bytes


def test_seconds_are_those_of_the_stages(rng, known_engine) -> None:
    seconds = asdict(
        pipeline(known_engine(), plan((16, 16))).predict(smooth(rng, (20, 20, 9))).seconds
    )
    assert set(seconds) == {"preprocess", "network", "restore", "postprocess"}
    assert all(value >= 0 for value in seconds.values())
    assert seconds["preprocess"] > 0
    assert seconds["restore"] > 0


def with_air(rng, shape=(20, 24, 12)) -> tuple[Volume, np.ndarray]:
    """A CT scan with air alone in some slices, by different values below the window."""
    array = rng.integers(-100, 150, shape).astype(np.int16)
    air = np.isin(np.arange(shape[2]), [0, 1, 5, 11])
    array[..., air] = -1000
    array[:, :10, 5] = -400
    array[0, 0, 3], array[0, 0, 4] = -500, 900
    return Volume(np.asfortranarray(array), OBLIQUE), air


@pytest.mark.parametrize("answer", [0.1, 0.9])
def test_slices_of_air_are_predicted_once(rng, known_engine, answer) -> None:
    """What the network says of air holds for every such slice, organ or not."""
    volume, air = with_air(rng)
    function = lambda batch: np.where(batch.any(axis=(1, 2, 3), keepdims=True), batch, answer)  # noqa: E731
    engine = known_engine(function)
    scans = pipeline(engine, plan((16, 16), window=HounsfieldWindow()))
    found = scans.predict(volume)
    assert (found.slices_skipped, sum(engine.batches)) == (3, 9)
    assert found.notes == ()
    assert (found.labels.array[..., air] == (answer > 0.5)).all()
    source = ScanSource(ScanView(volume, "LPS"), scans.plan.final)
    in_scan = reoriented_view(found.labels.array, volume.orientation, "LPS")
    every = np.zeros_like(in_scan)
    for k, one in enumerate(function(source.planes(0, 12))):
        decide_slice(one, every[:, :, k])
    np.testing.assert_array_equal(in_scan, every)


def test_all_channels_must_be_empty(rng, known_engine) -> None:
    array = np.full((16, 16, 4, 2), -1000, dtype=np.int16)
    array[..., :2, 0] = rng.integers(-100, 150, (16, 16, 2))
    array[..., 1:3, 1] = rng.integers(-100, 150, (16, 16, 2))
    settings = plan((16, 16), window=HounsfieldWindow(), channels=("a", "b"))
    engine = known_engine(lambda batch: batch.max(axis=1, keepdims=True))
    found = pipeline(engine, settings).predict(Volume(array, OBLIQUE))
    assert (found.slices_skipped, sum(engine.batches)) == (0, 4)


@pytest.mark.parametrize("value", [-1024, 0, 3000])
def test_a_ct_scan_without_a_body_is_background_and_says_so(known_engine, value) -> None:
    volume = Volume(np.full((12, 10, 5), value, dtype=np.int16), OBLIQUE)
    engine = known_engine(np.ones_like)
    found = pipeline(engine, plan((16, 16), window=HounsfieldWindow())).predict(volume)
    assert not found.labels.array.any()
    assert found.slices_skipped == 4
    (note,) = found.notes
    assert "no body" in note


def test_slices_without_a_body_where_the_plan_says_so(rng, known_engine) -> None:
    """The table stays in view below and above the body; the network never sees it."""
    array = rng.normal(-1000, 10, (120, 120, 40)).astype(np.int16)
    array[10:110, 90:93] = 200
    array[40:100, 30:80, 15:25] = rng.normal(40, 10, (60, 50, 10))
    volume = Volume(np.asfortranarray(array), np.diag([-3.0, -3.0, 5.0, 1.0]))
    engine = known_engine(np.ones_like)
    everything = pipeline(engine, plan((32, 32), window=HounsfieldWindow())).predict(volume)
    assert everything.labels.array.all()
    assert everything.slices_skipped == 0
    engine.batches.clear()
    skipping = plan((32, 32), window=HounsfieldWindow(), around="body")
    seen: list[tuple[int, int]] = []
    found = pipeline(engine, skipping).predict(volume, on_progress=lambda *n: seen.append(n))
    # 10 mm around the body count as body.
    assert found.labels.array[:, :, 13:27].all()
    assert not found.labels.array[:, :, :13].any()
    assert not found.labels.array[:, :, 27:].any()
    assert (found.slices_skipped, sum(engine.batches), seen[-1]) == (26, 14, (14, 14))
    assert found.notes == ()
    engine.batches.clear()
    nobody = pipeline(engine, skipping).predict(volume.with_array(volume.array[:, :, :12]))
    assert not nobody.labels.array.any()
    assert (nobody.slices_skipped, engine.batches) == (12, [])
    assert "no body" in nobody.notes[0]


def test_engines_get_no_more_threads_than_they_have_lanes(rng, known_engine) -> None:
    """And with several lanes they do get several."""
    for lanes in (1, 2, 3):
        inside: list[int] = []
        most: list[int] = []
        together = threading.Barrier(lanes)

        def function(batch, inside=inside, most=most, together=together):
            inside.append(1)
            most.append(len(inside))
            with contextlib.suppress(threading.BrokenBarrierError):
                together.wait(5)
            inside.pop()
            return batch[:, :1]

        volume = smooth(rng, (16, 16, 3 * 4 * lanes))
        engine = known_engine(function, lanes=lanes)
        found = pipeline(engine, plan((16, 16)), threads=5).predict(volume)
        np.testing.assert_array_equal(found.labels.array, volume.array > 0.5)
        assert max(most) == lanes


def test_an_engine_that_fails_stops_the_scan(rng, known_engine) -> None:
    def function(batch: np.ndarray) -> np.ndarray:
        if len(engine.batches) == 3:
            raise MemoryError("too large")
        return batch[:, :1]

    engine = known_engine(function, lanes=2)
    with pytest.raises(MemoryError, match="too large"):
        pipeline(engine, plan((16, 16)), 1).predict(smooth(rng, (16, 16, 100)))
    assert sum(engine.batches) < 10


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 9)),
    size=st.tuples(st.integers(8, 40), st.integers(8, 40)),
    codes=st.sampled_from(["LPS", "RAS", "SLA", "PIR"]),
    constant=st.sampled_from([0.0, 1.0]),
)
def test_any_shape_comes_back_whole(shape, size, codes, constant) -> None:
    """Every voxel is decided, once, in the scan's own shape."""

    class Constant:
        name = precision = "constant"
        lanes = batch_size = passes = 1

        def run(self, batch: np.ndarray) -> np.ndarray:
            return np.full_like(batch, constant)

    volume = Volume(np.zeros(shape, dtype=np.int16), OBLIQUE)
    found = pipeline(Constant(), plan(size, orientation=codes)).predict(volume).labels.array
    assert found.shape == shape
    assert (found == constant).all()


def test_neighbours_are_further_channels(rng, known_engine) -> None:
    """2.5-D: slices from the first neighbour to the last; the end's slice is repeated past it."""
    volume = smooth(rng, (16, 16, 7))
    stack = volume.array.transpose(2, 0, 1)
    for batch_size in (1, 3, 20):
        seen: list[np.ndarray] = []

        def function(batch, seen=seen):
            seen.extend(batch)
            return batch[:, 2:3]

        scheme = plan((16, 16), neighbours=2)
        found = pipeline(known_engine(function), scheme, batch_size, 1).predict(volume)
        expected = np.stack([stack[np.clip(np.arange(k - 2, k + 3), 0, 6)] for k in range(7)])
        np.testing.assert_array_equal(np.stack(seen), expected)
        np.testing.assert_array_equal(found.labels.array, volume.array > 0.5)


@pytest.mark.parametrize("spacing", [None, (0.9, 0.5, None)])
def test_patches_of_a_slice_are_blended_as_monai_does(rng, known_engine, spacing) -> None:
    """A 2-D network that sees less than a slice, in the scan's spacing or another in-plane."""
    inferers = pytest.importorskip("monai.inferers")
    volume = smooth(rng, (41, 30, 4))

    def function(batch: np.ndarray) -> np.ndarray:
        ramp = np.linspace(0, 0.4, batch.shape[2], dtype=np.float32)[:, None]
        return (batch[:, :1] + ramp) / 1.4

    scheme = patches((16, 12, 1), spacing_mm=spacing)
    found = pipeline(known_engine(function), scheme).predict(volume).labels.array
    i, j, _ = scheme.final.frame.shape(volume.shape, volume.spacing_mm)
    seen = resized(volume.array.transpose(2, 0, 1)[:, None], (i, j))
    blended = inferers.sliding_window_inference(
        torch.from_numpy(seen),
        (16, 12),
        1,
        lambda patch: torch.from_numpy(function(patch.numpy())),
        overlap=0.5,
        mode="gaussian",
    )
    expected = resized(blended.numpy(), volume.shape[:2])[:, 0].transpose(1, 2, 0)
    clear = np.abs(expected - 0.5) > 1e-5
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(found[clear], (expected > 0.5)[clear])


def test_probabilities_in_the_scans_grid(rng, known_engine, stored_as) -> None:
    volume = smooth(rng, (45, 39, 6))
    function = classes_engine(4)
    scans = pipeline(known_engine(function), plan((32, 32), 3))
    expected = resized(
        function(resized(volume.array.transpose(2, 0, 1)[:, None], (32, 32))), (45, 39)
    )
    for codes in (volume.orientation, "SAR"):
        scan = stored_as(volume, codes)
        found = scans.predict(scan, probabilities=np.dtype(np.float32)).probabilities
        assert found.affine.tobytes() == scan.affine.tobytes()
        turned = reoriented_view(found.array, scan.orientation, volume.orientation)
        np.testing.assert_allclose(turned, expected.transpose(2, 3, 0, 1), atol=1e-5)
