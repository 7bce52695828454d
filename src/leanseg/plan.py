"""The plan: everything that turns a scan into what networks see, and back, as data.

A scan is seen in a *frame* (orientation, grid, region), cut into *patches*, with grey values by an
*intensity*; a *stage* is a network with these three, or a scout that finds a region; a *plan* is
stages in order, the last of which answers. The same plan drives training and prediction; it is
stored in the run and in the model file, so that a hospital's scan goes through exactly what the
training scans went through.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations, product
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
    model_validator,
)

_ORIENTATIONS = frozenset(
    "".join(codes) for axes in permutations(("LR", "PA", "IS")) for codes in product(*axes)
)


# The scan's own axes as they are stored, in some order.
_OWN_AXES = frozenset(map("".join, permutations("ijk")))


def _known_orientation(value: str) -> str:
    if value not in _ORIENTATIONS | _OWN_AXES:
        raise ValueError(
            f"orientation {value!r} is none of the 48 codes such as 'LPS' or 'RAS', nor 'ijk' or "
            "another order of the scan's own axes"
        )
    return value


# A list stands for a tuple; all else is what it is: true is no number, "3" neither, nor is nan.
_Several = Field(strict=False)
# Far from where differences and products leave the numbers of 32 bits.
_Grey = Annotated[float, Field(ge=-1e15, le=1e15)]
_Name = Annotated[str, Field(min_length=1, max_length=200)]


class _Data(BaseModel):
    """Strict, immutable data: an unknown key is an error, never ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Axis(_Data):
    """How many voxels a frame has along an axis: by number, by spacing, or as the scan has.

    Written short: a number is a size, null is the scan's own.

    Attributes:
        size: Number of voxels, whatever the extent.
        spacing_mm: Distance of voxels in mm.

    Example:
        >>> leanseg.Axis(spacing_mm=2).length(n_voxels=90, spacing_mm=3)
        135
    """

    size: int | None = Field(default=None, ge=1, le=65535)
    spacing_mm: float | None = Field(default=None, ge=1e-3, le=1e6)

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        if value is None:
            return {}
        return {"size": value} if isinstance(value, int) else value

    @model_validator(mode="after")
    def _one_rule(self) -> Axis:
        if self.size is not None and self.spacing_mm is not None:
            msg = (
                f"an axis has a size ({self.size}) or a spacing_mm ({self.spacing_mm:g}), not both"
            )
            raise ValueError(msg)
        return self

    def length(self, n_voxels: int, spacing_mm: float) -> int:
        """Voxels of the frame along a region of `n_voxels` that lie `spacing_mm` apart."""
        if self.size is not None:
            return self.size
        if self.spacing_mm is None:
            return n_voxels
        return max(1, round(n_voxels * spacing_mm / self.spacing_mm))


class Around(_Data):
    """The box around what an earlier stage found.

    Attributes:
        stage: Name of the earlier stage. A scout's box is taken as it is.
        labels: Which of that stage's labels; None for all.
        margin_mm: Added on every side.
    """

    stage: str
    labels: Annotated[tuple[str, ...], _Several] | None = None
    margin_mm: float = Field(default=0.0, ge=0, le=1e6)


