"""Mirror images along their axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from leanseg.augmentation.base import PerSample, Probability
from leanseg.errors import GeometryError


class Mirror(PerSample):
    """Flip image and label along each axis, with one probability for each.

    Source of the default: nnU-Net (`MirrorTransform`, every axis with 0.5). Organs that lie on
    one side of the body, and classes that name a side, want fewer axes.

    Args:
        axes: Spatial axes that may be flipped, from 0; None for all.
        probability: Of a flip, axis by axis.
    """

    def __init__(
        self,
        *,
        axes: Sequence[Annotated[int, Field(ge=0, le=2)]] | None = None,
        probability: Probability = 0.5,
    ) -> None:
        super().__init__()
        self.axes = axes
        self.flip_probability = probability

    def change(
        self, image: torch.Tensor, label: torch.Tensor, generator: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Image and label, flipped together.

        Raises:
            GeometryError: An axis that the image does not have.
        """
        axes = range(label.ndim) if self.axes is None else self.axes
        if max(axes, default=0) >= label.ndim:
            msg = (
                f"augmentation 'mirror': axis {max(axes)} is beyond the last axis of an image of "
                f"{label.ndim} axes, which is {label.ndim - 1}"
            )
            raise GeometryError(msg)
        flipped = generator.random(3) < self.flip_probability
        chosen = [axis for axis in sorted(set(axes)) if flipped[axis]]
        if not chosen:
            return image, label
        return image.flip([axis + 1 for axis in chosen]), label.flip(chosen)
