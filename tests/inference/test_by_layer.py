"""Prediction in tiles: MONAI's sliding window on the resampled scan, then the scan's own grid."""

from __future__ import annotations

import threading
import time

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from leanseg.errors import DatasetError
from leanseg.frames import ScanSource, ScanView
from leanseg.frames.source import frame_shape
from leanseg.inference import Pipeline, Settings
from leanseg.inference.by_layer import memory_bytes, whole_frame
from leanseg.inference.layer import Layer
from leanseg.plan import HounsfieldWindow, LinearScaling, NoWindow, Plan
from leanseg.volumes import Box, Volume, resize_array
from plans import patches, whole

SPACINGS = {"LR": 0.8, "PA": 1.1, "IS": 2.5}
LABELS = ("liver", "spleen", "kidney")


def plan(patch=(12, 16, 8), labels=LABELS, **options) -> Plan:
    return patches(patch, labels, **{"window": HounsfieldWindow(), **options})


def pipeline(engine, scheme: Plan, slices_per_block: int = 8) -> Pipeline:
    found = Pipeline(scheme, {"main": engine})
    found.settings = Settings(slices_per_block=slices_per_block)
    return found


def scan(rng, shape, channels=1) -> Volume:
    """Smooth structures with noise in LPS order."""
    grids = np.meshgrid(*(np.linspace(0, 3, n) for n in shape), indexing="ij")
    smooth = sum(np.sin(2 * grid + n) for n, grid in enumerate(grids))
    array = 90 * smooth[..., None] + rng.normal(0, 25, (*shape, channels))
    array = array.astype(np.int16)
    affine = np.diag([-SPACINGS["LR"], -SPACINGS["PA"], SPACINGS["IS"], 1.0])
    return Volume(np.asfortranarray(array[..., 0] if channels == 1 else array), affine)


def softmaxed(batch: np.ndarray, n_outputs: int = 4) -> np.ndarray:
    """Depends on the voxel, on its neighbours and on where in the tile it lies."""
    mixed = batch.sum(axis=1) + 0.3 * np.roll(batch[:, 0], 1, axis=-1)
    ramp = np.linspace(0, 1, batch.shape[2], dtype=np.float32)[:, None, None]
    levels = np.linspace(0, 1.2 * batch.shape[1], n_outputs, dtype=np.float32)
    logits = np.stack([-4 * np.abs(mixed + 0.4 * ramp - level) for level in levels], axis=1)
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (exponents / exponents.sum(axis=1, keepdims=True)).astype(np.float32)


def with_monai(volume: Volume, scheme: Plan, function) -> np.ndarray:
    """Probabilities on the scan's grid: everything at once, MONAI's window in the middle."""
    torch = pytest.importorskip("torch")
    inferers = pytest.importorskip("monai.inferers")
    array = volume.array if volume.array.ndim == 4 else volume.array[..., None]
    array = np.moveaxis(array, 3, 0).astype(np.float32)
    stage = scheme.final
    low, high = stage.intensity.window.low, stage.intensity.window.high
    clipped = np.clip(array, low, high)
    edges = clipped.min(axis=(1, 2, 3), keepdims=True), clipped.max(axis=(1, 2, 3), keepdims=True)
    scaled = (clipped - edges[0]) / np.maximum(edges[1] - edges[0], 1)
    wanted = [axis.spacing_mm for axis in stage.frame.axes]
    shape = [
        n if new is None else max(1, round(n * own / new))
        for n, own, new in zip(volume.shape, volume.spacing_mm, wanted, strict=True)
    ]
    resampled = resize_array(scaled, shape, axes=(1, 2, 3))
    blended = inferers.sliding_window_inference(
        torch.from_numpy(np.ascontiguousarray(resampled))[None],
        stage.patch_shape,
        1,
        lambda tile: torch.from_numpy(function(tile.numpy())),
        overlap=stage.patch.overlap,
        mode="gaussian",
    )
    return resize_array(blended[0].numpy(), volume.shape, axes=(1, 2, 3))


