"""What nnU-Net v2 says of a model in plans.json and dataset.json, as a plan and a network here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from leanseg.errors import FileFormatError
from leanseg.files import read_json, read_parsed
from leanseg.plan import (
    Around,
    Axis,
    Frame,
    HounsfieldWindow,
    Intensity,
    LinearScaling,
    NoWindow,
    Patch,
    Plan,
    Scout,
    Stage,
)

_SCOUT = "nonzero"
# Of these nnU-Net itself turns scans, one to RAS; the others take them as they are stored.
_READERS = {"SimpleITKIO": "ijk", "NibabelIO": "ijk", "NibabelIOWithReorient": "RAS"}
_NETWORKS = {
    "PlainConvUNet": ("plain-conv-unet", "n_conv_per_stage"),
    "ResidualEncoderUNet": ("residual-encoder-unet", "n_blocks_per_stage"),
}
_SPLINES = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
_RESAMPLING = "resample_data_or_seg_to_shape"


class _Given(BaseModel):
    """What is needed of a file; the rest is of no account."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Kwargs(_Given):
    """Arguments of a network; one that is not among these would change what it computes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n_stages: int
    features_per_stage: list[int] = Field(min_length=2)
    conv_op: str
    kernel_sizes: list[list[int]]
    strides: list[list[int]]
    n_conv_per_stage: list[int] | None = None
    n_blocks_per_stage: list[int] | None = None
    n_conv_per_stage_decoder: list[int]
    conv_bias: bool
    norm_op: Literal[
        "torch.nn.modules.instancenorm.InstanceNorm3d",
        "torch.nn.modules.instancenorm.InstanceNorm2d",
    ]
    norm_op_kwargs: dict[Literal["eps", "affine"], float]
    # At prediction nothing is dropped.
    dropout_op: str | None = None
    dropout_op_kwargs: dict[str, Any] | None = None
    nonlin: Literal["torch.nn.LeakyReLU"]
    nonlin_kwargs: dict[Literal["inplace"], bool] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _usual_norm(self) -> Kwargs:
        if self.norm_op_kwargs != {"eps": 1e-5, "affine": True}:
            raise ValueError(f"norm_op_kwargs are {self.norm_op_kwargs}, not eps 1e-5 and affine")
        return self


class Architecture(_Given):
    """The network."""

    network_class_name: str
    arch_kwargs: dict[str, Any]

    @property
    def name(self) -> str:
        """Of its class, without the module."""
        return self.network_class_name.rpartition(".")[2]


class Configuration(_Given):
    """One of the configurations of plans.json."""

    preprocessor_name: str
    patch_size: list[int] = Field(min_length=2, max_length=3)
    spacing: list[float] = Field(min_length=2, max_length=3)
    normalization_schemes: list[str]
    use_mask_for_norm: list[bool]
    resampling_fn_data: str
    resampling_fn_data_kwargs: dict[str, Any]
    resampling_fn_probabilities: str
    resampling_fn_probabilities_kwargs: dict[str, Any]
    architecture: Architecture

    @model_validator(mode="before")
    @classmethod
    def _older(cls, data: Any) -> Any:
        """Plans of nnU-Net before 2.5 describe the network by other keys."""
        if not isinstance(data, dict) or "architecture" in data:
            return data
        name, dimensions = str(data["UNet_class_name"]), len(data["patch_size"])
        _, convolutions = _NETWORKS.get(name, ("", "n_conv_per_stage"))
        n = len(data["n_conv_per_stage_encoder"])
        widths = (data["UNet_base_num_features"] * 2**stage for stage in range(n))
        kwargs = {
            "n_stages": n,
            "features_per_stage": [min(each, data["unet_max_num_features"]) for each in widths],
            "conv_op": "",
            "kernel_sizes": data["conv_kernel_sizes"],
            "strides": data["pool_op_kernel_sizes"],
            convolutions: data["n_conv_per_stage_encoder"],
            "n_conv_per_stage_decoder": data["n_conv_per_stage_decoder"],
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "nonlin": "torch.nn.LeakyReLU",
        }
        return {**data, "architecture": {"network_class_name": name, "arch_kwargs": kwargs}}


class GreyValues(_Given):
    """Of the foreground of the training scans."""

    mean: float
    std: float
    percentile_00_5: float
    percentile_99_5: float


class Plans(_Given):
    """plans.json."""

    image_reader_writer: str
    transpose_forward: list[int]
    configurations: dict[str, dict[str, Any]]
    foreground_intensity_properties_per_channel: dict[str, GreyValues]

    @model_validator(mode="after")
    def _three_axes(self) -> Plans:
        if sorted(self.transpose_forward) != [0, 1, 2]:
            raise ValueError(f"transpose_forward is {self.transpose_forward}, no order of 3 axes")
        return self


class Labels(NamedTuple):
    """What the outputs of the network are.

    Attributes:
        names: By the value that each has in label maps, from 1.
        inside: Of regions, the smallest other one that each lies in.
        outputs: nnU-Net's outputs in the order of those here.
    """

    names: tuple[str, ...]
    inside: dict[str, str]
    outputs: tuple[int, ...]

    @property
    def heads(self) -> int:
        """Outputs of nnU-Net's network."""
        return len(self.outputs)


