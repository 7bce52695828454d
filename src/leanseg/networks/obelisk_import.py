"""Checkpoints that the authors of paper 004 published, as weights of the networks here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch

from leanseg.errors import FileFormatError
from leanseg.files import packaged_rows
from leanseg.networks.checkpoint import are_named_tensors, read_checkpoint
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
        names: Layers there to layers here, from `obelisk_layers.csv`.
    """

    network: str
    classes: str
    options: dict[str, Any]
    names: dict[str, str]


def _names(network: str) -> dict[str, str]:
    rows = packaged_rows("leanseg.networks", "obelisk_layers.csv")
    return {row["published"]: row["here"] for row in rows if row["network"] == network}


LAYOUTS: Final = tuple(
    Layout(network, classes, options, _names(network))
    for network, classes, options in (
        # Trained at 144 x 144 x 144 with the second grid mistyped.
        ("obelisk-hybrid-tcia", "conv77U.bias", {"coarse_grid": [18, 36, 18]}),
        ("obelisk-hybrid-visceral", "conv8.bias", {}),
        ("obelisk", "LIN4.bias", {"smoothing": [5, 5, 3]}),
        ("allconv-unet-tcia", "conv77U.bias", {}),
    )
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
    raise FileFormatError(
        f"{path} holds none of the published OBELISK networks: its layers begin with {found or '-'}"
        f", where those of one of these were expected: {expected}"
    )


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    """The named tensors of a checkpoint, and nothing else that a pickle may hold."""
    state = read_checkpoint(path, "a .pth checkpoint of the public OBELISK code")
    if not are_named_tensors(state):
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
        fits = (
            name in wanted
            and _squeezed(wanted[name]) == _squeezed(value)
            and wanted[name].is_floating_point() == value.is_floating_point()
        )
        if not fits:
            expected = list(wanted[name].shape) if name in wanted else "no such entry"
            raise FileFormatError(
                f"{path}: entry {key!r} has the shape {list(value.shape)} ({value.dtype}), but "
                f"{layout.network} has {expected} there"
            )
        value = value.reshape(wanted[name].shape)
        weights[name] = value.float() if value.is_floating_point() else value
    missing = sorted(set(wanted) - set(weights))
    if missing:
        msg = f"{path} lacks entries that {layout.network} has, among them that of {missing[0]!r}"
        raise FileFormatError(msg)
    return ImportedWeights(layout.network, options, weights)


def _squeezed(tensor: torch.Tensor) -> list[int]:
    return [length for length in tensor.shape if length != 1]
