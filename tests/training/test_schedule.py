"""The learning rate: torch's own schedulers, stepped by hand, are what it is compared with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

from leanseg.errors import RecipeError
from leanseg.training.recipe import Phase
from leanseg.training.schedule import Schedule


def schedule(name: str, n_epochs: int | None = 10, by=None, warmup=0.0, **options) -> Schedule:
    section = {"name": name, "options": options, "by": by, "warmup": warmup}
    return Schedule(Phase(schedule=section), n_epochs)


def by_hand(factory, n_steps: int, **options) -> list[float]:
    """Rates before each of torch's steps and after the last, around a rate of 1."""
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = factory(optimiser, **options)
    rates = [optimiser.param_groups[0]["lr"]]
    for _ in range(n_steps):
        optimiser.step()
        scheduler.step()
        rates.append(optimiser.param_groups[0]["lr"])
    return rates


CURVES = [
    ("exponential", {"gamma": 0.96}, lr_scheduler.ExponentialLR, {"gamma": 0.96}),
    ("polynomial", {}, lr_scheduler.PolynomialLR, {"power": 0.9, "total_iters": 10}),
    ("cosine", {"eta_min": 0.01}, lr_scheduler.CosineAnnealingLR, {"eta_min": 0.01, "T_max": 10}),
    (
        "one-cycle",
        {"pct_start": 0.2},
        lr_scheduler.OneCycleLR,
        {"max_lr": 1.0, "pct_start": 0.2, "total_steps": 11},
    ),
    ("constant", {}, lr_scheduler.ConstantLR, {"factor": 1.0}),
]


@pytest.mark.parametrize(("name", "options", "factory", "own"), CURVES)
def test_by_epochs_it_is_torchs(name, options, factory, own) -> None:
    made = schedule(name, 10, "epochs", **options)
    found = [made.factor(epoch, 0.0) for epoch in range(10)]
    assert found == pytest.approx(by_hand(factory, 9, **own))


def test_epochs_without_an_end() -> None:
    """Where only the clock ends a phase, an exponential schedule goes on."""
    made = schedule("exponential", None, gamma=0.99)
    assert [made.factor(epoch, 0.0) for epoch in (0, 500, 3)] == pytest.approx(
        [1.0, 0.99**500, 0.99**3]
    )
    for name in ("polynomial", "cosine", "one-cycle"):
        with pytest.raises(RecipeError, match=f"phase 'main': schedule '{name}' goes by epochs"):
            schedule(name, None, "epochs")


@pytest.mark.parametrize("name", ["polynomial", "cosine"])
def test_by_share_it_is_the_same_at_whole_epochs(name) -> None:
    """Torch's formulas know only which part is behind."""
    epochs, share = schedule(name, 10, "epochs"), schedule(name, None, "share")
    for epoch in range(10):
        expected = epochs.factor(epoch, 0.0)
        assert share.factor(0, epoch / 10) == pytest.approx(expected, abs=1e-5)


def test_one_cycle_by_share_has_its_landmarks() -> None:
    made = schedule("one-cycle", None, pct_start=0.3, div_factor=25.0, final_div_factor=1e4)
    assert made.factor(0, 0.0) == pytest.approx(1 / 25)
    assert made.factor(0, 0.3) == pytest.approx(1.0, abs=1e-4)
    assert made.factor(0, 1.0) == pytest.approx(1 / 25 / 1e4, abs=1e-6)
    # A cosine between: half way up in the middle of the rise.
    assert made.factor(0, 0.15) == pytest.approx((1 / 25 + 1) / 2, abs=1e-2)


def test_polynomial_by_share_is_nnunets() -> None:
    made = schedule("polynomial", None)
    for share in (0.0, 0.123, 0.5, 0.9):
        assert made.factor(0, share) == pytest.approx((1 - share) ** 0.9, abs=1e-4)
    assert made.factor(0, 1.0) == pytest.approx(0.0, abs=1e-6)


def test_warm_up_rises_evenly_and_leaves_the_whole_curve() -> None:
    flat, cosine = schedule("constant", warmup=0.2), schedule("cosine", None, warmup=0.2)
    assert [flat.factor(0, share) for share in (0.0, 0.05, 0.1, 0.2, 0.9)] == pytest.approx(
        [0.0, 0.25, 0.5, 1.0, 1.0]
    )
    for share in (0.2, 0.4, 0.6, 1.0):
        expected = (1 + np.cos(np.pi * (share - 0.2) / 0.8)) / 2
        assert cosine.factor(0, share) == pytest.approx(expected, abs=1e-5)
    assert cosine.factor(0, 0.1) == pytest.approx(0.5)
    plateau = schedule("plateau", warmup=0.5)
    assert plateau.factor(0, 0.25) == pytest.approx(0.5)


@pytest.mark.parametrize("patience", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_a_plateau_is_torchs(patience, seed) -> None:
    losses = np.random.default_rng(seed).random(30).round(2)
    made = schedule("plateau", patience=patience, factor=0.5)
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    torchs = lr_scheduler.ReduceLROnPlateau(
        optimiser, factor=0.5, patience=patience, threshold=1e-4, threshold_mode="abs"
    )
    for epoch, loss in enumerate(losses):
        assert made.factor(epoch, epoch / 30) == pytest.approx(optimiser.param_groups[0]["lr"])
        made.observe(loss)
        torchs.step(loss)
    assert optimiser.param_groups[0]["lr"] < 1


def test_a_plateau_goes_on_from_its_state() -> None:
    losses = [0.9, 0.8, 0.8, 0.8, 0.7, 0.7, 0.7, 0.7]
    for kept in range(len(losses)):
        whole, first, second = (schedule("plateau", patience=1) for _ in range(3))
        for loss in losses:
            whole.observe(loss)
        for loss in losses[:kept]:
            first.observe(loss)
        state = first.state_dict()
        for loss in losses[kept:]:  # a state is a copy
            first.observe(loss)
        second.load_state_dict(state)
        for loss in losses[kept:]:
            second.observe(loss)
        assert second.factor(8, 0.5) == whole.factor(8, 0.5) == pytest.approx(0.01)
        assert second.state_dict() == whole.state_dict()
    assert schedule("cosine").state_dict() == {}


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        (
            "cosine",
            {"T_max": 3},
            "schedule 'cosine' has no option 'T_max'; its options are eta_min",
        ),
        ("plateau", {"patiense": 3}, "'plateau' has no option 'patiense'.*did you mean 'patience'"),
        ("plateau", {"factor": 2.0}, "phase 'main': schedule 'plateau' does not take its options"),
        (
            "exponential",
            {"gamma": "x"},
            "schedule 'exponential': option 'gamma' is 'x' but .*valid number",
        ),
        ("exponential", {"gamma": float("nan")}, "option 'gamma' is nan but .*finite number"),
        ("one-cycle", {"max_lr": -1.0, "pct_start": 2.0}, "'one-cycle' does not take its options"),
        ("constant", {"optimizer": 1}, "has no option 'optimizer'"),
    ],
)
def test_options_that_torch_does_not_take(name, options, said) -> None:
    with pytest.raises(RecipeError, match=said) as caught:
        schedule(name, **options).factor(0, 0.5)
    assert "\n" not in str(caught.value)
