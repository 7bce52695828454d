"""Cost of augmenting a batch, beside MONAI's transforms and the training step that consumes it.

Every augmentation is measured with every sample and channel chosen, and the usual chain of
nnU-Net with its probabilities, over many seeds. MONAI's transforms run sample by sample, seeded
for each. All take turns in one process with the allocator, memory layout and precision that
training uses. Prints a Markdown table of processor time: medians, and of the chain the mean.

    python benchmarks/bench_augmentation.py [--threads 2] [--shape 256 256] [--batch 8]
        [--network monet] [--option key=value] [--rounds 9]
    python benchmarks/bench_augmentation.py --threads 1 --shape 96 96 64 --batch 2
        --network nnunet-3d --option base_filters=8
    python benchmarks/bench_augmentation.py --shape 128 128 --batch 28 --network msd-2d
    python benchmarks/bench_augmentation.py --shape 128 128 16 --batch 1 --network msd-3d
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import yaml
from bench_training_step import keep_large_blocks, machine

from leanseg.augmentation import build_augmentation
from leanseg.losses import build_loss
from leanseg.networks import build

# Options under which every sample changes.
ALWAYS: dict[str, dict[str, Any]] = {
    "affine": {},
    "affine-noise": {},
    "spatial": {"probability": 1.0},
    "spatial, elastic": {"probability": 1.0, "elastic": 4.0},
    "mirror": {"probability": 1.0},
    "noise": {"probability": 1.0},
    "blur": {"probability": 1.0, "channel_probability": 1.0},
    "brightness": {"probability": 1.0},
    "contrast": {"probability": 1.0},
    "low-resolution": {"probability": 1.0, "channel_probability": 1.0},
    "gamma": {"probability": 1.0, "inverted_probability": 0.0},
    "ctia": {"fraction": 1.0, "shift_share": 1.0},
    "mia": {"fraction": 1.0},
    "mia, deformation": {"fraction": 1.0, "ends": 0.0, "slope": [1.0, 1.0]},
    "mia, linear labels": {"fraction": 1.0, "labels": "linear"},
}
# nnU-Net's, in its order, with its probabilities.
CHAIN = ["spatial", "noise", "blur", "brightness", "contrast", "low-resolution", "gamma", "mirror"]
CHAIN_BATCHES = 10  # a turn


def monai_transforms(n: int) -> dict[str, Any]:
    """MONAI's nearest relatives, for n axes, applied to every sample."""
    from monai import transforms as monai

    both: dict[str, Any] = {
        "keys": ["image", "label"], "mode": ["bilinear", "nearest"], "padding_mode": "border",
    }  # fmt: skip
    turn = (0.5,) * (3 if n == 3 else 1)
    elastic: Any = (
        monai.Rand3DElasticd(sigma_range=(8, 8), magnitude_range=(100, 200), prob=1.0, **both)
        if n == 3
        else monai.Rand2DElasticd(spacing=(32, 32), magnitude_range=(0, 4), prob=1.0, **both)
    )
    return {
        "affine": monai.RandAffined(
            prob=1.0, rotate_range=turn, scale_range=(0.25,) * n, translate_range=(10,) * n, **both
        ),
        "spatial": monai.RandAffined(prob=1.0, rotate_range=turn, scale_range=(0.3,) * n, **both),
        "spatial, elastic": elastic,
        "mirror": monai.RandFlipd(keys=["image", "label"], prob=1.0, spatial_axis=range(n)),
        "noise": monai.RandGaussianNoised(keys=["image"], prob=1.0, std=0.1),
        "blur": monai.RandGaussianSmoothd(
            keys=["image"], prob=1.0, sigma_x=(0.5, 1), sigma_y=(0.5, 1), sigma_z=(0.5, 1)
        ),
        "brightness": monai.RandScaleIntensityd(
            keys=["image"], prob=1.0, factors=0.25, channel_wise=True
        ),
        "contrast": monai.RandScaleIntensityFixedMeand(
            keys=["image"], prob=1.0, factors=0.25, preserve_range=True
        ),
        "low-resolution": monai.RandSimulateLowResolutiond(
            keys=["image"], prob=1.0, zoom_range=(0.5, 1.0),
            upsample_mode="trilinear" if n == 3 else "bilinear",
        ),
        "gamma": monai.RandAdjustContrastd(
            keys=["image"], prob=1.0, gamma=(0.7, 1.5), retain_stats=True
        ),
    }  # fmt: skip


