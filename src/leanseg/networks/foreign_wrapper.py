"""What makes another library's network look like ours: logits alone, and sizes that it takes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import nn

from leanseg.errors import GeometryError, MissingDependencyError, RecipeError
from leanseg.networks.blocks import check_size

# What sizes may have to be multiples of: products of halvings, and a division by 3.
_DIVISORS: Final = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
_LEAST_SIZE: Final = 64


class ForeignNetwork(nn.Module):
    """A network of another library, giving the main logits alone.

    Which these are, where the network gives several outputs (deep supervision):

    - a tensor (B, K, *spatial) is the logits; of (B, maps, K, *spatial), as MONAI's DynUNet
      stacks them in training, the first map is, the finest;
    - of a list, tuple or dict, the first that has this shape (MONAI and nnU-Net put the finest
      first); of MONAI's BasicUNetPlusPlus the last, its deepest;
    - or the one that `output` says: its number, or its key in a dict.

    The others get no loss, so layers that feed them alone get no gradient; `network` is the
    module itself, for those who want them.

    Args:
        network: The module.
        name: Its name in the recipe, for errors.
        channels: Of images and logits.
        spatial_dims: 2 or 3.
        output: Number or key of the output that holds the logits; None chooses as above.

    Attributes:
        size_divisor: What each spatial size must be a multiple of.
        exact_size: The only spatial size that the network takes, if there is one.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str,
        channels: tuple[int, int],
        spatial_dims: int,
        output: int | str | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.name = name
        self.in_channels, self.out_channels = channels
        self.spatial_dims = spatial_dims
        self.output = output
        self.size_divisor: int | tuple[int, ...] = 1
        self.exact_size: tuple[int, ...] | None = None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of a batch.

        Args:
            images: (B, in_channels, *spatial).

        Returns:
            (B, out_channels, *spatial), before sigmoid or softmax.

        Raises:
            GeometryError: A size that the network does not take.
            RecipeError: None of its outputs has that shape.
        """
        sizes = tuple(images.shape[2:])
        if len(sizes) != self.spatial_dims:
            msg = (
                f"network {self.name!r} was built for {self.spatial_dims} axes but got images of "
                f"{len(sizes)}; set its option spatial_dims"
            )
            raise GeometryError(msg)
        check_size(images, self.size_divisor, f"network {self.name!r}")
        if self.exact_size is not None and sizes != self.exact_size:
            wanted = " x ".join(map(str, self.exact_size))
            msg = f"network {self.name!r} takes images of {wanted} alone (its option img_size)"
            raise GeometryError(msg)
        return self._main_logits(self.network(images), sizes)

    def _main_logits(self, outputs: Any, sizes: tuple[int, ...]) -> torch.Tensor:
        for each in self._candidates(outputs):
            if (
                isinstance(each, torch.Tensor)
                and each.ndim == len(sizes) + 2
                and each.shape[1] == self.out_channels
                and tuple(each.shape[2:]) == sizes
            ):
                return each
        wanted = f"(batch, {self.out_channels}, {', '.join(str(int(n)) for n in sizes)})"
        which = "" if self.output is None else f" (option output is {self.output!r})"
        msg = (
            f"network {self.name!r} gives {_described(outputs)}{which}, where logits of shape "
            f"{wanted} are wanted: it is no segmentation network as it is called"
        )
        raise RecipeError(msg)

    def _candidates(self, outputs: Any) -> Sequence[Any]:
        """What may be the logits, the likeliest first."""
        if isinstance(outputs, torch.Tensor) and outputs.ndim == self.spatial_dims + 3:
            outputs = outputs.unbind(1)
        if isinstance(outputs, torch.Tensor):
            return [outputs]
        if isinstance(outputs, Mapping):
            if self.output is None:
                return list(outputs.values())
            return [outputs.get(self.output)]
        if not isinstance(outputs, list | tuple):
            return []
        if self.output is None:
            return outputs
        if isinstance(self.output, int) and -len(outputs) <= self.output < len(outputs):
            return [outputs[self.output]]
        return []


def _described(outputs: Any) -> str:
    if isinstance(outputs, torch.Tensor):
        return f"a tensor of shape {tuple(outputs.shape)}"
    if isinstance(outputs, Mapping):
        entries = (f"{key}: {_described(each)}" for key, each in outputs.items())
        return f"a dict of {', '.join(entries)}"
    if isinstance(outputs, list | tuple):
        return f"[{', '.join(map(_described, outputs))}]"
    return f"a {type(outputs).__name__}"


def find_sizes(wrapper: ForeignNetwork, size_divisor: Any, img_size: Any) -> None:
    """Set what sizes a wrapped network takes, by calling it on tensors without memory.

    The same number is tried for all axes; of a network that halves some axes less often, that
    is more than it needs, and the option `size_divisor` can say so.

    Args:
        wrapper: Changed in place.
        size_divisor: What the user said, a number or one for each axis; None tries.
        img_size: The network's option of that name, if it has one: the only size it may take.

    Raises:
        RecipeError: It took no size that was tried, or `size_divisor` is no such number.
        MissingDependencyError: It needs a package that is not installed.
    """
    dims = wrapper.spatial_dims
    if size_divisor is not None:
        wrapper.size_divisor = _checked_divisor(size_divisor, dims)
        return
    call = _without_memory(wrapper)
    failure: Exception | None = None
    for divisor in _DIVISORS:
        failure = _refusal(call, [(size,) * dims for size in _trial_sizes(divisor)])
        if failure is None:
            wrapper.size_divisor = divisor
            return
    if img_size is not None:
        exact = (img_size,) * dims if isinstance(img_size, int) else tuple(img_size)
        failure = _refusal(call, [exact])
        if failure is None:
            wrapper.exact_size = exact
            return
    if isinstance(failure, RecipeError):
        raise failure
    msg = (
        f"network {wrapper.name!r} took none of the sizes tried ({first_line(failure)}); if it "
        "takes others, say with its option size_divisor what they must be multiples of"
    )
    raise RecipeError(msg) from failure


def _checked_divisor(divisor: Any, dims: int) -> int | tuple[int, ...]:
    each = tuple(divisor) if isinstance(divisor, list | tuple) else (divisor,) * dims
    if len(each) != dims or not all(type(number) is int and number >= 1 for number in each):
        msg = (
            f"option 'size_divisor' is {divisor!r} but must be a whole number of at least 1, or "
            f"{dims} of them"
        )
        raise RecipeError(msg)
    return each if isinstance(divisor, list | tuple) else each[0]


def _trial_sizes(divisor: int) -> list[int]:
    """Two multiples of the divisor that are multiples of none of its own multiples tried here."""
    factor = max(5, -(-_LEAST_SIZE // divisor))
    factors = [each for each in range(factor, factor + 6) if each % 2 and each % 3]
    return [divisor * each for each in factors[:2]]


def _without_memory(wrapper: ForeignNetwork) -> Callable[[tuple[int, ...]], None]:
    """A copy of the wrapper as a function of a shape, in evaluation mode, without memory.

    A copy, because some networks keep what they computed (MONAI's DynUNet does).
    """
    memo: dict[int, Any] = {}
    for each in wrapper.parameters():
        memo[id(each)] = nn.Parameter(torch.empty_like(each, device="meta"), each.requires_grad)
    for buffer in wrapper.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    trial = copy.deepcopy(wrapper, memo).eval()

    def call(sizes: tuple[int, ...]) -> None:
        with torch.no_grad(), torch.device("meta"):
            trial(torch.empty(1, wrapper.in_channels, *sizes))

    return call


def _refusal(
    call: Callable[[tuple[int, ...]], None], shapes: Sequence[tuple[int, ...]]
) -> Exception | None:
    """Why one of the shapes is refused, or None."""
    try:
        for sizes in shapes:
            call(sizes)
    except ImportError as error:
        msg = f"the network needs a package that is not installed ({first_line(error)})"
        raise MissingDependencyError(msg) from error
    except Exception as error:  # what a module of others raises is not known
        return error
    return None


def first_line(error: Exception | None) -> str:
    """What an error says, in one line."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
