from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from leanseg.errors import RecipeError
from leanseg.networks import build
from leanseg.networks.starting import Fitted, take_fitting

FILE = Path("model.leanseg")


def _made(name: str, seed: int, **options) -> nn.Module:
    network = build(name, generator=torch.Generator().manual_seed(seed), **options)
    for key, buffer in network.named_buffers():
        if "running" in key:
            buffer.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(seed))
    return network


def _arrays(network: nn.Module) -> dict[str, np.ndarray]:
    return {name: each.numpy().copy() for name, each in network.state_dict().items()}


def _fit(network: nn.Module, weights, held: str = "monet") -> Fitted:
    return take_fitting(network, weights, path=FILE, held=held)


def test_the_same_network_takes_everything():
    there = _made("monet", 0, base_filters=4)
    for buffer in there.buffers():
        buffer.add_(3)
    here = _made("monet", 1, base_filters=4)
    weights = _arrays(there)
    for array in weights.values():
        array.flags.writeable = False  # as views of a file's bytes are
    fitted = _fit(here, weights)
    assert fitted.taken == tuple(weights)
    assert not fitted.left
    assert not fitted.unused
    assert fitted.told() == f"starts from model.leanseg: {len(weights)} of {len(weights)} tensors"
    for name, tensor in here.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), weights[name])
    # Copied: what training changes is not the file's.
    next(here.parameters()).data.zero_()
    assert weights[fitted.taken[0]].any()


def test_other_classes_leave_the_head():
    there = _made("obelisk-hybrid-visceral", 0, out_channels=9)
    here = _made("obelisk-hybrid-visceral", 1, out_channels=6)
    before = {name: each.clone() for name, each in here.state_dict().items()}
    fitted = _fit(here, _arrays(there))
    assert fitted.left == {
        "head.weight": "9 x 32 x 1 x 1 x 1 there, 6 x 32 x 1 x 1 x 1 here",
        "head.bias": "9 there, 6 here",
    }
    assert fitted.told() == (
        f"starts from model.leanseg: {len(before) - 2} of {len(before)} tensors; not head.weight "
        "(9 x 32 x 1 x 1 x 1 there, 6 x 32 x 1 x 1 x 1 here), head.bias (9 there, 6 here)"
    )
    for name, tensor in here.state_dict().items():
        expected = before[name] if name in fitted.left else there.state_dict()[name]
        assert torch.equal(tensor, expected), name
    assert {name.rpartition(".")[2] for name in fitted.taken} > {"running_mean", "running_var"}


def test_trained_offsets_become_frozen_ones_and_back():
    trained = _made("obelisk", 0, n_offsets=8)
    frozen = _made("obelisk-random", 1, n_offsets=8)
    offsets = trained.layer.offsets.detach().clone()
    _fit(frozen, _arrays(trained))
    assert torch.equal(frozen.layer.offsets, offsets)
    assert not isinstance(frozen.layer.offsets, nn.Parameter)
    other = _made("obelisk", 2, n_offsets=8)
    _fit(other, _arrays(frozen))
    assert torch.equal(other.layer.offsets, offsets)
    assert isinstance(other.layer.offsets, nn.Parameter)
    single = _fit(_made("obelisk-unary", 3, n_offsets=8), _arrays(trained))
    assert single.left == {"layer.offsets": "8 x 2 x 3 there, 8 x 1 x 3 here"}


def test_stage_2_of_the_cascade_takes_the_backbone_of_stage_1():
    """Paper 003's "T": the pancreas model migrates to the tumour task."""
    there = _made("multiscale-unet", 0, base_filters=8)
    here = _made("tumour-network", 1, base_filters=8)
    fitted = _fit(here, _arrays(there))
    backbone = [name for name in here.state_dict() if name.startswith("backbone.")]
    assert list(fitted.taken) == backbone
    assert set(fitted.left.values()) == {"not there"}
    assert fitted.unused == ("head.weight", "head.bias")
    told = fitted.told()
    assert f"(not there) and {len(fitted.left) - 4} more; no place for head.weight, head" in told


def test_the_localised_step_takes_all_of_it_that_fits():
    there = _made("multiscale-unet", 0, base_filters=8)
    fitted = _fit(_made("localised-unet", 1, base_filters=8), _arrays(there))
    first = "backbone.decoder.0.up.weight"
    assert fitted.left.pop(first) == "384 x 64 x 2 x 2 there, 64 x 64 x 2 x 2 here"
    assert {name.split(".")[0] for name in fitted.left} == {"reduce", "localisation"}
    assert fitted.unused == ()


def test_kinds_of_numbers():
    here = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    weights = {name: each.astype(np.float64) for name, each in _arrays(here).items()}
    weights["0.weight"] = np.full((2, 2), 0.5, np.float16)
    fitted = _fit(here, weights)
    assert fitted.left == {"1.num_batches_tracked": "float64 there, int64 here"}
    assert torch.equal(here[0].weight, torch.full((2, 2), 0.5))
    assert all(each.dtype == torch.float32 for each in here.parameters())


@pytest.mark.parametrize("held", ["monet", "unet"])
def test_a_network_that_does_not_fit_is_refused_and_nothing_changes(held):
    """A wider U-Net has a bias in common with a narrow one, and counters: no kernel."""
    here = _made("unet", 0, base_filters=2)
    before = {name: each.clone() for name, each in here.state_dict().items()}
    weights = _arrays(_made(held, 1, base_filters=4))
    match = rf"^model\.leanseg: its network '{held}' has no weights that fit .*; start from a model"
    with pytest.raises(RecipeError, match=match):
        _fit(here, weights, held)
    torch.testing.assert_close(here.state_dict(), before, rtol=0, atol=0)