class Frame(_Data):
    """The grid on which networks see a scan.

    Attributes:
        orientation: Axis codes of the grid; 2-D networks see slices along the third axis. "ijk",
            or these letters in another order, are the scan's axes as they are stored, whatever
            they show: what nnU-Net sees.
        axes: Its length along each axis.
        antialias: Smooth where an axis shrinks.
        resampling: "linear", or "spline", nnU-Net's: to the grid by cubic splines, without
            anti-aliasing or values that the scan does not have; back linearly. Along an axis that
            is more than three times as coarse as another, of the scan or else of the grid, the
            nearest slice is taken.
        region: The part of the scan that the grid covers: all of it, or a box.

    Example:
        >>> slices = leanseg.Frame(axes=(256, 256, None))
        >>> slices.shape((512, 512, 90), spacing_mm=(0.8, 0.8, 5))
        (256, 256, 90)
    """

    orientation: Annotated[str, AfterValidator(_known_orientation)] = "LPS"
    axes: Annotated[tuple[Axis, Axis, Axis], _Several] = (Axis(size=256), Axis(size=256), Axis())
    antialias: bool = True
    resampling: Literal["linear", "spline"] = "linear"
    region: Literal["scan"] | Around = "scan"

    @model_serializer(mode="wrap")
    def _without_unsaid(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As frames were before there were splines."""
        unsaid = set() if self.resampling == "spline" else {"resampling"}
        return {key: value for key, value in handler(self).items() if key not in unsaid}

    def shape(self, n_voxels: tuple[int, ...], spacing_mm: tuple[float, ...]) -> tuple[int, ...]:
        """Voxels of the frame over a region, from its voxels and spacing along the same axes."""
        return tuple(
            axis.length(n, mm) for axis, n, mm in zip(self.axes, n_voxels, spacing_mm, strict=True)
        )


class Crop(_Data):
    """In each slice the smallest box around what an earlier stage finds there (paper 003).

    That stage sees the same slices of the same frame, and the network gets its probability as one
    more channel. Slices in which it finds nothing are not seen; their answer is background.

    Attributes:
        stage: Name of the earlier stage, which has one label.
        margin: Pixels of the frame that the box is widened by on every side.
        multiple: Sides of a box are widened further, within the slice, to a multiple of this.
        rounds: Where this stage labels the very same, how often at most it looks again around
            what it found itself, until two rounds agree (RSTN).
    """

    stage: str
    margin: int = Field(default=20, ge=0, le=65535)
    multiple: int = Field(default=16, ge=1, le=4096)
    rounds: int = Field(default=1, ge=1, le=10)


_Along = int | Literal["whole"]


class Patch(_Data):
    """What a network sees of a frame at once: `Patch(96, 96, 96)`, or `Patch(shape=...)`.

    Attributes:
        shape: Voxels along each axis of the frame; "whole" is the frame's size there. A third
            one of 1 is squeezed: a 2-D network.
        overlap: Share of a patch that the next one along an axis covers again. Overlapping
            patches are blended with a Gaussian.
        neighbours: For 2-D networks: slices on either side that are further input channels, from
            the first to the last (2.5-D). Past the frame's ends the last slice is repeated.
        slices: Which ones a patch of several has: "adjacent", or "interleaved", spread over the
            whole frame: of G groups the first has slices 0, G, 2 G, ... (paper 002).
        crop: For 2-D networks that see no whole slices, but what is around an earlier stage's
            findings in them.
        tiling: Whose way patches lie and are weighted: MONAI's, each a full step after the one
            before and the last one at the end; or nnU-Net's, at equal steps and with a Gaussian
            around the voxel behind the middle.

    Example:
        >>> leanseg.Patch(96, 96, 96).shape
        (96, 96, 96)
    """

    shape: Annotated[tuple[_Along, _Along, _Along], _Several] = ("whole", "whole", 1)
    overlap: float = Field(default=0.5, ge=0.0, lt=1.0)
    neighbours: int = Field(default=0, ge=0, le=1000)
    slices: Literal["adjacent", "interleaved"] = "adjacent"
    crop: Crop | None = None
    tiling: Literal["monai", "nnunet"] = "monai"

    def __init__(self, *shape: int | str, **data: Any) -> None:
        super().__init__(**({"shape": shape} if shape else {}), **data)

    @model_validator(mode="after")
    def _sensible(self) -> Patch:
        if any(n != "whole" and n < 1 for n in self.shape):
            raise ValueError(f"patch {self.shape} needs at least 1 voxel along every axis")
        if self.neighbours and self.shape[2] != 1:
            msg = f"neighbours are for patches of one slice, but this one has {self.shape[2]}"
            raise ValueError(msg)
        if self.is_interleaved and self.shape[2] in (1, "whole"):
            msg = (
                "interleaved slices are for patches of several slices, by number, but this one has "
                f"{self.shape[2]} along the third axis"
            )
            raise ValueError(msg)
        if self.crop is not None and self.shape != ("whole", "whole", 1):
            raise ValueError(
                f"a crop is cut from whole slices, but the patch is {list(self.shape)}; make it "
                "[whole, whole, 1]"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_unsaid(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As patches were before slices could be interleaved, and before there were crops."""
        said = {"slices": self.is_interleaved, "crop": self.crop is not None}
        said["tiling"] = self.tiling != "monai"
        unsaid = {key for key, is_said in said.items() if not is_said}
        return {key: value for key, value in handler(self).items() if key not in unsaid}

    @property
    def is_interleaved(self) -> bool:
        """Whether its slices are spread over the frame."""
        return self.slices == "interleaved"


def _low_below_high(window: Any) -> Any:
    if not window.low < window.high:
        raise ValueError(f"window low {window.low} must be below high {window.high}")
    return window


class HounsfieldWindow(_Data):
    """Clip to fixed Hounsfield units; MoNet's public loader uses [-150, 200] (paper 000).

    Attributes:
        kind: "hu".
        low: Hounsfield units below it become this.
        high: Hounsfield units above it become this.
    """

    kind: Literal["hu"] = "hu"
    low: _Grey = -150.0
    high: _Grey = 200.0

    _ordered = model_validator(mode="after")(_low_below_high)


class QuantileWindow(_Data):
    """Clip to quantiles of the volume's own grey values, for MR or for paper 002.

    Attributes:
        kind: "quantile".
        low: Share of the voxels that are clipped at the lower end.
        high: Share of the voxels that lie below the upper end.
        nonzero_only: Take the quantiles over voxels that are not zero, for skull-stripped MR.
    """

    kind: Literal["quantile"] = "quantile"
    low: float = Field(default=0.0, ge=0.0, le=1.0)
    high: float = Field(default=0.995, ge=0.0, le=1.0)
    nonzero_only: bool = False

    _ordered = model_validator(mode="after")(_low_below_high)


class NoWindow(_Data):
    """Leave grey values as they are.

    Attributes:
        kind: "none".
    """

    kind: Literal["none"] = "none"


# Windows by name. "organ" is paper 002's, whose figure 1 shows the other two without numbers. The
# quantiles of "bone" and "lung" are ours, from four abdomens: "bone" runs there from 88-131 to
# 985-1076 HU, "lung" from air to -29-52 HU, but only to -730 HU where air fills most of the field
# of view: quantiles follow the share of air, Hounsfield units do not. Those are radiology's: width
# 400 at level 40, 1800 at 400, and 1500 at -600.
WINDOWS: Mapping[str, Mapping[str, Any]] = {
    "organ": {"kind": "quantile", "low": 0.60, "high": 0.99},
    "bone": {"kind": "quantile", "low": 0.90, "high": 0.9999},
    "lung": {"kind": "quantile", "low": 0.10, "high": 0.70},
    "organ-hu": {"kind": "hu", "low": -160.0, "high": 240.0},
    "bone-hu": {"kind": "hu", "low": -500.0, "high": 1300.0},
    "lung-hu": {"kind": "hu", "low": -1350.0, "high": 150.0},
}


def _named_window(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value not in WINDOWS:
        raise ValueError(
            f"there is no window {value!r}, only {', '.join(WINDOWS)}; or give kind, low and high"
        )
    return WINDOWS[value]


Window = Annotated[
    Annotated[HounsfieldWindow | QuantileWindow | NoWindow, Field(discriminator="kind")],
    BeforeValidator(_named_window),
]


def _not_zero(value: float) -> float:
    if abs(value) < 1e-15:
        raise ValueError("divide_by must not be 0")
    return value


class LinearScaling(_Data):
    """x / divide_by + add, the same for every volume; OBELISK takes HU / 1024 + 1 (paper 004).

    Attributes:
        divide_by: Grey values are divided by it.
        add: Added afterwards.
    """

    divide_by: Annotated[_Grey, AfterValidator(_not_zero)] = 1024.0
    add: _Grey = 1.0


class TrainingScaling(_Data):
    """Mean and standard deviation of a sample of windowed training volumes (paper 002).

    Only in a recipe: the plan of each fold holds the resulting numbers, as a linear scaling. The
    paper does not say how many volumes.

    Attributes:
        training_volumes: How many of the fold's training volumes are drawn; all where there are
            fewer.
    """

    training_volumes: int = Field(default=10, ge=1, le=1_000_000)


def _kind_of_scaling(value: Any) -> str:
    if isinstance(value, str):
        return "name"
    if isinstance(value, list | tuple):
        return "channels"
    keys = value if isinstance(value, dict) else vars(value) if hasattr(value, "__dict__") else ()
    return "training" if "training_volumes" in keys else "linear"


Scaling = Annotated[
    Annotated[Literal["minmax", "zscore"], Tag("name")]
    | Annotated[LinearScaling, Tag("linear")]
    | Annotated[tuple[LinearScaling, ...], Field(min_length=1, strict=False), Tag("channels")]
    | Annotated[TrainingScaling, Tag("training")],
    Discriminator(_kind_of_scaling),
]


class Intensity(_Data):
    """What happens to grey values, per volume and channel.

    Attributes:
        window: Clipping; in a recipe also by a name in `WINDOWS`.
        scaling: After it: "minmax" to [0, 1] or "zscore", by the volume's own values; or linear,
            the same for all volumes: one for all channels, or a list with one each. A recipe may
            leave the numbers to training volumes.
        levels: Between the two, grey values become the nearest of so many, evenly spaced from
            the window's low to its high: 256 is what writing slices as 8-bit pictures does
            (paper 003, section 4.1). None leaves them.
        over: Whose values "minmax" and "zscore" go by: the whole "scan"'s; those in the "region"
            that the frame covers; or there those that are "nonzero" in any channel or enclosed by
            such, and all others stay 0 (nnU-Net, for skull-stripped MR).

    Example:
        >>> window = leanseg.Intensity(window={"kind": "hu", "low": -100, "high": 240}).window
        >>> window
        HounsfieldWindow(kind='hu', low=-100.0, high=240.0)
        >>> leanseg.Intensity(window=window, scaling="zscore").scaling
        'zscore'
    """

    window: Window = HounsfieldWindow()
    scaling: Scaling = "minmax"
    levels: int | None = Field(default=None, ge=2, le=65536)
    over: Literal["scan", "region", "nonzero"] = "scan"

    @model_validator(mode="after")
    def _levels_of_numbers(self) -> Intensity:
        fixed = self.scaling == "minmax" or isinstance(self.scaling, LinearScaling | tuple)
        if self.levels and not (fixed and isinstance(self.window, HounsfieldWindow)):
            raise ValueError(
                f"levels ({self.levels}) are for a window of kind hu, with scaling minmax or by "
                "divide_by and add; leave them out, or choose these"
            )
        if self.over != "scan" and (
            self.scaling not in ("minmax", "zscore") or not isinstance(self.window, NoWindow)
        ):
            raise ValueError(
                f"over ({self.over}) is for scaling by minmax or zscore without a window; leave "
                "it out, or choose these"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_unsaid(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As intensities were before there were levels, and all went by the whole scan."""
        said = {"levels": self.levels is not None, "over": self.over != "scan"}
        unsaid = {key for key, is_said in said.items() if not is_said}
        return {key: value for key, value in handler(self).items() if key not in unsaid}

    def of_channel(self, index: int) -> Intensity:
        """What happens to one of the channels."""
        if not isinstance(self.scaling, tuple):
            return self
        return self.model_copy(update={"scaling": self.scaling[index]})


def _all_none_or_names(value: Any) -> Any:
    if not isinstance(value, bool | list | tuple):
        raise ValueError("it is true (each label), false (none), or a list of labels")
    return value


_HALF = 0.5


class StageSettings(_Data):
    """The part of a stage that does not depend on the data.

    Attributes:
        frame: The grid.
        patch: What the network sees of it at once.
        intensity: Its grey values.
        largest_component: Which labels keep only their largest connected component, in the scan's
            own grid: all of them, none, or those that are listed.
        component_share: Of those labels, components of at least this share of the largest one's
            voxels stay too (RSTN: 0.5); at 1 none.
        threshold: Of one label, or of regions: the probability above which a voxel has the label.
        flips: The axes of the patch, from 0, along which test-time flips mirror; None for all.
        averages: Of what patches, members and test-time views are averaged, and what is brought
            to the scan's grid: "probabilities", or the "logits" that they come from (nnU-Net).
    """

    frame: Frame = Frame()
    patch: Patch = Patch()
    intensity: Intensity = Intensity()
    # The list first: of what is neither, its mistake is the one that is told.
    largest_component: Annotated[
        Annotated[tuple[_Name, ...], _Several] | bool, BeforeValidator(_all_none_or_names)
    ] = False
    component_share: float = Field(default=1.0, gt=0, le=1)
    threshold: float = Field(default=_HALF, gt=0, lt=1)
    flips: Annotated[tuple[int, ...], _Several] | None = None
    averages: Literal["probabilities", "logits"] = "probabilities"

    @model_validator(mode="after")
    def _patch_fits(self) -> StageSettings:
        for number, (n, axis) in enumerate(zip(self.patch.shape, self.frame.axes, strict=True)):
            if n == "whole" and axis.size is None:
                raise ValueError(
                    f"the patch is whole along axis {number}, whose length the frame leaves to the "
                    "scan; give the axis a size, or the patch a number of voxels"
                )
            if n != "whole" and axis.size is not None and n > axis.size:
                msg = (
                    f"a patch of {n} voxels is larger than the frame, {axis.size}, on axis {number}"
                )
                raise ValueError(msg)
        return self

    @model_serializer(mode="wrap")
    def _without_unsaid(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what came later and says nothing: as plans were before it could be said."""
        unsaid = self._unsaid()
        return {key: value for key, value in handler(self).items() if key not in unsaid}

    def _unsaid(self) -> set[str]:
        said = {"threshold": self.threshold != _HALF, "component_share": self.component_share < 1}
        said["flips"] = self.flips is not None
        said["averages"] = self.averages != "probabilities"
        return {name for name, is_said in said.items() if not is_said}

    @property
    def patch_shape(self) -> tuple[int, int, int]:
        """Voxels of a patch along the three axes."""
        i, j, k = (
            axis.size if n == "whole" and axis.size is not None else int(n)
            for n, axis in zip(self.patch.shape, self.frame.axes, strict=True)
        )
        return i, j, k

    @property
    def network_shape(self) -> tuple[int, ...]:
        """Spatial shape of the network's input: 2 or 3 axes."""
        shape = self.patch_shape
        return shape[:2] if shape[2] == 1 else shape

    @property
    def sees_all(self) -> bool:
        """Whether one 3-D patch is the whole frame."""
        return self.is_3d and all(
            n == axis.size for n, axis in zip(self.patch_shape, self.frame.axes, strict=True)
        )

    @property
    def is_3d(self) -> bool:
        """Whether the network takes volumes, not slices."""
        return len(self.network_shape) == 3


class Stage(StageSettings):
    """A network, or several whose probabilities are averaged, and what they see.

    Labels exclude one another, unless one lies inside another: they are regions then, each with a
    sigmoid of its own. A voxel of a label map has one value, that of the innermost region.

    Attributes:
        name: Unique among the stages of a plan.
        labels: Names of the foreground classes; class 0 is background, `labels[n]` is n + 1.
        inside: For each label that lies inside others, the smallest of these.
        inputs: Earlier stages whose probabilities are the network's channels, in this order (a
            stacked CNN, paper 002); none for the scan's own channels, of which alone the grey
            values are changed by `intensity`.
        temperature: What saved probabilities are softened (above 1) or sharpened by (below), as
            `leanseg calibrate` fits it; labels are decided before, so that it changes none.

    Example:
        >>> frame = leanseg.Frame(axes=(128, 128, None))
        >>> stage = leanseg.Stage(labels=("pancreas", "tumour"), frame=frame)
        >>> stage.n_outputs, stage.network_shape
        (3, (128, 128))
        >>> stage = leanseg.Stage(labels=("tumour", "kidney"), inside={"tumour": "kidney"})
        >>> stage.n_outputs, stage.label_values
        (2, {'tumour': (1,), 'kidney': (2, 1)})
    """

    kind: Literal["network"] = "network"
    name: str = "main"
    labels: tuple[_Name, ...] = Field(min_length=1, max_length=65534, strict=False)
    inside: Mapping[_Name, _Name] = Field(default_factory=dict)
    inputs: Annotated[tuple[_Name, ...], _Several] = ()
    temperature: float = Field(default=1.0, ge=1e-3, le=1e3)

    @model_validator(mode="after")
    def _regions_make_sense(self) -> Stage:
        if len(set(self.labels)) < len(self.labels):
            twice = next(name for name in self.labels if self.labels.count(name) > 1)
            raise ValueError(f"two labels are called {twice!r}; give each a name of its own")
        for inner, outer in self.inside.items():
            for name in (inner, outer):
                if name not in self.labels:
                    raise ValueError(
                        f"{inner!r} lies inside {outer!r}, but {name!r} is none of the labels "
                        f"({', '.join(self.labels)})"
                    )
        for start in self.inside:
            name, passed = start, {start}
            while name in self.inside:
                name = self.inside[name]
                if name in passed:
                    raise ValueError(f"label {name!r} lies inside itself; correct 'inside'")
                passed.add(name)
        return self

    @model_validator(mode="after")
    def _decision_makes_sense(self) -> Stage:
        if not isinstance(self.largest_component, bool):
            for name in self.largest_component:
                if name not in self.labels:
                    raise ValueError(
                        f"largest_component names {name!r}, which is none of the labels "
                        f"({', '.join(self.labels)})"
                    )
        if self.threshold != _HALF and not self.is_sigmoid:
            raise ValueError(
                f"a threshold ({self.threshold:g}) is for one label or for regions, but of "
                f"{len(self.labels)} labels that exclude one another the likeliest is taken; "
                "leave it out"
            )
        return self

    def _unsaid(self) -> set[str]:
        empty = {name for name in ("inside", "inputs") if not getattr(self, name)}
        return super()._unsaid() | empty | ({"temperature"} if self.temperature == 1 else set())

    @property
    def is_regions(self) -> bool:
        """Whether labels lie inside one another: every output is a sigmoid then."""
        return bool(self.inside)

    @property
    def is_sigmoid(self) -> bool:
        """Whether each output has a probability of its own, which a threshold decides."""
        return self.is_regions or len(self.labels) == 1

    @property
    def cleaned_labels(self) -> tuple[str, ...]:
        """The labels that keep only their largest component, outer regions first."""
        chosen = self.largest_component
        if isinstance(chosen, bool):
            chosen = self.labels if chosen else ()
        in_order = (self.labels[number - 1] for number in self.outer_first)
        return tuple(name for name in in_order if name in chosen)

    @property
    def activation(self) -> Literal["softmax", "sigmoid", "none"]:
        """What the engine makes probabilities of several outputs with; "none" leaves logits."""
        if self.averages == "logits":
            return "none"
        return "sigmoid" if self.is_regions else "softmax"

    @property
    def n_outputs(self) -> int:
        """Output channels: of regions and of one label as many, else one more for background."""
        n_labels = len(self.labels)
        return n_labels if self.is_sigmoid else n_labels + 1

    @property
    def outer_first(self) -> tuple[int, ...]:
        """The classes, those of outer regions before those of the regions inside them."""
        return tuple(sorted(range(1, len(self.labels) + 1), key=lambda n: len(self._around(n))))

    @property
    def label_values(self) -> dict[str, tuple[int, ...]]:
        """For each label the classes that belong to it: its own, then those of all inside it."""
        found = {name: [number] for number, name in enumerate(self.labels, start=1)}
        for number in range(1, len(self.labels) + 1):
            for outer in self._around(number):
                found[outer].append(number)
        return {name: tuple(numbers) for name, numbers in found.items()}

    def _around(self, number: int) -> list[str]:
        """The labels that a class lies inside, from the smallest to the largest."""
        names = [self.labels[number - 1]]
        while names[-1] in self.inside:
            names.append(self.inside[names[-1]])
        return names[1:]

    def parent(self, number: int) -> int:
        """The class of the smallest region around a class; 0, the background, where none is."""
        around = self._around(number)
        return self.labels.index(around[0]) + 1 if around else 0

    def in_channels(self, n_channels: int) -> int:
        """Input channels of the network for scans of `n_channels`."""
        return n_channels * (2 * self.patch.neighbours + 1)


class Scout(_Data):
    """A stage without a network of its own, which finds a box in the scan.

    Attributes:
        name: Unique among the stages of a plan.
        finds: What it looks for; "nonzero" is all voxels that are not 0 in some channel.
    """

    kind: Literal["scout"] = "scout"
    name: str
    finds: Literal["abdomen", "body", "nonzero"]


class Plan(_Data):
    """From a scan to label maps: stages in order; the last one answers.

    Attributes:
        channels: Names of the scan's channels, in the networks' order.
        stages: At least one network; regions are around earlier stages.

    Example:
        >>> plan = leanseg.Plan(channels=("CT",), stages=(leanseg.Stage(labels=("liver",)),))
        >>> plan.labels, plan.input_shape(plan.final)
        (('liver',), (1, 256, 256))
    """

    version: Literal[1] = 1
    channels: tuple[str, ...] = Field(default=("CT",), min_length=1, strict=False)
    stages: tuple[Annotated[Scout | Stage, Field(discriminator="kind")], ...] = Field(
        min_length=1, strict=False
    )

    @model_validator(mode="after")
    def _as_many_scalings(self) -> Plan:
        for stage in self.networks:
            scaling, n = stage.intensity.scaling, len(self.channels)
            if isinstance(scaling, tuple) and len(scaling) != n:
                raise ValueError(
                    f"stage {stage.name!r} scales {len(scaling)} channel(s), but there are {n} "
                    f"({', '.join(self.channels)}); give one scaling for each"
                )
        return self

    @model_validator(mode="after")
    def _in_order(self) -> Plan:
        earlier: dict[str, Scout | Stage] = {}
        for stage in self.stages:
            if stage.name in earlier:
                msg = f"two stages are called {stage.name!r}; give each a name of its own"
                raise ValueError(msg)
            if isinstance(stage, Stage) and isinstance(stage.frame.region, Around):
                _check_around(stage, stage.frame.region, earlier)
            if isinstance(stage, Stage):
                _check_inputs(stage, earlier)
                _check_crop(stage, earlier)
            earlier[stage.name] = stage
        if not isinstance(self.stages[-1], Stage):
            msg = f"the last stage, {self.stages[-1].name!r}, is a scout; a network has to answer"
            raise ValueError(msg)
        return self

    def for_scan(self, codes: str) -> Plan:
        """The plan with orientations that name what a scan's own axes show.

        Args:
            codes: The scan's orientation.
        """
        if not any(stage.frame.orientation in _OWN_AXES for stage in self.networks):
            return self
        return self.model_copy(update={"stages": tuple(_turned(e, codes) for e in self.stages)})

    @property
    def final(self) -> Stage:
        """The stage that answers."""
        last = self.stages[-1]
        assert isinstance(last, Stage)
        return last

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the result."""
        return self.final.labels

    def n_channels(self, stage: Stage) -> int:
        """Channels of what a stage sees: the scan's, or the outputs of the stages before it."""
        found = [self.network(name).n_outputs for name in stage.inputs]
        return sum(found) if found else len(self.channels)

    def input_shape(self, stage: Stage) -> tuple[int, ...]:
        """(channel, *spatial) of what a stage's network sees; of a crop the largest."""
        n_channels = stage.in_channels(self.n_channels(stage))
        if stage.patch.crop is not None:
            n_channels += self.network(stage.patch.crop.stage).n_outputs
        return (n_channels, *stage.network_shape)

    def network_outputs(self, stage: Stage) -> int:
        """Output channels of a stage's network: all but those that the stage it crops around has.

        A stage that labels an organ, as an earlier one does, and a lesion inside it takes the
        organ from there; one that labels the organ alone labels it anew.
        """
        crop = stage.patch.crop
        is_kept = crop is not None and len(stage.labels) > 1
        return stage.n_outputs - (1 if is_kept else 0)

    def with_temperature(self, temperature: float) -> Plan:
        """The same plan, whose saved probabilities have another temperature."""
        last = self.final.model_copy(update={"temperature": temperature})
        return self.model_copy(update={"stages": (*self.stages[:-1], last)})

    @property
    def runs(self) -> tuple[Stage, ...]:
        """The stages that run one after another; one that another crops around runs with that."""
        crops = (each.patch.crop for each in self.networks)
        inner = {crop.stage for crop in crops if crop is not None}
        return tuple(stage for stage in self.networks if stage.name not in inner)

    def network(self, name: str) -> Stage:
        """The stage of that name, which has a network."""
        return next(stage for stage in self.networks if stage.name == name)

    def is_labelled(self, stage: Stage) -> bool:
        """Whether a stage's label map is wanted: it answers, or another looks around it."""
        regions = (each.frame.region for each in self.networks)
        around = (region.stage for region in regions if isinstance(region, Around))
        return stage is self.final or stage.name in around

    @property
    def is_in_hounsfield(self) -> bool:
        """Whether the network that sees the scan last windows it in Hounsfield units: it is CT."""
        last = [stage for stage in self.networks if not stage.inputs][-1]
        return isinstance(last.intensity.window, HounsfieldWindow)

    @property
    def is_ct(self) -> bool:
        """Whether grey values are Hounsfield units, by the window or the channels' names."""
        return self.is_in_hounsfield or all(name.upper() == "CT" for name in self.channels)

    @property
    def networks(self) -> tuple[Stage, ...]:
        """The stages that have a network."""
        return tuple(stage for stage in self.stages if isinstance(stage, Stage))


def _turned(stage: Scout | Stage, codes: str) -> Scout | Stage:
    if isinstance(stage, Scout) or stage.frame.orientation not in _OWN_AXES:
        return stage
    own = "".join(codes["ijk".index(axis)] for axis in stage.frame.orientation)
    return stage.model_copy(update={"frame": stage.frame.model_copy(update={"orientation": own})})


def _check_around(stage: Stage, region: Around, earlier: dict[str, Scout | Stage]) -> None:
    found = earlier.get(region.stage)
    if found is None:
        names = ", ".join(map(repr, earlier)) or "none"
        raise ValueError(
            f"stage {stage.name!r} looks around {region.stage!r}, which is not an earlier stage "
            f"(earlier ones: {names}); put that stage before it"
        )
    known = found.labels if isinstance(found, Stage) else ()
    for label in region.labels or ():
        if label not in known:
            raise ValueError(
                f"stage {stage.name!r} looks around {label!r}, which stage {region.stage!r} does "
                f"not label; choose among {', '.join(known) or 'none: it is a scout'}"
            )


def _check_inputs(stage: Stage, earlier: dict[str, Scout | Stage]) -> None:
    for name in stage.inputs:
        if not isinstance(earlier.get(name), Stage):
            there = [each for each, found in earlier.items() if isinstance(found, Stage)]
            raise ValueError(
                f"stage {stage.name!r} has input {name!r}, which is not an earlier stage with a "
                f"network (these: {', '.join(map(repr, there)) or 'none'}); put that one before it"
            )
    if len(set(stage.inputs)) < len(stage.inputs):
        raise ValueError(f"stage {stage.name!r} has one input twice; give every stage once")
    if stage.inputs and stage.frame.region != "scan":
        raise ValueError(
            f"stage {stage.name!r} has inputs, so it sees the whole scan; make its frame's region "
            "'scan'"
        )


def _check_crop(stage: Stage, earlier: dict[str, Scout | Stage]) -> None:
    crop = stage.patch.crop
    if crop is None:
        return
    found = earlier.get(crop.stage)
    if not isinstance(found, Stage) or len(found.labels) != 1:
        raise ValueError(
            f"stage {stage.name!r} crops around {crop.stage!r}, which is not an earlier stage with "
            "a network and one label; put such a stage before it"
        )
    organ, *others = stage.labels
    is_inside = [stage.inside.get(name) for name in others] == [organ] * len(others)
    if organ != found.labels[0] or len(others) > 1 or not is_inside:
        raise ValueError(
            f"stage {stage.name!r} crops around {found.labels[0]!r}, so it labels that alone, or "
            f"that and one label inside it, not {', '.join(stage.labels)}; correct the labels"
        )
    if others and crop.rounds > 1:
        raise ValueError(
            f"stage {stage.name!r} looks in {crop.rounds} rounds, but what it finds, "
            f"{others[0]!r}, is not what it crops around; make it 1 round"
        )
    own, its = ((each.frame, each.intensity, each.patch.neighbours) for each in (stage, found))
    if own != its or found.patch.shape != stage.patch.shape or stage.inputs:
        raise ValueError(
            f"stage {stage.name!r} crops around {found.name!r}, so both see the same slices; give "
            "them one frame, intensity and patch"
        )


def label_dtype(n_labels: int) -> str:
    """The numpy type of label maps with so many labels: "uint8", or past 255 "uint16"."""
    return "uint8" if n_labels <= 255 else "uint16"