def check_labels(found: np.ndarray, probabilities: np.ndarray) -> None:
    """Equal wherever the two best probabilities are further apart than rounding."""
    if len(probabilities) == 1:
        expected, close = probabilities[0] > 0.5, np.abs(probabilities[0] - 0.5) < 1e-5
    else:
        order = np.sort(probabilities, axis=0)
        expected, close = probabilities.argmax(axis=0), order[-1] - order[-2] < 1e-5
    assert close.mean() < 0.001
    np.testing.assert_array_equal(found[~close], expected[~close])
    assert len(np.unique(expected)) >= max(2, len(probabilities) - 1)


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((30, 41, 23), {}),
        ((30, 41, 23), {"spacing_mm": (1.0, 1.0, 1.0)}),
        ((30, 41, 23), {"spacing_mm": (0.5, 2.0, 4.0), "overlap": 0.25}),
        ((12, 16, 8), {}),
        # Smaller than a tile along one axis, and along all.
        ((30, 41, 5), {}),
        ((5, 7, 3), {"overlap": 0.75}),
    ],
)
def test_labels_are_those_of_monais_sliding_window(rng, known_engine, shape, options, lanes):
    volume, scheme = scan(rng, shape), plan(**options)
    engine = known_engine(softmaxed)
    engine.lanes = lanes
    found = pipeline(engine, scheme, slices_per_block=3).predict(volume)
    check_labels(found.labels.array, with_monai(volume, scheme, softmaxed))
    assert set(engine.batches) == {1}


@pytest.mark.parametrize("shape", [(31, 20, 1), (1, 40, 9), (30, 1, 20), (1, 1, 1)])
@pytest.mark.parametrize("spacing", [None, (1.6, 1.1, 1.25)])
def test_axes_of_one_voxel(rng, known_engine, shape, spacing):
    volume, scheme = scan(rng, shape), plan(spacing_mm=spacing)
    found = pipeline(known_engine(softmaxed), scheme).predict(volume)
    probabilities = with_monai(volume, scheme, softmaxed)
    order = np.sort(probabilities, axis=0)
    clear = order[-1] - order[-2] > 1e-5
    expected = probabilities.argmax(axis=0)
    np.testing.assert_array_equal(found.labels.array[clear], expected[clear])


def test_probabilities_are_those_of_monais_sliding_window(rng, known_engine):
    volume = scan(rng, (26, 33, 21))
    scheme = plan(spacing_mm=(1.0, 1.0, 2.0))
    kept = np.dtype(np.float32)
    found = pipeline(known_engine(softmaxed), scheme).predict(volume, probabilities=kept)
    expected = with_monai(volume, scheme, softmaxed)
    np.testing.assert_allclose(np.moveaxis(found.probabilities.array, 3, 0), expected, atol=1e-5)


def test_one_label_is_compared_with_a_half(rng, known_engine):
    volume, scheme = scan(rng, (30, 41, 23)), plan(labels=("liver",), spacing_mm=(1.5, 1.0, 1.5))

    def function(batch):
        return softmaxed(batch, 2)[:, :1]

    found = pipeline(known_engine(function), scheme).predict(volume)
    check_labels(found.labels.array, with_monai(volume, scheme, function))


def test_several_channels(rng, known_engine):
    volume = scan(rng, (22, 18, 14), channels=3)
    scheme = plan(channels=("a", "b", "c"), spacing_mm=(1.0, 1.0, 2.0))
    found = pipeline(known_engine(softmaxed), scheme).predict(volume)
    check_labels(found.labels.array, with_monai(volume, scheme, softmaxed))
    with pytest.raises(DatasetError, match="needs 3"):
        pipeline(known_engine(softmaxed), scheme).predict(scan(rng, (22, 18, 14)))


@pytest.mark.parametrize("codes", ["LPS", "RAS", "SPL", "IAR", "PSR"])
def test_the_result_lies_in_the_scans_own_grid(rng, known_engine, stored_as, codes):
    volume = scan(rng, (21, 30, 13))
    scheme = plan(spacing_mm=(1.0, 1.0, 1.5))
    expected = pipeline(known_engine(softmaxed), scheme).predict(volume).labels
    other = stored_as(volume, codes)
    found = pipeline(known_engine(softmaxed), scheme).predict(other).labels
    np.testing.assert_array_equal(found.affine, other.affine)
    np.testing.assert_array_equal(stored_as(found, "LPS").array, expected.array)


def test_threads_and_blocks_do_not_change_a_voxel(rng, known_engine):
    volume, scheme = scan(rng, (40, 33, 40)), plan(spacing_mm=(0.9, 1.0, 2.0))
    results = []
    for lanes, block in ((1, 1), (2, 8), (4, 100)):

        def slowly(batch):
            time.sleep(0.002 * (threading.get_ident() % 3))
            return softmaxed(batch)

        engine = known_engine(slowly)
        engine.lanes = lanes
        results.append(pipeline(engine, scheme, block).predict(volume).labels.array)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_postprocessing(known_engine):
    array = np.zeros((20, 20, 20), np.int16)
    array[2:10, 2:10, 2:10] = 100
    array[15:18, 15:18, 15:18] = 100
    volume = Volume(array, np.diag([-1.0, -1, 1, 1]))
    options = {"labels": ("organ",), "window": NoWindow()}
    engine = known_engine(lambda batch: batch)
    both = pipeline(engine, plan(**options)).predict(volume).labels.array
    np.testing.assert_array_equal(both, array > 0)
    largest = plan(**options, largest_component=True)
    one = pipeline(engine, largest).predict(volume).labels.array
    assert one.sum() == 8**3


