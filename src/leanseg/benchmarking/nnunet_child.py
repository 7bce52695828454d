"""A child that lets nnU-Net v2 plan, or predict a scan with its own predictor.

The weights are random: they cost what trained ones cost. Nothing is downloaded.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from leanseg.benchmarking.child import own_peak_memory_mb, report, serve

_DATASET = "Dataset900_Benchmark"
_TRAINER = "nnUNetTrainer"
_CHECKPOINT = "checkpoint_final.pth"


def work(job: dict[str, Any]) -> None:
    """Plan, or predict."""
    import torch

    torch.set_num_threads(job["threads"])
    {"plan": plan, "predict": predict}[job["task"]](job)


def plan(job: dict[str, Any]) -> None:
    """Write a model folder for each configuration: plans, dataset, random weights."""
    folder, dataset = Path(job["folder"]), job["dataset"]
    plans = job["plans"] or _planned(dataset, job["fingerprint"], folder)
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    for name in job["configurations"]:
        manager = PlansManager(plans)
        if name not in manager.available_configurations:
            found = ", ".join(manager.available_configurations)
            message = f"the plans have no configuration {name!r}, only {found}; choose one of those"
            report("refused", kind="RecipeError", message=message)
            return
        report(f"planned {name}", **_model_folder(manager, dataset, name, folder / name))


def _planned(dataset: dict[str, Any], fingerprint: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The plans that nnU-Net's default planner makes for a fingerprint."""
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
        ExperimentPlanner,
    )

    for name, content in (("dataset", dataset), ("dataset_fingerprint", fingerprint)):
        # The folders that the environment names.
        parent = "nnUNet_raw" if name == "dataset" else "nnUNet_preprocessed"
        path = folder / parent / _DATASET / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content), encoding="utf-8")
    plans: dict[str, Any] = ExperimentPlanner(_DATASET).plan_experiment()
    return plans


def _model_folder(manager: Any, dataset: dict[str, Any], name: str, folder: Path) -> dict[str, Any]:
    """Write what `nnUNetv2_predict_from_modelfolder` wants; says what the network is."""
    import torch

    configuration = manager.get_configuration(name)
    channels, outputs = len(dataset["channel_names"]), len(dataset["labels"])
    torch.manual_seed(0)
    network = _network(configuration, channels, outputs)
    checkpoint = {
        "network_weights": network.state_dict(),
        "trainer_name": _TRAINER,
        "init_args": {"configuration": name},
        # As its trainer allows by default: every axis.
        "inference_allowed_mirroring_axes": tuple(range(len(configuration.patch_size))),
    }
    (folder / "fold_0").mkdir(parents=True)
    torch.save(checkpoint, folder / "fold_0" / _CHECKPOINT)
    for part, content in (("plans", manager.plans), ("dataset", dataset)):
        (folder / f"{part}.json").write_text(json.dumps(content), encoding="utf-8")
    return {
        "folder": str(folder),
        "patch_size": [int(side) for side in configuration.patch_size],
        "spacing_mm": [float(mm) for mm in configuration.spacing],
        "axes": [int(axis) for axis in manager.transpose_forward],
        "parameters": sum(each.numel() for each in network.parameters()),
        "multiply_adds": _multiply_adds(configuration, channels, outputs),
    }


def _network(configuration: Any, channels: int, outputs: int) -> Any:
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    return get_network_from_plans(
        configuration.network_arch_class_name,
        configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import,
        channels,
        outputs,
        deep_supervision=False,
    )


def _multiply_adds(configuration: Any, channels: int, outputs: int) -> int:
    """Of one pass over one tile."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    with FakeTensorMode(), torch.no_grad():
        network = _network(configuration, channels, outputs).eval()
        counter = FlopCounterMode(display=False)
        with counter:
            network(torch.zeros(1, channels, *configuration.patch_size))
    return int(counter.get_total_flops()) // 2


def predict(job: dict[str, Any]) -> None:
    """What `nnUNetv2_predict -nps 0 -npp 0` does, in this one process."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    report("imported")
    predictor = nnUNetPredictor(
        use_mirroring=job["mirroring"],
        device=torch.device("cpu"),
        allow_tqdm=False,
    )
    predictor.initialize_from_trained_model_folder(job["model"], (0,), _CHECKPOINT)
    report("loaded")
    watch = _Watch(predictor, job["tiles"])
    output = Path(job["output"])
    output.mkdir()
    predictor.predict_from_files_sequential([job["files"]], [str(output / "case")])
    report(
        "written",
        peak_memory_mb=own_peak_memory_mb(),
        network_s=watch.network_s,
        tile_s=watch.tile_s,
        tiles=watch.n_tiles,
    )


class _Watch:
    """Times the predictor's tiles; past a number of tiles it repeats the last result.

    All else (the blending of every tile, resampling, writing) is done as ever, so that only the
    networks' time has to be extrapolated.

    Args:
        predictor: An nnUNetPredictor.
        most: Tiles that the network really runs; None for all.
    """

    def __init__(self, predictor: Any, most: int | None) -> None:
        self.tile_s: list[float] = []
        self.n_tiles = 0
        self.network_s = 0.0
        self._most = most
        self._last: Any = None
        self._slicers = predictor._internal_get_sliding_window_slicers
        self._run = predictor._internal_maybe_mirror_and_predict
        self._all = predictor.predict_sliding_window_return_logits
        predictor._internal_get_sliding_window_slicers = self._counted
        predictor._internal_maybe_mirror_and_predict = self._timed
        predictor.predict_sliding_window_return_logits = self._network

    def _counted(self, *arguments: Any) -> Any:
        slicers = self._slicers(*arguments)
        self.n_tiles = len(slicers)
        report("tiled", tiles=self.n_tiles)
        return slicers

    def _timed(self, tile: Any) -> Any:
        if self._most is not None and len(self.tile_s) >= self._most:
            return self._last.clone()
        began = time.perf_counter()
        result = self._run(tile)
        self.tile_s.append(time.perf_counter() - began)
        if len(self.tile_s) == self._most:
            self._last = result.clone()
        report("tile", done=len(self.tile_s))
        return result

    def _network(self, *arguments: Any) -> Any:
        began = time.perf_counter()
        result = self._all(*arguments)
        self.network_s = time.perf_counter() - began
        return result


if __name__ == "__main__":
    serve(work)
