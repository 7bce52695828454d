"""The cascade of paper 003 against its parts, put together by hand."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from leanseg.errors import RecipeError
from leanseg.networks import build, count_parameters
from leanseg.networks.cascade import Cascade, SalientStage

STAGE = {"name": "unet", "options": {"base_filters": 2}}
TUMOUR = {"name": "tumour-network", "options": {"base_filters": 8}}


def cascade(outputs: int = 2, channels: int = 1, **options) -> Cascade:
    """Narrow, with a gain that is not 1, and an organ in part of the slice."""
    generator = torch.Generator().manual_seed(0)
    options = {"first": STAGE, "second": STAGE, "margin": 2, "multiple": 32} | options
    network = build(
        "cascade", in_channels=channels, out_channels=outputs, generator=generator, **options
    ).eval()
    if network.second.change is not None:
        torch.nn.init.normal_(network.second.change.second.weight, std=0.1, generator=generator)
    network.first.forward = lambda images: 40 * images[:, :1] - 20
    return network


def images(*boxes: tuple[slice, slice], side: int = 96) -> torch.Tensor:
    """Slices in which the first stage finds a box each."""
    found = 0.4 * torch.rand(len(boxes), 1, side, side, generator=torch.Generator().manual_seed(1))
    for number, box in enumerate(boxes):
        found[number, 0, box[0], box[1]] += 0.55
    return found


BOX = (slice(20, 30), slice(7, 17))


def test_parameters_are_those_of_the_stages_and_the_gain():
    network = build("cascade-quarter", out_channels=2)
    assert count_parameters(network).trainable == 6_438_321 + 8_207_919 + 36
    without = build("cascade", out_channels=2, first=STAGE, second=STAGE, saliency=False)
    stage = count_parameters(build("unet", base_filters=2)).trainable
    assert count_parameters(without).trainable == 2 * stage


def test_the_answer_is_that_of_the_parts_by_hand():
    network, image = cascade(), images(BOX)
    found = network(image)
    organ = 40 * image - 20
    torch.testing.assert_close(found[:, :1], organ)
    # 10 pixels and 2 on either side are 14, widened to 32: nine more on each side, within.
    window = (..., slice(9, 41), slice(0, 32))
    change = network.second.change
    gain = functional.conv2d(
        organ.sigmoid()[window], change.first.weight, change.first.bias, padding=1
    )
    gain = functional.conv2d(gain.relu(), change.second.weight, change.second.bias, padding=2)
    inside = network.second.network(image[window] * gain)
    torch.testing.assert_close(found[:, 1:][window], inside)
    outside = found[:, 1:].clone()
    outside[window] = -1e7
    assert (outside == -1e7).all()


def test_nothing_found_is_nothing_answered():
    found = cascade()(0.2 * images(BOX))
    assert (found[:, 1] == -1e7).all() and (found[:, 0] < 0).all()
    assert (cascade(1)(0.2 * images(BOX)) == -1e7).all()


def test_slices_of_a_batch_do_not_touch_one_another():
    network = cascade()
    batch = images(BOX, (slice(0, 70), slice(10, 96)), (slice(95, 96), slice(0, 1)))
    for number, one in enumerate(network(batch)):
        torch.testing.assert_close(network(batch[number : number + 1])[0], one)


def test_the_gain_of_a_crop_is_the_crop_of_the_gain_but_for_three_pixels():
    change = cascade().second.change
    probability = torch.rand(1, 1, 40, 40)
    inner, window = (..., slice(3, -3), slice(3, -3)), (..., slice(8, 24), slice(4, 36))
    torch.testing.assert_close(
        change.gain(probability[window])[inner], change.gain(probability)[window][inner]
    )


@pytest.mark.parametrize("saliency", [True, False])
def test_the_lesions_loss_reaches_the_first_stage_through_the_gain_alone(saliency):
    network = cascade().double()
    shift = torch.zeros((), dtype=torch.float64, requires_grad=True)
    network.first.forward = lambda seen: 40 * seen[:, :1] - 20 + shift
    image = images(BOX).double()

    def loss() -> torch.Tensor:
        maps = network.stage_maps(
            image, lambda organ: [network.window_of((organ >= 0).numpy()[0, 0])], saliency=saliency
        )
        return maps.answer.square().mean()

    value = loss()
    if not saliency:
        assert not torch.autograd.grad(value, shift, allow_unused=True)[0]
        return
    (gradient,) = torch.autograd.grad(value, shift)
    # Small enough for the box to stay where it is: it has no part in the gradient.
    step = 1e-5
    with torch.no_grad():
        shift += step
        above = loss()
        shift -= 2 * step
        below = loss()
    assert abs(float(gradient)) > 1e-6
    assert float(gradient) == pytest.approx(float(above - below) / (2 * step), rel=1e-4)


def test_a_box_that_moves_changes_no_gradient():
    """Where the box lies is a number: the gain at a pixel is all that the second stage is told."""
    network = cascade().double()
    organ = torch.full((1, 1, 96, 96), -3.0, dtype=torch.float64, requires_grad=True)
    network.first.forward = lambda seen: organ
    window = (slice(16, 48), slice(0, 32))
    maps = network.stage_maps(images(BOX).double(), lambda logits: [window])
    (gradient,) = torch.autograd.grad(maps.answer.sum(), organ)
    outside = gradient.clone()
    outside[0, 0, window[0], window[1]] = 0
    assert gradient.abs().max() > 0 and outside.abs().max() == 0


def test_maps_of_the_second_stage_are_pasted_where_it_looked():
    network = cascade(second=TUMOUR)
    windows = [(slice(0, 32), slice(16, 48)), (slice(16, 48), slice(0, 32))]
    maps = network.stage_maps(images(BOX, BOX), lambda organ: windows)
    assert [tuple(each.shape) for each in maps.maps] == 5 * [(2, 1, 32, 32)]
    pasted = maps.pasted()
    for number, window in enumerate(windows):
        torch.testing.assert_close(pasted[number, :, window[0], window[1]], maps.answer[number])
    assert int((pasted == -1e7).sum()) == 2 * (96**2 - 32**2)
    assert network.stage_maps(images(BOX), None).answer is None


def test_rounds_look_around_what_was_found_until_two_agree():
    """A second stage that moves what it is shown by one pixel, at most three times."""
    network, seen = cascade(1, rounds=10, saliency=False), []
    stops_at = 3

    def second(crop: torch.Tensor) -> torch.Tensor:
        found = crop[:, 1:] >= 0.5
        moved = found if len(seen) >= stops_at else torch.roll(found, 1, dims=3)
        seen.append(found)
        return torch.where(moved, 9.0, -9.0)

    network.second.forward = second
    answer = network(images(BOX))
    assert len(seen) == stops_at + 1
    expected = torch.full((96, 96), False)
    expected[20:30, 10:20] = True
    assert torch.equal(answer[0, 0] > 0, expected)


@pytest.mark.parametrize(
    ("outputs", "options", "said"),
    [
        (3, {}, "an organ and one label inside it, but the data have 3 labels"),
        (2, {"rounds": 2}, "rounds are for a cascade that labels the organ alone"),
        (2, {"first": {"options": {}}}, "given as {name: ..., options: {...}}"),
        (2, {"first": {"name": "unet", "more": 1}}, "given as {name: ..., options: {...}}"),
        (2, {"second": {"name": "unit"}}, "network 'unit' is not known"),
        (2, {"first": {"name": "os:system"}}, "import path"),
        (2, {"multiple": 16}, "at least 32 pixels a side"),
        (2, {"margin": -1}, "margin"),
        (2, {"rounds": 11}, "rounds"),
    ],
)
def test_options_that_make_no_sense(outputs, options, said):
    with pytest.raises(RecipeError, match=said.replace("{", r"\{").replace("}", r"\}")):
        build("cascade", out_channels=outputs, **({"first": STAGE, "second": STAGE} | options))


def test_a_stage_needs_an_image_besides_the_probability():
    with pytest.raises(RecipeError, match="a channel of an image and one of a probability"):
        SalientStage(1, network=STAGE)
