from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leanseg.reports.baseline import GRID, constant_mask, covered_fraction, dice, run_baseline
from leanseg.reports.run_folder import read_run_folder


def _relative_box(shape: tuple[int, int, int], low: float, high: float) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(round(low * n), round(high * n)) for n in shape)] = True
    return mask


def _constant_mask(*masks: np.ndarray):
    return constant_mask([covered_fraction(mask) for mask in masks])


def _mean_dice(cells: np.ndarray, *masks: np.ndarray) -> float:
    return float(np.mean([dice(covered_fraction(mask), cells) for mask in masks]))


def test_labels_that_never_move_are_found_in_any_shape():
    shapes = (40, 60, 20), (100, 80, 40)
    constant = _constant_mask(*(_relative_box(shape, 0.25, 0.75) for shape in shapes))
    assert _mean_dice(constant, _relative_box((200, 120, 60), 0.25, 0.75)) > 0.95
    assert _mean_dice(constant, _relative_box((200, 120, 60), 0.75, 1.0)) == 0


def test_labels_that_never_meet_leave_no_good_guess():
    shape = (40, 40, 20)
    boxes = _relative_box(shape, 0.0, 0.3), _relative_box(shape, 0.6, 0.9)
    # The best constant is one of the two boxes, or both: 2/3 and 1/2 on average at the most.
    assert _mean_dice(_constant_mask(*boxes), *boxes) < 0.67


def test_axes_are_not_exchanged():
    mask = np.zeros((30, 20, 12), dtype=bool)
    mask[:10, 10:, 6:9] = True
    constant = _constant_mask(mask)
    assert _mean_dice(constant, mask) > 0.95
    for other in (mask[::-1], mask[:, ::-1], mask[:, :, ::-1]):
        assert _mean_dice(constant, other) < 0.1


@given(st.integers(0, 2**32 - 1), st.tuples(*[st.integers(1, 3)] * 3))
@settings(max_examples=15, deadline=None)
def test_the_dice_is_the_textbook_one_in_the_scan_s_own_grid(seed, factors):
    """In a scan whose voxels divide the cells, the mask is that of the cells, each repeated."""
    rng = np.random.default_rng(seed)
    training = [np.roll(_relative_box((32, 24, 16), 0.3, 0.7), n, axis=0) for n in range(5)]
    constant = _constant_mask(*training)
    reference = rng.random([n * f for n, f in zip(GRID, factors, strict=True)]) > 0.7
    mask = np.kron(constant, np.ones(factors, dtype=bool))
    expected = 2 * (mask & reference).sum() / (mask.sum() + reference.sum())
    assert _mean_dice(constant, reference) == pytest.approx(expected, rel=1e-5)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_no_other_level_suits_the_training_cases_better(seed):
    rng = np.random.default_rng(seed)
    covered = [
        covered_fraction(
            np.roll(_relative_box((16, 16, 8), 0.2, 0.7), tuple(rng.integers(-3, 4, 3)), (0, 1, 2))
        ).astype(np.float64)
        for _ in range(4)
    ]
    mask = constant_mask(covered)
    best = np.mean([dice(one, mask) for one in covered])
    mean = np.mean(covered, axis=0)
    for level in np.linspace(0.02, 0.98, 49) * mean.max():
        constant = mean >= level
        others = [2 * one[constant].sum() / (one.sum() + constant.sum()) for one in covered]
        assert np.mean(others) <= best + 1e-6


