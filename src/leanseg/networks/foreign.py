"""Networks that are not leanseg's: "monai:Name" and import paths "package.module:Name".

A recipe names them where it would name one of ours:

    network: {name: "monai:SwinUNETR", options: {spatial_dims: 3, feature_size: 24}}
    network: {name: "our_lab.networks:Wiggle", options: {depth: 5}}

The options are the arguments of the class, and two of the wrapper's (`ForeignNetwork`):
`spatial_dims` (2 by default, passed on where the class takes it) and `size_divisor` (found by
trial where it is left out). The numbers of input and output channels are passed under their usual
names.

To import a module is to run its code. So an import path is refused unless the caller says that
the name can be trusted: a recipe that the user wrote may name one (`build_trusted`), a model
file that came by mail may not (`build`). MONAI's names are looked up among its networks and
nowhere else.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Annotated, Any, Final, Literal

import torch
from pydantic import Field
from torch import nn
from torch.utils._pytree import tree_leaves

from leanseg.errors import LeansegError, MissingDependencyError, RecipeError
from leanseg.networks.base import SegmentationNetwork
from leanseg.networks.blocks import check_size
from leanseg.registry import Count, check_value, did_you_mean, imported

MONAI: Final = "monai:"
_MONAI_MODULE: Final = "monai.networks.nets"
_IN: Final = ("in_channels", "in_channel", "n_channels", "input_channels", "in_chans", "in_ch")
_OUT: Final = ("out_channels", "out_channel", "num_classes", "n_classes", "classes", "out_classes")
_DIMS: Final = ("spatial_dims", "dimensions", "dim", "ndim")
_OWN: Final = ("spatial_dims", "size_divisor", "generator")
# Where the logits are not the first of several outputs: U-Net++ gives its deepest map last.
_LAST: Final = ("monai:BasicUNetPlusPlus",)
# What sizes may have to be multiples of: products of halvings, and a division by 3.
_DIVISORS: Final = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
# A size is tried times these, so that it is a multiple of no other number above.
_PRIMES: Final = (67, 71)


class ForeignNetwork(SegmentationNetwork):
    """A network of another library, giving the main logits alone.

    Which these are, where the network gives several outputs (deep supervision): the first tensor
    of shape (B, out_channels, *spatial), as MONAI and nnU-Net put the finest map first; of
    MONAI's BasicUNetPlusPlus the last, its deepest. Of maps that are stacked to
    (B, maps, out_channels, *spatial), as by MONAI's DynUNet in training, the first counts.

    The others get no loss, so layers that feed them alone get no gradient; `network` is the
    module itself, for those who want them.

    Args:
        network: The module.
        name: Its name in the recipe, for errors.
        channels: Of images and logits.
        spatial_dims: 2 or 3.

    Attributes:
        size_divisor: What each spatial size must be a multiple of.
    """

    def __init__(
        self, network: nn.Module, *, name: str, channels: tuple[int, int], spatial_dims: int
    ) -> None:
        super().__init__()
        self.network = network
        self.name = name
        self.in_channels, self.out_channels = channels
        self.spatial_dims = spatial_dims

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
        divisor, sizes = self.size_divisor, tuple(images.shape[2:])
        divisors = divisor if isinstance(divisor, tuple) else (divisor,) * self.spatial_dims
        check_size(images, divisors, f"network {self.name!r} of spatial_dims {self.spatial_dims}")
        outputs = tree_leaves(self.network(images))
        for output in reversed(outputs) if self.name in _LAST else outputs:
            if not isinstance(output, torch.Tensor):
                continue
            logits = output[:, 0] if output.ndim == len(sizes) + 3 else output
            if tuple(logits.shape[1:]) == (self.out_channels, *sizes):
                return logits
        wanted = f"(batch, {self.out_channels}, {', '.join(str(int(n)) for n in sizes)})"
        raise RecipeError(f"network {self.name!r} gives no output that is logits of shape {wanted}")


def build_foreign(
    name: str, in_channels: int, out_channels: int, options: Mapping[str, Any], *, trusted: bool
) -> ForeignNetwork:
    """Build a network of MONAI's or of any importable module.

    Args:
        name: "monai:Name" or "package.module:Name"; the latter may be a class or a function that
            returns a module.
        in_channels: Channels of the images.
        out_channels: Channels of the logits.
        options: The network's own arguments, the wrapper's, and `generator`, which seeds the
            starting weights (without it torch's global generator does).
        trusted: Whether import paths, and the option `pretrained` of those of MONAI's networks
            that have it, are allowed. Without it no weights are fetched.

    Returns:
        The network, wrapped to give logits alone.

    Raises:
        RecipeError: A name, option or value that is not known or allowed, or a module whose
            output is no segmentation.
        MissingDependencyError: MONAI, or a package that the network needs, is not installed.
    """
    factory = _factory(name, trusted)
    dims = options.get("spatial_dims", 2)
    check_value("network", name, "spatial_dims", Literal[2, 3], dims)
    arguments = _arguments(factory, (in_channels, out_channels, dims), options, trusted)
    try:
        network = _made(name, factory, arguments, options.get("generator"))
        channels = in_channels, out_channels
        wrapper = ForeignNetwork(network, name=name, channels=channels, spatial_dims=dims)
        if "size_divisor" not in options:
            wrapper.size_divisor = _found_divisor(wrapper, arguments.get("img_size"))
            return wrapper
    except ImportError as error:
        msg = f"network {name!r} needs a package that is not installed ({_first_line(error)})"
        raise MissingDependencyError(msg) from error
    divisor = options["size_divisor"]
    each = Annotated[Sequence[Count], Field(min_length=dims, max_length=dims)]
    check_value("network", name, "size_divisor", Count | each, divisor)
    wrapper.size_divisor = divisor if isinstance(divisor, int) else tuple(divisor)
    return wrapper


def _factory(name: str, trusted: bool) -> Callable[..., Any]:
    """The class or function of a name, if it may be used."""
    if name.startswith(MONAI):
        try:
            known = vars(import_module(_MONAI_MODULE))
        except ImportError as error:
            msg = f"network {name!r} needs MONAI; install it with: pip install 'leanseg[monai]'"
            raise MissingDependencyError(msg) from error
        networks = {
            key: value
            for key, value in known.items()
            if inspect.isclass(value) and issubclass(value, nn.Module)
        }
        wanted = name.removeprefix(MONAI)
        if wanted not in networks:
            # Of the several spellings that MONAI has for a class, suggest the class's own.
            names = {each.__name__ for each in networks.values()} & set(networks)
            near = did_you_mean([wanted], names).replace("'", f"'{MONAI}", 1)
            msg = f"network {name!r} is not one of MONAI's{near}; they are in {_MONAI_MODULE}"
            raise RecipeError(msg)
        return networks[wanted]
    if not trusted:
        raise RecipeError(
            f"network {name!r} is an import path, which runs code of that module; it is refused "
            "here because the name comes from a file or caller that is not marked as trusted"
        )
    return imported("network", name)


def _arguments(
    factory: Callable[..., Any],
    usual: tuple[int, int, int],
    options: Mapping[str, Any],
    trusted: bool,
) -> dict[str, Any]:
    """The factory's arguments: the options, and channels and axes under its names for them."""
    try:
        parameters = set(inspect.signature(factory).parameters)
    except ValueError:  # what is written in C does not say
        parameters = set()
    arguments: dict[str, Any] = {}
    for aliases, value in zip((_IN, _OUT, _DIMS), usual, strict=True):
        arguments.update(dict.fromkeys(parameters.intersection(aliases), value))
    arguments.update({key: value for key, value in options.items() if key not in _OWN})
    if "pretrained" in parameters:
        arguments["pretrained"] = trusted and options.get("pretrained", False)
    return arguments


def _made(
    name: str,
    factory: Callable[..., Any],
    arguments: Mapping[str, Any],
    generator: torch.Generator | None,
) -> nn.Module:
    """The module itself, with starting weights that the generator seeds.

    Other people's constructors draw from torch's global generator, and may compute with what
    they made: so it is seeded for them and then put back, and they are built in memory even
    where the caller wants shapes alone (`torch.device("meta")`).
    """
    device = "cpu" if generator is None else generator.device
    seed = int(torch.randint(2**62, (), generator=generator, device=device))
    try:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.default_generator.manual_seed(seed)
            network = factory(**arguments)
    except ImportError:
        raise
    except Exception as error:  # what a class of others raises is not known
        raise RecipeError(f"network {name!r} refuses its options ({_first_line(error)})") from error
    if not isinstance(network, nn.Module):
        msg = f"network {name!r} gives a {type(network).__name__}, not a torch.nn.Module"
        raise RecipeError(msg)
    return network


def _found_divisor(wrapper: ForeignNetwork, img_size: Any) -> int | tuple[int, ...]:
    """What sizes must be multiples of, found by calling the network on tensors without memory.

    The same number is tried for all axes; of a network that halves some axes less often, that
    is more than it needs, and the option `size_divisor` can say so.

    Args:
        wrapper: Not changed: a copy is called, because some networks keep what they computed
            (MONAI's DynUNet does).
        img_size: The network's option of that name, if it has one: the only size it may take.

    Raises:
        RecipeError: It took no size that was tried, or gives no logits.
    """
    dims, trial = wrapper.spatial_dims, copy.deepcopy(wrapper).to("meta").eval()
    trials: list[Any] = [
        (divisor, [(divisor * prime,) * dims for prime in _PRIMES]) for divisor in _DIVISORS
    ]
    if img_size is not None:
        exact = (img_size,) * dims if isinstance(img_size, int) else tuple(img_size)
        trials.append((exact, [exact]))
    failure: Exception | None = None
    for divisor, shapes in trials:
        try:
            with torch.no_grad(), torch.device("meta"):
                for shape in shapes:
                    trial(torch.empty(1, wrapper.in_channels, *shape))
        except ImportError:
            raise
        except Exception as error:  # what a module of others raises is not known
            failure = error
        else:
            return divisor
    if isinstance(failure, LeansegError):
        raise failure
    raise RecipeError(
        f"network {wrapper.name!r} took none of the sizes tried ({_first_line(failure)}); if it "
        "takes others, say with its option size_divisor what they must be multiples of"
    ) from failure


def _first_line(error: Exception | None) -> str:
    """What an error says, in one line."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
