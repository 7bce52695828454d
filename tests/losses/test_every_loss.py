"""What holds for every loss of the registry."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_samples import certain, draw

from leanseg.errors import GeometryError, LeansegError, RecipeError
from leanseg.losses import LOSSES, build_loss
from leanseg.losses.base import IGNORED

NAMES = sorted(LOSSES)
SMALLEST = {"shared-boundary": 3}


def class_counts(name):
    return [n for n in (1, 2, 3, 5) if n >= SMALLEST.get(name, 1)]


CASES = [(name, classes) for name in NAMES for classes in class_counts(name)]


def partly_annotated(seed, batch, classes):
    generator = torch.Generator().manual_seed(seed)
    annotated = torch.rand(batch, classes, generator=generator) < 0.6
    annotated[:, 0] |= classes > 1
    annotated[0] = True
    return annotated


def as_files_are(target, annotated):
    """Unannotated classes are stored as background."""
    known = annotated if annotated.shape[1] > 1 else annotated.expand(-1, 2)
    flat = target.flatten(1)
    return torch.where(known.gather(1, flat), flat, 0).view_as(target)


@pytest.mark.parametrize("spatial", [(3, 4), (2, 3, 2)])
@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize(("name", "classes"), CASES)
def test_gradient_equals_finite_differences(name, classes, partial, spatial):
    logits, target = draw(1, 2, classes, *spatial, dtype=torch.float64)
    annotated = None
    if partial:
        annotated = torch.ones(2, classes, dtype=torch.bool)
        annotated[1, -1] = False
        target = as_files_are(target, annotated)
    loss = build_loss(name)
    assert torch.autograd.gradcheck(
        lambda values: loss(values, target, annotated),
        logits.requires_grad_(),
        # Of volumes, along random directions.
        fast_mode=len(spatial) > 2,
    )
    assert loss(logits, target, annotated).dtype == torch.float64


@pytest.mark.parametrize(("name", "classes"), CASES)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32), spatial=st.sampled_from([(5, 4), (3, 2, 4), (1, 6)]))
def test_perfect_prediction_costs_nothing(name, classes, seed, spatial):
    _, target = draw(seed, 2, classes, *spatial)
    target[:, 0] = 0  # some class is absent from time to time, the background never
    logits = certain(target, classes).requires_grad_()
    value = build_loss(name)(logits, target)
    value.backward()
    assert value.item() == pytest.approx(0, abs=2e-5)
    assert logits.grad.abs().max() < 1e-4


@pytest.mark.parametrize(("name", "classes"), CASES)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32), order=st.permutations(range(4)), partial=st.booleans())
def test_order_of_the_batch_does_not_matter(name, classes, seed, order, partial):
    logits, target = draw(seed, 4, classes, 3, 5)
    annotated = partly_annotated(seed, 4, classes) if partial else None
    loss = build_loss(name)
    shuffled = None if annotated is None else annotated[order]
    torch.testing.assert_close(
        loss(logits[order], target[order], shuffled), loss(logits, target, annotated)
    )


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32), order=st.permutations([1, 2, 3]))
def test_foreground_classes_are_exchangeable(name, seed, order):
    logits, target = draw(seed, 2, 4, 4, 3)
    order = torch.tensor([0, *order])  # class c of the new order is class order[c] of the old
    renamed = torch.argsort(order)[target]
    loss = build_loss(name)
    torch.testing.assert_close(loss(logits[:, order], renamed), loss(logits, target))


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(SMALLEST)))
def test_a_sigmoid_is_a_softmax_of_two(name):
    logits, target = draw(3, 3, 1, 4, 5)
    annotated = torch.tensor([[True], [False], [True]])
    two = torch.cat((torch.full_like(logits, 0.7), logits + 0.7), dim=1)
    loss = build_loss(name)
    torch.testing.assert_close(loss(logits, target), loss(two, target))
    torch.testing.assert_close(
        loss(logits, target, annotated), loss(two, target, annotated.expand(-1, 2))
    )


@pytest.mark.parametrize("spatial", [(4, 4), (2, 3, 4)])
@pytest.mark.parametrize(("name", "classes"), CASES)
def test_extreme_logits_are_finite(name, classes, spatial):
    noise, target = draw(4, 2, classes, *spatial)
    annotated = torch.ones(2, classes, dtype=torch.bool)
    annotated[0, -1] = False
    for gain in (1e3, 1e6, 1e30):
        for known in (None, annotated):
            logits = (gain * noise.sign()).requires_grad_()
            value = build_loss(name)(logits, target, known)
            value.backward()
            assert value.isfinite()
            assert logits.grad.isfinite().all()


@pytest.mark.parametrize(("name", "classes"), CASES)
def test_float32_under_autocast_and_for_bfloat16(name, classes):
    logits, target = draw(5, 2, classes, 32, 32)
    loss = build_loss(name)
    for coarse in (logits.bfloat16(), logits.half()):
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(coarse, target)
        assert value.dtype == torch.float32
        assert value.isfinite()
        assert torch.equal(value, loss(coarse.float(), target))


@pytest.mark.parametrize(("name", "classes"), CASES)
def test_float32_has_the_precision_of_float32(name, classes):
    logits, target = draw(13, 2, classes, 16, 16)
    exact = build_loss(name)(logits.double(), target)
    with torch.autocast("cpu", torch.bfloat16):
        value = build_loss(name)(logits, target)
    assert value.item() == pytest.approx(exact.item(), rel=2e-5, abs=1e-7)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
@pytest.mark.parametrize("name", NAMES)
def test_type_and_layout_of_the_arguments_do_not_matter(name, dtype):
    logits, target = draw(6, 2, 3, 4, 6)
    loss = build_loss(name)
    channels_last = logits.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(loss(channels_last, target.to(dtype)), loss(logits, target))


@pytest.mark.parametrize(("name", "classes"), CASES)
def test_all_annotated_changes_nothing(name, classes):
    logits, target = draw(7, 2, classes, 4, 4)
    everything = torch.ones(2, classes, dtype=torch.bool)
    loss = build_loss(name)
    torch.testing.assert_close(loss(logits, target, everything), loss(logits, target))


@pytest.mark.parametrize(("name", "classes"), CASES)
def test_sample_without_annotation_is_as_if_not_there(name, classes):
    logits, target = draw(8, 3, classes, 4, 4)
    annotated = torch.ones(3, classes, dtype=torch.bool)
    annotated[1] = False
    loss = build_loss(name)
    logits.requires_grad_()
    value = loss(logits, target, annotated)
    torch.testing.assert_close(value, loss(logits[[0, 2]], target[[0, 2]]))
    value.backward()
    assert not logits.grad[1].any()
    assert logits.grad[[0, 2]].any()
    if classes > 1:
        # The loader calls the background annotated even where nothing else is.
        annotated[1, 0] = True
        torch.testing.assert_close(
            loss(logits, target * annotated[:, -1, None, None], annotated), value
        )


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32), classes=st.integers(3, 5))
def test_unannotated_classes_have_neither_loss_nor_gradient(name, seed, classes):
    logits, target = draw(seed, 4, classes, 3, 4)
    annotated = partly_annotated(seed, 4, classes)
    target = as_files_are(target, annotated)
    loss = build_loss(name)
    logits.requires_grad_()
    value = loss(logits, target, annotated)
    value.backward()
    assert not logits.grad[~annotated].any()
    changed = logits.detach().clone()
    changed[~annotated] += 20
    torch.testing.assert_close(loss(changed, target, annotated), value.detach())


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(SMALLEST)))
def test_annotated_classes_still_learn_in_a_partly_annotated_sample(name):
    logits, target = draw(10, 1, 3, 4, 4)
    annotated = torch.tensor([[True, True, False]])
    target = as_files_are(target, annotated)
    logits.requires_grad_()
    build_loss(name)(logits, target, annotated).backward()
    gradient = logits.grad[0, 1]
    # Up where the class is, down where the voxel is certainly something else.
    assert gradient[target[0] == 1].sum() < 0
    assert gradient[target[0] == 0].sum() > 0


@pytest.mark.parametrize(("name", "classes"), CASES)
def test_nothing_annotated_gives_zero_with_zero_gradient(name, classes):
    logits, target = draw(11, 2, classes, 4, 4)
    logits.requires_grad_()
    value = build_loss(name)(logits, target, torch.zeros(2, classes, dtype=torch.bool))
    value.backward()
    assert value.item() == 0
    assert not logits.grad.any()


# Of these the place of a voxel among others does not matter.
VOXELWISE = [case for case in CASES if "boundary" not in case[0]]


@pytest.mark.parametrize(("name", "classes"), VOXELWISE)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), left=st.integers(1, 12), partial=st.booleans())
def test_ignored_voxels_are_as_if_cut_out(name, classes, seed, left, partial):
    logits, target = draw(seed, 3, classes, 3, 4, dtype=torch.float64)
    annotated = partly_annotated(seed, 3, classes) if partial else None
    target = target if annotated is None else as_files_are(target, annotated)
    generator = torch.Generator().manual_seed(seed)
    kept = torch.stack([torch.randperm(12, generator=generator)[:left] for _ in range(3)])
    rest = torch.full((3, 12), IGNORED).scatter(1, kept, target.flatten(1).gather(1, kept))
    logits.requires_grad_()
    cut = logits.flatten(2).gather(2, kept.unsqueeze(1).expand(-1, classes, -1))
    loss = build_loss(name)
    expected = loss(cut, target.flatten(1).gather(1, kept), annotated)
    value = loss(logits, rest.view_as(target), annotated)
    torch.testing.assert_close(value, expected)
    gradients = [torch.autograd.grad(each, logits)[0] for each in (value, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("spatial", [(6, 7), (5, 4, 3)])
@pytest.mark.parametrize(("name", "classes"), CASES)
def test_an_ignored_margin_is_as_if_outside_the_image(name, classes, spatial):
    logits, target = draw(14, 2, classes, *spatial)
    logits.requires_grad_()
    hidden = target.clone()
    hidden[:, 4:] = IGNORED
    hidden[:, :, 0] = IGNORED
    loss = build_loss(name)
    value = loss(logits, hidden)
    torch.testing.assert_close(value, loss(logits[:, :, :4, 1:], target[:, :4, 1:]))
    value.backward()
    ignored = (hidden == IGNORED)[:, None].expand_as(logits)
    assert not logits.grad[ignored].any()
    assert logits.grad[~ignored].any()


@pytest.mark.parametrize(("name", "classes"), CASES)
def test_what_is_predicted_of_ignored_voxels_does_not_matter(name, classes):
    logits, target = draw(15, 2, classes, 4, 5)
    ignored = torch.rand(target.shape, generator=torch.Generator().manual_seed(15)) < 0.4
    target = target.masked_fill(ignored, IGNORED)
    loss = build_loss(name)
    expected = loss(logits, target)
    for odd in (50.0, torch.inf, torch.nan):
        changed = logits.masked_fill(ignored[:, None], odd).requires_grad_()
        value = loss(changed, target.to(torch.int16))
        assert torch.equal(value, expected)
        value.backward()
        assert not changed.grad[ignored[:, None].expand_as(logits)].any()
        assert changed.grad.isfinite().all()


@pytest.mark.parametrize(("name", "classes"), CASES)
def test_ignored_samples_are_as_if_not_there(name, classes):
    logits, target = draw(16, 3, classes, 4, 4)
    hidden = target.clone()
    hidden[1] = IGNORED
    logits.requires_grad_()
    loss = build_loss(name)
    value = loss(logits, hidden)
    torch.testing.assert_close(value, loss(logits[[0, 2]], target[[0, 2]]))
    everything = loss(logits, torch.full_like(target, IGNORED))
    everything.backward()
    assert everything.item() == 0
    assert not logits.grad.any()


@pytest.mark.parametrize(("name", "classes"), CASES)
def test_gradient_beside_ignored_voxels_equals_finite_differences(name, classes):
    logits, target = draw(17, 2, classes, 3, 4, dtype=torch.float64)
    target[0, 1, 1:3] = target[1, 0] = IGNORED
    loss = build_loss(name)
    assert torch.autograd.gradcheck(lambda z: loss(z, target), logits.requires_grad_())


@pytest.mark.parametrize(("name", "classes"), CASES)
def test_absent_classes(name, classes):
    target = torch.zeros(2, 3, 5, dtype=torch.long)
    wrong = certain(torch.ones_like(target), classes, gain=3.0).requires_grad_()
    value = build_loss(name)(wrong, target)
    value.backward()
    assert value.isfinite() and value >= 0
    assert wrong.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        (lambda z, y: (z, y[:, :-1]), GeometryError, r"\(2, 3, 4\).*\(2, 4, 4, 4\).*\(2, 4, 4\)"),
        (lambda z, y: (z, y[:1]), GeometryError, "target has shape"),
        (lambda z, y: (z, y[:, None]), GeometryError, "target has shape"),
        (lambda z, y: (z[:0], y[:0]), GeometryError, "logits have shape"),
        (lambda z, y: (z[0, :, 0], y), GeometryError, "logits have shape"),
        (lambda z, y: (z, y.float()), RecipeError, "float32.*whole numbers"),
        (lambda z, y: (z, y + 1), RecipeError, "class 4 but .* 0 to 3"),
        (lambda z, y: (z, y - 2), RecipeError, "class -2 but .* 0 to 3, and -1 for ignored"),
        (lambda z, y: (z, (y * 0 + 255).to(torch.uint8)), RecipeError, "class 255"),
        (lambda z, y: (z, y, torch.ones(2, 3) > 0), GeometryError, r"annotated.*\(2, 3\)"),
        (lambda z, y: (z, y, torch.ones(2, 4)), RecipeError, "annotated has type.*boolean"),
    ],
)
def test_bad_arguments_are_refused(name, change, error, told):
    logits, target = draw(12, 2, 4, 4, 4)
    target[0, 0, 0], target[1, 0, 0] = 0, 3
    with pytest.raises(error, match=told) as caught:
        build_loss(name)(*change(logits, target))
    assert isinstance(caught.value, LeansegError)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dice", {"smooth": 0.0}),
        ("dice", {"smooth": float("nan")}),
        ("dice", {"smooth": "1"}),
        ("tanimoto-cross-entropy", {"smooth": 0}),
        ("tanimoto-cross-entropy", {"tanimoto_weight": -0.1}),
        ("tanimoto-cross-entropy", {"cross_entropy_weight": float("inf")}),
        ("hinge-dice", {"epsilon": 0.0}),
        ("hinge-dice", {"hinge_weight": "10"}),
        ("boundary-bce-iou", {"window": 30}),
        ("boundary-bce-iou", {"window": -1}),
        ("boundary-bce-iou", {"window": 3.0}),
        ("boundary-bce-iou", {"boundary_weight": float("nan")}),
        ("boundary-bce-iou", {"smooth": True}),
        ("shared-boundary", {"epsilon": -1}),
        ("hard-cross-entropy", {"kept": 0}),
        ("hard-cross-entropy", {"kept": 1.5}),
        ("hard-cross-entropy", {"kept": "all"}),
        ("hard-cross-entropy", {"class_weights": "sqrt"}),
        ("cross-entropy", {"class_weights": [1.0]}),
        ("cross-entropy", {"class_weights": [0, 0, 0]}),
        ("cross-entropy", {"class_weights": [1, -1, 1]}),
        ("cross-entropy", {"class_weights": None}),
    ],
)
def test_refused_options(name, options):
    (option,) = options
    with pytest.raises(RecipeError, match=f"option '{option}' is"):
        build_loss(name, **options)
