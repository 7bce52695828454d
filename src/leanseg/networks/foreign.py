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

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final

import torch
from torch import nn

from leanseg.errors import MissingDependencyError, RecipeError
from leanseg.networks.foreign_wrapper import ForeignNetwork, find_sizes, first_line
from leanseg.registry import check_options, did_you_mean

MONAI: Final = "monai:"
_IMPORT_PATH: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_IN: Final = ("in_channels", "in_channel", "n_channels", "input_channels", "in_chans", "in_ch")
_OUT: Final = ("out_channels", "out_channel", "num_classes", "n_classes", "classes", "out_classes")
_DIMS: Final = ("spatial_dims", "dimensions", "dim", "ndim")
_OWN: Final = ("spatial_dims", "size_divisor", "output")
# Where the logits are not the first of several outputs: U-Net++ gives its deepest map last.
_OUTPUTS: Final = {"monai:BasicUNetPlusPlus": -1}


def is_foreign(name: str) -> bool:
    """Whether a network's name is one of MONAI's or an import path."""
    return ":" in name


def refuse_imports(name: str) -> None:
    """Refuse a name that would import a module of its choice.

    For names out of files that others may have written, above all model files. Names of our
    registry and of MONAI's networks pass.

    Raises:
        RecipeError: The name is an import path.
    """
    if is_foreign(name) and not name.startswith(MONAI):
        msg = (
            f"network {name!r} is an import path, which runs code of that module; it is refused "
            "here because the name comes from a file or caller that is not marked as trusted"
        )
        raise RecipeError(msg)


def build_foreign(
    name: str,
    in_channels: int,
    out_channels: int,
    options: Mapping[str, Any],
    *,
    trusted: bool,
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
    if not trusted:
        refuse_imports(name)
    factory = _monai_class(name) if name.startswith(MONAI) else _imported(name)
    own = {key: options[key] for key in _OWN if key in options}
    theirs = {key: options[key] for key in options if key not in (*_OWN, "generator")}
    dims = own.get("spatial_dims", 2)
    if dims not in (2, 3) or isinstance(dims, bool):
        msg = f"network {name!r}: option 'spatial_dims' is {dims!r} but must be 2 or 3"
        raise RecipeError(msg)
    arguments = _arguments(name, factory, (in_channels, out_channels, dims), theirs, trusted)
    with _starting_weights(options.get("generator")):
        network = _made(name, factory, arguments)
    wrapper = ForeignNetwork(
        network,
        name=name,
        channels=(in_channels, out_channels),
        spatial_dims=dims,
        output=own.get("output", _OUTPUTS.get(name)),
    )
    find_sizes(wrapper, own.get("size_divisor"), arguments.get("img_size"))
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
    factory: Callable[..., Any] = known[wanted]
    return factory


def _imported(path: str) -> Callable[..., Any]:
    if not _IMPORT_PATH.fullmatch(path):
        msg = f"network {path!r} is not an import path; write it as 'package.module:Name'"
        raise RecipeError(msg)
    module_name, _, attribute = path.partition(":")
    try:
        module = import_module(module_name)
    except ImportError as error:
        msg = f"network {path!r}: module {module_name!r} cannot be imported ({error})"
        raise RecipeError(msg) from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        near = did_you_mean([attribute], vars(module))
        msg = f"network {path!r}: module {module_name!r} has no class {attribute!r}{near}"
        raise RecipeError(msg)
    result: Callable[..., Any] = factory
    return result


def _arguments(
    name: str,
    factory: Callable[..., Any],
    usual: tuple[int, int, int],
    options: Mapping[str, Any],
    trusted: bool,
) -> dict[str, Any]:
    """The factory's arguments: the options, and channels and axes under its names for them."""
    try:
        parameters = inspect.signature(factory).parameters
    except ValueError as error:
        msg = f"network {name!r} does not say what arguments it takes; name a Python class"
        raise RecipeError(msg) from error
    arguments: dict[str, Any] = {}
    for aliases, value in zip((_IN, _OUT, _DIMS), usual, strict=True):
        arguments.update({alias: value for alias in aliases if alias in parameters})
    if not any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        known = set(parameters) - set(arguments)
        check_options("network", name, known | set(_OWN), options)
    arguments.update(options)
    if "pretrained" in parameters:
        arguments["pretrained"] = trusted and options.get("pretrained", False)
    missing = [
        key
        for key, each in parameters.items()
        if key not in arguments
        and each.default is each.empty
        and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    ]
    if missing:
        msg = f"network {name!r} needs the option(s) {', '.join(missing)}"
        raise RecipeError(msg)
    return arguments


def _made(name: str, factory: Callable[..., Any], arguments: Mapping[str, Any]) -> nn.Module:
    try:
        network = factory(**arguments)
    except ImportError as error:
        msg = f"network {name!r} needs a package that is not installed ({first_line(error)})"
        raise MissingDependencyError(msg) from error
    except Exception as error:  # what a class of others raises is not known
        msg = f"network {name!r} refuses its options ({first_line(error)})"
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
