"""What a dataset is made of: cases, each a scan of one patient with, perhaps, its labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """One scan and its label map, as paths; nothing is read before it is needed.

    Attributes:
        name: Unique within the dataset; names the result files.
        images: One 3-D file per channel, or a single 3-D or 4-D file with all of them.
        label: The label map, or None where the case has none.
        metadata: What the layout knows about the case besides (patient, site, ...).
    """

    name: str
    images: tuple[Path, ...]
    label: Path | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Dataset:
    """A set of cases with the meaning of their channels and labels.

    Attributes:
        name: From the dataset's own description, else the folder's name.
        root: The folder.
        layout: Registered name of the layout that read it.
        cases: Sorted by name.
        labels: Foreground label name to value in the label files, in ascending value.
        channels: Channel names in file order, such as ("CT",) or ("FLAIR", "T1w").
    """

    name: str
    root: Path
    layout: str
    cases: tuple[Case, ...]
    labels: Mapping[str, int]
    channels: tuple[str, ...]

    def case(self, name: str) -> Case:
        """The case called `name`.

        Raises:
            KeyError: If there is none.
        """
        for case in self.cases:
            if case.name == name:
                return case
        raise KeyError(name)
