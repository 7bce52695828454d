"""The plan: everything that turns a scan into what the network sees, and back, as data.

The same plan object drives training and prediction; it is stored in the run and in the model
file, so that a hospital's scan goes through exactly what the training scans went through.
"""

from __future__ import annotations

import math
from itertools import permutations, product
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

_ORIENTATIONS = frozenset(
    "".join(codes) for axes in permutations(("LR", "PA", "IS")) for codes in product(*axes)
)


class _Data(BaseModel):
    """Strict, immutable data: an unknown key is an error, never ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class HounsfieldWindow(_Data):
    """Clip to fixed Hounsfield units; MoNet's public loader uses [-150, 200] (paper 000)."""

    kind: Literal["hu"] = "hu"
    low: float = -150.0
    high: float = 200.0

    @model_validator(mode="after")
    def _ordered(self) -> HounsfieldWindow:
        if not self.low < self.high:
            msg = f"window low {self.low} must be below high {self.high}"
            raise ValueError(msg)
        return self


class QuantileWindow(_Data):
    """Clip to quantiles of the volume's own grey values, for MR or for paper 002.

    `nonzero_only` takes the quantiles over voxels that are not zero, for skull-stripped MR.
    """

    kind: Literal["quantile"] = "quantile"
    low: float = Field(default=0.0, ge=0.0, le=1.0)
    high: float = Field(default=0.995, ge=0.0, le=1.0)
    nonzero_only: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> QuantileWindow:
        if not self.low < self.high:
            msg = f"window quantile low {self.low} must be below high {self.high}"
            raise ValueError(msg)
        return self


class NoWindow(_Data):
    """Leave grey values as they are."""

    kind: Literal["none"] = "none"


Window = Annotated[HounsfieldWindow | QuantileWindow | NoWindow, Field(discriminator="kind")]


class LinearScaling(_Data):
    """x / divide_by + add, the same for every volume; OBELISK takes HU / 1024 + 1 (paper 004)."""

    divide_by: float = 1024.0
    add: float = 1.0

    @field_validator("divide_by")
    @classmethod
    def _not_zero(cls, value: float) -> float:
        if value == 0:
            msg = "divide_by must not be 0"
            raise ValueError(msg)
        return value


class LabelCentredSlices(_Data):
    """Training sees only a range of slices around the label (paper 000, public loader).

    The range is [first labelled - margin, last labelled + margin), floored at the volume's
    ends, resized along the slice axis to `count` slices (None keeps the range's own slices).
    """

    margin: int = Field(default=16, ge=0)
    count: int | None = Field(default=48, ge=1)


class Postprocessing(_Data):
    """What happens to the label map in the scan's own grid."""

    largest_component: bool = False


