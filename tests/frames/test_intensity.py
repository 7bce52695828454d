"""Windowing and scaling against plain numpy and scipy."""

from __future__ import annotations

from fractions import Fraction
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from scipy import stats

from leanseg.frames.intensity import fit_by_extremes, fit_intensity
from leanseg.plan import (
    HounsfieldWindow,
    Intensity,
    LinearScaling,
    NoWindow,
    QuantileWindow,
    Window,
)

WINDOWS: dict[str, Window] = {
    "hu": HounsfieldWindow(low=-150, high=200),
    "quantile": QuantileWindow(low=0.05, high=0.95),
    "nonzero": QuantileWindow(low=0.1, high=0.9, nonzero_only=True),
    "none": NoWindow(),
}
DTYPES = (np.int16, np.uint8, np.uint16, np.int32, np.float32)


def plan(window: Window, scaling: str) -> Intensity:
    return Intensity(window=window, scaling=scaling)


def volume(rng: np.random.Generator, dtype: type) -> np.ndarray:
    values = rng.normal(60, 150, size=(13, 9, 7))
    values[rng.random(values.shape) < 0.3] = 0
    if np.issubdtype(dtype, np.unsignedinteger):
        values = np.clip(values, 0, 255)
    return values.astype(dtype)


def plain(values: np.ndarray, window: Window, scaling: str) -> np.ndarray:
    """The definition, in double precision and with copies."""
    x = values.astype(np.float64)
    if isinstance(window, HounsfieldWindow):
        x = np.clip(x, window.low, window.high)
    elif isinstance(window, QuantileWindow):
        counted = x[x != 0] if window.nonzero_only else x.ravel()
        low, high = stats.mstats.mquantiles(counted, [window.low, window.high], alphap=1, betap=1)
        x = np.clip(x, low, high)
    if scaling == "minmax":
        return (x - x.min()) / (x.max() - x.min())
    return stats.zscore(x, axis=None)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scaling", ["minmax", "zscore"])
@pytest.mark.parametrize("window", WINDOWS)
def test_against_the_definition(rng, window: str, scaling: str, dtype: type) -> None:
    values = volume(rng, dtype)
    before = values.copy()
    found = fit_intensity(values, plan(WINDOWS[window], scaling)).apply(values)
    assert found.dtype == np.float32
    assert found.shape == values.shape
    np.testing.assert_allclose(found, plain(before, WINDOWS[window], scaling), atol=2e-6)
    np.testing.assert_array_equal(values, before)


@pytest.mark.parametrize("scaling", ["minmax", "zscore"])
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("value", [0.0, 0.1, -1024.0, 12345.678, 1e-42])
def test_a_constant_volume_becomes_zeros(window: str, scaling: str, value: float) -> None:
    values = np.full((50, 40, 30), value, dtype=np.float32)
    found = fit_intensity(values, plan(WINDOWS[window], scaling)).apply(values)
    np.testing.assert_array_equal(found, 0)


def test_an_integer_constant_becomes_zeros() -> None:
    values = np.full((5, 4, 3), -1024, dtype=np.int16)
    for scaling in ("minmax", "zscore"):
        found = fit_intensity(values, plan(HounsfieldWindow(), scaling)).apply(values)
        np.testing.assert_array_equal(found, 0)


def test_all_zeros_under_the_nonzero_window() -> None:
    values = np.zeros((4, 4, 4), dtype=np.int16)
    found = fit_intensity(values, plan(WINDOWS["nonzero"], "minmax")).apply(values)
    np.testing.assert_array_equal(found, 0)


def test_paper_000_on_known_values() -> None:
    """[-150, 200] HU to [0, 1]: -1000 and -150 give 0, 25 the middle, 200 and 3000 give 1."""
    values = np.array([-1000, -150, 25, 200, 3000], dtype=np.int16).reshape(5, 1, 1)
    found = fit_intensity(values, Intensity()).apply(values).ravel()
    np.testing.assert_allclose(found, [0, 0, 0.5, 1, 1], atol=1e-7)


def test_the_window_is_of_the_volume_not_of_the_limits() -> None:
    """Per-volume scaling: a scan that never reaches the window's ends still fills [0, 1]."""
    values = np.array([-100, 0, 100], dtype=np.int16).reshape(3, 1, 1)
    found = fit_intensity(values, Intensity()).apply(values).ravel()
    np.testing.assert_allclose(found, [0, 0.5, 1], atol=1e-7)


