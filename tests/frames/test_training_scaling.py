"""Mean and standard deviation of training volumes, against numpy on all voxels together."""

from __future__ import annotations

import numpy as np
import pytest

from leanseg.datasets import Case
from leanseg.frames import ArrayCache, ScanSource, ScanView, training_scaling, with_training_scaling
from leanseg.plan import WINDOWS, LinearScaling, NoWindow, QuantileWindow, TrainingScaling
from leanseg.volumes import Volume
from plans import slices

ORGAN = QuantileWindow.model_validate(WINDOWS["organ"])
AFFINE = np.diag([-0.8, -0.8, 3.0, 1.0])


def case(array: np.ndarray, name: str = "a") -> Case:
    return Case(Volume(array, AFFINE), name=name)


def windowed(channel: np.ndarray) -> np.ndarray:
    return np.clip(channel, *np.quantile(channel, [0.60, 0.99])).ravel()


def plan(**options):
    return slices((8, 8), window=ORGAN, scaling=TrainingScaling(), **options)


@pytest.mark.parametrize("n_channels", [1, 3])
def test_all_windowed_voxels_count_alike(tmp_path, rng, n_channels: int) -> None:
    """Volumes of different size and brightness, each in a window of its own."""
    shapes = ((9, 7, 5), (12, 10, 30), (6, 6, 6))
    arrays = [
        rng.normal(100 * n, 300 + 50 * n, (*shape, n_channels)).astype(np.int16)
        for n, shape in enumerate(shapes)
    ]
    names = tuple(f"channel {n}" for n in range(n_channels))
    cases = [case(array, str(n)) for n, array in enumerate(arrays)]
    asked = plan(channels=names)
    settled = with_training_scaling(asked, cases, None, ArrayCache(tmp_path))
    found = settled.final.intensity.scaling
    scalings = found if n_channels > 1 else (found,)
    assert len(scalings) == n_channels
    for n, scaling in enumerate(scalings):
        values = np.concatenate([windowed(array[..., n]) for array in arrays])
        assert scaling.divide_by == pytest.approx(values.std(), rel=1e-9)
        assert -scaling.add * scaling.divide_by == pytest.approx(values.mean(), rel=1e-9)
    # What the network sees of another scan: its own window, the sample's mean and deviation.
    other = rng.normal(50, 200, (8, 8, 4, n_channels)).astype(np.int16)
    view = ScanView(Volume(other, AFFINE), "LPS", names)
    seen = ScanSource(view, settled.final).planes(0, 4)
    for n, scaling in enumerate(scalings):
        expected = windowed(other[..., n]).reshape(8, 8, 4) / scaling.divide_by + scaling.add
        np.testing.assert_allclose(seen[:, n], expected.transpose(2, 0, 1), atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.1, -1024.0, 12345.678])
def test_volumes_of_one_value_become_zeros(tmp_path, value: float) -> None:
    cases = [case(np.full((5, 6, n), value, np.float32), str(n)) for n in (3, 4, 7)]
    found = with_training_scaling(plan(), cases, None, ArrayCache(tmp_path))
    scaling = found.final.intensity.scaling
    assert scaling.divide_by == 1
    view = ScanView(cases[0].image, "LPS")
    np.testing.assert_allclose(ScanSource(view, found.final).planes(0, 3), 0, atol=1e-3)


def test_each_volume_is_read_once(tmp_path, rng, monkeypatch) -> None:
    cases = [case(rng.normal(0, 9, (5, 6, 7)).astype(np.float32), str(n)) for n in range(2)]
    first = with_training_scaling(plan(), cases, None, ArrayCache(tmp_path))
    monkeypatch.delattr(training_scaling, "windowed_moments")
    again = with_training_scaling(plan(), cases, None, ArrayCache(tmp_path))
    assert again == first
    # In another window it is another number.
    unclipped = slices((8, 8), window=NoWindow(), scaling=TrainingScaling())
    with pytest.raises(NameError):
        with_training_scaling(unclipped, cases, None, ArrayCache(tmp_path))


def test_a_plan_with_numbers_is_what_older_versions_read(tmp_path, rng) -> None:
    found = with_training_scaling(
        plan(), [case(rng.normal(0, 9, (5, 6, 7)))], None, ArrayCache(tmp_path)
    )
    (stage,) = found.model_dump(mode="json")["stages"]
    assert sorted(stage["intensity"]["scaling"]) == ["add", "divide_by"]
    assert isinstance(found.final.intensity.scaling, LinearScaling)