class PlanSettings(_Data):
    """The part of a plan that does not depend on the data.

    Attributes:
        orientation: Axis codes of the array that the network sees; slices along the third.
        window: Clipping of grey values, per volume and channel.
        scaling: "minmax" to [0, 1] or "zscore", per volume and channel, after the window; or
            "linear", the same for all volumes.
        linear_scaling: What "linear" is.
        slice_shape: Rows and columns of a network slice; in-plane resizing to this shape.
        volume_shape: For 3-D networks: the region is resized to this shape, in the order of
            `orientation`, and seen at once; `slice_shape` and `training_slices` play no part.
            None for 2-D networks.
        region: What part of a scan a 3-D network sees: all of it, or the abdomen, found in the
            scan itself.
        tile_shape: For 3-D networks that see a scan in overlapping tiles of this shape, in the
            order of `orientation`, blended with a Gaussian; instead of `volume_shape`. None for
            all others.
        tile_overlap: Share of a tile that the next one along an axis covers again.
        spacing_mm: The voxel spacing, in the order of `orientation`, that a scan is resampled to
            before it is cut into tiles; None takes the scan's own.
        training_slices: Range of slices that training sees; None for all.
        postprocessing: Applied to the predicted label map.
        skip_outside_body: For CT and 2-D networks: slices that show no body are background, and
            the network does not run on them.
    """

    orientation: str = "LPS"
    window: Window = HounsfieldWindow()
    scaling: Literal["minmax", "zscore", "linear"] = "minmax"
    linear_scaling: LinearScaling = LinearScaling()
    slice_shape: tuple[int, int] = (256, 256)
    volume_shape: tuple[int, int, int] | None = None
    region: Literal["scan", "abdomen"] = "scan"
    tile_shape: tuple[int, int, int] | None = None
    tile_overlap: float = Field(default=0.5, ge=0.0, lt=1.0)
    spacing_mm: tuple[float, float, float] | None = None
    training_slices: LabelCentredSlices | None = LabelCentredSlices()
    postprocessing: Postprocessing = Postprocessing()
    skip_outside_body: bool = False

    @field_validator("orientation")
    @classmethod
    def _known_orientation(cls, value: str) -> str:
        if value not in _ORIENTATIONS:
            msg = f"orientation {value!r} is none of the 48 codes such as 'LPS' or 'RAS'"
            raise ValueError(msg)
        return value

    @field_validator("slice_shape")
    @classmethod
    def _positive_shape(cls, value: tuple[int, int]) -> tuple[int, int]:
        if min(value) < 8:
            msg = f"slice_shape {value} is too small: both sides need at least 8 pixels"
            raise ValueError(msg)
        return value

    @field_validator("volume_shape", "tile_shape")
    @classmethod
    def _positive_volume(
        cls, value: tuple[int, int, int] | None, info: ValidationInfo
    ) -> tuple[int, int, int] | None:
        if value is not None and min(value) < 1:
            msg = f"{info.field_name} {value} is too small: every side needs at least 1 voxel"
            raise ValueError(msg)
        return value

    @field_validator("spacing_mm")
    @classmethod
    def _positive_spacing(
        cls, value: tuple[float, float, float] | None
    ) -> tuple[float, float, float] | None:
        if value is not None and not all(0 < mm < math.inf for mm in value):
            msg = f"spacing_mm {value} must be three lengths above 0"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _one_way_through_a_scan(self) -> PlanSettings:
        if self.tile_shape is None:
            if self.spacing_mm is not None:
                msg = "spacing_mm is for networks that see tiles; give tile_shape too, or neither"
                raise ValueError(msg)
            return self
        if self.volume_shape is not None:
            msg = "a network sees a scan at once (volume_shape) or in tiles (tile_shape), not both"
            raise ValueError(msg)
        if self.region != "scan":
            msg = f"region {self.region!r} needs volume_shape: tiles are laid over the whole scan"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _body_in_hounsfield(self) -> PlanSettings:
        if self.skip_outside_body and (self.is_3d or not isinstance(self.window, HounsfieldWindow)):
            msg = "skip_outside_body is for networks that see slices of CT, with window kind: hu"
            raise ValueError(msg)
        return self

    @property
    def network_shape(self) -> tuple[int, ...]:
        """Spatial shape of the network's input: of a slice, of a tile or of a whole region."""
        return self.volume_shape or self.tile_shape or self.slice_shape

    @property
    def is_3d(self) -> bool:
        """Whether the network takes volumes, not slices."""
        return len(self.network_shape) == 3


class Plan(PlanSettings):
    """From scan to network input and back.

    Attributes:
        labels: Names of the foreground classes; class 0 is background, `labels[n]` is n + 1.
        channels: Names of the input channels, in the network's order.
    """

    version: Literal[1] = 1
    labels: tuple[str, ...] = Field(min_length=1, max_length=65534)
    channels: tuple[str, ...] = Field(default=("CT",), min_length=1)

    @property
    def n_outputs(self) -> int:
        """Output channels of the network: 1 (sigmoid) for one label, else with background."""
        return 1 if len(self.labels) == 1 else len(self.labels) + 1
