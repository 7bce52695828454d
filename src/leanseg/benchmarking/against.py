"""Other tools at the same job: nnU-Net v2's own predictor, and a pipeline of MONAI's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from leanseg.benchmarking.cost import ModelFacts
from leanseg.benchmarking.measure import Outcome, Settings, equal_share
from leanseg.benchmarking.nnunet_plans import (
    Fingerprint,
    count_tiles,
    dataset_description,
    passes_per_tile,
    resampled_shape,
    whole_seconds,
)
from leanseg.benchmarking.processes import ChildError, ChildRun, run_child
from leanseg.benchmarking.rivals import Choice, Rival
from leanseg.errors import RecipeError
from leanseg.volumes import Volume, write_volume

_NNUNET = "leanseg.benchmarking.nnunet_child"
_MONAI = "leanseg.benchmarking.monai_child"


def prepare(
    choice: Choice,
    facts: ModelFacts,
    scan: Volume,
    folder: Path,
    settings: Settings,
    on_notice: Callable[[str], None] = lambda text: None,
) -> list[Rival]:
    """Write the scan as the tools read it and have nnU-Net make its networks.

    Args:
        choice: What was asked for.
        facts: The model: nnU-Net's networks get as many channels and classes.
        scan: The scan.
        folder: Where files may be written until the end of the benchmark.
        settings: Threads and the like.
        on_notice: Called with what is being done, if it takes a while.

    Raises:
        LeansegError: If nnU-Net cannot plan.
    """
    whole = folder / "scan.nii.gz"
    write_volume(whole, scan)
    rivals = []
    if "nnunet" in choice.tools:
        on_notice("nnU-Net plans")
        files = _channels(scan, whole, folder)
        rivals += _nnunet(choice, facts, files, folder, settings)
        for rival in rivals:
            on_notice(_announcement(rival, scan))
    if "monai" in choice.tools:
        job = {"model": facts.file, "scan": str(whole), "allow_imports": settings.allow_imports}
        rivals.append(Rival("monai", f"{facts.network}, PyTorch f32", job))
    return rivals


def _channels(scan: Volume, whole: Path, folder: Path) -> list[str]:
    """One file a channel, as nnU-Net reads scans."""
    if scan.array.ndim == 3:
        return [str(whole)]
    files = [folder / f"scan_{number:04d}.nii.gz" for number in range(scan.n_channels)]
    for number, path in enumerate(files):
        write_volume(path, Volume(scan.array[..., number], scan.affine))
    return [str(path) for path in files]


def _announcement(rival: Rival, scan: Volume) -> str:
    """What nnU-Net is going to do, so that nobody waits for minutes unawares."""
    network = rival.network
    # nnU-Net reads (k, j, i) and then orders the axes as its plans say.
    shape, spacing = ([values[2 - axis] for axis in network["axes"]] for values in _grid(scan))
    tiles = count_tiles(
        resampled_shape(shape, spacing, network["spacing_mm"]), network["patch_size"]
    )
    patch = " x ".join(map(str, network["patch_size"]))
    run = "" if rival.job["tiles"] is None else f", of which {rival.job['tiles']} are run"
    return f"nnU-Net {rival.setting}: {tiles} tiles of {patch}, {network['passes']} x each{run}"


def _grid(scan: Volume) -> tuple[tuple[int, ...], tuple[float, ...]]:
    return scan.shape, scan.spacing_mm


def _nnunet(
    choice: Choice, facts: ModelFacts, files: list[str], folder: Path, settings: Settings
) -> list[Rival]:
    fingerprint = Fingerprint()
    own = folder / "nnunet"
    own.mkdir()
    described = dataset_description(facts.labels, facts.channels, fingerprint.cases, ".nii.gz")
    job = {
        "task": "plan",
        "folder": str(own),
        "dataset": described,
        "fingerprint": fingerprint.as_dict(facts.channels),
        "plans": choice.plans,
        "configurations": choice.configurations,
    }
    threads = settings.threads
    environment = _environment(own, threads)
    run = run_child(_NNUNET, job, threads=threads, environment=environment)
    if run.refusal is not None:
        raise RecipeError(f"nnU-Net: {run.refusal[1]}")
    rivals = []
    for name in choice.configurations:
        network = run.events[f"planned {name}"]
        for mirroring in (True, False):
            if choice.mirroring == ("off" if mirroring else "on"):
                continue
            passes = passes_per_tile(len(network["patch_size"]), mirroring)
            predict = {
                "task": "predict",
                "folder": str(own),
                "model": network["folder"],
                "files": files,
                "mirroring": mirroring,
                "tiles": choice.tiles,
            }
            setting = f"{name}, {'mirroring' if mirroring else 'no mirroring'}"
            kept = {key: value for key, value in network.items() if key != "folder"}
            rivals.append(Rival("nnunet", setting, predict, kept | {"passes": passes}))
    return rivals


def _environment(folder: Path, threads: int) -> dict[str, str]:
    """What nnU-Net wants to find in the environment; the user need not set any of it."""
    names = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    for name in names:
        (folder / name).mkdir(exist_ok=True)
    # Without the last, nnU-Net takes eight threads for resampling, whatever PyTorch was told.
    return {**{name: str(folder / name) for name in names}, "nnUNet_def_n_proc": str(threads)}


def run_rivals(
    rivals: Sequence[Rival],
    number: int,
    folder: Path,
    settings: Settings,
    on_tile: Callable[[str, int, int], None] = lambda setting, done, total: None,
) -> None:
    """Run every rival once, each a process of its own; filled in here.

    Args:
        rivals: From `prepare`.
        number: Of the turn, from 0.
        folder: Where files may be written.
        settings: Threads and the like.
        on_tile: Called with a rival's setting, nnU-Net's tiles that are done, and all of them.
    """
    for index, rival in enumerate(rivals):
        if rival.status == "measured":
            _run(rival, folder / f"rival-{index}-{number}", folder, settings, on_tile)


def _run(
    rival: Rival,
    output: Path,
    folder: Path,
    settings: Settings,
    on_tile: Callable[[str, int, int], None],
) -> None:
    total = 0

    def watch(event: str, facts: dict[str, Any]) -> None:
        nonlocal total
        if event == "tiled":
            total = min(facts["tiles"], rival.job["tiles"] or facts["tiles"])
        elif event == "tile":
            on_tile(rival.setting, facts["done"], total)

    module, extra = _MONAI, dict[str, str]()
    if rival.tool == "nnunet":
        module, extra = _NNUNET, _environment(folder / "nnunet", settings.threads)
    job = {**rival.job, "output": str(output)}
    try:
        run = run_child(module, job, threads=settings.threads, environment=extra, on_event=watch)
    except ChildError as error:
        rival.status, rival.message = "failed", str(error)
        return
    if run.refusal is not None:
        rival.status, rival.message = "failed", run.refusal[1]
        return
    rival.runs.append(_figures(run))
    if "file" in run.events["written"]:
        rival.mask = Path(run.events["written"]["file"])


def _figures(run: ChildRun) -> dict[str, Any]:
    written = run.events["written"]
    figures = {
        "process": run.seconds,
        "network": written["network_s"],
        "peak_memory_mb": written["peak_memory_mb"],
        "extrapolated": False,
    }
    if "tiles" in written:
        whole, extrapolated = whole_seconds(run.seconds, written["tile_s"], written["tiles"])
        figures |= {
            "process": whole,
            "network": written["network_s"] + whole - run.seconds,
            "extrapolated": extrapolated,
            "measured": run.seconds,
            "tiles": written["tiles"],
            "timed_tiles": len(written["tile_s"]),
        }
    return figures


def compare_masks(rivals: Sequence[Rival], reference: Outcome | None) -> None:
    """Fill in the agreement of rivals that run the model's own network.

    Args:
        rivals: After `run_rivals`.
        reference: From `leanseg.benchmarking.measure.measure`.

    Raises:
        LeansegError: If a rival's label map does not have the scan's shape.
    """
    if reference is None or reference.mask is None:
        return
    for rival in rivals:
        if rival.mask is not None:
            rival.equal_voxels = equal_share(rival.mask, reference.mask)
            rival.reference = " ".join(reference.chosen)
