"""Steps without a run: what a step is, in whatever portions they are taken."""

from __future__ import annotations

import copy

import pytest
import torch

from leanseg.errors import LeansegError, RecipeError
from leanseg.training.loading import batches
from leanseg.training.trainer import Trainer
from tiny_training import PLAN, assert_same, cases, fold, recipe, trainer

# One with batch statistics, dropout in neither.
MONET = {"network": "monet", "options": {"base_filters": 4}}
SETTINGS = [
    {},
    {"average": 0.9},
    {"accumulate": 3, "clip_norm": 0.1, "schedule": {"name": "one-cycle"}},
    {"schedule": {"name": "plateau"}, "optimiser": {"name": "SGD", "options": {"momentum": 0.9}}},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_six_steps_are_two_and_four(settings) -> None:
    """Over the end of an epoch of four, and by another trainer."""
    one = trainer(settings, **MONET)
    begun = one.begin()
    whole = one.steps(begun, 6)
    assert (whole.step, whole.epoch, whole.step_in_epoch) == (6, 1, 2)
    two = one.steps(begun, 2)
    other = trainer(settings, **MONET)
    parts = other.steps(two, 4)
    assert_same(whole.network, parts.network)
    assert_same(whole.average, parts.average)
    assert (parts.step, parts.epoch, parts.step_in_epoch) == (6, 1, 2)
    assert parts.loss_sum == whole.loss_sum


def test_the_given_state_stays_as_it_is() -> None:
    made = trainer({"average": 0.9}, **MONET)
    begun = made.begin()
    kept = copy.deepcopy(begun)
    after = made.steps(begun, 3)
    second = copy.deepcopy(after)
    made.steps(after, 5)
    for state, before in ((begun, kept), (after, second)):
        assert_same(before.network, state.network)
        assert_same(before.average, state.average)
        for own, other in zip(before.optimisers, state.optimisers, strict=True):
            assert own["param_groups"] == other["param_groups"]
            for key, moments in own["state"].items():
                assert all(torch.equal(m, other["state"][key][n]) for n, m in moments.items())
        assert (state.step, state.epoch) == (before.step, before.epoch)
        assert (state.pace, state.rows) == (before.pace, before.rows)
    # From the same state the same comes again.
    assert_same(made.steps(begun, 3).network, after.network)


@pytest.mark.parametrize("average", [None, 0.9])
def test_a_fold_without_monitor_cases_takes_the_same_steps(tmp_path, average) -> None:
    settings = {"selection": "last", "average": average, "schedule": {"name": "cosine"}}
    whole, _ = fold(tmp_path, recipe(settings, **MONET), monitored=0)
    state = whole.fit()
    bare = trainer(settings, **MONET)
    after = bare.steps(bare.begin(), 8)
    assert_same(state.network, after.network)
    bare.settle(after)
    kept = state.best_network
    assert_same(kept, bare.candidate.state_dict())
    assert (state.step, state.epoch) == (8, 2)
    assert all("monitor_dice" not in row for row in state.rows)


def test_averaged_weights_get_batch_statistics_of_their_own() -> None:
    """As torch's `update_bn` measures them, on the batches of the coming epoch."""
    options = {"base_filters": 4, "dropout": 0.0}
    made = trainer({"average": 0.9}, network="monet", options=options)
    state = made.steps(made.begin(), 6)
    expected = copy.deepcopy(made.candidate)
    samples = made.parts.sampler.epoch(state.epoch, 16, 2)
    images = [batch.image for batch in batches(made.parts.sampler, samples, 2, 0)]
    torch.optim.swa_utils.update_bn(images, expected)
    before = copy.deepcopy(made.candidate.state_dict())
    made.settle(state)
    after = copy.deepcopy(made.candidate.state_dict())
    changed = [name for name in after if not torch.equal(after[name], before[name])]
    assert changed
    assert {name.rpartition(".")[2] for name in changed} == {
        "running_mean", "running_var", "num_batches_tracked",
    }  # fmt: skip
    for name, values in expected.state_dict().items():
        torch.testing.assert_close(after[name], values, rtol=1e-5, atol=1e-6)
    # The network in training, and what is given again, stay as they are.
    assert_same(made.take(copy.copy(state)).network, state.network)
    made.settle(state)
    assert_same(made.candidate.state_dict(), after)


def test_what_a_phase_leaves_alone_keeps_its_batch_statistics() -> None:
    made = trainer({"average": 0.9, "trains": ["head"]}, **MONET)
    state = made.steps(made.begin(), 2)
    before = copy.deepcopy(made.candidate.state_dict())
    made.settle(state)
    after = made.candidate.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed
    assert all(name.startswith("head.") for name in changed)


def test_accumulated_batches_are_one_large_batch() -> None:
    """For a network without batch statistics, and a loss that is a mean over equal samples."""
    loss = [{"name": "cross-entropy"}]
    common = {"loss": loss, "augmentation": [], "optimiser": {"name": "SGD"}}
    small = trainer({**common, "accumulate": 2, "batch_size": 2})
    large = trainer({**common, "batch_size": 4})
    one, other = (each.steps(each.begin(), 5) for each in (small, large))
    for name, tensor in one.network.items():
        torch.testing.assert_close(tensor, other.network[name], rtol=1e-5, atol=1e-7)
    begun = small.begin().network  # once more, as if nothing had been trained
    assert_same(begun, large.begin().network)
    assert not torch.equal(begun["network.body.weight"], one.network["network.body.weight"])


def test_a_running_average_of_weights_by_hand() -> None:
    decay = 0.3
    made = trainer({"average": decay}, **MONET)
    state, expected = made.begin(), None
    for n in range(6):
        state = made.steps(state, 1)
        current = {k: v.double() for k, v in state.network.items() if v.is_floating_point()}
        # The first is copied; then the decay grows to its full value.
        weight = 0.0 if expected is None else min(decay, (1 + n) / (10 + n))
        before = expected or current
        expected = {k: weight * before[k] + (1 - weight) * v for k, v in current.items()}
    found = made.candidate.state_dict()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name].double(), tensor, rtol=1e-5, atol=1e-6)
    counters = [name for name in found if name.endswith("num_batches_tracked")]
    assert counters and all(torch.equal(found[n], state.network[n]) for n in counters)
    assert not torch.equal(found["head.0.weight"], state.network["head.0.weight"])