def test_progress_and_times(rng, known_engine):
    volume, scheme = scan(rng, (30, 41, 23)), plan()
    seen = []
    done = pipeline(known_engine(softmaxed), scheme).predict(
        volume, on_progress=lambda *numbers: seen.append(numbers)
    )
    n_tiles = Layer.over(volume.shape, (12, 16, 8), 0.5).n_patches
    assert seen == [(number, n_tiles) for number in range(1, n_tiles + 1)]
    assert n_tiles == 4 * 5 * 5
    assert done.seconds.restore > 0


def test_an_error_in_the_network_ends_it(rng, known_engine):
    def broken(batch):
        msg = "no memory"
        raise MemoryError(msg)

    engine = known_engine(broken)
    engine.lanes = 2
    with pytest.raises(MemoryError, match="no memory"):
        pipeline(engine, plan()).predict(scan(rng, (40, 40, 40)))
    # What waited was given up.
    assert len(engine.batches) <= 4
    assert not [each for each in threading.enumerate() if each.name.startswith("leanseg-patches")]


def told(scheme: Plan, shape, spacing_mm, **settings) -> int:
    frame = frame_shape(scheme.final, shape, spacing_mm, "the scan")
    return max(memory_bytes(scheme.final, frame, shape, 1, Settings(**settings), lanes=1))


def test_memory_does_not_grow_with_the_slices() -> None:
    scheme = plan((64, 64, 32), spacing_mm=(1.5, 1.5, 3.0))
    short = told(scheme, (512, 512, 200), (0.8, 0.8, 2.5))
    long = told(scheme, (512, 512, 824), (0.8, 0.8, 2.5))
    assert long < 1.01 * short
    assert short < 4 * 5 * 512 * 512 * 200 / 4


@pytest.mark.parametrize(
    "scheme",
    [
        plan((48, 48, 24), spacing_mm=(1.0, 1.0, 2.0)),
        whole((80, 80, 60), LABELS),
    ],
    ids=["patches", "whole"],
)
def test_memory_is_what_was_told(rng, known_engine, scheme):
    import tracemalloc

    volume = scan(rng, (96, 96, 90))
    engine = known_engine(lambda batch: np.repeat(batch, 4, axis=1))
    scans = pipeline(engine, scheme, slices_per_block=4)
    scans.predict(volume)
    tracemalloc.start()
    scans.predict(volume)
    peak = tracemalloc.get_traced_memory()[1] - volume.array.size
    tracemalloc.stop()
    need = told(scheme, volume.shape, volume.spacing_mm, slices_per_block=4)
    assert 0.5 * need < peak < 1.15 * need


@pytest.mark.parametrize(
    ("network", "options", "tile"),
    [
        ("nnunet-3d", {"base_filters": 4}, (32, 32, 16)),
        # Exporting takes seconds; its export runs in the tests of groups, too.
        pytest.param("msd-3d", {"depth": 4}, (12, 16, 10), marks=pytest.mark.slow),
    ],
)
def test_a_model_file_in_engines(tmp_path, rng, network, options, tile):
    """The whole way of `load_model`, against PyTorch in MONAI's sliding window."""
    torch = pytest.importorskip("torch")
    export = pytest.importorskip("leanseg.training.export")
    from leanseg.inference import load_model
    from leanseg.modelfile import Member, ModelFile, NetworkSpec, write_model
    from leanseg.networks import build

    scheme = plan(tile, spacing_mm=(1.0, 1.0, 2.0))
    generator = torch.Generator().manual_seed(0)
    module = build(network, out_channels=4, generator=generator, **options).eval()
    for parameter in module.parameters():
        if network == "msd-3d":  # its last layer starts at zero
            parameter.data.normal_(0, 0.4, generator=generator)
    spec = NetworkSpec(name=network, in_channels=1, out_channels=4, options=options)
    weights = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    model = export.export_model(ModelFile.of(scheme, Member(spec, weights)))
    write_model(tmp_path / "m.leanseg", model)

    def run(batch):
        with torch.inference_mode():
            return module(torch.from_numpy(np.ascontiguousarray(batch))).softmax(1).numpy()

    volume = scan(rng, (44, 50, 17))
    probabilities = with_monai(volume, scheme, run)
    order = np.sort(probabilities, axis=0)
    clear = order[-1] - order[-2] > 1e-4
    assert clear.mean() > 0.95
    for engine in ("openvino", "torch"):
        loaded = load_model(tmp_path / "m.leanseg", engine=engine, precision="f32")
        found = loaded.predict(volume).array
        np.testing.assert_array_equal(found[clear], probabilities.argmax(axis=0)[clear])


