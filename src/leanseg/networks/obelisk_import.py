"""Checkpoints that the authors of paper 004 published, as weights of the networks here."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch

from leanseg.errors import FileFormatError
from leanseg.networks.registry import build


class ImportedWeights(NamedTuple):
    """What `read_obelisk_checkpoint` finds.

    Attributes:
        network: Name in `NETWORKS`.
        options: For `build`, `in_channels` and `out_channels` included.
        weights: State of that network, float32 but for the counters.
    """

    network: str
    options: dict[str, Any]
    weights: dict[str, torch.Tensor]


class Layout(NamedTuple):
    """How a network of the public code is called and spelt.

    Attributes:
        network: Name in `NETWORKS`.
        classes: Entry whose length is the number of classes.
        options: Of the network as the checkpoints were trained.
        names: Layers there to layers here.
    """

    network: str
    classes: str
    options: dict[str, Any]
    names: dict[str, str]


def _conv_norm(number: str, target: str) -> dict[str, str]:
    return {f"conv{number}": f"{target}.conv", f"batch{number}": f"{target}.norm"}


def _encoder(number: int, target: str) -> dict[str, str]:
    """One OBELISK encoder of the hybrids: the layer, three dense steps, the last convolution."""
    names = {f"offset{number}": f"{target}.layer.offsets", f"linear{number}a": f"{target}.layer"}
    for step, (norm, linear) in enumerate((("a", "b"), ("b", "c"), ("c", "d"))):
        names[f"batch{number}{norm}"] = f"{target}.dense.{step}.norm"
        names[f"linear{number}{linear}"] = f"{target}.dense.{step}.linear"
    return names | {f"batch{number}d": f"{target}.norm", f"linear{number}e": f"{target}.linear"}


_HYBRID: Final = {
    **_conv_norm("0", "encode_full"),
    **_conv_norm("1", "encode_half.0"),
    **_conv_norm("11", "encode_half.1"),
    **_encoder(1, "fine"),
    **_encoder(2, "coarse"),
    **_conv_norm("6bU", "decode_quarter"),
    **_conv_norm("6U", "decode_half"),
}

LAYOUTS: Final = (
    Layout(
        "obelisk-hybrid-tcia",
        "conv77U.bias",
        # Trained at 144 x 144 x 144 with the second grid mistyped.
        {"coarse_grid": [18, 36, 18]},
        {
            **_HYBRID,
            **_conv_norm("2", "encode_quarter.0"),
            **_conv_norm("22", "encode_quarter.1"),
            **_conv_norm("3", "encode_quarter.2"),
            **_conv_norm("7U", "decode_full"),
            "conv77U": "head",
        },
    ),
    Layout(
        "obelisk-hybrid-visceral",
        "conv8.bias",
        {},
        {**_HYBRID, **_conv_norm("2", "encode_quarter"), "conv8": "head"},
    ),
    Layout(
        "obelisk",
        "LIN4.bias",
        {"smoothing": [5, 5, 3]},
        {
            "offset1": "layer.offsets",
            "LIN1": "layer",
            "BN1": "norm1",
            "LIN2": "linear",
            "BN2": "norm2",
            **{f"LIN3{letter}": f"dense.{step}.linear" for step, letter in enumerate("abcd")},
            **{f"BN3{letter}": f"dense.{step}.norm" for step, letter in enumerate("abc", 1)},
            "BN3d": "norm3",
            "LIN4": "classifier",
        },
    ),
    Layout(
        "allconv-unet-tcia",
        "conv77U.bias",
        {},
        {
            **_conv_norm("0", "stem"),
            **{
                key: value
                for level in range(1, 6)
                for place in range(2)
                for key, value in _conv_norm(
                    str(level) * (place + 1), f"encoder.{level - 1}.{place}"
                ).items()
            },
            **_conv_norm("6dU", "decoder.0"),
            **_conv_norm("6cU", "decoder.1"),
            **_conv_norm("6bU", "decoder.2"),
            **_conv_norm("6U", "decoder.3"),
            **_conv_norm("7U", "decoder.4"),
            "conv77U": "head",
        },
    ),
)


def read_obelisk_checkpoint(path: Path | str) -> ImportedWeights:
    """Read a checkpoint of the public OBELISK code.

    The hybrids for TCIA and VISCERAL, the original network and the all-convolutional U-Net for
    TCIA are told apart by the names of their layers. Nothing but tensors is unpickled.

    Args:
        path: The `.pth` file.

    Returns:
        The network's name, the options to build it with, and its weights.

    Raises:
        FileFormatError: Not such a file, one that holds more than tensors, or another layout.
    """
    path = Path(path)
    state = _tensors(path)
    layers = {key.rpartition(".")[0] or key for key in state}
    for layout in LAYOUTS:
        if layers == set(layout.names):
            return _imported(path, layout, state)
    expected = "; ".join(f"{each.network} ({', '.join(list(each.names)[-3:])})" for each in LAYOUTS)
    found = ", ".join(sorted(layers)[:4])
    msg = (
        f"{path} holds none of the published OBELISK networks: its layers begin with {found or '-'}"
        f", where those of one of these were expected: {expected}"
    )
    raise FileFormatError(msg)


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    """The named tensors of a checkpoint, and nothing else that a pickle may hold."""
    if not path.is_file():
        msg = f"{path} is not a file; give a .pth checkpoint of the public OBELISK code"
        raise FileFormatError(msg)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        msg = (
            f"{path} is refused: it is damaged or holds more than tensors, which could run code; "
            "save its state_dict alone"
        )
        raise FileFormatError(msg) from error
    except (
        ArithmeticError,
        AttributeError,
        EOFError,
        LookupError,
        MemoryError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
        AssertionError,
    ) as error:
        msg = f"{path} cannot be read as a PyTorch checkpoint: it is damaged or something else"
        raise FileFormatError(msg) from error
    good = isinstance(state, Mapping) and all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items()
    )
    if not good:
        msg = f"{path} does not hold named tensors, as the state_dict of a network does"
        raise FileFormatError(msg)
    return dict(state)


def _imported(path: Path, layout: Layout, state: Mapping[str, torch.Tensor]) -> ImportedWeights:
    """Rename and reshape; every entry has to fit the network."""
    classes = state.get(layout.classes, torch.empty(0))
    options = {"in_channels": 1, "out_channels": max(1, classes.numel()), **layout.options}
    with torch.device("meta"):
        network = build(layout.network, **options)
    wanted = network.state_dict()
    weights = {}
    for key, value in state.items():
        layer, _, entry = key.rpartition(".")
        name = f"{layout.names[layer]}.{entry}" if layer else layout.names[key]
        fits = name in wanted and _squeezed(wanted[name]) == _squeezed(value)
        if not fits:
            expected = list(wanted[name].shape) if name in wanted else "no such entry"
            msg = (
                f"{path}: entry {key!r} has the shape {list(value.shape)}, but {layout.network} "
                f"has {expected} there"
            )
            raise FileFormatError(msg)
        value = value.reshape(wanted[name].shape)
        weights[name] = value.float() if value.is_floating_point() else value
    missing = sorted(set(wanted) - set(weights))
    if missing:
        msg = f"{path} lacks entries that {layout.network} has, among them that of {missing[0]!r}"
        raise FileFormatError(msg)
    return ImportedWeights(layout.network, options, weights)


def _squeezed(tensor: torch.Tensor) -> list[int]:
    return [length for length in tensor.shape if length != 1]