def test_a_part_alone_learns() -> None:
    made = trainer({"trains": ["network.head"]})
    begun = made.begin()
    after = made.steps(begun, 3).network
    for name, tensor in begun.network.items():
        assert torch.equal(after[name], tensor) == name.startswith("network.body")


def test_cases_on_which_nothing_is_learned_at_a_rate_of_zero() -> None:
    made = trainer({"optimiser": {"name": "SGD", "options": {"lr": 0.0}}})
    begun = made.begin()
    assert_same(made.steps(begun, 3).network, begun.network)


def test_a_loss_that_is_not_finite_ends_the_steps() -> None:
    made = trainer({"optimiser": {"name": "SGD", "options": {"lr": 1e30}}})
    begun = made.begin()
    kept = copy.deepcopy(begun.network)
    with pytest.raises(RecipeError, match="training diverged"):
        made.steps(begun, 20)
    assert_same(begun.network, kept)
    # The trainer still serves.
    assert made.steps(begun, 1).step == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"trains": ["network.tail"]},
            r"phase '0': 'trains' names 'network\.tail', but .* network",
        ),
        ({"trains": ["net"]}, "phase '0': 'trains' names 'net'"),
        ({"optimiser": {"name": "Adam", "options": {"rate": 1}}}, "'Adam' has no option 'rate'"),
        ({"loss": [{"name": "dicee"}]}, r"loss 'dicee' is not known.*'dice'"),
        ({"sampler": {"name": "slice"}}, r"sampler 'slice' is not known.*'slices'"),
        ({"task": {"name": "segment"}}, r"task 'segment' is not known"),
        ({"task": {"name": "segmentation", "options": {"points": 3}}}, "has no option 'points'"),
        (
            {"loss": [{"name": "nowhere:Loss"}]},
            "loss 'nowhere:Loss': module 'nowhere' cannot be imported",
        ),
        (
            {"sampler": {"name": "own_parts:None_"}},
            "sampler 'own_parts:None_': module 'own_parts' has no class 'None_'",
        ),
        (
            {"task": {"name": "own_parts:NO_FACTORY"}},
            "task 'own_parts:NO_FACTORY': module 'own_parts' has no class 'NO_FACTORY'$",
        ),
        (
            {"augmentation": [{"name": "own_parts:Negativ"}]},
            "augmentation 'own_parts:Negativ': module 'own_parts' has no class 'Negativ'",
        ),
        (
            {"loss": [{"name": "own_parts:Squares", "options": {"scale": "x"}}]},
            "loss 'own_parts:Squares': option 'scale' is 'x' but",
        ),
    ],
)
def test_what_cannot_be_built_is_said_in_a_sentence(settings, said) -> None:
    with pytest.raises(LeansegError, match=said) as caught:
        trainer(settings).begin()
    assert "\n" not in str(caught.value)


def test_parts_from_outside() -> None:
    import own_parts

    own = {
        "task": {"name": "own_parts:Twice"},
        "sampler": {"name": "own_parts:FirstSlice"},
        "augmentation": [{"name": "own_parts:Negative"}],
        "loss": [{"name": "own_parts:Squares", "options": {"scale": 3.0}}],
        "optimiser": {"name": "SGD", "options": {"lr": 0.5}},
    }
    made = trainer(own)
    own_parts.CALLS.clear()
    begun = made.begin()
    after = made.steps(begun, 1)
    assert set(own_parts.CALLS) == {"sampler", "task", "augmentation", "loss"}
    # The step by hand.
    network = Trainer(recipe(own), PLAN, cases()).network
    network.load_state_dict(begun.network)
    case = cases()[0]
    image = -torch.from_numpy(case.source.planes(0, 1)).repeat(2, 1, 1, 1)
    target = torch.from_numpy(case.classes[:1]).long().repeat(2, 1, 1)
    found = network(image).softmax(dim=1).gather(1, target.unsqueeze(1))
    loss = 2 * 3.0 * (1 - found).square().mean()
    loss.backward()
    assert after.loss_sum == pytest.approx(loss.item(), rel=1e-6)
    for name, parameter in network.named_parameters():
        expected = parameter.detach() - 0.5 * parameter.grad
        torch.testing.assert_close(after.network[name], expected, rtol=1e-5, atol=1e-6)
