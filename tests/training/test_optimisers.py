"""Optimisers by name: each is torch's own, and moves what it is given."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from leanseg.errors import RecipeError
from leanseg.training.optimisers import build_optimisers

NAMES = [
    *("ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam"),
    *("RMSprop", "Rprop", "SGD", "Muon"),
]


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2, bias=False))


def stepped(module: nn.Module, optimisers: list[torch.optim.Optimizer]) -> dict[str, torch.Tensor]:
    """Weights after three steps with a fixed loss."""
    data = torch.arange(12.0).reshape(4, 3) / 10
    for _ in range(3):
        module(data).square().sum().backward()
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()
    return dict(module.named_parameters())


@pytest.mark.parametrize("name", NAMES)
def test_each_builds_and_moves_every_weight(name) -> None:
    module = network()
    before = {key: each.detach().clone() for key, each in module.named_parameters()}
    made = build_optimisers(name, list(module.parameters()), {"lr": 0.1})
    for key, each in stepped(module, made).items():
        assert not torch.equal(each, before[key]), key


@pytest.mark.parametrize("name", ["NAdam", "SGD"])
def test_options_are_torchs(name) -> None:
    options = {"lr": 0.02, "weight_decay": 0.1, "momentum_decay": 0.01}
    if name == "SGD":
        options = {"lr": 0.02, "momentum": 0.9, "nesterov": True}
    module, other = network(), network()
    ours = stepped(module, build_optimisers(name, list(module.parameters()), options))
    theirs = stepped(other, [getattr(torch.optim, name)(other.parameters(), **options)])
    for key in ours:
        assert torch.equal(ours[key], theirs[key]), key


def test_a_list_is_taken_for_a_tuple() -> None:
    (made,) = build_optimisers("AdamW", list(network().parameters()), {"betas": [0.8, 0.9]})
    assert made.param_groups[0]["betas"] == (0.8, 0.9)


def test_muon_moves_the_matrices_and_adamw_the_rest() -> None:
    module, other = network(), network()
    options = {"lr": 0.02, "weight_decay": 0.05, "momentum": 0.9}
    made = build_optimisers("Muon", list(module.parameters()), options)
    assert [type(each).__name__ for each in made] == ["Muon", "AdamW"]
    ours = stepped(module, made)
    matrices = [each for each in other.parameters() if each.ndim == 2]
    rest = [each for each in other.parameters() if each.ndim != 2]
    theirs = stepped(
        other,
        [
            torch.optim.Muon(matrices, **options),
            torch.optim.AdamW(rest, lr=0.02, weight_decay=0.05),
        ],
    )
    for key in ours:
        assert torch.equal(ours[key], theirs[key]), key


def test_muon_alone_where_there_are_matrices_alone() -> None:
    module = nn.Linear(3, 4, bias=False)
    assert len(build_optimisers("Muon", list(module.parameters()), {"lr": 0.1})) == 1


def test_muon_without_matrices_is_refused() -> None:
    convolution = nn.Conv2d(1, 2, 3)
    with pytest.raises(RecipeError, match="'Muon' moves matrices, and this network has none"):
        build_optimisers("Muon", list(convolution.parameters()), {"lr": 0.1})


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("NAdm", {}, r"optimiser 'NAdm' is not one of torch's \(did you mean 'NAdam'\?\); choose"),
        ("LBFGS", {}, "optimiser 'LBFGS' is not one of torch's"),
        ("Optimizer", {}, "optimiser 'Optimizer' is not one of torch's"),
        ("Adam", {"weight_deca": 1.0}, r"'Adam' has no option 'weight_deca'.*mean 'weight_decay'"),
        ("Adam", {"params": []}, "optimiser 'Adam' has no option 'params'"),
        ("Adam", {"lr": -1.0}, r"optimiser 'Adam' does not take its options \(Invalid learning"),
        ("SGD", {"lr": "fast"}, "optimiser 'SGD' does not take its options"),
        ("Muon", {"momentun": 0.9}, "'Muon' has no option 'momentun'.*'momentum'"),
    ],
)
def test_what_torch_does_not_know(name, options, said) -> None:
    with pytest.raises(RecipeError, match=said) as caught:
        build_optimisers(name, list(network().parameters()), options)
    assert "\n" not in str(caught.value)
