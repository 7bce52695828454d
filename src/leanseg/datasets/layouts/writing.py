"""What a layout says of itself if datasets can be written in it (`leanseg.datasets.convert`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from leanseg.datasets.case import Case, Dataset
from leanseg.datasets.labels import is_ignore


@dataclass(frozen=True)
class Target:
    """Where files go in a layout, and the JSON file that describes them.

    Attributes:
        image: Path of an image: {case}, {part} ("Tr" or "Ts"), and, where every channel has a
            file of its own, {channel}.
        label_map: Path of a label map, likewise.
        listing: Name of the JSON file.
        described: Its content for a dataset whose files lie in their places.
        single_image: Path of an image where there is only one channel, if that is another.
        tells_annotated: Whether it can say that a case annotates some of the labels only.
        renumbers: Whether labels become 1, 2, 3, ... in their order, "ignore" the last.
    """

    image: str
    label_map: str
    listing: str
    described: Callable[[Dataset], dict[str, Any]]
    single_image: str | None = None
    tells_annotated: bool = False
    renumbers: bool = False

    def images(self, case: Case, n_channels: int) -> list[str]:
        """Paths of a case's images: one for each channel, or one with all of them."""
        pattern = self.single_image if self.single_image and n_channels == 1 else self.image
        count = n_channels if "{channel" in pattern else 1
        part = _part(case)
        return [pattern.format(part=part, case=case.name, channel=n) for n in range(count)]

    def label(self, case: Case) -> str:
        """Path of a case's label map."""
        return self.label_map.format(part=_part(case), case=case.name)

    def values(self, labels: Mapping[str, int]) -> dict[str, int]:
        """The value that each label gets."""
        if self.renumbers:
            # nnU-Net takes "ignore" for the highest value alone.
            ordered = sorted(labels, key=is_ignore)
            return {name: value for value, name in enumerate(ordered, start=1)}
        return dict(labels)


def is_test(case: Case) -> bool:
    """Whether a case goes among the test scans, as one without labels has to."""
    return not case.label_parts or case.metadata.get("part") == "test"


def _part(case: Case) -> str:
    return "Ts" if is_test(case) else "Tr"
