"""For networks in which some biases cannot have an effect."""

from __future__ import annotations

import re
from typing import ClassVar

import pytest
import torch
from network_tester import NetworkTester


class CancelledBiases(NetworkTester):
    """Biases in front of a batch normalisation are cancelled by it: their gradient is rounding.

    The papers' counts include them, so the networks have them.
    """

    cancelled: ClassVar[str]  # regular expression of their names

    @pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
    def test_every_parameter_learns(self, memory_format):
        network = self.make(out_channels=3).train().to(memory_format=memory_format)
        logits = network(self.images().to(memory_format=memory_format))
        (logits * torch.randn(logits.shape)).sum().backward()
        felt = {name: each.grad for name, each in network.named_parameters()}
        largest = max(gradient.abs().max().item() for gradient in felt.values())
        for name, gradient in felt.items():
            assert gradient.isfinite().all(), name
            if re.fullmatch(self.cancelled, name):
                assert gradient.abs().max() < 1e-3 * largest, name
            else:
                assert gradient.count_nonzero() > 0, name