class ImportedPlan(NamedTuple):
    """A model of nnU-Net as data.

    Attributes:
        plan: How scans are seen.
        network: Name in `NETWORKS`.
        options: For `build`, but for channels.
        labels: What its outputs are.
    """

    plan: Plan
    network: str
    options: dict[str, Any]
    labels: Labels


def read_plans(
    folder: Path,
    configuration: str,
    mirrored: Sequence[int],
    orientation: str | None = None,
) -> ImportedPlan:
    """What plans.json and dataset.json say.

    Args:
        folder: Has both.
        configuration: Which of the plans'.
        mirrored: Axes along which nnU-Net may mirror, in its order.
        orientation: Of the scans that the model was trained on; None where nobody knows.

    Raises:
        LeansegError: A file is missing or damaged, or says what cannot be done here.
    """
    path = folder / "plans.json"
    plans = _plans(path)
    config = _configuration(path, plans, configuration)
    channels, labels = _dataset(folder / "dataset.json")
    network, options = _network(path, config.architecture)
    reader = plans.image_reader_writer
    stored = _READERS.get(reader)
    if stored is None:
        raise FileFormatError(
            f"{path}: its scans were read by {reader!r}; only models of {', '.join(_READERS)} can "
            "be imported"
        )
    codes = orientation or stored
    # nnU-Net's axis n is its reader's t[n], and that is the stored one 2 - t[n].
    own = [codes[2 - axis] for axis in plans.transpose_forward]
    spacing, patch = config.spacing[::-1], config.patch_size[::-1]
    is_2d = len(spacing) == 2
    frame = Frame(
        orientation="".join(own[::-1]),
        axes=(
            Axis(spacing_mm=spacing[0]),
            Axis(spacing_mm=spacing[1]),
            Axis() if is_2d else Axis(spacing_mm=spacing[2]),
        ),
        antialias=False,
        resampling="spline",
        region=Around(stage=_SCOUT),
    )
    n_axes = len(patch)
    flips = tuple(sorted(n_axes - 1 - axis for axis in mirrored))
    stage = Stage(
        labels=labels.names,
        inside=labels.inside,
        frame=frame,
        patch=Patch(patch[0], patch[1], 1 if is_2d else patch[2], tiling="nnunet"),
        intensity=_intensity(path, config, plans, channels),
        flips=None if flips == tuple(range(n_axes)) else flips,
        averages="logits",
    )
    scout = Scout(name=_SCOUT, finds="nonzero")
    return ImportedPlan(Plan(channels=channels, stages=(scout, stage)), network, options, labels)


def _plans(path: Path) -> Plans:
    if not path.is_file() and path.with_suffix(".pkl").is_file():
        raise _version_1(path.with_suffix(".pkl"))
    content = read_json(path)
    if isinstance(content, Mapping) and "plans_per_stage" in content:
        raise _version_1(path)
    return read_parsed(path, Plans.model_validate_json, error=FileFormatError)


def _version_1(path: Path) -> FileFormatError:
    return FileFormatError(
        f"{path} holds plans of nnU-Net version 1, whose networks are others; only models of "
        "version 2 can be imported"
    )


def _configuration(path: Path, plans: Plans, name: str) -> Configuration:
    known = plans.configurations
    merged: dict[str, Any] = {}
    seen: list[str] = []
    following: Any = name
    while following is not None:
        if following not in known or following in seen:
            raise FileFormatError(
                f"{path}: has no configuration {following!r} that {name!r} could be made of, only "
                f"{', '.join(known)}; give the plans that the model was trained with"
            )
        seen.append(following)
        merged = {**known[following], **merged}
        following = known[following].get("inherits_from")
    if merged.get("previous_stage"):
        raise FileFormatError(
            f"{path}: {name!r} is a cascade, which sees what {merged['previous_stage']!r} found; "
            "only configurations that see the scan alone (2d, 3d_fullres, 3d_lowres) can be "
            "imported"
        )
    config = read_parsed(
        path, lambda _: Configuration.model_validate(merged), error=FileFormatError
    )
    functions = {config.resampling_fn_data, config.resampling_fn_probabilities}
    usual = (
        functions == {_RESAMPLING}
        and config.resampling_fn_data_kwargs == _SPLINES
        and config.resampling_fn_probabilities_kwargs == {**_SPLINES, "order": 1}
        and config.preprocessor_name == "DefaultPreprocessor"
    )
    if not usual:
        raise FileFormatError(
            f"{path}: {name!r} is prepared by {config.preprocessor_name} and resampled by "
            f"{' and '.join(sorted(functions))} with options of its own; only nnU-Net's defaults "
            "can be imported"
        )
    return config