def make_step(
    name: str, options: dict[str, Any], image: torch.Tensor, label: torch.Tensor, *, bf16: bool
) -> Callable[[], None]:
    """A function without arguments that does one training step."""
    layout = torch.channels_last if image.ndim == 4 else torch.contiguous_format
    model = build(name, out_channels=1, generator=torch.Generator().manual_seed(0), **options)
    model = model.train().to(memory_format=layout)
    image = image.to(memory_format=layout)
    loss_function = build_loss("dice")
    optimiser = torch.optim.NAdam(model.parameters(), lr=5e-4, foreach=True)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(image)
        loss_function(logits, label).backward()
        optimiser.step()

    return step


def seconds_of(function: Callable[[], object]) -> float:
    """Processor time, of all threads: what else the machine does falls on nothing."""
    start = time.process_time()
    function()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--shape", type=int, nargs="+", default=[256, 256])
    parser.add_argument("--network", default="monet")
    parser.add_argument("--option", nargs="*", default=[], help="of the network: key=value")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    keep_large_blocks()
    torch.set_num_threads(arguments.threads)
    batch, shape = arguments.batch, arguments.shape
    options = {key: yaml.safe_load(value) for key, value in map(_pair, arguments.option)}
    if arguments.network.startswith("nnunet"):
        options.setdefault("shape", shape)

    image = torch.randn(batch, 1, *shape)
    label = (torch.rand(batch, *shape) > 0.9).long()

    def ours(name: str) -> Callable[[], object]:
        augmentation = build_augmentation(name.partition(",")[0], **ALWAYS[name])
        return lambda: augmentation.apply(image, label, augmentation.draw(range(batch)))

    def theirs(transform: Any) -> Callable[[], object]:
        def run() -> object:
            pairs = []
            for seed in range(batch):
                transform.set_random_state(seed)
                pairs.append(transform({"image": image[seed], "label": label[seed][None]}))
            return [torch.stack([pair[key] for pair in pairs]) for key in ("image", "label")]

        return run

    chain = [build_augmentation(name) for name in CHAIN]

    seeds = itertools.count()

    def chained() -> None:
        for _ in range(CHAIN_BATCHES):
            drawn = [next(seeds) for _ in range(batch)]
            result = image, label
            for augmentation in chain:
                result = augmentation.apply(*result, augmentation.draw(drawn))

    steps: dict[str, Callable[[], object]] = {name: ours(name) for name in ALWAYS}
    monai = monai_transforms(len(shape))
    steps |= {f"MONAI {name}": theirs(transform) for name, transform in monai.items()}
    for title, bf16 in (("float32", False), ("bf16", True)):
        steps[title] = make_step(arguments.network, options, image, label, bf16=bf16)
    steps["usual chain"] = chained
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(arguments.rounds + 1):
        for name, step in steps.items():
            elapsed = seconds_of(step)
            if turn >= 1:
                seconds[name].append(elapsed)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    medians["usual chain"] = statistics.mean(seconds["usual chain"]) / CHAIN_BATCHES

    sizes = " x ".join(map(str, image.shape))
    print(f"Machine: {machine()}, {arguments.threads} threads.")
    print(
        f"A step of {arguments.network}: {medians['float32']:.2f} processor seconds in float32, "
        f"{medians['bf16']:.2f} in bf16.\n"
    )
    print(f"| {sizes} | processor ms | of a float32 step | of a bf16 step | MONAI |")
    print("|---|---|---|---|---|")
    for name in [*ALWAYS, "usual chain"]:
        here, there = medians[name], medians.get(f"MONAI {name}")
        print(
            f"| {name} | {1e3 * here:.1f} | {here / medians['float32']:.1%} "
            f"| {here / medians['bf16']:.1%} | {f'{1e3 * there:.1f}' if there else '-'} |"
        )


def _pair(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    return key, value


if __name__ == "__main__":
    main()