def test_a_large_mean_loses_no_digits() -> None:
    values = (1_000_000 + np.arange(24) % 3).reshape(2, 3, 4).astype(np.float32)
    found = fit_intensity(values, plan(NoWindow(), "zscore")).apply(values)
    np.testing.assert_allclose(found, stats.zscore(np.arange(24) % 3).reshape(2, 3, 4), atol=1e-6)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_storage_order_does_not_change_a_bit(rng, window: str, dtype: type) -> None:
    values = volume(rng, dtype)
    settings = plan(WINDOWS[window], "zscore")
    expected = fit_intensity(values, settings)
    for axes, flips in product(permutations(range(3)), product((1, -1), repeat=3)):
        # The same voxels in the same places, laid out otherwise in memory.
        stored = np.empty([values.shape[a] for a in axes], dtype=dtype)
        view = stored.transpose(np.argsort(axes))[tuple(slice(None, None, f) for f in flips)]
        view[...] = values
        assert fit_intensity(view, settings) == expected
        applied = expected.apply(view)
        assert applied.flags.c_contiguous
        np.testing.assert_array_equal(applied, expected.apply(values))


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.int16, hnp.array_shapes(min_dims=3, max_dims=3, max_side=5)),
    st.sampled_from(list(WINDOWS)),
)
def test_minmax_stays_within_0_and_1(values: np.ndarray, window: str) -> None:
    found = fit_intensity(values, plan(WINDOWS[window], "minmax")).apply(values)
    assert found.min() >= 0
    # float32 rounds in proportion to the values, not to the window.
    assert found.max() <= 1 + 1e-6 * max(1.0, float(np.abs(values.astype(float)).max()))
    order = np.argsort(values, axis=None)
    assert (np.diff(found.ravel()[order]) >= 0).all()


def test_levels_are_those_of_an_8_bit_picture(rng, tmp_path) -> None:
    """Against slices that are written as PNG by another library and read again."""
    values = rng.integers(-1024, 1500, (20, 16, 3)).astype(np.int16)
    settings = Intensity(window=HounsfieldWindow(low=-100, high=240), levels=256)
    found = fit_intensity(values, settings).apply(values)
    for k in range(3):
        share = (np.clip(values[:, :, k].astype(float), -100, 240) + 100) / 340
        Image.fromarray(np.rint(share * 255).astype(np.uint8)).save(tmp_path / "slice.png")
        picture = np.asarray(Image.open(tmp_path / "slice.png"))
        np.testing.assert_allclose(found[:, :, k], picture / 255, atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(np.int16, hnp.array_shapes(min_dims=3, max_dims=3, max_side=5)),
    st.integers(-2000, 2000),
    st.integers(1, 4000),
    st.sampled_from([2, 3, 16, 256, 4096]),
    st.booleans(),
)
def test_levels_by_fractions(values, low, width, levels, is_linear) -> None:
    """Exact: the nearest of the levels, of two as near the even one, then the plain scaling."""
    scaling = LinearScaling(divide_by=300, add=-2) if is_linear else "minmax"
    window = HounsfieldWindow(low=low, high=low + width)
    made = Intensity(window=window, scaling=scaling, levels=levels)
    found = fit_intensity(values, made).apply(values)
    step = Fraction(width, levels - 1)
    clipped = [min(max(int(x), low), low + width) for x in values.ravel()]
    grey = np.array([float(low + round((x - low) / step) * step) for x in clipped])
    minmax = (grey - grey.min()) / max(np.ptp(grey), 1e-9)
    expected = grey / 300 - 2 if is_linear else minmax
    np.testing.assert_allclose(found.ravel(), expected, atol=1e-5)
    assert len(np.unique(found)) <= levels
    if not is_linear:
        assert found.min() == 0
        assert found.max() <= 1 + 1e-6


def test_one_level_becomes_zeros() -> None:
    """A scan that has values, but between two levels."""
    values = np.array([100, 101, 102, 99], np.int16).reshape(4, 1, 1)
    found = fit_intensity(values, Intensity(levels=3)).apply(values)
    np.testing.assert_array_equal(found, 0)


@pytest.mark.parametrize("scaling", ["minmax", LinearScaling(divide_by=500, add=2)])
@pytest.mark.parametrize(("window", "levels"), [("hu", None), ("hu", 256), ("none", None)])
def test_pieces_in_any_order_give_the_same(rng, window: str, levels, scaling) -> None:
    values = volume(rng, np.int16)
    settings = Intensity(window=WINDOWS[window], scaling=scaling, levels=levels)
    pieces = [values[:, :, k : k + 2] for k in (4, 0, 6, 2)]
    assert fit_by_extremes(pieces, settings) == fit_intensity(values, settings)
