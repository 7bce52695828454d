"""nnU-Net v2 and a MONAI pipeline at leanseg's job: one scan, file to file, time and peak memory.

    pip install nnunetv2 monai
    python benchmarks/bench_rivals.py ct.nii.gz --model monet.leanseg [--tiles 6] [--threads 2]

Each tool is a process of its own on the same cores. nnU-Net's planner makes its default plans for
a dataset like the Decathlon's pancreas (281 scans, median 96 x 512 x 512 at 2.5 x 0.8 x 0.8 mm);
its networks get random weights, which cost what trained ones cost, so this says nothing of
quality. With mirroring, its default, the network runs four or eight times a tile. `--tiles N` runs
the network on N tiles, does all else in full, and extrapolates the network's time (marked ~).

MONAI runs MoNet as its users would write it: dictionary transforms and `SliceInferer`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WINDOW_HU = (-100.0, 240.0)
SLICE = (256, 256)
DATASET = "Dataset900_Benchmark"
CHECKPOINT = "checkpoint_final.pth"
# Median shape and spacing of the Decathlon's pancreas scans, slices first.
CASES, SHAPE, SPACING_MM = 281, [96, 512, 512], [2.5, 0.80272102355957, 0.80272102355957]
# The intensities of an abdominal CT; they cost nothing.
HU = {"mean": 78.0, "median": 80.0, "std": 75.0, "min": -997.0, "max": 3071.0}
HU |= {"percentile_00_5": -96.0, "percentile_99_5": 215.0}


def leanseg(job: dict[str, Any]) -> dict[str, Any]:
    """A model file through leanseg's public names."""
    import leanseg
    from leanseg.volumes import write_mask

    model = leanseg.load_model(job["model"], precision=job["precision"], threads=job["threads"])
    mask = model.predict(job["scan"])
    write_mask(Path(job["folder"], "mask.nii.gz"), mask.array, like=mask)
    return {}


def monai(job: dict[str, Any]) -> dict[str, Any]:
    """MoNet in PyTorch, float32, with MONAI's transforms and inferer."""
    import torch
    from monai import transforms as t
    from monai.inferers import SliceInferer

    from leanseg.networks import build

    torch.set_num_threads(job["threads"])
    network = build("monet").eval()
    unit = {"b_min": 0.0, "b_max": 1.0, "clip": True}
    before = t.Compose(
        [
            t.LoadImaged("image", ensure_channel_first=True),
            t.Orientationd("image", axcodes="LPS"),
            t.ScaleIntensityRanged("image", *WINDOW_HU, **unit),
            t.Resized("image", spatial_size=(*SLICE, -1), mode="trilinear"),
        ]
    )
    output = {"output_dir": job["folder"], "output_dtype": "uint8", "print_log": False}
    after = t.Compose(
        [
            t.Invertd("pred", transform=before, orig_keys="image", nearest_interp=False),
            t.AsDiscreted("pred", threshold=0.5),
            t.SaveImaged("pred", separate_folder=False, **output),
        ]
    )
    data = before({"image": job["scan"]})
    infer = SliceInferer(spatial_dim=2, roi_size=SLICE, sw_batch_size=4, overlap=0.0)
    with torch.no_grad():
        data["pred"] = infer(data["image"][None], lambda slices: network(slices).sigmoid())[0]
    after(data)
    return {}


def nnunet(job: dict[str, Any]) -> dict[str, Any]:
    """What `nnUNetv2_predict -nps 0 -npp 0` does, in one process."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    torch.set_num_threads(job["threads"])
    predictor = nnUNetPredictor(
        use_mirroring=job["mirroring"], device=torch.device("cpu"), allow_tqdm=False
    )
    predictor.initialize_from_trained_model_folder(job["network"], (0,), CHECKPOINT)
    tile_s, n_tiles = watch_tiles(predictor, job["tiles"])
    output = str(Path(job["folder"], "case"))
    predictor.predict_from_files_sequential([[job["scan"]]], [output])
    return {"tile_s": tile_s, "tiles": n_tiles[0]}


def watch_tiles(predictor: Any, most: int | None) -> tuple[list[float], list[int]]:
    """Time the network's tiles; past `most` of them repeat the last result."""
    tile_s: list[float] = []
    n_tiles, last = [0], [None]
    slicers = predictor._internal_get_sliding_window_slicers
    run = predictor._internal_maybe_mirror_and_predict

    def counted(*arguments: Any) -> Any:
        found = slicers(*arguments)
        n_tiles[0] = len(found)
        return found

    def timed(tile: Any) -> Any:
        if most is not None and len(tile_s) >= most:
            return last[0].clone()
        began = time.perf_counter()
        result = run(tile)
        tile_s.append(time.perf_counter() - began)
        last[0] = result.clone()
        return result

    predictor._internal_get_sliding_window_slicers = counted
    predictor._internal_maybe_mirror_and_predict = timed
    return tile_s, n_tiles


