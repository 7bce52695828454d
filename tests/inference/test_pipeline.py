"""Stages one after another: regions, scouts, streamed scans, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from leanseg.inference import Pipeline
from leanseg.plan import (
    Around,
    Axis,
    Frame,
    HounsfieldWindow,
    Intensity,
    NoWindow,
    Patch,
    Plan,
    Stage,
)
from leanseg.volumes import Volume, open_volume, write_volume
from plans import patches, slices, whole

AFFINE = np.diag([-1.0, -1.5, 2.0, 1.0])


def organ_with_spot(rng) -> Volume:
    """An organ of 60, a spot of 90 in it, and a spot of 90 far away from it."""
    array = rng.integers(0, 20, (30, 28, 16)).astype(np.float32)
    array[8:18, 9:20, 4:11] = 60
    array[12:14, 13:15, 6:8] = 90
    array[25:27, 3:5, 13:15] = 90
    array[0, 0, 0], array[1, 0, 0] = 0, 100
    return Volume(np.asfortranarray(array), AFFINE)


def cascade(margin_mm: float, labels: tuple[str, ...] | None = None) -> Plan:
    grey = Intensity(window=NoWindow())
    first = slices((30, 28), ("background organ", "organ")).final
    frame = Frame(axes=(Axis(), Axis(), Axis()))
    region = Around(stage="organ", labels=labels, margin_mm=margin_mm)
    return Plan(
        stages=(
            first.model_copy(update={"name": "organ"}),
            Stage(
                name="spot",
                labels=("spot",),
                frame=frame.model_copy(update={"region": region}),
                patch=Patch(8, 8, 4),
                intensity=grey,
            ),
        )
    )


def engines(known_engine) -> dict:
    def organ(batch: np.ndarray) -> np.ndarray:
        inside = (batch[:, :1] > 0.4).astype(np.float32)
        return np.concatenate([1 - inside, 0 * inside, inside], axis=1)

    return {
        "organ": known_engine(organ),
        "spot": known_engine(lambda batch: (batch > 0.8).astype(np.float32), batch_size=1),
    }


@pytest.mark.parametrize("codes", ["LPS", "RAI", "SAL"])
def test_the_second_stage_looks_around_the_first(rng, known_engine, stored_as, codes) -> None:
    volume = organ_with_spot(rng)
    scan = stored_as(volume, codes)
    plan = cascade(0.0, ("organ",))
    seen: list[tuple[int, int]] = []
    found = Pipeline(plan, engines(known_engine)).predict(
        scan, on_progress=lambda *progress: seen.append(progress)
    )
    # The spots are brighter than the organ, so that the box around it holds both of them.
    expected = scan.array > 80
    box = np.zeros_like(expected)
    where = np.argwhere(scan.array > 40)
    box[tuple(slice(a, b + 1) for a, b in zip(where.min(0), where.max(0), strict=True))] = True
    np.testing.assert_array_equal(found.labels.array, expected & box)
    assert found.labels.affine.tobytes() == scan.affine.tobytes()
    shares = [done / total for done, total in seen]
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_what_lies_outside_of_the_region_is_background(known_engine) -> None:
    array = np.zeros((30, 28, 16), np.float32)
    array[8:18, 9:20, 4:11] = 60
    array[12:14, 13:15, 6:8] = 100
    volume = Volume(array, AFFINE)
    plan = cascade(3.0)
    second = engines(known_engine)
    second["spot"] = known_engine(np.ones_like, batch_size=1)
    found = Pipeline(plan, second).predict(volume).labels.array
    # 3 mm are 3, 2 and 2 voxels.
    expected = np.zeros_like(array, dtype=bool)
    expected[5:21, 7:22, 2:13] = True
    np.testing.assert_array_equal(found > 0, expected)


def test_a_first_stage_that_finds_nothing_says_so(rng, known_engine) -> None:
    volume = organ_with_spot(rng)
    nothing = engines(known_engine)
    nothing["organ"] = known_engine(
        lambda batch: np.concatenate([np.ones_like(batch), 0 * batch, 0 * batch], axis=1)
    )
    found = Pipeline(cascade(5.0), nothing).predict(volume, probabilities=np.dtype(np.float32))
    assert not found.labels.array.any()
    assert not found.probabilities.array.any()
    assert nothing["spot"].batches == []
    (note,) = found.notes
    assert "'organ' found nothing" in note
    assert "'spot' did not run" in note


@pytest.mark.parametrize("codes", ["LPS", "RAS", "LPI"])
@pytest.mark.parametrize("scheme", ["slices", "body", "whole"])
def test_a_scan_in_its_file_gives_the_same_labels(
    rng, tmp_path, known_engine, stored_as, codes, scheme
):
    array = rng.integers(-200, 300, (40, 36, 15)).astype(np.int16)
    array[..., :2] = -1000
    path = tmp_path / "scan.nii.gz"
    write_volume(
        path, stored_as(Volume(np.asfortranarray(array), np.diag([-3.0, -3, 4, 1])), codes)
    )
    ct = {"window": HounsfieldWindow()}
    plan = {
        "slices": slices((24, 20), 1, **ct),
        "body": slices((24, 20), 1, around="body", **ct),
        "whole": whole((16, 20, 8), 1, orientation="LAI", **ct),
    }[scheme]
    held = Pipeline(plan, {"main": known_engine(lanes=2)}).predict(open_volume(path).read())
    streamed = Pipeline(plan, {"main": known_engine(lanes=2)}).predict(open_volume(path))
    np.testing.assert_array_equal(streamed.labels.array, held.labels.array)
    assert streamed.slices_skipped == held.slices_skipped
    assert 0.05 < held.labels.array.mean() < 0.95


def test_a_damaged_file_is_found_while_it_is_streamed(rng, tmp_path, known_engine) -> None:
    from leanseg.errors import FileFormatError

    array = rng.integers(-200, 300, (64, 64, 40)).astype(np.int16)
    path = tmp_path / "scan.nii.gz"
    write_volume(path, Volume(array, AFFINE))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    plan = slices((24, 20), 1, window=HounsfieldWindow())
    with pytest.raises(FileFormatError, match=r"scan\.nii\.gz"):
        Pipeline(plan, {"main": known_engine()}).predict(open_volume(path))


def test_sliding_window_is_monais(rng) -> None:
    """Any module, in the scan's own grid, oblique and turned as it may be."""
    torch = pytest.importorskip("torch")
    inferers = pytest.importorskip("monai.inferers")
    import leanseg
    from leanseg.inference.sliding import sliding_window

    array = rng.normal(size=(21, 30, 13)).astype(np.float32)
    generator = torch.Generator().manual_seed(0)
    module = torch.nn.Conv3d(1, 3, 3, padding=1)
    for parameter in module.parameters():
        parameter.data.normal_(generator=generator)
    volume = Volume(array, np.diag([1.0, 1, 1, 1]))
    frame = leanseg.plan.Frame(orientation="RAS", axes=(Axis(), Axis(), Axis()))
    found = sliding_window(module, volume, frame, Patch(16, 16, 8))
    with torch.inference_mode():
        expected = inferers.sliding_window_inference(
            torch.from_numpy(array)[None, None],
            (16, 16, 8),
            1,
            lambda patch: module(patch).softmax(1),
            overlap=0.5,
            mode="gaussian",
        )
    np.testing.assert_allclose(np.moveaxis(found.array, 3, 0), expected[0].numpy(), atol=1e-5)
    assert found.affine.tobytes() == volume.affine.tobytes()


def test_patches_on_one_slice_or_many(rng, known_engine) -> None:
    """A scan thinner than a patch is padded, and comes back in its own shape."""
    for shape in ((30, 28, 1), (5, 6, 40)):
        volume = Volume(rng.random(shape, dtype=np.float32), AFFINE)
        plan = patches((16, 16, 8))
        found = Pipeline(plan, {"main": known_engine(batch_size=1)}).predict(volume).labels.array
        scaled = (volume.array - volume.array.min()) / np.ptp(volume.array)
        clear = np.abs(scaled - 0.5) > 1e-5
        np.testing.assert_array_equal(found[clear], (scaled > 0.5)[clear])


def test_the_scan_is_left_alone_on_disk(rng, tmp_path: Path, known_engine) -> None:
    path = tmp_path / "scan.nii.gz"
    write_volume(path, Volume(rng.integers(-200, 300, (24, 20, 6)).astype(np.int16), AFFINE))
    before = path.read_bytes()
    Pipeline(slices((24, 20), 1), {"main": known_engine()}).predict(open_volume(path))
    assert path.read_bytes() == before
