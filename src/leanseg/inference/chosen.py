"""Some of a model's labels, where a user wants no others in the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanseg.datasets import find_label
from leanseg.errors import RecipeError


@dataclass(frozen=True)
class ChosenLabels:
    """The labels that a result has, with the values that the model gives them.

    Attributes:
        values: For each label its own value, and those of the chosen regions that lie inside it.
        new_values: Value in the result of each value of the model; None where all are kept.
    """

    values: Mapping[str, tuple[int, ...]]
    new_values: tuple[int, ...] | None = None

    @classmethod
    def of(
        cls, label_values: Mapping[str, tuple[int, ...]], wanted: Sequence[str] | None
    ) -> ChosenLabels:
        """Those of a model's labels that are wanted, in any spelling; None for all.

        What lies inside a chosen region, and is not chosen itself, belongs to that region.

        Raises:
            RecipeError: If the model has no such label.
        """
        if wanted is None:
            return cls(label_values)
        names = {find_label(name, label_values): name for name in wanted}
        if None in names or not names:
            raise RecipeError(
                f"the model has no label {names.get(None, '')!r}; "
                f"choose among {', '.join(label_values)}"
            )
        # A region inside another one has fewer values.
        chosen = sorted(
            (values for name, values in label_values.items() if name in names),
            key=len,
            reverse=True,
        )
        table = [0] * (len(label_values) + 1)
        for own, *inside in chosen:
            for value in (own, *inside):
                table[value] = own
        kept = {values[0] for values in chosen}
        return cls(
            {
                name: tuple(value for value in values if value in kept)
                for name, values in label_values.items()
                if name in names
            },
            tuple(table),
        )

    @property
    def names(self) -> list[str] | None:
        """The labels, for records; None where all are kept."""
        return None if self.new_values is None else list(self.values)

    def apply(self, labels: NDArray[Any]) -> None:
        """Leave only these labels in a label map of the model, in place."""
        if self.new_values is not None:
            table = np.array(self.new_values, dtype=labels.dtype)
            for k in range(labels.shape[2]):  # at once, the indices would take 8 bytes a voxel
                labels[:, :, k] = table[labels[:, :, k]]
