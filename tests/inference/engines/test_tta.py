"""Test-time augmentation: every view is undone exactly, and the mean is the mean."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest
from scipy import ndimage

from leanseg.errors import RecipeError
from leanseg.inference.engines.ensemble import EnsembleEngine
from leanseg.inference.engines.tta import (
    AUGMENTATIONS,
    AugmentingEngine,
    Flip,
    Shift,
    augmented,
    parse_tta,
)

SHIFT = 4


@dataclass
class FunctionEngine:
    """An engine whose answer is a plain function of its input."""

    function: Callable[[np.ndarray], np.ndarray]
    name: str = "function"
    precision: str = "f32"
    lanes: int = 2
    device: str = "cpu"
    batch_size: int = 3
    passes: int = 1
    shape: tuple[int, ...] = (3, 1, 8, 8)

    def memory_bytes(self) -> int:
        return 1_000_000

    def release(self) -> None: ...

    def scout(self) -> FunctionEngine:
        return self

    def run(self, batch: np.ndarray) -> np.ndarray:
        assert batch.dtype == np.float32
        assert batch.flags.c_contiguous
        return np.ascontiguousarray(self.function(batch), dtype=np.float32)


def squashed(batch: np.ndarray) -> np.ndarray:
    """Voxel by voxel: it does not matter to it where a voxel lies. Two outputs."""
    first = 1 / (1 + np.exp(-batch[:, :1]))
    return np.concatenate([first, 1 - first], axis=1)


def place_dependent(batch: np.ndarray) -> np.ndarray:
    """Looks at a voxel's neighbours on one side, and at where it lies."""
    grid = np.linspace(0, 1, batch[0, 0].size, dtype=np.float32).reshape(batch.shape[2:])
    mixed = batch[:, :1] * grid
    for axis in range(2, batch.ndim):
        mixed = mixed + 0.5 * np.roll(mixed, 1, axis)
    return 1 / (1 + np.exp(-np.concatenate([mixed, -mixed, mixed**2], axis=1)))