def _network(path: Path, given: Architecture) -> tuple[str, dict[str, Any]]:
    if given.name not in _NETWORKS:
        raise FileFormatError(
            f"{path}: the network {given.network_class_name!r} is not known; only "
            f"{' and '.join(_NETWORKS)} can be imported"
        )
    network, convolutions = _NETWORKS[given.name]
    kwargs = read_parsed(
        path, lambda _: Kwargs.model_validate(given.arch_kwargs), error=FileFormatError
    )
    options = {
        "features": kwargs.features_per_stage,
        "kernels": [kernel[::-1] for kernel in kwargs.kernel_sizes],
        "strides": [stride[::-1] for stride in kwargs.strides],
        "convolutions": getattr(kwargs, convolutions),
        "decoder_convolutions": kwargs.n_conv_per_stage_decoder,
        "bias": kwargs.conv_bias,
    }
    return network, options


def _intensity(
    path: Path, config: Configuration, plans: Plans, channels: Sequence[str]
) -> Intensity:
    schemes = set(zip(config.normalization_schemes, config.use_mask_for_norm, strict=False))
    ((scheme, is_masked), *others) = schemes or {("none at all", False)}
    values = plans.foreground_intensity_properties_per_channel.get("0")
    if scheme == "CTNormalization" and len(channels) == 1 and values is not None:
        std = max(values.std, 1e-8)
        return Intensity(
            window=HounsfieldWindow(low=values.percentile_00_5, high=values.percentile_99_5),
            scaling=LinearScaling(divide_by=std, add=-values.mean / std),
        )
    scalings: dict[str, dict[str, Any]] = {
        "ZScoreNormalization": {
            "scaling": "zscore",
            "over": "nonzero" if is_masked else "region",
        },
        "RescaleTo01Normalization": {"scaling": "minmax", "over": "region"},
        "RGBTo01Normalization": {"scaling": LinearScaling(divide_by=255, add=0)},
        "NoNormalization": {"scaling": LinearScaling(divide_by=1, add=0)},
    }
    if others or scheme not in scalings:
        names = ", ".join(config.normalization_schemes)
        raise FileFormatError(
            f"{path}: its {len(channels)} channel(s) are normalised by {names}; only one and the "
            f"same for all channels can be imported ({', '.join(scalings)}), or CTNormalization "
            "of a single one"
        )
    return Intensity(window=NoWindow(), **scalings[scheme])


def _dataset(path: Path) -> tuple[tuple[str, ...], Labels]:
    content = read_json(path)
    try:
        channels = content.get("channel_names") or content["modality"]
        names = tuple(str(channels[key]) for key in sorted(channels, key=int))
        values = {
            str(name): [int(each) for each in value] if isinstance(value, list) else [int(value)]
            for name, value in content["labels"].items()
            if name != "ignore"
        }
        order = content.get("regions_class_order")
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        msg = f"{path}: does not name channels and labels as nnU-Net v2 does ({error!r})"
        raise FileFormatError(msg) from error
    foreground = {name: set(value) for name, value in values.items() if set(value) != {0}}
    if all(len(value) == 1 for value in foreground.values()):
        by_value = sorted(foreground, key=lambda name: min(foreground[name]))
        if [min(foreground[name]) for name in by_value] == [*range(1, len(by_value) + 1)]:
            return names, Labels(tuple(by_value), {}, (*range(len(by_value) + 1),))
    elif order is not None and sorted(order) == [*range(1, len(foreground) + 1)]:
        labels = _regions(foreground, order)
        if labels is not None:
            return names, labels
    raise FileFormatError(
        f"{path}: the labels {values} (order {order}) are neither 1, 2, 3, ... nor regions that "
        "lie inside one another and replace each other from the outside in, which alone can be "
        "imported"
    )


def _regions(regions: Mapping[str, set[int]], order: Sequence[int]) -> Labels | None:
    """Regions as they replace each other there; None where they would do so otherwise here."""
    listed = list(regions)
    inside = {}
    for name, values in regions.items():
        around = [other for other in listed if values < regions[other]]
        if around:
            inside[name] = min(around, key=lambda other: len(regions[other]))
    # The output of each value that a label map has here.
    outputs = tuple(order.index(value) for value in range(1, len(order) + 1))
    names = tuple(listed[output] for output in outputs)
    stage = Stage(labels=names, inside=inside)
    replaced = [outputs[number - 1] for number in stage.outer_first]
    is_same = stage.is_sigmoid and replaced == sorted(replaced)
    return Labels(names, inside, outputs) if is_same else None


_EPOCHS = r"\d+ep(och(s)?)?"
_TRAINING = (
    "NoMirroring|onlyMirror01|DA5(ord0|Segord0)?|NoDA|DASegOrd0|noDummy2DDA|warmup|CosAnneal|"
    "(Vanilla)?Adam|Adan|[13]en[134]|(Dice)?(CE|Top[kK]10)?Loss|LS01|noSmooth|NoDeepSupervision|"
    r"probabilisticOversampling|0\d+"
)
# nnU-Net's own, and combinations of them that published models use: other epochs, losses,
# optimisers, augmentation. What they build and how they prepare scans is what the plans say.
ONLY_TRAINING = re.compile(rf"nnUNetTrainer(_?({_EPOCHS}|{_TRAINING}))*")
