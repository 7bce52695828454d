"""Losses of regions: one-channel problems, by hand and one by one."""

from __future__ import annotations

import pytest
import torch

from leanseg.errors import GeometryError
from leanseg.losses import LOSSES, build_loss
from leanseg.losses.base import SegmentationLoss
from leanseg.losses.regions import region_loss

# Classes: 1 tumour, 2 the kidney around it, 3 a liver.
MEMBERS = [(1,), (2, 1), (3,)]
ONE_CHANNEL = sorted(set(LOSSES) - {"shared-boundary"})


def test_by_hand():
    """Soft Dice of two voxels and two regions, probabilities of a half and three quarters."""
    target = torch.tensor([[1, 2]])
    p = torch.tensor([[[0.5, 0.5], [0.75, 0.5]]])
    # tumour: y = 1, 0; kidney: y = 1, 1.
    tumour = 1 - (2 * 0.5 + 1) / (1.0 + 1 + 1)
    kidney = 1 - (2 * 1.25 + 1) / (1.25 + 2 + 1)
    found = region_loss(build_loss("dice"), p.logit(), target, [(1,), (2, 1)])
    assert found.item() == pytest.approx((tumour + kidney) / 2)


@pytest.mark.parametrize("name", ONE_CHANNEL)
@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize("spatial", [(6, 5), (4, 5, 3)])
def test_every_loss_sees_each_region_alone(name, partial, spatial):
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 3, *spatial, generator=generator, dtype=torch.float64)
    logits.requires_grad_()
    target = torch.randint(4, (2, *spatial), generator=generator)
    annotated = torch.tensor([[True, True, False], [True, False, False]]) if partial else None
    loss = build_loss(name)
    masks = [target == 1, (target == 1) | (target == 2), target == 3]
    flags = None if annotated is None else annotated[:, :, None]
    alone = [
        loss(logits[:, n, None], mask.long(), None if flags is None else flags[:, n])
        for n, mask in enumerate(masks)
    ]
    # The third is annotated nowhere.
    expected = torch.stack(alone[:2] if partial else alone).mean()
    found = region_loss(loss, logits, target, MEMBERS, annotated)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(each, logits)[0] for each in (found, expected)]
    torch.testing.assert_close(*gradients)
    if partial:
        assert not gradients[0][:, 2].any() and not gradients[0][1, 1].any()


def test_nothing_annotated_gives_zero_with_zero_gradient():
    logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    logits.requires_grad_()
    target, known = torch.ones(2, 4, 4, dtype=torch.long), torch.zeros(2, 3, dtype=torch.bool)
    value = region_loss(build_loss("dice"), logits, target, MEMBERS, known)
    value.backward()
    assert value.item() == 0
    assert not logits.grad.any()


class Noting(SegmentationLoss):
    """Keeps the targets that it is given."""

    def __init__(self):
        super().__init__()
        self.targets = []

    def forward(self, logits, target, annotated=None):
        self.targets.append(target.tolist())
        return logits.mean()

    def of(self, batch):
        raise NotImplementedError


def test_ignored_voxels_are_ignored_in_every_region():
    loss, target = Noting(), torch.tensor([[0, 1, 2, 3, -1]])
    logits = torch.arange(15.0).view(1, 3, 5)
    assert region_loss(loss, logits, target, MEMBERS).item() == 7
    assert loss.targets == [[[0, 1, 0, 0, -1]], [[0, 1, 1, 0, -1]], [[0, 0, 0, 1, -1]]]


def test_outputs_and_regions_have_to_be_as_many():
    with pytest.raises(GeometryError, match="4 outputs cannot be of 3 regions"):
        region_loss(build_loss("dice"), torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 2), MEMBERS)