def naive(function: Callable, batch: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """View by view and voxel by voxel, with the unseen as NaN."""
    n_axes = batch.ndim - 2
    looks = [function(batch)]
    if "flips" in names:
        for signs in product((1, -1), repeat=n_axes):
            if -1 in signs:
                turn = (slice(None), slice(None), *(slice(None, None, sign) for sign in signs))
                looks.append(function(np.ascontiguousarray(batch[turn]))[turn])
    if "shifts" in names:
        for axis, by in product(range(n_axes), (SHIFT, -SHIFT)):
            offset = [0] * batch.ndim
            offset[2 + axis] = by
            moved = ndimage.shift(batch, offset, order=0, mode="nearest")
            back = [0 if n == 0 else -n for n in offset]
            found = function(moved).astype(np.float32)
            looks.append(ndimage.shift(found, back, order=0, mode="constant", cval=np.nan))
    return np.nanmean(np.stack(looks).astype(np.float64), axis=0)


SHAPES = ((2, 1, 12, 15), (1, 3, 16, 9), (1, 1, 11, 6, 13))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("text", ["flips", "shifts", "flips,shifts"])
def test_is_the_mean_of_all_views(rng, shape: tuple[int, ...], text: str) -> None:
    batch = rng.normal(size=shape).astype(np.float32)
    engine = augmented(FunctionEngine(place_dependent), text, len(shape) - 2)
    expected = naive(place_dependent, batch, parse_tta(text))
    found = engine.run(batch)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-7)
    # Were the views not looked at, the plain answer would pass as well.
    assert np.abs(found - place_dependent(batch)).max() > 0.01


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("text", ["flips", "shifts", "flips,shifts"])
def test_a_network_that_moves_with_its_input_keeps_its_answer(rng, shape, text: str) -> None:
    batch = rng.normal(size=shape).astype(np.float32)
    plain = FunctionEngine(squashed)
    found = augmented(plain, text, len(shape) - 2).run(batch)
    if text == "flips" and len(shape) == 4:
        # Four times the same number, divided by four: exact in binary.
        np.testing.assert_array_equal(found, plain.run(batch))
    np.testing.assert_allclose(found, plain.run(batch), rtol=3e-7, atol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_flips_are_those_of_monai(rng, shape: tuple[int, ...]) -> None:
    transforms = pytest.importorskip("monai.transforms")
    batch = rng.normal(size=shape).astype(np.float32)
    n_axes = len(shape) - 2
    for view in AUGMENTATIONS["flips"](n_axes):
        assert isinstance(view, Flip)
        theirs = transforms.Flip(spatial_axis=list(view.axes))
        expected = np.stack([np.asarray(theirs(image)) for image in batch])
        np.testing.assert_array_equal(view.see(batch), expected)
        back, place = view.undo(expected)
        np.testing.assert_array_equal(back, batch)
        assert batch[place].shape == batch.shape


def test_all_flips_differ() -> None:
    for n_axes in (2, 3):
        marks = np.zeros((1, 1, *(3,) * n_axes), dtype=np.float32)
        marks[(0, 0, *(0,) * n_axes)] = 1
        seen = {view.see(marks).tobytes() for view in (Flip(), *AUGMENTATIONS["flips"](n_axes))}
        assert len(seen) == 2**n_axes


def test_a_shift_repeats_the_edge() -> None:
    batch = np.arange(7, dtype=np.float32).reshape(1, 1, 1, 7)
    assert Shift(1, 2).see(batch).ravel().tolist() == [0, 0, 0, 1, 2, 3, 4]
    assert Shift(1, -2).see(batch).ravel().tolist() == [2, 3, 4, 5, 6, 6, 6]
    seen, place = Shift(1, 2).undo(Shift(1, 2).see(batch))
    assert seen.ravel().tolist() == [0, 1, 2, 3, 4]
    assert batch[place].ravel().tolist() == [0, 1, 2, 3, 4]
    seen, place = Shift(1, -2).undo(Shift(1, -2).see(batch))
    assert seen.ravel().tolist() == batch[place].ravel().tolist() == [2, 3, 4, 5, 6]


@pytest.mark.parametrize("shape", [(1, 1, 3, 3), (1, 1, 1, 9), (1, 1, 4, 4)])
def test_an_input_smaller_than_the_shift(rng, shape: tuple[int, ...]) -> None:
    """All that was seen has left the picture; the plain view alone counts there."""
    batch = rng.normal(size=shape).astype(np.float32)
    engine = FunctionEngine(squashed)
    found = augmented(engine, "shifts", 2).run(batch)
    np.testing.assert_allclose(found, engine.run(batch), rtol=3e-7)


def test_around_an_ensemble(rng) -> None:
    batch = rng.normal(size=(2, 1, 12, 15)).astype(np.float32)

    def other(batch: np.ndarray) -> np.ndarray:
        return place_dependent(batch[:, :, ::-1])[:, ::-1]

    ensemble = EnsembleEngine(
        [lambda: FunctionEngine(place_dependent), lambda: FunctionEngine(other)]
    )
    engine = augmented(ensemble, "flips,shifts", 2)
    expected = np.mean(
        [naive(one, batch, ("flips", "shifts")) for one in (place_dependent, other)], axis=0
    )
    np.testing.assert_allclose(engine.run(batch), expected, rtol=0, atol=3e-7)
    assert engine.passes == 16
    assert engine.cost() == (
        "16 passes of the network per slice "
        "(2 networks, each 1 plain, 3 flips, 4 shifts: about 8 times the time)"
    )


def test_the_cost_is_told() -> None:
    plain = FunctionEngine(squashed)
    assert augmented(plain, "flips", 2).passes == 4
    assert augmented(plain, "shifts", 2).passes == 5
    assert augmented(plain, "flips", 3).passes == 8
    assert augmented(plain, "shifts,flips", 3).passes == 14
    assert AugmentingEngine(plain, ("flips",), 2).cost() == (
        "4 passes of the network per slice (1 plain, 3 flips: about 4 times the time)"
    )
    assert "per volume" in AugmentingEngine(plain, ("flips",), 3).cost("volume")


def test_what_the_predictor_asks_is_passed_on() -> None:
    plain = FunctionEngine(squashed)
    engine = augmented(plain, "shifts,flips", 2)
    assert (engine.name, engine.precision) == ("function", "f32")
    assert (engine.lanes, engine.batch_size, engine.shape) == (2, 3, (3, 1, 8, 8))
    assert plain.memory_bytes() < engine.memory_bytes() < 2 * plain.memory_bytes()
    assert engine.tta == "flips,shifts"
    assert engine.scout() is plain
    assert augmented(plain, "none", 2) is plain


def test_threads_do_not_disturb_one_another(rng) -> None:
    """The same bits from one thread and from four that share the engine."""
    batches = [rng.normal(size=(1, 1, 40, 44)).astype(np.float32) for _ in range(16)]
    engine = augmented(FunctionEngine(place_dependent), "flips,shifts", 2)
    expected = [engine.run(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(engine.run, batches))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_input_and_the_engines_answer_are_left_alone(rng) -> None:
    batch = rng.normal(size=(1, 1, 8, 8)).astype(np.float32)
    batch.flags.writeable = False
    answer = np.full((1, 1, 8, 8), 0.25, dtype=np.float32)
    answer.flags.writeable = False
    found = augmented(FunctionEngine(lambda batch: answer), "flips,shifts", 2).run(batch)
    np.testing.assert_array_equal(found, answer)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("none", ()),
        ("flips", ("flips",)),
        ("shifts, flips", ("flips", "shifts")),
        ("flips,flips", ("flips",)),
    ],
)
def test_names_are_understood(text: str, names: tuple[str, ...]) -> None:
    assert parse_tta(text) == names


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("flip", r"'flip' is not known \(did you mean 'flips'\?\); choose none, or one or several"),
        ("flips,shfits", r"'shfits' is not known \(did you mean 'shifts'\?\)"),
        ("Flips", "did you mean 'flips'"),
        ("", "'' is not known; choose none"),
        ("flips,", "'' is not known"),
        ("none,flips", "'none,flips' is none and some at once"),
        ("rotations", "of flips, shifts with commas between"),
    ],
)
def test_other_names_are_refused(text: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        parse_tta(text)


def test_a_new_augmentation_is_one_line(rng, monkeypatch) -> None:
    monkeypatch.setitem(AUGMENTATIONS, "far", lambda n_axes: [Shift(0, 6)])
    batch = rng.normal(size=(1, 1, 16, 16)).astype(np.float32)
    engine = augmented(FunctionEngine(squashed), "far,flips", 2)
    assert engine.passes == 5
    np.testing.assert_allclose(engine.run(batch), squashed(batch), rtol=3e-7)
