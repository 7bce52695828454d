"""A child that predicts a scan as a user of MONAI would: its transforms, its sliding windows.

The network is the model's own, in PyTorch and float32, so that what differs is the pipeline.
"""

from __future__ import annotations

import time
from importlib import import_module
from pathlib import Path
from typing import Any

from leanseg.benchmarking.child import own_peak_memory_mb, report, serve

# MONAI's own example for sliding windows takes four a batch.
_WINDOWS_PER_BATCH = 4
_KEY = "image"


def work(job: dict[str, Any]) -> None:
    """Read, predict, invert the transforms, write."""
    import torch

    torch.set_num_threads(job["threads"])
    report("imported")
    networks, plan = _networks(job)
    report("loaded")
    before = _before(plan)
    after = _after(plan, before, Path(job["output"]))
    data = before({_KEY: job["scan"]})
    read = time.perf_counter()
    with torch.no_grad():
        probabilities = _predict(networks, plan, data[_KEY][None])
    network_s = time.perf_counter() - read
    data["pred"] = probabilities[0]
    after(data)
    (written,) = sorted(Path(job["output"]).glob("*.nii.gz"))
    report("written", peak_memory_mb=own_peak_memory_mb(), network_s=network_s, file=str(written))


def _networks(job: dict[str, Any]) -> tuple[list[Any], Any]:
    """The model file's networks, one for each of its members, and its plan."""
    import numpy as np
    import torch

    from leanseg.modelfile import read_model
    from leanseg.networks import build, build_trusted

    model = read_model(Path(job["model"]))
    spec = model.members[0].network
    networks = []
    for member in model.members:
        network = (build_trusted if job["allow_imports"] else build)(
            spec.name,
            in_channels=spec.in_channels,
            out_channels=spec.out_channels,
            **spec.options,
        )
        weights = {name: torch.from_numpy(np.array(a)) for name, a in member.weights.items()}
        network.load_state_dict(weights)
        networks.append(network.eval())
    return networks, model.plan


def _before(plan: Any) -> Any:
    """Reading, orientation, intensities and size as the plan has them."""
    t: Any = import_module("monai.transforms")

    steps = [
        t.LoadImaged(_KEY, ensure_channel_first=True),
        t.Orientationd(_KEY, axcodes=plan.orientation),
        *_intensity(plan),
    ]
    if plan.tile_shape is None:
        size = plan.volume_shape or (*plan.slice_shape, -1)
        steps.append(t.Resized(_KEY, spatial_size=size, mode="trilinear"))
    elif plan.spacing_mm is not None:
        steps.append(t.Spacingd(_KEY, pixdim=plan.spacing_mm, mode="bilinear"))
    return t.Compose([*steps, t.EnsureTyped(_KEY)])


def _intensity(plan: Any) -> list[Any]:
    """The window and the scaling, with the transforms that MONAI has for them."""
    t: Any = import_module("monai.transforms")

    window, steps = plan.window, []
    unit = {"b_min": 0.0, "b_max": 1.0, "clip": True}
    if window.kind == "hu" and plan.scaling == "minmax":
        return [t.ScaleIntensityRanged(_KEY, window.low, window.high, **unit)]
    if window.kind == "hu":
        steps.append(
            t.ScaleIntensityRanged(
                _KEY, window.low, window.high, b_min=window.low, b_max=window.high, clip=True
            )
        )
    elif window.kind == "quantile":
        low, high = 100 * window.low, 100 * window.high
        steps.append(t.ScaleIntensityRangePercentilesd(_KEY, low, high, channel_wise=True, **unit))
    if plan.scaling == "minmax":
        steps.append(t.ScaleIntensityd(_KEY, channel_wise=True))
    elif plan.scaling == "zscore":
        steps.append(t.NormalizeIntensityd(_KEY, channel_wise=True))
    else:
        linear = plan.linear_scaling
        steps.append(t.Lambdad(_KEY, lambda image: image / linear.divide_by + linear.add))
    return steps


def _predict(networks: list[Any], plan: Any, image: Any) -> Any:
    """Class probabilities (1, output, i, j, k), the mean of the networks'."""
    inferers: Any = import_module("monai.inferers")

    def probabilities(windows: Any) -> Any:
        total: Any = 0
        for network in networks:
            logits = network(windows)
            total += logits.sigmoid() if plan.n_outputs == 1 else logits.softmax(dim=1)
        return total / len(networks)

    roi = tuple(plan.network_shape)
    if plan.is_3d:
        overlap = plan.tile_overlap if plan.tile_shape is not None else 0.0
        inferer = inferers.SlidingWindowInferer(roi, 1, overlap=overlap, mode="gaussian")
    else:
        inferer = inferers.SliceInferer(
            spatial_dim=2, roi_size=roi, sw_batch_size=_WINDOWS_PER_BATCH, overlap=0.0
        )
    return inferer(image, probabilities)


def _after(plan: Any, before: Any, folder: Path) -> Any:
    """The probabilities on the scan's grid, decided, in a file."""
    t: Any = import_module("monai.transforms")

    invert = t.Invertd("pred", transform=before, orig_keys=_KEY, nearest_interp=False)
    decide = (
        t.AsDiscreted("pred", threshold=0.5)
        if plan.n_outputs == 1
        else t.AsDiscreted("pred", argmax=True)
    )
    save = t.SaveImaged(
        "pred",
        output_dir=folder,
        output_dtype="uint8" if len(plan.labels) <= 255 else "uint16",
        separate_folder=False,
        print_log=False,
    )
    return t.Compose([invert, decide, save])


if __name__ == "__main__":
    serve(work)
