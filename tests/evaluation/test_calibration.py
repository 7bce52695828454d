"""Reliability against MONAI and by hand; the temperature against data that have a known one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit, softmax

from leanseg.evaluation.calibration import (
    TEMPERATURES,
    Reliability,
    fit_temperature,
    scaled,
    scaled_threshold,
)


def test_error_of_four_voxels_by_hand() -> None:
    # Bins 0.2-0.3: mean 0.25, none of 2; 0.9-1: mean 0.95, 1 of 2.
    found = Reliability.of(
        np.array([0.22, 0.28, 0.9, 1.0]), np.array([False, False, True, False]), 10
    )
    assert found.error == pytest.approx((2 * 0.25 + 2 * 0.45) / 4)
    assert found.points() == [(pytest.approx(0.25), 0.0, 2), (pytest.approx(0.95), 0.5, 2)]


def test_error_equals_monais(rng) -> None:
    torch = pytest.importorskip("torch")
    metrics = pytest.importorskip("monai.metrics")
    p = rng.random((1, 1, 40, 50)).astype(np.float32)
    truth = rng.random(p.shape) < p**2
    metric = metrics.CalibrationErrorMetric(num_bins=20, include_background=True)
    metric(y_pred=torch.from_numpy(p), y=torch.from_numpy(truth.astype(np.float32)))
    parts = [Reliability.of(p[..., own], truth[..., own]) for own in (slice(13), slice(13, None))]
    assert (parts[0] + parts[1]).error == pytest.approx(float(metric.aggregate()), abs=1e-6)


def test_no_voxels_have_no_error() -> None:
    assert Reliability.of(np.zeros(0), np.zeros(0, dtype=bool)).error is None


@pytest.mark.parametrize("temperature", [0.05, 0.4, 1.7, 20])
def test_scaling_divides_logits(rng, temperature) -> None:
    logits = rng.normal(0, 3, (500, 4))
    cooled = scaled(softmax(logits, axis=1).astype(np.float32), temperature, sigmoid=False)
    np.testing.assert_allclose(cooled, softmax(logits / temperature, axis=1), atol=1e-4)
    single = scaled(expit(logits).astype(np.float32), temperature, sigmoid=True)
    np.testing.assert_allclose(single, expit(logits / temperature), atol=2e-4 / temperature)
    # Certainty stays.
    ends = np.array([[0.0, 1.0]], dtype=np.float32)
    for sigmoid in (True, False):
        np.testing.assert_array_equal(scaled(ends, temperature, sigmoid=sigmoid), ends)


def test_threshold_separates_the_same(rng) -> None:
    p = rng.random(10_000).astype(np.float32)
    after = scaled(p[:, None], 1.8, sigmoid=True)[:, 0]
    assert scaled_threshold(0.3, 1.8) == pytest.approx(expit(logit(0.3) / 1.8))
    np.testing.assert_array_equal(p > np.float32(0.3), after > scaled_threshold(0.3, 1.8))


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_the_temperature_of_drawn_labels_is_found(rng, temperature) -> None:
    """Labels are drawn from softmax(logits / T): T is what makes the probabilities true."""
    logits = rng.normal(0, 2, (40_000, 3))
    true = softmax(logits / temperature, axis=1)
    drawn = (true.cumsum(axis=1) < rng.random((len(true), 1))).sum(axis=1)
    p = softmax(logits, axis=1).astype(np.float32)
    assert fit_temperature(p, drawn, sigmoid=False) == pytest.approx(temperature, rel=0.03)
    chosen = rng.random(logits.shape) < expit(logits / temperature)
    single = expit(logits).astype(np.float32)
    assert fit_temperature(single, chosen, sigmoid=True) == pytest.approx(temperature, rel=0.03)
    error = [
        Reliability.of(each[:, 0], chosen[:, 0]).error
        for each in (single, scaled(single, temperature, sigmoid=True))
    ]
    assert error[1] < 0.02 < error[0]


def test_a_network_that_is_always_right_gets_the_lowest_temperature() -> None:
    p = np.tile(np.array([[0.1, 0.9]], dtype=np.float32), (50, 1))
    found = fit_temperature(p, np.ones(50, dtype=int), sigmoid=False)
    assert found == pytest.approx(TEMPERATURES[0], rel=0.5)
