from __future__ import annotations

import pytest
import torch
from torch import nn

from leanseg.networks import count_parameters
from leanseg.networks.salient_change import SalientChange


@pytest.mark.parametrize(("channels", "count"), [(1, 36), (3, 312)])
def test_counts(channels, count):
    assert count_parameters(SalientChange(channels)) == (count, count)


@pytest.mark.parametrize("channels", [1, 3])
def test_starts_as_identity(channels):
    module = SalientChange(channels, generator=torch.Generator().manual_seed(0))
    images, probabilities = torch.randn(2, channels, 9, 11), torch.rand(2, channels, 9, 11)
    assert torch.equal(module(images, probabilities), images)
    assert torch.equal(module.gain(probabilities), torch.ones_like(probabilities))


def test_start_draws_from_the_passed_generator_alone():
    before = torch.get_rng_state()
    first, second = (
        SalientChange(generator=torch.Generator().manual_seed(seed)).first for seed in (0, 1)
    )
    assert not torch.equal(first.weight, second.weight)
    assert (first.bias == 1).all()
    # Xavier-uniform: sqrt(6 / (fan_in + fan_out)), here 9 each.
    assert first.weight.abs().max() <= (6 / 18) ** 0.5
    # Only the layers' own defaults, which are overwritten, have drawn from the global generator.
    assert not torch.equal(before, torch.get_rng_state())


def test_gain_by_hand():
    """A delta in the first kernel and an off-centre one in the second."""
    module = SalientChange()
    with torch.no_grad():
        module.first.weight.zero_()
        module.first.weight[0, 0, 1, 1] = 2.0
        module.first.bias.fill_(-1.0)
        module.second.weight[0, 0, 0, 2] = 3.0  # two rows up
    probabilities = torch.rand(1, 1, 6, 6)
    expected = torch.ones(1, 1, 6, 6)
    expected[:, :, 2:] += 3 * (2 * probabilities[:, :, :-2] - 1).clamp_min(0)
    torch.testing.assert_close(module.gain(probabilities), expected)
    images = torch.randn(1, 1, 6, 6)
    torch.testing.assert_close(module(images, probabilities), images * expected)


def test_one_gain_for_all_channels_of_the_image():
    module = SalientChange()
    nn.init.normal_(module.second.weight)
    images, probabilities = torch.randn(2, 4, 5, 5), torch.rand(2, 1, 5, 5)
    changed = module(images, probabilities)
    torch.testing.assert_close(changed / images, module.gain(probabilities).expand(2, 4, 5, 5))


def test_stage_1_learns_through_the_gain_once_the_second_weight_has_moved():
    module = SalientChange(generator=torch.Generator().manual_seed(0))
    images, probabilities = torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8, requires_grad=True)
    module(images, probabilities).sum().backward()
    assert not probabilities.grad.any()
    assert module.second.weight.grad.all()
    with torch.no_grad():
        module.second.weight -= 0.1 * module.second.weight.grad
    module(images, probabilities).sum().backward()
    assert probabilities.grad.count_nonzero() == 64


def test_gradients_are_those_of_finite_differences():
    module = SalientChange(2).double()
    nn.init.normal_(module.second.weight)
    images = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    probabilities = torch.rand(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, (images, probabilities))
