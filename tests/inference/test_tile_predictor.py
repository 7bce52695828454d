"""Prediction in tiles: MONAI's sliding window on the resampled scan, then the scan's own grid."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from leanseg.errors import DatasetError
from leanseg.inference import tile_predictor
from leanseg.inference.tile_predictor import Layout, TilePredictor, tile_memory_bytes
from leanseg.preprocessing import HounsfieldWindow, NoWindow, Plan, Postprocessing
from leanseg.volumes import Volume, resize_array

SPACINGS = {"LR": 0.8, "PA": 1.1, "IS": 2.5}
LABELS = ("liver", "spleen", "kidney")


def plan(tile=(12, 16, 8), labels=LABELS, **options) -> Plan:
    values = {"orientation": "LPS", "tile_shape": tile, "training_slices": None}
    return Plan(**{**values, "labels": labels, **options})


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
    assert isinstance(scheme.window, HounsfieldWindow)
    low, high = scheme.window.low, scheme.window.high
    clipped = np.clip(array, low, high)
    edges = clipped.min(axis=(1, 2, 3), keepdims=True), clipped.max(axis=(1, 2, 3), keepdims=True)
    scaled = (clipped - edges[0]) / np.maximum(edges[1] - edges[0], 1)
    wanted = scheme.spacing_mm or volume.spacing_mm
    shape = [
        max(1, round(n * own / new))
        for n, own, new in zip(volume.shape, volume.spacing_mm, wanted, strict=True)
    ]
    resampled = resize_array(scaled, shape, axes=(1, 2, 3))
    blended = inferers.sliding_window_inference(
        torch.from_numpy(np.ascontiguousarray(resampled))[None],
        scheme.tile_shape,
        1,
        lambda tile: torch.from_numpy(function(tile.numpy())),
        overlap=scheme.tile_overlap,
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
        ((30, 41, 23), {"spacing_mm": (0.5, 2.0, 4.0), "tile_overlap": 0.25}),
        ((12, 16, 8), {}),
        # Smaller than a tile along one axis, and along all.
        ((30, 41, 5), {}),
        ((5, 7, 3), {"tile_overlap": 0.75}),
    ],
)
def test_labels_are_those_of_monais_sliding_window(rng, known_engine, shape, options, lanes):
    volume, scheme = scan(rng, shape), plan(**options)
    engine = known_engine(softmaxed)
    engine.lanes = lanes
    found = TilePredictor(engine, scheme, slices_per_block=3).predict(volume)
    check_labels(found.labels.array, with_monai(volume, scheme, softmaxed))
    assert set(engine.batches) == {1}


@pytest.mark.parametrize("shape", [(31, 20, 1), (1, 40, 9), (30, 1, 20), (1, 1, 1)])
@pytest.mark.parametrize("spacing", [None, (1.6, 1.1, 1.25)])
def test_axes_of_one_voxel(rng, known_engine, shape, spacing):
    volume, scheme = scan(rng, shape), plan(spacing_mm=spacing)
    found = TilePredictor(known_engine(softmaxed), scheme).predict(volume)
    probabilities = with_monai(volume, scheme, softmaxed)
    order = np.sort(probabilities, axis=0)
    clear = order[-1] - order[-2] > 1e-5
    expected = probabilities.argmax(axis=0)
    np.testing.assert_array_equal(found.labels.array[clear], expected[clear])


def test_probabilities_are_those_of_monais_sliding_window(rng, known_engine, monkeypatch):
    volume = scan(rng, (26, 33, 21))
    scheme = plan(spacing_mm=(1.0, 1.0, 2.0))
    seen = []
    monkeypatch.setattr(
        tile_predictor, "decide_slices", lambda given, out: seen.append(given.copy())
    )
    TilePredictor(known_engine(softmaxed), scheme).predict(volume)
    found = np.moveaxis(np.concatenate(seen), 0, 3)
    expected = with_monai(volume, scheme, softmaxed)
    found = resize_array(found, volume.shape[:2], axes=(1, 2))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_one_label_is_compared_with_a_half(rng, known_engine):
    volume, scheme = scan(rng, (30, 41, 23)), plan(labels=("liver",), spacing_mm=(1.5, 1.0, 1.5))

    def function(batch):
        return softmaxed(batch, 2)[:, :1]

    found = TilePredictor(known_engine(function), scheme).predict(volume)
    check_labels(found.labels.array, with_monai(volume, scheme, function))


def test_several_channels(rng, known_engine):
    volume = scan(rng, (22, 18, 14), channels=3)
    scheme = plan(channels=("a", "b", "c"), spacing_mm=(1.0, 1.0, 2.0))
    found = TilePredictor(known_engine(softmaxed), scheme).predict(volume)
    check_labels(found.labels.array, with_monai(volume, scheme, softmaxed))
    with pytest.raises(DatasetError, match="needs 3"):
        TilePredictor(known_engine(softmaxed), scheme).predict(scan(rng, (22, 18, 14)))


@pytest.mark.parametrize("codes", ["LPS", "RAS", "SPL", "IAR", "PSR"])
def test_the_result_lies_in_the_scans_own_grid(rng, known_engine, stored_as, codes):
    volume = scan(rng, (21, 30, 13))
    scheme = plan(spacing_mm=(1.0, 1.0, 1.5))
    expected = TilePredictor(known_engine(softmaxed), scheme).predict(volume).labels
    other = stored_as(volume, codes)
    found = TilePredictor(known_engine(softmaxed), scheme).predict(other).labels
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
        results.append(TilePredictor(engine, scheme, block).predict(volume).labels.array)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_postprocessing(known_engine):
    array = np.zeros((20, 20, 20), np.int16)
    array[2:10, 2:10, 2:10] = 100
    array[15:18, 15:18, 15:18] = 100
    volume = Volume(array, np.diag([-1.0, -1, 1, 1]))
    options = {"labels": ("organ",), "window": NoWindow()}
    engine = known_engine(lambda batch: batch)
    both = TilePredictor(engine, plan(**options)).predict(volume).labels.array
    np.testing.assert_array_equal(both, array > 0)
    largest = plan(**options, postprocessing=Postprocessing(largest_component=True))
    one = TilePredictor(engine, largest).predict(volume).labels.array
    assert one.sum() == 8**3


def test_progress_and_times(rng, known_engine):
    volume, scheme = scan(rng, (30, 41, 23)), plan()
    seen = []
    done = TilePredictor(known_engine(softmaxed), scheme).predict(
        volume, on_progress=lambda *numbers: seen.append(numbers)
    )
    n_tiles = Layout.of(scheme, volume.shape, volume.spacing_mm).n_tiles
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
        TilePredictor(engine, plan()).predict(scan(rng, (40, 40, 40)))
    # What waited was given up.
    assert len(engine.batches) <= 4
    assert not [each for each in threading.enumerate() if each.name.startswith("leanseg-tiles")]


def test_memory_does_not_grow_with_the_slices() -> None:
    scheme = plan(tile=(64, 64, 32), spacing_mm=(1.5, 1.5, 3.0))
    short = tile_memory_bytes(scheme, (512, 512, 200), (0.8, 0.8, 2.5))
    long = tile_memory_bytes(scheme, (512, 512, 824), (0.8, 0.8, 2.5))
    assert long < 1.01 * short
    assert short < 4 * 5 * 512 * 512 * 200 / 4


def test_memory_is_what_was_told(rng, known_engine):
    import tracemalloc

    volume, scheme = scan(rng, (96, 96, 90)), plan(tile=(48, 48, 24), spacing_mm=(1.0, 1.0, 2.0))
    engine = known_engine(lambda batch: np.repeat(batch, 4, axis=1))
    predictor = TilePredictor(engine, scheme, slices_per_block=4)
    predictor.predict(volume)
    tracemalloc.start()
    predictor.predict(volume)
    peak = tracemalloc.get_traced_memory()[1] - volume.array.size
    tracemalloc.stop()
    told = tile_memory_bytes(scheme, volume.shape, volume.spacing_mm, slices_per_block=4)
    assert 0.5 * told < peak < 1.15 * told


def test_a_plan_without_tiles_is_refused(known_engine):
    with pytest.raises(DatasetError, match="tile_shape"):
        TilePredictor(known_engine(), Plan(labels=("organ",)))


@pytest.mark.parametrize(
    ("network", "options", "tile"),
    [("nnunet-3d", {}, (32, 32, 16)), ("msd-3d", {"depth": 4}, (12, 16, 10))],
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
        assert isinstance(loaded.predictor, TilePredictor)
        found = loaded.predict(volume).array
        np.testing.assert_array_equal(found[clear], probabilities.argmax(axis=0)[clear])