def whole_plan(shape, labels=("organ",)) -> Plan:
    return whole(shape, labels, orientation="LAI", scaling=LinearScaling())


def in_lai(array: np.ndarray, codes: str = "LAI") -> Volume:
    """A volume in LAI order with 1 x 2 x 3 mm, stored in another orientation."""
    affine = np.diag([-1.0, 2, -3, 1])
    affine[:3, 3] = (5, 6, 7)
    image = nib.Nifti1Image(array, affine)
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(codes))
    turned = image.as_reoriented(turn)
    return Volume(np.asarray(turned.dataobj), turned.affine)


def test_the_whole_is_seen_trilinear_with_half_pixel_centres(rng):
    torch = pytest.importorskip("torch")
    array = rng.integers(-1000, 1000, (19, 31, 12)).astype(np.int16)
    stage = whole_plan((24, 16, 20)).final
    box = Box((2, 3, 1), (18, 30, 12))
    found = whole_frame(ScanSource(ScanView(in_lai(array), "LAI"), stage, box))
    cut = torch.from_numpy(array[box.slices].astype(np.float32) / 1024 + 1)[None, None]
    expected = torch.nn.functional.interpolate(
        cut, size=(24, 16, 20), mode="trilinear", align_corners=False
    )
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-6)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("n_outputs", [1, 5])
@pytest.mark.parametrize(
    "shape", [(13, 20, 30), (40, 33, 9), (16, 18, 14), (1, 1, 1), (40, 33, 50)]
)
def test_classes_are_those_of_the_whole_resized_map(rng, known_engine, shape, n_outputs, threads):
    torch = pytest.importorskip("torch")
    logits = torch.from_numpy(rng.normal(size=(1, n_outputs, 16, 18, 14)).astype(np.float32)) * 3
    answer = (logits.sigmoid() if n_outputs == 1 else logits.softmax(1)).numpy()
    # The way that holds every class's map in the scan's resolution.
    full = resize_array(answer[0], shape, axes=(1, 2, 3))
    if min(np.array(shape) / (16, 18, 14)) >= 1:
        trilinear = torch.nn.functional.interpolate(
            torch.from_numpy(answer), size=shape, mode="trilinear"
        )
        np.testing.assert_allclose(full, trilinear[0].numpy(), atol=1e-5)
    scans = Pipeline(
        whole_plan((16, 18, 14), max(1, n_outputs - 1)), {"main": known_engine(lambda _: answer)}
    )
    scans.settings = Settings(threads=threads, slices_per_block=4)
    seen = []
    volume = in_lai(rng.integers(0, 9, shape).astype(np.int16))
    found = scans.predict(volume, on_progress=lambda *numbers: seen.append(numbers)).labels.array
    if threads > 1:
        assert seen[-1] == (shape[2], shape[2])
    assert seen == sorted(seen)
    if n_outputs == 1:
        clear, expected = np.abs(full[0] - 0.5) > 1e-5, full[0] > 0.5
    else:
        order = np.sort(full, axis=0)
        clear, expected = order[-1] - order[-2] > 1e-5, full.argmax(axis=0)
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(found[clear], expected[clear])


@pytest.mark.parametrize("codes", ["LAI", "RAS", "SPL", "IAR", "PSR"])
def test_what_the_whole_gives_lies_in_the_scans_own_grid(rng, known_engine, codes):
    array = rng.integers(-900, 900, (14, 11, 9)).astype(np.int16)
    # Where nothing is resized the decision is exact: above 0 HU means above 1.
    engine = known_engine(lambda batch: (batch > 1.0).astype(np.float32))
    volume = in_lai(array, codes)
    found = Pipeline(whole_plan((14, 11, 9)), {"main": engine}).predict(volume)
    np.testing.assert_array_equal(found.labels.array, volume.array > 0)
    np.testing.assert_array_equal(found.labels.affine, volume.affine)


def test_a_2d_network_on_a_resampled_third_axis(rng, known_engine):
    """Slices 2 mm apart of a scan with 2.5 mm, seen one by one."""
    volume = scan(rng, (16, 12, 20))
    scheme = plan((16, 12, 1), ("organ",), spacing_mm=(None, None, 2.0))
    found = pipeline(known_engine(lambda batch: batch), scheme).predict(volume).labels.array
    expected = with_monai(volume, scheme, lambda batch: batch)
    clear = np.abs(expected[0] - 0.5) > 1e-5
    np.testing.assert_array_equal(found[clear], (expected[0] > 0.5)[clear])
