"""What each network was published as: paper, input, classes (`published.csv`, a line for each).

A network of the registry without a line is listed too, but without what only a line knows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from leanseg.files import packaged_rows
from leanseg.networks.registry import NETWORKS
from leanseg.registry import resolve


@dataclass(frozen=True)
class Published:
    """A network as its paper uses it.

    Attributes:
        network: Name in the registry.
        paper: Number of the paper; empty for baselines of our own choice.
        input_shape: Spatial size of the paper's input, in the order of the tensor's axes; empty
            where it is not known.
        out_channels: Outputs: 1 for one foreground class, else classes with background.
        options: Options of the network.
        parameters: The paper's own number, as printed.
        note: What has to be known to read the line.
    """

    network: str
    paper: str = ""
    input_shape: tuple[int, ...] = ()
    out_channels: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    parameters: str = ""
    note: str = ""

    @property
    def title(self) -> str:
        """The name and what sets it apart from others of that name."""
        settings = ", ".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.network} ({settings})" if settings else self.network


def published(name: str | None = None) -> list[Published]:
    """The lines of one network, or of every network of the registry.

    Args:
        name: A name of the registry; None for all.

    Raises:
        RecipeError: The name is not known.
    """
    if name is not None:
        resolve("network", NETWORKS, name)
    known = [
        Published(
            network=row["network"],
            paper=row["paper"],
            input_shape=tuple(map(int, row["input_shape"].split())),
            out_channels=int(row["out_channels"]),
            options=json.loads(row["options"] or "{}"),
            parameters=row["published"],
            note=row["note"],
        )
        for row in packaged_rows("leanseg.networks", "published.csv")
    ]
    listed = {each.network for each in known}
    known += [Published(network) for network in NETWORKS if network not in listed]
    return [each for each in known if name in (None, each.network)]
