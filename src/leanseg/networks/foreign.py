"""Networks that are not leanseg's: "monai:Name" and import paths "package.module:Name".

A recipe names them where it would name one of ours:

    network: {name: "monai:SwinUNETR", options: {spatial_dims: 3, feature_size: 24}}
    network: {name: "our_lab.networks:Wiggle", options: {depth: 5}}

The options are the arguments of the class, and three of the wrapper's (`ForeignNetwork`):
`spatial_dims` (2 by default, passed on where the class takes it), `size_divisor` (found by trial
where it is left out) and `output` (which of several outputs holds the logits). The numbers of
input and output channels are passed under their usual names.

To import a module is to run its code. So an import path is refused unless the caller says that
the name can be trusted: a recipe that the user wrote may name one (`build_trusted`), a model
file that came by mail may not (`build`). MONAI's names are looked up among its networks and
nowhere else.
"""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Annotated, Any, Final, Literal

import torch
from pydantic import Field
from torch import nn

from leanseg.errors import GeometryError, LeansegError, MissingDependencyError, RecipeError
from leanseg.networks.blocks import check_size
from leanseg.registry import Count, check_value, did_you_mean

MONAI: Final = "monai:"
_IMPORT_PATH: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_IN: Final = ("in_channels", "in_channel", "n_channels", "input_channels", "in_chans", "in_ch")
_OUT: Final = ("out_channels", "out_channel", "num_classes", "n_classes", "classes", "out_classes")
_DIMS: Final = ("spatial_dims", "dimensions", "dim", "ndim")
_OWN: Final = ("spatial_dims", "size_divisor", "output", "generator")
# Where the logits are not the first of several outputs: U-Net++ gives its deepest map last.
_OUTPUTS: Final = {"monai:BasicUNetPlusPlus": -1}
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
        for each in self._candidates(self.network(images)):
            is_map = isinstance(each, torch.Tensor) and each.ndim == len(sizes) + 2
            if is_map and tuple(each.shape[1:]) == (self.out_channels, *sizes):
                logits: torch.Tensor = each
                return logits
        which = "no output" if self.output is None else f"no output {self.output!r}"
        wanted = f"(batch, {self.out_channels}, {', '.join(str(int(n)) for n in sizes)})"
        msg = f"network {self.name!r} gives {which} that is logits of shape {wanted}"
        raise RecipeError(msg)

    def _candidates(self, outputs: Any) -> Sequence[Any]:
        """What may be the logits, the likeliest first."""
        if isinstance(outputs, torch.Tensor):
            is_stack = outputs.ndim == self.spatial_dims + 3
            return outputs.unbind(1) if is_stack else [outputs]
        if self.output is not None:
            try:
                return [outputs[self.output]]
            except (LookupError, TypeError):
                return []
        if isinstance(outputs, Mapping):
            return list(outputs.values())
        return outputs if isinstance(outputs, list | tuple) else []


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
            starting weights (without it torch's global generator is drawn from).
        trusted: Whether import paths, and the option `pretrained` of those of MONAI's networks
            that have it, are allowed. Without it no weights are fetched.

    Returns:
        The network, wrapped to give logits alone.

    Raises:
        RecipeError: A name, option or value that is not known or allowed, or a module whose
            output is no segmentation.
        MissingDependencyError: MONAI, or a package that the network needs, is not installed.
    """
    factory = _monai_class(name) if name.startswith(MONAI) else _imported(name, trusted)
    dims = options.get("spatial_dims", 2)
    check_value("network", name, "spatial_dims", Literal[2, 3], dims)
    arguments = _arguments(factory, (in_channels, out_channels, dims), options, trusted)
    with _starting_weights(options.get("generator")):
        network = _made(name, factory, arguments)
    wrapper = ForeignNetwork(
        network,
        name=name,
        channels=(in_channels, out_channels),
        spatial_dims=dims,
        output=options.get("output", _OUTPUTS.get(name)),
    )
    if "size_divisor" in options:
        divisor = options["size_divisor"]
        each = Annotated[Sequence[Count], Field(min_length=dims, max_length=dims)]
        check_value("network", name, "size_divisor", Count | each, divisor)
        wrapper.size_divisor = divisor if isinstance(divisor, int) else tuple(divisor)
    else:
        wrapper.size_divisor = _found_divisor(wrapper, arguments.get("img_size"))
    return wrapper


def _monai_class(name: str) -> Callable[..., Any]:
    try:
        nets = import_module("monai.networks.nets")
    except ImportError as error:
        msg = f"network {name!r} needs MONAI; install it with: pip install 'leanseg[monai]'"
        raise MissingDependencyError(msg) from error
    known = {
        key: value
        for key, value in vars(nets).items()
        if inspect.isclass(value) and issubclass(value, nn.Module)
    }
    wanted = name.removeprefix(MONAI)
    if wanted not in known:
        # Of the several spellings that MONAI has for a class, suggest the class's own.
        names = {each.__name__ for each in known.values()} & set(known)
        near = did_you_mean([wanted], names).replace("'", f"'{MONAI}", 1)
        msg = f"network {name!r} is not one of MONAI's{near}; they are in monai.networks.nets"
        raise RecipeError(msg)
    return known[wanted]


def _imported(path: str, trusted: bool) -> Callable[..., Any]:
    if not trusted:
        msg = (
            f"network {path!r} is an import path, which runs code of that module; it is refused "
            "here because the name comes from a file or caller that is not marked as trusted"
        )
        raise RecipeError(msg)
    if not _IMPORT_PATH.fullmatch(path):
        msg = f"network {path!r} is not an import path; write it as 'package.module:Name'"
        raise RecipeError(msg)
    module_name, _, attribute = path.partition(":")
    try:
        module = import_module(module_name)
    except ImportError as error:
        msg = f"network {path!r}: module {module_name!r} cannot be imported ({error})"
        raise RecipeError(msg) from error
    factory: Callable[..., Any] | None = getattr(module, attribute, None)
    if not callable(factory):
        near = did_you_mean([attribute], vars(module))
        msg = f"network {path!r}: module {module_name!r} has no class {attribute!r}{near}"
        raise RecipeError(msg)
    return factory


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


def _made(name: str, factory: Callable[..., Any], arguments: Mapping[str, Any]) -> nn.Module:
    try:
        network = factory(**arguments)
    except ImportError as error:
        raise _missing(name, error) from error
    except Exception as error:  # what a class of others raises is not known
        msg = f"network {name!r} refuses its options ({_first_line(error)})"
        raise RecipeError(msg) from error
    if not isinstance(network, nn.Module):
        msg = f"network {name!r} gives a {type(network).__name__}, not a torch.nn.Module"
        raise RecipeError(msg)
    return network


@contextmanager
def _starting_weights(generator: torch.Generator | None) -> Iterator[None]:
    """Real starting weights, drawn as the generator says.

    Other people's constructors draw from torch's global generator, and may compute with what
    they made: so it is seeded for them and then put back, and they are built in memory even
    where the caller wants shapes alone (`torch.device("meta")`).
    """
    shapes_alone = torch.get_default_device().type == "meta"
    if generator is None and not shapes_alone:
        yield
        return
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        if generator is not None:
            device = generator.device
            seed = torch.randint(2**62, (), generator=generator, device=device)
            torch.default_generator.manual_seed(int(seed))
        yield


def _found_divisor(wrapper: ForeignNetwork, img_size: Any) -> int | tuple[int, ...]:
    """What sizes must be multiples of, found by calling the network on tensors without memory.

    The same number is tried for all axes; of a network that halves some axes less often, that
    is more than it needs, and the option `size_divisor` can say so.

    Args:
        wrapper: Not changed.
        img_size: The network's option of that name, if it has one: the only size it may take.

    Raises:
        RecipeError: It took no size that was tried, or gives no logits.
        MissingDependencyError: It needs a package that is not installed.
    """
    dims, trial = wrapper.spatial_dims, _without_memory(wrapper)
    trials: list[Any] = [
        (number, [(size,) * dims for size in _trial_sizes(number)]) for number in _DIVISORS
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
        except ImportError as error:
            raise _missing(wrapper.name, error) from error
        except Exception as error:  # what a module of others raises is not known
            failure = error
        else:
            return divisor  # type: ignore[no-any-return]
    if isinstance(failure, LeansegError):
        raise failure
    msg = (
        f"network {wrapper.name!r} took none of the sizes tried ({_first_line(failure)}); if it "
        "takes others, say with its option size_divisor what they must be multiples of"
    )
    raise RecipeError(msg) from failure


def _trial_sizes(divisor: int) -> list[int]:
    """Two multiples of the divisor that are multiples of none of its own multiples tried here."""
    factor = max(5, -(-_LEAST_SIZE // divisor))
    factors = [each for each in range(factor, factor + 6) if each % 2 and each % 3]
    return [divisor * each for each in factors[:2]]


def _without_memory(wrapper: ForeignNetwork) -> nn.Module:
    """A copy in evaluation mode whose tensors have shapes but no memory.

    A copy, because some networks keep what they computed (MONAI's DynUNet does).
    """
    memo: dict[int, Any] = {}
    for each in wrapper.parameters():
        memo[id(each)] = nn.Parameter(torch.empty_like(each, device="meta"), each.requires_grad)
    for buffer in wrapper.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(wrapper, memo).eval()


def _missing(name: str, error: ImportError) -> MissingDependencyError:
    msg = f"network {name!r} needs a package that is not installed ({_first_line(error)})"
    return MissingDependencyError(msg)


def _first_line(error: Exception | None) -> str:
    """What an error says, in one line."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
