from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_samples import draw
from torch.nn import functional

from leanseg.losses import build_loss


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    batch=st.integers(1, 3),
    rows=st.integers(1, 9),
    columns=st.integers(4, 9),
    kept=st.sampled_from([0.25, 0.25, 0.5, 0.1, 1.0]),
)
def test_exactly_the_floor_of_the_hardest_is_kept(seed, batch, rows, columns, kept):
    values = torch.rand(batch, rows, columns, generator=torch.Generator().manual_seed(seed))
    mask = build_loss("hard-cross-entropy", kept=kept).hardest(values)
    number = max(int(np.floor(kept * values.numel())), 1)
    assert int(mask.sum()) == number
    if kept == 0.25:
        assert number == values.numel() // 4
    if number < values.numel():
        assert values[mask].min() >= values[~mask].max()


def test_ties_do_not_keep_more():
    mask = build_loss("hard-cross-entropy").hardest(torch.ones(2, 3, 5))
    assert int(mask.sum()) == 30 // 4


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), classes=st.integers(2, 5), spatial=st.integers(1, 6))
def test_equals_sorting_in_numpy(seed, classes, spatial):
    logits, target = draw(seed, 2, classes, spatial, 5, 2)
    values = functional.cross_entropy(logits, target, reduction="none").flatten().numpy()
    weights = np.linspace(0.3, 2, classes).astype(np.float32)
    hardest = np.argsort(-values)[: len(values) // 4]
    chosen = weights[target.flatten().numpy()[hardest]]
    expected = (chosen * values[hardest]).sum() / chosen.sum()
    loss = build_loss("hard-cross-entropy", class_weights=weights.tolist())
    assert loss(logits, target).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("class_weights", ["equal", "batch", [0.5, 1, 2, 3]])
@pytest.mark.parametrize("partial", [False, True])
def test_keeping_all_is_weighted_cross_entropy(class_weights, partial):
    logits, target = draw(2, 3, 4, 5, 6)
    annotated = None
    if partial:
        annotated = torch.tensor([[True] * 4, [True, False, True, True], [False] * 4])
    hard = build_loss("hard-cross-entropy", kept=1.0, class_weights=class_weights)
    plain = build_loss("cross-entropy", class_weights=class_weights)
    torch.testing.assert_close(hard(logits, target, annotated), plain(logits, target, annotated))


def test_only_the_kept_voxels_have_a_gradient():
    logits, target = draw(3, 2, 3, 6, 7)
    logits.requires_grad_()
    build_loss("hard-cross-entropy")(logits, target).backward()
    assert int(logits.grad.abs().sum(dim=1).count_nonzero()) == 2 * 6 * 7 // 4


def test_the_share_is_taken_of_what_is_annotated():
    logits, target = draw(4, 2, 3, 6, 7)
    annotated = torch.tensor([[True, True, True], [False, False, False]])
    logits.requires_grad_()
    build_loss("hard-cross-entropy")(logits, target, annotated).backward()
    assert int(logits.grad[0].abs().sum(dim=0).count_nonzero()) == 6 * 7 // 4
    assert not logits.grad[1].any()


def test_what_is_not_annotated_takes_no_place_from_what_is_right():
    values = torch.zeros(2, 4, 4)
    counted = torch.zeros(2, 4, 4, dtype=torch.bool)
    counted[1] = True
    mask = build_loss("hard-cross-entropy").hardest(values, counted)
    assert int(mask.sum()) == 4 and not mask[0].any()


def test_the_hardest_are_chosen_before_weighting():
    # The voxel of class 1 is harder, but class 1 weighs next to nothing.
    logits = torch.tensor([[[[2.0, 0, 0, 0]], [[0.0, 1, 0, 0]]]])
    target = torch.tensor([[[1, 0, 0, 0]]])
    loss = build_loss("hard-cross-entropy", class_weights=[1, 1e-3])
    expected = functional.cross_entropy(logits[..., :1], target[..., :1])
    torch.testing.assert_close(loss(logits, target), expected)
