"""Interleaved groups: by hand, against MONAI's sliding window in-plane, and within their memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from leanseg.frames import CachedSource, ScanSource, ScanView
from leanseg.inference import Pipeline, Settings
from leanseg.inference.by_group import interleaved_groups, memory_bytes
from leanseg.plan import LinearScaling, Patch, Plan
from leanseg.volumes import Volume, resize_array
from plans import interleaved

PLAIN = {"scaling": LinearScaling(divide_by=1, add=0)}
AFFINE = np.diag([-0.8, -1.1, 2.5, 1.0])


def scan(array: np.ndarray) -> Volume:
    return Volume(np.asfortranarray(array.astype(np.float32)), AFFINE)


def probabilities(volume: Volume, scheme: Plan, engine, **settings) -> np.ndarray:
    """On the scan's grid, (output, i, j, k)."""
    pipeline = Pipeline(scheme, {"main": engine})
    pipeline.settings = Settings(**settings)
    found = pipeline.predict(volume, probabilities=np.dtype(np.float32)).probabilities
    return np.moveaxis(found.array, 3, 0)


@given(st.integers(1, 400), st.integers(1, 40))
def test_every_slice_is_in_one_group(n_slices: int, depth: int) -> None:
    groups = interleaved_groups(n_slices, depth)
    assert len(groups) == -(-n_slices // depth)
    held = [set(group.tolist()) for group in groups]
    assert sorted(k for each in held for k in each) == list(range(n_slices))
    for group in groups:
        assert len(group) == depth
        assert (np.diff(group) >= 0).all()
        steps = np.diff(np.unique(group))
        assert (steps == len(groups)).all()
        counts = np.unique(group, return_counts=True)[1]
        assert counts.max() - counts.min() <= 1


def test_groups_by_hand() -> None:
    """Seven slices, four at once: two groups, the second filled by its first slice."""
    assert [group.tolist() for group in interleaved_groups(7, 4)] == [[0, 2, 4, 6], [1, 1, 3, 5]]
    assert [group.tolist() for group in interleaved_groups(3, 5)] == [[0, 0, 1, 1, 2]]


def test_seven_slices_by_hand(known_engine) -> None:
    """A network that says where in the patch a slice lies: 0.1, 0.2, 0.3, 0.4."""
    place = np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    engine = known_engine(lambda batch: 0 * batch + place)
    found = probabilities(scan(np.zeros((3, 2, 7))), interleaved((3, 2, 4), **PLAIN), engine)
    # Slice 1 is in the second group twice: the mean of 0.1 and 0.2.
    expected = [0.1, 0.15, 0.2, 0.3, 0.3, 0.4, 0.4]
    np.testing.assert_allclose(found[0], np.broadcast_to(expected, (3, 2, 7)), atol=1e-6)
    assert engine.batches == [1, 1]


@pytest.mark.parametrize("n_slices", [1, 3, 16, 17, 40])
def test_the_network_sees_the_groups(rng, known_engine, n_slices: int) -> None:
    array = rng.random((6, 5, n_slices))
    seen: list[np.ndarray] = []

    def note(batch: np.ndarray) -> np.ndarray:
        seen.append(batch[0, 0].copy())
        return batch

    scheme = interleaved((6, 5, 16), **PLAIN)
    found = probabilities(scan(array), scheme, known_engine(note))
    for patch, group in zip(seen, interleaved_groups(n_slices, 16), strict=True):
        np.testing.assert_array_equal(patch, array[:, :, group].astype(np.float32))
    np.testing.assert_allclose(found[0], array, atol=1e-6)


def mixed(batch: np.ndarray) -> np.ndarray:
    """Two outputs that depend on all slices of a patch, and on where in it a voxel lies."""
    ramp = np.linspace(0, 0.5, batch.shape[2], dtype=np.float32)[:, None, None]
    first = 0.3 * batch[:, 0] + 0.2 * batch[:, 0].mean(axis=-1, keepdims=True) + 0.5 * ramp
    return np.stack([first, 1 - first], axis=1)


@pytest.mark.parametrize("size", [(30, 41), (12, 16), (7, 5)])
def test_in_plane_patches_are_blended_as_monai_does(rng, known_engine, size) -> None:
    """Larger than a patch, as large, and smaller."""
    torch = pytest.importorskip("torch")
    inferers = pytest.importorskip("monai.inferers")
    array = rng.random((*size, 11)).astype(np.float32)
    scheme = interleaved((12, 16, 4), 2, **PLAIN)
    scheme = scheme.model_copy(
        update={"stages": (scheme.final.model_copy(update={"labels": ("a",)}),)}
    )
    engine = known_engine(lambda batch: mixed(batch)[:, :1])
    found = probabilities(scan(array), scheme, engine)

    def slices_as_channels(tile):
        patch = np.moveaxis(tile.numpy(), 1, -1)[:, None]
        return torch.from_numpy(np.moveaxis(mixed(patch)[:, 0], -1, 1).copy())

    for group in interleaved_groups(11, 4):
        planes = torch.from_numpy(np.moveaxis(array[:, :, group], 2, 0).copy())[None]
        blended = inferers.sliding_window_inference(
            planes, (12, 16), 1, slices_as_channels, overlap=0.5, mode="gaussian"
        )[0].numpy()
        for k in set(group.tolist()):
            np.testing.assert_allclose(
                found[0][:, :, k], blended[group == k].mean(axis=0), atol=2e-6
            )


@pytest.mark.parametrize("frame", [(16, 16, None), (24, 20, 30), (24, 20, 17)])
def test_resampled_frames(rng, known_engine, frame) -> None:
    """Where each voxel answers for itself the result is the resampled map, whatever the groups."""
    array = rng.random((24, 20, 25)).astype(np.float32)
    scheme = interleaved((16, 16, 8), frame=frame, **PLAIN)
    source = ScanSource(ScanView(scan(array), "LPS"), scheme.final)
    seen = np.moveaxis(source.planes(0, source.shape[2])[:, 0], 0, 2)
    expected = resize_array(seen, array.shape, axes=(0, 1, 2))
    found = probabilities(scan(array), scheme, known_engine())
    np.testing.assert_allclose(found[0], expected, atol=2e-6)


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("settings", [{"threads": 1, "slices_per_block": 1}, {"threads": 5}])
def test_the_same_bits_whatever_the_threads(rng, known_engine, lanes: int, settings) -> None:
    volume = scan(rng.random((30, 26, 21)))
    scheme = interleaved((12, 16, 4), ("a", "b"), **PLAIN)
    engine = known_engine(lambda batch: np.concatenate([mixed(batch), batch], axis=1) / 2)
    expected = probabilities(volume, scheme, engine)
    engine.lanes = lanes
    np.testing.assert_array_equal(probabilities(volume, scheme, engine, **settings), expected)


def test_monitoring_is_prediction(rng, known_engine) -> None:
    """From the cache, with all planes told."""
    volume = scan(rng.random((20, 16, 19)))
    scheme = interleaved((10, 8, 4), frame=(10, 8, None), **PLAIN)
    source = ScanSource(ScanView(volume, "LPS"), scheme.final)
    planes = source.planes(0, 19)
    told = {}
    pipeline = Pipeline(scheme, {"main": known_engine()})
    labels = pipeline.predict_source(
        CachedSource(planes, source.region), lambda start, found: told.update({start: found.copy()})
    )
    np.testing.assert_array_equal(labels, pipeline.predict(volume).labels.array)
    np.testing.assert_allclose(np.concatenate([told[k] for k in sorted(told)]), planes, atol=1e-6)


def test_progress_only_rises(rng, known_engine) -> None:
    seen: list[tuple[int, int]] = []
    scheme = interleaved((12, 16, 4), **PLAIN)
    volume = scan(rng.random((30, 41, 11)))
    Pipeline(scheme, {"main": known_engine()}).predict(
        volume, on_progress=lambda *numbers: seen.append(numbers)
    )
    assert seen == [(n, len(seen)) for n in range(1, len(seen) + 1)]


@pytest.mark.parametrize("shape", [(96, 96, 16), (48, 48, 16)])
def test_memory_is_what_was_told(rng, known_engine, shape) -> None:
    volume = scan(rng.random((96, 96, 120)))
    scheme = interleaved(shape, ("a", "b", "c"), **PLAIN)
    pipeline = Pipeline(scheme, {"main": known_engine(lambda batch: np.repeat(batch, 4, axis=1))})
    pipeline.settings = settings = Settings(slices_per_block=4)
    pipeline.predict(volume)
    tracemalloc.start()
    pipeline.predict(volume)
    peak = tracemalloc.get_traced_memory()[1] - volume.array.size
    tracemalloc.stop()
    need = max(memory_bytes(scheme.final, volume.shape, volume.shape, 1, settings, lanes=1))
    assert 0.5 * need < peak < 1.1 * need


@pytest.mark.parametrize("shape", [(8, 8, 1), (8, 8, "whole")])
def test_patches_without_several_slices_are_refused(shape) -> None:
    with pytest.raises(ValidationError, match="interleaved slices are for patches of several"):
        Patch(*shape, slices="interleaved")


def test_what_says_nothing_of_it_is_written_as_before() -> None:
    assert sorted(Patch(8, 8, 8).model_dump()) == ["neighbours", "overlap", "shape"]
    patch = Patch(8, 8, 8, slices="interleaved")
    assert Patch.model_validate_json(patch.model_dump_json()) == patch


def test_a_model_file_in_engines(tmp_path, rng) -> None:
    """The whole way of `load_model`, against PyTorch group by group."""
    torch = pytest.importorskip("torch")
    export = pytest.importorskip("leanseg.training.export")
    from leanseg.inference import load_model
    from leanseg.modelfile import Member, ModelFile, NetworkSpec, write_model
    from leanseg.networks import build

    generator = torch.Generator().manual_seed(0)
    module = build("msd-3d", out_channels=1, generator=generator, depth=4).eval()
    for parameter in module.parameters():
        parameter.data.normal_(0, 0.4, generator=generator)
    spec = NetworkSpec(name="msd-3d", in_channels=1, out_channels=1, options={"depth": 4})
    weights = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    scheme = interleaved((12, 16, 4), **PLAIN)
    write_model(
        tmp_path / "m.leanseg",
        export.export_model(ModelFile.of(scheme, Member(spec, weights))),
    )
    array = rng.normal(0, 1, (12, 16, 10)).astype(np.float32)
    expected = np.empty_like(array)
    with torch.inference_mode():
        for group in interleaved_groups(10, 4):
            said = module(torch.from_numpy(array[:, :, group].copy())[None, None]).sigmoid()
            for k in group:
                expected[:, :, k] = said[0, 0][:, :, torch.from_numpy(group == k)].mean(-1)
    clear = np.abs(expected - 0.5) > 1e-4
    for engine in ("openvino", "onnxruntime", "torch"):
        loaded = load_model(tmp_path / "m.leanseg", engine=engine, precision="f32")
        found = loaded.predict(scan(array)).array
        np.testing.assert_array_equal(found[clear], (expected > 0.5)[clear])
