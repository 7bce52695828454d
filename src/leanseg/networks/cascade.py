"""The cascade of paper 003 as one network: an organ, and around it a lesion, or the organ again.

Section 3 and Fig 2. The first stage sees slices whole. Its probabilities weigh the image through
the salient change module (section 3.1.2), and around what it finds the second stage sees a crop
(section 3.2), whose answer is pasted back. The paper names the parts and draws them; how large the
margin is, and what lies outside the crop, are those of the recurrent saliency transformation
network that it builds on (Yu et al., CVPR 2018, and its public code).

The gain is computed within the crop, the paper's outside of it: the same but for the outermost
three pixels of a crop, where the module's convolutions see its edge. So the second stage needs
nothing but its crop, in training and in prediction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from leanseg.errors import RecipeError
from leanseg.networks.base import SegmentationNetwork
from leanseg.networks.salient_change import SalientChange
from leanseg.registry import Count, Whole
from leanseg.volumes.windows import FOUND, Window, agree, window_around

# What the lesion's logit is where the second stage did not look.
OUTSIDE: Final = -1e7
# Channels at the paper's finest level, which narrower second stages keep: through the one or two
# that each branch of the context exploration would have instead hardly anything passes.
LEAST_CHANNELS: Final = 32
# The organ's logits (B, 1, H, W) to the window of each slice, all of one size.
Windows = Callable[[torch.Tensor], Sequence[Window]]


class SalientStage(SegmentationNetwork):
    """A network whose images are weighed by an earlier stage's probability, its last channel.

    Args:
        in_channels: Channels of the images, and one for the probability.
        out_channels: Of the network.
        network: Its name and options, such as {"name": "tumour-network-quarter"}.
        saliency: Whether the probability weighs the images; else it is not looked at.
        generator: Source of the start.

    Raises:
        RecipeError: If there is no channel besides the probability, or no such network.
    """

    def __init__(
        self,
        in_channels: int = 2,
        out_channels: int = 1,
        *,
        network: Mapping[str, Any],
        saliency: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if in_channels < 2:
            msg = "network 'salient' needs a channel of an image and one of a probability"
            raise RecipeError(msg)
        self.network = _built(network, in_channels - 1, out_channels, generator)
        self.change = SalientChange(generator=generator) if saliency else None
        self.size_divisor, self.n_maps = self.network.size_divisor, self.network.n_maps

    def seen(self, images: torch.Tensor, *, saliency: bool = True) -> torch.Tensor:
        """What the network is given, (B, in_channels - 1, H, W)."""
        image, probability = images[:, :-1], images[:, -1:]
        return image if self.change is None or not saliency else self.change(image, probability)

    def all_maps(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The network's maps."""
        return self.network.all_maps(self.seen(images))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (B, out_channels, H, W) of (B, in_channels, H, W)."""
        logits: torch.Tensor = self.network(self.seen(images))
        return logits


@dataclass(frozen=True)
class StageMaps:
    """What both stages say of a batch.

    Attributes:
        organ: Logits of the first stage (B, 1, H, W).
        windows: Where the second looked, one a slice.
        maps: Its logits, coarse to fine, (B, 1, h, w) each; none where it was not asked.
        answer: What it answers with, of the same shape: the last of the maps, or another.
    """

    organ: torch.Tensor
    windows: Sequence[Window]
    maps: tuple[torch.Tensor, ...] = ()
    answer: torch.Tensor | None = None

    def pasted(self) -> torch.Tensor:
        """The answer (B, 1, H, W) in the whole slices, -1e7 outside the windows."""
        assert self.answer is not None
        canvas = torch.full_like(self.organ, OUTSIDE, dtype=self.answer.dtype)
        for number, window in enumerate(self.windows):
            canvas[number, :, window[0], window[1]] = self.answer[number]
        return canvas


class Cascade(SegmentationNetwork):
    """Two stages that are trained as one (paper 003).

    With two outputs they are the organ, of the first stage, and the lesion inside it, of the
    second: both logits of a sigmoid. With one both stages label the organ, and the second answers.

    Args:
        in_channels: Channels of the images; neighbouring slices are further ones (2.5-D).
        out_channels: 2 for an organ and a lesion, 1 for the organ alone.
        first: Name and options of the first stage's network; None for `multiscale-unet`.
        second: Of the second's; None for `tumour-network`.
        saliency: Whether the salient change module joins them; else the crop alone does.
        margin: Pixels around what the first stage finds (20 in the public code of RSTN).
        multiple: Sides of crops are multiples of it; the larger, the fewer sizes there are.
        rounds: With one output: how often the second looks at most.
        generator: Source of the start.

    Raises:
        RecipeError: Other outputs, rounds where it labels a lesion, or crops so small that the
            second stage's coarsest features would be a single pixel.

    Attributes:
        first_name: Of the first stage's network.
        first_options: And its options.
        second_options: Of the second stage as a `SalientStage`.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 2,
        *,
        first: Mapping[str, Any] | None = None,
        second: Mapping[str, Any] | None = None,
        saliency: bool = True,
        margin: Whole = 20,
        multiple: Count = 32,
        rounds: Annotated[int, Field(ge=1, le=10)] = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if out_channels > 2:
            raise RecipeError(
                "a cascade labels an organ, or an organ and one label inside it, but the data have "
                f"{out_channels} labels that do not; give 'data.labels' such as "
                "{organ: [1, 2], lesion: [2]}"
            )
        if rounds > 1 and out_channels > 1:
            msg = "rounds are for a cascade that labels the organ alone; leave them out"
            raise RecipeError(msg)
        self.margin, self.multiple, self.rounds = margin, multiple, rounds
        first = {"options": {}, **(first or {"name": "multiscale-unet"})}
        self.second_options: dict[str, Any] = {
            "network": second or {"name": "tumour-network"},
            "saliency": saliency,
        }
        self.first = _built(first, in_channels, 1, generator)
        self.first_name, self.first_options = first["name"], first["options"]
        self.second = SalientStage(in_channels + 1, **self.second_options, generator=generator)
        smallest = 2 * max(_each_axis(self.second.size_divisor))
        if multiple % smallest:
            # Of one pixel at its coarsest level a normalisation makes nothing.
            raise RecipeError(
                f"network {self.second_options['network']['name']!r} needs crops of at least "
                f"{smallest} pixels a side; make 'multiple' a multiple of that, not {multiple}"
            )
        self.has_lesion = out_channels > 1
        self.size_divisor = math.lcm(
            *(
                each
                for network in (self.first, self.second)
                for each in _each_axis(network.size_divisor)
            )
        )

    def stage_maps(
        self, images: torch.Tensor, windows: Windows | None, *, saliency: bool = True
    ) -> StageMaps:
        """Both stages, joined: the second's loss reaches the first through the gain.

        Args:
            images: (B, in_channels, H, W).
            windows: Where the second looks; None to ask the first alone. No gradient flows
                through their place.
            saliency: Whether the first stage weighs the image; in phase S it does not.
        """
        organ: torch.Tensor = self.first(images)
        if windows is None:
            return StageMaps(organ, ())
        chosen = windows(organ.detach())
        probability = organ.sigmoid()
        crops = torch.stack(
            [
                torch.cat((image, own))[:, window[0], window[1]]
                for image, own, window in zip(images, probability, chosen, strict=True)
            ]
        )
        seen = self.second.seen(crops, saliency=saliency)
        network = self.second.network
        if network.n_maps == 1:
            answer = network(seen)
            return StageMaps(organ, chosen, (answer,), answer)
        maps = network.all_maps(seen)
        return StageMaps(organ, chosen, maps, maps[-1])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of a batch of slices, the lesion's -1e7 where the second stage does not look.

        Args:
            images: (B, in_channels, H, W), H and W multiples of `size_divisor`.

        Returns:
            (B, out_channels, H, W).
        """
        organ: torch.Tensor = self.first(images)
        fine = torch.full_like(organ, OUTSIDE)
        # What differs in size goes one by one; shapes alone are all that a meta tensor has.
        for number, (image, logits) in enumerate(zip(images, organ, strict=True)):
            fine[number] = self._look(image, logits, fine[number])
        return torch.cat((organ, fine), dim=1) if self.has_lesion else fine

    def _look(self, image: torch.Tensor, logits: torch.Tensor, nothing: torch.Tensor) -> Any:
        """The second stage's logits (1, H, W) around the organ of one slice."""
        answer, seen = nothing, logits
        # Of a tensor without content nothing is known but shapes, which every round has.
        for number in range(1 if logits.is_meta else self.rounds):
            window = self._window(seen)
            if window is None:
                return answer
            crop = torch.cat((image, seen.sigmoid()))[:, window[0], window[1]]
            found = torch.full_like(nothing, OUTSIDE)
            found[:, window[0], window[1]] = self.second(crop[None])[0].to(found.dtype)
            is_settled = number > 0 and agree(found_in(answer), found_in(found))
            answer = seen = found
            if is_settled:
                break
        return answer

    def _window(self, logits: torch.Tensor) -> Window | None:
        """Where to look, by the logits (1, H, W) of an organ."""
        if logits.is_meta:
            return slice(0, logits.shape[1]), slice(0, logits.shape[2])
        return self.window_of(found_in(logits)[0])

    def window_of(self, mask: NDArray[np.bool_]) -> Window | None:
        """The crop around a mask (H, W), as in prediction; None where it is empty."""
        return window_around(mask, [(self.margin, self.margin)] * 2, self.multiple)


