"""The choice of precision."""

from __future__ import annotations

import copy

import pytest
import torch

import plans
from leanseg.losses import build_loss
from leanseg.networks import build
from leanseg.training import runtime
from leanseg.training.tasks.base import Batch, Term
from leanseg.training.tasks.segmentation import Segmentation


@pytest.mark.parametrize(("slow", "expected"), [("bf16", "32"), ("32", "bf16-mixed")])
def test_the_faster_precision_is_chosen(
    monkeypatch: pytest.MonkeyPatch, slow: str, expected: str
) -> None:
    """A clock that charges one of the two precisions ten times as much decides."""
    now = 0.0
    reduced = False
    autocast = torch.autocast

    def watched(*args: object, enabled: bool = True, **options: object):
        nonlocal reduced
        reduced = enabled
        return autocast(*args, enabled=enabled, **options)  # type: ignore[arg-type]

    def clock() -> float:
        nonlocal now
        now += 10.0 if reduced == (slow == "bf16") else 1.0
        return now

    monkeypatch.setattr(torch, "autocast", watched)
    monkeypatch.setattr(runtime.time, "perf_counter", clock)
    network = build("monet")
    before = copy.deepcopy(network.state_dict())
    batch = Batch(torch.rand(2, 1, 8, 8), torch.zeros(2, 8, 8, dtype=torch.long), (1, 2))
    task = Segmentation(plans.slices((8, 8), ("a",)).final, [Term(build_loss("dice"))])
    assert runtime.choose_precision(network, task.loss, batch) == expected
    # Measuring leaves no trace in the network.
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(parameter.grad is None for parameter in network.parameters())
