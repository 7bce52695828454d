"""What each network was published as: paper, input, classes. One entry for each line of a table.

A network of the registry without an entry is listed too, but without what only an entry knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from leanseg.networks.registry import NETWORKS
from leanseg.registry import resolve


@dataclass(frozen=True)
class Entry:
    """A network as its paper uses it.

    Attributes:
        network: Name in the registry.
        paper: Number of the paper; empty for baselines of our own choice.
        input_shape: Spatial size of the paper's input, in the order of the tensor's axes; empty
            where it is not known.
        in_channels: Channels of that input.
        out_channels: Outputs: 1 for one foreground class, else classes with background.
        options: Options of the network.
        published: The paper's own number of parameters, as printed.
        note: What has to be known to read the line.
    """

    network: str
    paper: str = ""
    input_shape: tuple[int, ...] = ()
    in_channels: int = 1
    out_channels: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    published: str = ""
    note: str = ""

    @property
    def title(self) -> str:
        """The name and what sets the entry apart from others of that name."""
        settings = ", ".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.network} ({settings})" if settings else self.network


_SLICE = (256, 256)
_CTIA_2D, _CTIA_3D = (128, 128), (128, 128, 16)
_SIZE_003 = (320, 320)
_TCIA, _VISCERAL = (144, 144, 144), (156, 115, 160)
_NOTE_003 = "the paper names no input size; its authors' code trains at 320 x 320"
_BASELINE_003 = "compared with in table 1"

CATALOGUE: Final[tuple[Entry, ...]] = (
    Entry("monet", "000", _SLICE, published="403,556"),
    Entry("unet-64", "000", _SLICE, published="31,054,145"),
    Entry("unet-16", "000", _SLICE, published="1,946,705"),
    Entry("unet", "000", _SLICE, note="of any width; here as unet-64"),
    Entry("attention-unet-64", "000", _SLICE, published="31,753,349"),
    Entry("attention-unet-16", "000", _SLICE, note="not in the paper"),
    Entry("attention-unet", "000", _SLICE, note="of any width; here as attention-unet-64"),
    Entry("nnunet-2d", "002", _CTIA_2D, out_channels=3),
    Entry("nnunet-3d", "002", _CTIA_3D, out_channels=3),
    Entry("msd-2d", "002", _CTIA_2D, out_channels=3, note="the paper names no depth; here 100"),
    Entry("msd-3d", "002", _CTIA_3D, out_channels=3, note="the paper names no depth; here 100"),
    Entry("multiscale-unet", "003", _SIZE_003, note=_NOTE_003),
    Entry("multiscale-unet-half", "003", _SIZE_003, note="half the paper's width"),
    Entry("multiscale-unet-quarter", "003", _SIZE_003, note="a quarter of the paper's width"),
    Entry("tumour-network", "003", _SIZE_003, note=_NOTE_003),
    Entry("tumour-network-half", "003", _SIZE_003, note="half the paper's width"),
    Entry("tumour-network-quarter", "003", _SIZE_003, note="a quarter of the paper's width"),
    Entry("unetpp", "003", _SIZE_003, note=_BASELINE_003),
    Entry("residual-unet", "003", _SIZE_003, note=_BASELINE_003),
    Entry("dense-unet", "003", _SIZE_003, note="of any depth; here as dense-unet-56"),
    Entry("dense-unet-56", "003", _SIZE_003, note=_BASELINE_003),
    Entry("dense-unet-67", "003", _SIZE_003, note=_BASELINE_003),
    Entry("dense-unet-103", "003", _SIZE_003, note=_BASELINE_003),
    Entry("obelisk", "004", _VISCERAL, out_channels=8, published="130k"),
    Entry("obelisk-unary", "004", _VISCERAL, out_channels=8, published="126k"),
    Entry(
        "obelisk-random",
        "004",
        _VISCERAL,
        out_channels=8,
        published="124k",
        note="the offsets are drawn once and not trained",
    ),
    Entry("obelisk-hybrid-tcia", "004", _TCIA, out_channels=9, published="230k"),
    Entry("obelisk-hybrid-visceral", "004", _VISCERAL, out_channels=8, published="230k"),
    Entry("allconv-unet", "004", _TCIA, out_channels=9, published="880k", note="of table 1"),
    Entry(
        "allconv-unet-tcia",
        "004",
        _TCIA,
        out_channels=9,
        published="880k",
        note="of the authors' code and checkpoints",
    ),
    Entry("lean-unet", "004", _TCIA, out_channels=9, published="220k"),
    Entry(
        "global-fc-unet",
        "004",
        _TCIA,
        out_channels=9,
        published="16M",
        note="the 16 million cannot be reached with this input's bottleneck of 9 x 9 x 9",
    ),
    Entry(
        "global-fc-unet",
        "004",
        _VISCERAL,
        out_channels=8,
        options={"size": list(_VISCERAL)},
        published="13M",
    ),
    Entry("dense-vnet", "004", _TCIA, out_channels=9, note="compared with"),
)


def entries(name: str | None = None) -> tuple[Entry, ...]:
    """The entries of one network, or of every network of the registry.

    Args:
        name: A name of the registry; None for all, in the catalogue's order.

    Raises:
        RecipeError: The name is not known.
    """
    if name is not None:
        resolve("network", NETWORKS, name)
    known = tuple(entry for entry in CATALOGUE if entry.network in NETWORKS)
    listed = {entry.network for entry in known}
    known += tuple(Entry(network) for network in NETWORKS if network not in listed)
    return tuple(entry for entry in known if name in (None, entry.network))