def _of_width(suffix: str) -> Callable[..., Cascade]:
    first = {"name": f"multiscale-unet-{suffix}"}
    options = {"least_channels": LEAST_CHANNELS}
    return partial(
        Cascade, first=first, second={"name": f"tumour-network-{suffix}", "options": options}
    )


cascade_half = _of_width("half")
cascade_quarter = _of_width("quarter")


def found_in(logits: torch.Tensor) -> NDArray[np.bool_]:
    """Where logits are of a probability of at least one half, on the processor."""
    found: NDArray[np.bool_] = (logits.detach().sigmoid() >= FOUND).cpu().numpy()
    return found


def _built(
    network: Mapping[str, Any], in_channels: int, out_channels: int, generator: Any
) -> SegmentationNetwork:
    """A stage's network.

    Raises:
        RecipeError: If it is not given by a name, and options if any.
    """
    from leanseg.networks.registry import build

    if set(network) - {"options"} != {"name"} or not isinstance(network.get("options", {}), dict):
        raise RecipeError(
            f"a stage's network is given as {{name: ..., options: {{...}}}}, not as {network!r}"
        )
    options = {"generator": generator, **network.get("options", {})}
    return build(
        str(network["name"]), in_channels=in_channels, out_channels=out_channels, **options
    )


def _each_axis(divisor: int | tuple[int, ...]) -> tuple[int, ...]:
    return (divisor,) if isinstance(divisor, int) else divisor
