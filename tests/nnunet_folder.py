"""Model folders as nnU-Net v2 writes them, made by hand, and what it would predict."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from skimage.transform import resize
from torch import nn

CONVOLUTIONS = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORMS = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
POOLS = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
KWARGS = {"is_seg": False, "order_z": 0, "force_separate_z": None}
FEATURES = [4, 6, 8]


class Unit(nn.Module):
    """Every layer under two names, as in nnU-Net's checkpoints."""

    def __init__(self, fan_in, fan_out, kernel, stride=1, bias=True, active=True):
        super().__init__()
        padding = [n // 2 for n in kernel]
        self.conv = CONVOLUTIONS[len(kernel)](fan_in, fan_out, kernel, stride, padding, bias=bias)
        self.norm = NORMS[len(kernel)](fan_out, eps=1e-5, affine=True)
        layers = [self.conv, self.norm]
        self.all_modules = nn.Sequential(*layers, *([nn.LeakyReLU(0.01)] if active else []))

    def forward(self, x):
        return self.all_modules(x)


class Units(nn.Module):
    def __init__(self, n, fan_in, fan_out, kernel, stride):
        super().__init__()
        rest = (Unit(fan_out, fan_out, kernel) for _ in range(n - 1))
        self.convs = nn.Sequential(Unit(fan_in, fan_out, kernel, stride), *rest)

    def forward(self, x):
        return self.convs(x)


class Block(nn.Module):
    def __init__(self, fan_in, fan_out, kernel, stride):
        super().__init__()
        self.conv1 = Unit(fan_in, fan_out, kernel, stride)
        self.conv2 = Unit(fan_out, fan_out, kernel, active=False)
        skip = [POOLS[len(kernel)](stride, stride)] if max(stride) > 1 else []
        if fan_in != fan_out:
            skip.append(Unit(fan_in, fan_out, [1] * len(kernel), bias=False, active=False))
        self.skip = nn.Sequential(*skip)

    def forward(self, x):
        return nn.functional.leaky_relu(self.conv2(self.conv1(x)) + self.skip(x), 0.01)


class Blocks(nn.Module):
    def __init__(self, n, fan_in, fan_out, kernel, stride):
        super().__init__()
        ones = [1] * len(kernel)
        rest = (Block(fan_out, fan_out, kernel, ones) for _ in range(n - 1))
        self.blocks = nn.Sequential(Block(fan_in, fan_out, kernel, stride), *rest)

    def forward(self, x):
        return self.blocks(x)


class UNet(nn.Module):
    """Axes in nnU-Net's order (z, y, x)."""

    def __init__(self, channels, outputs, kernels, strides, residual):
        super().__init__()
        self.encoder, self.decoder = nn.Module(), nn.Module()
        fans = [channels, *FEATURES]
        if residual:
            self.encoder.stem = Units(1, channels, FEATURES[0], kernels[0], 1)
            fans[0] = FEATURES[0]
        stacks = [
            (Blocks if residual else Units)(n, *fans[n - 1 : n + 1], kernels[n - 1], strides[n - 1])
            for n in (1, 2, 3)
        ]
        self.encoder.stages = nn.Sequential(
            *(each if residual else nn.Sequential(each) for each in stacks)
        )
        self.decoder.encoder = self.encoder
        pairs = [(2, 1), (1, 0)]
        axes = len(kernels[0])
        self.decoder.stages = nn.ModuleList(
            Units(2, 2 * FEATURES[fine], FEATURES[fine], kernels[fine], 1) for _, fine in pairs
        )
        self.decoder.transpconvs = nn.ModuleList(
            TRANSPOSED[axes](FEATURES[deep], FEATURES[fine], strides[deep], strides[deep])
            for deep, fine in pairs
        )
        self.decoder.seg_layers = nn.ModuleList(
            CONVOLUTIONS[axes](FEATURES[fine], outputs, 1) for _, fine in pairs
        )

    def forward(self, x):
        x = self.encoder.stem(x) if hasattr(self.encoder, "stem") else x
        skips = []
        for stage in self.encoder.stages:
            x = stage(x)
            skips.append(x)
        skips.pop()
        for up, stage in zip(self.decoder.transpconvs, self.decoder.stages, strict=True):
            x = stage(torch.cat([up(x), skips.pop()], 1))
        return self.decoder.seg_layers[-1](x)


def write_folder(
    folder: Path,
    *,
    axes: int = 3,
    residual: bool = False,
    channels: Sequence[str] = ("CT",),
    labels: dict[str, Any] | None = None,
    spacing: Sequence[float] = (4.0, 1.3, 1.3),
    patch: Sequence[int] = (8, 12, 16),
    scheme: str = "CTNormalization",
    masked: bool = False,
    folds: Sequence[str] = ("0",),
    order: Sequence[int] | None = None,
    transpose: Sequence[int] = (0, 1, 2),
    trainer: str = "nnUNetTrainer",
) -> dict[str, Any]:
    """Write it; gives the configuration, with the networks of its folds."""
    labels = labels or {"background": 0, "liver": 1, "lesion": 2}
    kernels = [[1, 3, 3][3 - axes :], [3] * axes, [3] * axes]
    strides = [[1] * axes, [1, 2, 2][3 - axes :], [2] * axes]
    n_outputs = len(labels) - (order is not None)
    name = "ResidualEncoderUNet" if residual else "PlainConvUNet"
    config = {
        "preprocessor_name": "DefaultPreprocessor",
        "patch_size": list(patch)[3 - axes :],
        "spacing": list(spacing)[3 - axes :],
        "normalization_schemes": [scheme] * len(channels),
        "use_mask_for_norm": [masked] * len(channels),
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {**KWARGS, "order": 3},
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_seg_kwargs": {**KWARGS, "is_seg": True, "order": 1},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {**KWARGS, "order": 1},
        "architecture": {
            "network_class_name": f"dynamic_network_architectures.architectures.unet.{name}",
            "arch_kwargs": {
                "n_stages": 3,
                "features_per_stage": FEATURES,
                "conv_op": f"torch.nn.modules.conv.Conv{axes}d",
                "kernel_sizes": kernels,
                "strides": strides,
                "n_blocks_per_stage" if residual else "n_conv_per_stage": [1, 2, 3],
                "n_conv_per_stage_decoder": [2, 2],
                "conv_bias": True,
                "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{axes}d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "nonlin"],
        },
    }
    grey = {"mean": 40.0, "std": 90.0, "percentile_00_5": -160.0, "percentile_99_5": 240.0}
    configuration = "2d" if axes == 2 else "3d_fullres"
    plans = {
        "dataset_name": "Dataset001_HandMade",
        "plans_name": "nnUNetPlans",
        "label_manager": "LabelManager",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": list(transpose),
        "transpose_backward": np.argsort(transpose).tolist(),
        "configurations": {configuration: config},
        "foreground_intensity_properties_per_channel": {str(n): grey for n in range(len(channels))},
    }
    dataset = {"channel_names": {str(n): each for n, each in enumerate(channels)}, "labels": labels}
    dataset["file_ending"] = ".nii.gz"
    if order is not None:
        dataset["regions_class_order"] = list(order)
    folder.mkdir()
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    networks = []
    for n, fold in enumerate(folds):
        torch.manual_seed(n)
        network = UNet(len(channels), n_outputs, kernels, strides, residual).eval()
        networks.append(network)
        (folder / f"fold_{fold}").mkdir()
        content = {
            "network_weights": network.state_dict(),
            "optimizer_state": {"state": {}},
            "logging": {"dice": [np.float64(0.5), np.float32(0.25)]},
            "_best_ema": np.float64(0.5),
            "init_args": {"configuration": configuration, "fold": n, "plans": plans},
            "trainer_name": trainer,
            "inference_allowed_mirroring_axes": tuple(range(axes)),
        }
        torch.save(content, folder / f"fold_{fold}" / "checkpoint_final.pth")
    return {**config, "networks": networks, "masked": masked, "transpose": transpose, **dataset}


def predict(model: dict[str, Any], scan: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Labels (i, j, k) of a scan (i, j, k) or (i, j, k, channel), as nnU-Net has them."""
    stored = scan[..., None] if scan.ndim == 3 else scan
    order = model["transpose"]
    data = stored.transpose(3, 2, 1, 0).transpose(0, *(1 + axis for axis in order))
    mm = [list(spacing_mm)[::-1][axis] for axis in order]
    mask = ndimage.binary_fill_holes((data != 0).any(0))
    box = ndimage.find_objects(mask.astype(int))[0]
    data, mask = data[:, *box].astype(np.float32), mask[box]
    for channel in data:
        if model["normalization_schemes"][0] == "CTNormalization":
            np.clip(channel, -160, 240, out=channel)
            channel[...] = (channel - 40) / 90
        else:
            chosen = mask if model["masked"] else np.ones_like(mask)
            mean, std = channel[chosen].mean(), channel[chosen].std()
            channel[chosen] = (channel[chosen] - mean) / std
    grid = [*mm[: 3 - len(model["spacing"])], *model["spacing"]]
    shape = [round(n * own / new) for n, own, new in zip(mask.shape, mm, grid, strict=True)]
    seen = np.stack([resampled(channel, shape, 3, mm, grid) for channel in data])
    logits = sum(tiles(network, seen, model["patch_size"]) for network in model["networks"])
    logits = np.stack([resampled(each, mask.shape, 1, grid, mm) for each in logits])
    result = np.zeros([stored.shape[2 - axis] for axis in order], np.uint8)
    if "regions_class_order" in model:
        for value, each in zip(model["regions_class_order"], logits, strict=True):
            result[box][each > 0] = value
    else:
        result[box] = logits.argmax(0)
    return result.transpose(np.argsort(order)).T


def resampled(array, shape, order, own, new):
    """In-plane alone, and the nearest slice, where slices are far apart."""
    options = {"order": order, "mode": "edge", "anti_aliasing": False}
    coarse = [mm for mm in (own, new) if max(mm) / min(mm) > 3]
    if not coarse:
        return resize(array, shape, **options)
    axis = int(np.argmax(coarse[0]))
    planes = np.moveaxis(array, axis, 0)
    wanted = [n for other, n in enumerate(shape) if other != axis]
    planes = np.stack([resize(plane, wanted, **options) for plane in planes])
    scale = len(planes) / shape[axis]
    nearest = np.floor((np.arange(shape[axis]) + 0.5) * scale).astype(int)
    return np.moveaxis(planes[nearest], 0, axis)


def tiles(network, seen, patch):
    """Weighted means of overlapping patches; of slices, of each."""
    if len(patch) < 3:
        return np.stack([tiles3(network, seen[:, [z]], [1, *patch])[:, 0] for z in
                         range(seen.shape[1])], axis=1)  # fmt: skip
    return tiles3(network, seen, patch)


def tiles3(network, seen, patch):
    missing = [max(0, size - n) for size, n in zip(patch, seen.shape[1:], strict=True)]
    before = [n // 2 for n in missing]
    around = [(n, whole - n) for n, whole in zip(before, missing, strict=True)]
    padded = np.pad(seen, [(0, 0), *around])
    weight = np.zeros(patch)
    weight[tuple(n // 2 for n in patch)] = 1
    # A single plane is not weighted along its axis.
    sigma = [n / 8 if n > 1 else 0 for n in patch]
    weight = ndimage.gaussian_filter(weight, sigma, mode="constant")
    weight = (weight / weight.max() * 10).astype(np.float16).astype(np.float64)
    weight[weight == 0] = weight[weight > 0].min()
    starts = []
    for n, size in zip(padded.shape[1:], patch, strict=True):
        steps = int(np.ceil((n - size) / (size / 2)))
        starts.append(np.round(np.linspace(0, n - size, steps + 1)).astype(int))
    total, counts = 0.0, np.zeros(padded.shape[1:])
    for z in starts[0]:
        for y in starts[1]:
            for x in starts[2]:
                place = tuple(slice(a, a + n) for a, n in zip((z, y, x), patch, strict=True))
                tensor = torch.from_numpy(padded[:, *place][None].astype(np.float32))
                flat = patch[0] == 1
                with torch.inference_mode():
                    found = network(tensor[:, :, 0] if flat else tensor)[0].numpy()
                if isinstance(total, float):
                    total = np.zeros((len(found), *padded.shape[1:]))
                total[:, *place] += (found[:, None] if flat else found) * weight
                counts[place] += weight
    inner = tuple(slice(a, a + n) for a, n in zip(before, seen.shape[1:], strict=True))
    return (total / counts)[:, *inner]