def plan(job: dict[str, Any]) -> dict[str, Any]:
    """Model folders of nnU-Net's: its default plans, random weights."""
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
        ExperimentPlanner,
    )
    from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    dataset = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "organ": 1},
        "numTraining": CASES,
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "SimpleITKIO",
        "dataset": {"case": {"images": ["case_0000.nii.gz"], "label": "case.nii.gz"}},
    }
    fingerprint = {
        "spacings": [SPACING_MM] * CASES,
        "shapes_after_crop": [SHAPE] * CASES,
        "foreground_intensity_properties_per_channel": {"0": HU},
        "median_relative_size_after_cropping": 1.0,
    }
    write_json(Path(nnUNet_raw, DATASET, "dataset.json"), dataset)
    write_json(Path(nnUNet_preprocessed, DATASET, "dataset_fingerprint.json"), fingerprint)
    manager = PlansManager(ExperimentPlanner(DATASET).plan_experiment())
    for name in ("2d", "3d_fullres"):
        folder = Path(job["folder"], name)
        write_json(folder / "dataset.json", dataset)
        write_json(folder / "plans.json", manager.plans)
        save_random_network(manager.get_configuration(name), name, folder / "fold_0")
    return {}


def save_random_network(configuration: Any, name: str, folder: Path) -> None:
    """The checkpoint that nnU-Net's predictor loads."""
    import torch
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    network = get_network_from_plans(
        configuration.network_arch_class_name,
        configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import,
        1,
        2,
        deep_supervision=False,
    )
    checkpoint = {
        "network_weights": network.state_dict(),
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": name},
        "inference_allowed_mirroring_axes": tuple(range(len(configuration.patch_size))),
    }
    folder.mkdir()
    torch.save(checkpoint, folder / CHECKPOINT)


def write_json(path: Path, content: Any) -> None:
    """Write JSON, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def run(tool: str, folder: Path, **job: Any) -> dict[str, Any]:
    """A tool in a process of its own on as many cores as threads."""
    folder.mkdir(exist_ok=True)
    path = folder / "job.json"
    write_json(path, {"tool": tool, "folder": str(folder), **job})
    names = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    environment = {name: str(folder.parent / name) for name in names}
    environment |= {"nnUNet_def_n_proc": str(job["threads"])}
    began = time.perf_counter()
    command = [sys.executable, __file__, "--child", str(path)]
    subprocess.run(command, check=True, stdout=sys.stderr, env={**os.environ, **environment})
    seconds = time.perf_counter() - began
    facts: dict[str, Any] = json.loads(path.with_name("facts.json").read_text())
    tile_s = facts.get("tile_s", [])
    skipped = facts.get("tiles", 0) - len(tile_s)
    # The first tile warms up and does not stand for the rest.
    typical = tile_s[1:] or tile_s
    extra = skipped * sum(typical) / len(typical) if skipped else 0.0
    return {**facts, "seconds": seconds + extra, "mark": "~" if skipped else ""}


def child(path: Path) -> None:
    """In the child: do the job, note the peak of memory."""
    job = json.loads(path.read_text())
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: job["threads"]])
    tools = {"leanseg": leanseg, "monai": monai, "nnunet": nnunet, "plan": plan}
    facts = tools[job["tool"]](job)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    write_json(path.with_name("facts.json"), {**facts, "peak_mb": peak_mb})


def main() -> None:
    """Parse, measure, print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scan", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--precision", default="f32")
    parser.add_argument("--tools", nargs="+", default=["monai", "nnunet"])
    parser.add_argument("--tiles", type=int)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    common = {"scan": str(options.scan.resolve()), "threads": options.threads}
    print("| process, file to file | s | peak MB | times leanseg's s | MB |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours = {"model": str(options.model.resolve()), "precision": options.precision}
        base = run("leanseg", folder / "leanseg", **common, **ours)
        rows = {f"leanseg {options.precision}": base}
        if "monai" in options.tools:
            rows["MONAI, MoNet"] = run("monai", folder / "monai", **common)
        if "nnunet" in options.tools:
            run("plan", folder / "plan", **common)
            for kind in ("2d", "3d_fullres"):
                for mirroring in (True, False):
                    job = {"network": str(folder / "plan" / kind), "mirroring": mirroring}
                    title = f"nnU-Net {kind}, {'mirroring' if mirroring else 'no mirroring'}"
                    place = folder / f"{kind}-{mirroring}"
                    rows[title] = run("nnunet", place, tiles=options.tiles, **common, **job)
    for title, row in rows.items():
        ratios = row["seconds"] / base["seconds"], row["peak_mb"] / base["peak_mb"]
        cells = f"{row['mark']}{row['seconds']:.1f} | {row['peak_mb']:.0f}"
        print(f"| {title} | {cells} | {row['mark']}{ratios[0]:.1f} | {ratios[1]:.1f} |")


if __name__ == "__main__":
    child(Path(sys.argv[2])) if sys.argv[1:2] == ["--child"] else main()
