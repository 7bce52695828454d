from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leanseg.reports.prior import centre_prior, covered_fraction


def _relative_box(shape: tuple[int, int, int], low: float, high: float) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(round(low * n), round(high * n)) for n in shape)] = True
    return mask


def test_labels_that_never_move_are_predicted_in_any_shape():
    prior = centre_prior(
        [_relative_box((40, 60, 20), 0.25, 0.75), _relative_box((100, 80, 40), 0.25, 0.75)]
    )
    assert prior.training_dice > 0.9
    # The coarse grid smears the box's faces by up to a cell.
    assert prior.dice(_relative_box((200, 120, 60), 0.25, 0.75)) > 0.9
    assert prior.dice(_relative_box((200, 120, 60), 0.75, 1.0)) == 0


def test_labels_that_never_meet_leave_no_good_guess():
    shape = (40, 40, 20)
    prior = centre_prior([_relative_box(shape, 0.0, 0.3), _relative_box(shape, 0.6, 0.9)])
    # The best constant is one of the two boxes, or both: 2/3 and 1/2 on average at the most.
    assert prior.training_dice < 0.67


def test_axes_are_not_exchanged():
    mask = np.zeros((30, 20, 12), dtype=bool)
    mask[:10, 10:, 6:9] = True
    prior = centre_prior([mask])
    assert prior.dice(mask) > 0.9
    assert prior.dice(mask[::-1]) < 0.1
    assert prior.dice(mask[:, ::-1]) < 0.1
    assert prior.dice(mask[:, :, ::-1]) < 0.5


def test_the_dice_is_the_textbook_one():
    rng = np.random.default_rng(3)
    masks = [np.roll(_relative_box((32, 24, 16), 0.3, 0.7), n, axis=0) for n in range(5)]
    prior = centre_prior(masks)
    # On the prior's own grid nothing is resized, so that the mask is just a comparison.
    constant = prior.mean >= prior.level
    reference = rng.random(constant.shape) > 0.7
    expected = 2 * (constant & reference).sum() / (constant.sum() + reference.sum())
    assert prior.dice(reference) == pytest.approx(expected)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_no_other_level_suits_the_training_cases_better(seed):
    rng = np.random.default_rng(seed)
    masks = [
        np.roll(_relative_box((16, 16, 8), 0.2, 0.7), tuple(rng.integers(-3, 4, 3)), (0, 1, 2))
        for _ in range(4)
    ]
    prior = centre_prior(masks)
    small = [covered_fraction(mask).astype(np.float64) for mask in masks]
    for level in np.linspace(0.02, 0.98, 49) * float(prior.mean.max()):
        constant = prior.mean >= level
        dice = [2 * one[constant].sum() / (one.sum() + constant.sum()) for one in small]
        assert np.mean(dice) <= prior.training_dice + 1e-6


@given(st.tuples(st.integers(3, 90), st.integers(3, 90), st.integers(1, 50)))
@settings(max_examples=25, deadline=None)
def test_the_covered_fraction_is_one_inside_and_keeps_the_shape(shape):
    fraction = covered_fraction(np.ones(shape, dtype=bool))
    assert fraction.shape == (64, 64, 32)
    np.testing.assert_allclose(fraction, 1, atol=1e-5)


def test_nothing_to_average_gives_no_prior():
    assert centre_prior([]) is None
    assert centre_prior([np.zeros((4, 4, 4), dtype=bool)]) is None


def test_an_empty_reference_has_a_dice_of_zero():
    prior = centre_prior([_relative_box((16, 16, 8), 0.2, 0.7)])
    assert prior.dice(np.zeros((16, 16, 8), dtype=bool)) == 0