@given(st.tuples(st.integers(3, 90), st.integers(3, 90), st.integers(1, 50)), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_the_covered_fraction_keeps_the_volume(shape, seed):
    """Whatever the shape: the same share of the scan is covered in both grids."""
    mask = np.random.default_rng(seed).random(shape) > 0.5
    fraction = covered_fraction(mask)
    assert fraction.shape == GRID
    assert fraction.mean() == pytest.approx(mask.mean(), abs=1e-5)
    np.testing.assert_allclose(covered_fraction(np.ones(shape, dtype=bool)), 1, atol=1e-5)


def test_nothing_to_average_gives_no_mask():
    assert constant_mask([]) is None
    assert _constant_mask(np.zeros((4, 4, 4), dtype=bool)) is None


def test_an_empty_reference_has_a_dice_of_zero():
    constant = _constant_mask(_relative_box((16, 16, 8), 0.2, 0.7))
    assert _mean_dice(constant, np.zeros((16, 16, 8), dtype=bool)) == 0


def test_every_scored_case_of_a_run_has_its_baseline(make_run):
    run = read_run_folder(make_run(labels=("organ", "tumour"), n_folds=2))
    baseline = run_baseline(run)
    assert baseline.problem is None
    assert set(baseline.dice) == {(score.case, score.label) for score in run.scores.cases}
    # Trained on the other cases alone: fold 1 tests on the odd ones.
    covered = [covered_fraction(run.volumes(f"case_{n}")[1].array == 2) for n in range(5)]
    expected = dice(covered[3], constant_mask(covered[::2]))
    assert baseline.dice["case_3", "tumour"] == pytest.approx(expected)


def test_the_baseline_of_a_run_leaves_out_ignored_voxels(make_run):
    folder = make_run(labels=("organ", "tumour"))
    for path in (folder.parent / "data").glob("*_label.nii.gz"):
        stored = nib.load(path)
        array = np.asarray(stored.dataobj).copy()
        array[:4] = 7
        nib.save(nib.Nifti1Image(array, stored.affine), path)
    before = run_baseline(read_run_folder(folder)).dice
    content = json.loads((folder / "data.json").read_text()) | {"ignored_values": [7]}
    (folder / "data.json").write_text(json.dumps(content))
    run = read_run_folder(folder)
    after = run_baseline(run).dice
    assert after.keys() == before.keys()
    # The mask of the run's other cases, in the cells of the 20 planes that are left of 24.
    left = [run.volumes(f"case_{n}")[1].array[4:] == 1 for n in range(6)]
    counted = np.zeros(GRID)
    counted[11:], counted[10] = 1, 1 / 3  # 4 of 24 planes are 10 2/3 of 64 cells
    grown = [np.concatenate([np.zeros((4, *m.shape[1:]), bool), m]) for m in left]
    mask = constant_mask([covered_fraction(m) for m in grown[1::2]], [counted] * 3)
    inside = covered_fraction(grown[2])
    expected = 2 * inside[mask].sum() / (inside.sum() + counted[mask].sum())
    assert after["case_2", "organ"] == pytest.approx(expected, rel=1e-5)


def test_ignored_cells_count_neither_in_the_mask_nor_in_the_dice():
    """As if the slab of cells that every case ignores were cut out of all scans."""
    rng = np.random.default_rng(5)
    shape = GRID[0], GRID[1], GRID[2]
    masks = [
        np.roll(_relative_box(shape, 0.2, 0.6), rng.integers(-5, 6, 3), (0, 1, 2)) for _ in range(3)
    ]
    ignored = np.zeros(shape, bool)
    ignored[30:] = True
    covered = [covered_fraction(mask & ~ignored) for mask in masks]
    counted = [covered_fraction(~ignored)] * 3
    mask = constant_mask(covered, counted)
    cut = constant_mask([each[:30] for each in covered])
    np.testing.assert_array_equal(mask[:30], cut)
    everywhere = np.ones(shape, bool)
    for whole, left in zip(covered, masks, strict=True):
        expected = 2 * left[:30].sum() / (left[:30].sum() + left[:30].size)
        assert dice(whole, everywhere, counted[0]) == pytest.approx(expected)
    assert dice(covered[0] * 0, everywhere, counted[0] * 0) == 0


def test_a_cell_that_half_of_the_cases_ignore_is_judged_by_the_others():
    organ = _relative_box(GRID, 0.25, 0.5)
    ignoring, full = organ.copy(), organ
    ignored = np.zeros(GRID, bool)
    ignored[16:24] = True
    ignoring[ignored] = False
    covered = [covered_fraction(ignoring)] * 3 + [covered_fraction(full)]
    counted = [covered_fraction(~ignored)] * 3 + [covered_fraction(full | True)]
    np.testing.assert_array_equal(constant_mask(covered, counted), organ)
