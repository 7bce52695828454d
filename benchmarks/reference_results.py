"""What `leanseg predict` gives, takes and holds, recorded, so that two versions can be compared.

    python benchmarks/reference_results.py package WEIGHTS MODELS
    python benchmarks/reference_results.py run --code old:OLD_SRC:OLD_MODELS \
        --code new:NEW_SRC:NEW_MODELS --output RESULTS [--only monet/ircad01 ...] [--rounds 3]
    python benchmarks/reference_results.py compare RESULTS/old.json RESULTS/new.json

Every prediction is a process of its own, with the engine, precision and threads spelled out.
Several versions of the code (a name, the folder that holds the package, the folder of its model
files) take turns, so that what else the machine does falls on all alike. Recorded: the SHA-256 of
the label map's voxels and of its affine, voxels per label, wall clock, processor time of all
threads, and the peak of the process's resident memory. Label maps stay in RESULTS/maps/NAME.

`package` turns weights that outlast a change of the model file's format (NAME.safetensors, and
NAME.json with the network and what it expects to see) into model files of the version on the
Python path. Real scans come from `../shared/data`, or from the folder in LEANSEG_SHARED_DATA.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Only the standard library is imported here: a child starts with its parent's peak memory.
SHARED = Path(
    os.environ.get("LEANSEG_SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
)
THREADS = "2"
COMMAND = "import sys; from leanseg.cli.main import run; run(sys.argv[1:])"
LOOK_EVERY_S = 0.01

HIPPOCAMPUS = ("001", "003", "004", "007", "008", "011", "014", "015", "019", "020")
ABDOMEN = {
    "ircad01": "abdomen_ircad01/ct.nii.gz",
    "totalsegmentator": "totalsegmentator_peer/example_ct.nii.gz",
    "chaos03": "abdomen_chaos03/chaos_ct_set3_dicom_png.zip",
}
OTHERS = {
    "sarcoma002": "Task101_SarcomaCT/imagesTr/sts_002.nii.gz",
    "sarcoma004": "Task101_SarcomaCT/imagesTr/sts_004.nii.gz",
    **{
        f"hippocampus{n}": f"Task04_Hippocampus/imagesTr/hippocampus_{n}.nii.gz"
        for n in HIPPOCAMPUS
    },
}
# An abdominal CT, tiled: the usual length, and the longest scan of KiTS19.
DRAWN = {"slices150": (512, 512, 150), "slices1059": (512, 512, 1059)}
EVERYWHERE = ("monet", "monet-largest", "unet-16", "nnunet-3d")
OBELISK = ("obelisk-fold", "obelisk-ensemble")


@dataclass(frozen=True)
class Job:
    """One model on one scan."""

    model: str
    scan: str
    precision: str = "f32"

    @property
    def name(self) -> str:
        return f"{self.model}/{self.scan}/{self.precision}"


@dataclass(frozen=True)
class Code:
    """One version: the folder that holds the package, and its model files."""

    name: str
    source: Path
    models: Path


def jobs() -> list[Job]:
    """All that is compared, short ones first."""
    found = [Job(model, scan) for model in EVERYWHERE for scan in (*OTHERS, *ABDOMEN)]
    found += [Job("unet-16-mr", f"hippocampus{n}") for n in HIPPOCAMPUS]
    found += [Job(model, scan) for model in OBELISK for scan in ABDOMEN]
    found += [Job("monet", "slices150"), Job("monet", "slices150", "bf16")]
    found += [Job("monet", "slices1059"), Job("obelisk-ensemble", "slices1059")]
    return found


def package(weights: Path, models: Path) -> None:
    """Write every network of a folder as a model file."""
    from safetensors.numpy import load_file

    models.mkdir(parents=True, exist_ok=True)
    for path in sorted(weights.glob("*.json")):
        description = json.loads(path.read_text())
        arrays = load_file(path.with_name(description.get("weights", f"{path.stem}.safetensors")))
        package_one(description, arrays, models / f"{path.stem}.leanseg")
        print(models / f"{path.stem}.leanseg")


def package_one(description: dict[str, Any], weights: dict[str, Any], output: Path) -> None:
    """One network with its plan; what changes when plan or model file do."""
    from leanseg.modelfile import Member, ModelFile, NetworkSpec, write_model
    from leanseg.plan import Plan
    from leanseg.training.export import export_model

    sees = description["sees"]
    if "slices" in sees:
        frame: dict[str, Any] = {"axes": [*sees["slices"], None]}
        patch: dict[str, Any] = {"shape": ["whole", "whole", 1]}
    else:
        axes = [{"spacing_mm": each} for each in sees["spacing_mm"]]
        frame = {"axes": axes}
        patch = {"shape": sees["tiles"], "overlap": sees["overlap"]}
    frame["orientation"] = description["orientation"]
    stages: list[dict[str, Any]] = []
    if description["skip_outside_body"]:
        stages.append({"kind": "scout", "name": "body", "finds": "body"})
        frame["region"] = {"stage": "body"}
    stage = {
        "labels": description["labels"],
        "frame": frame,
        "patch": patch,
        "intensity": {"window": description["window"], "scaling": description["scaling"]},
        "largest_component": description["largest_component"],
    }
    plan = Plan.model_validate({"stages": [*stages, {"kind": "network", **stage}]})
    member = Member(NetworkSpec(**description["network"]), weights, path=output)
    write_model(output, export_model(ModelFile.of(plan, member)))


def scan_path(name: str, folder: Path) -> Path:
    """Where a scan lies; one that is drawn is drawn on its first use."""
    if name not in DRAWN:
        return SHARED / {**ABDOMEN, **OTHERS}[name]
    path = folder / f"{name}.nii.gz"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, __file__, "draw", str(path), *map(str, DRAWN[name])]
        subprocess.run(command, check=True)
    return path


def draw(path: Path, shape: tuple[int, ...]) -> None:
    """Write an abdominal CT, padded with air and repeated to and fro along the third axis."""
    import nibabel as nib
    import numpy as np
    from isal import igzip

    source = nib.load(SHARED / ABDOMEN["ircad01"])
    assert isinstance(source, nib.Nifti1Image)
    voxels = np.asarray(source.dataobj)
    header = source.header.copy()
    header.set_data_shape(shape)
    header.set_data_dtype(np.int16)
    header["magic"], header["vox_offset"] = b"n+1", 352
    there_and_back = [*range(voxels.shape[2]), *range(voxels.shape[2] - 2, 0, -1)]
    rows, columns = (min(n, m) for n, m in zip(voxels.shape[:2], shape[:2], strict=True))
    with igzip.open(path, "wb", 1) as file:
        file.write(header.binaryblock + bytes(4))
        for k in range(shape[2]):
            piece = np.full(shape[:2], -1024, dtype="<i2")
            chosen = there_and_back[k % len(there_and_back)]
            piece[:rows, :columns] = voxels[:rows, :columns, chosen]
            file.write(piece.tobytes(order="F"))


def describe_map(path: Path) -> None:
    """In a child: what a label map holds, as JSON on stdout."""
    import nibabel as nib
    import numpy as np

    image = nib.load(path)
    assert isinstance(image, nib.Nifti1Image)
    digest, voxels = hashlib.sha256(), np.zeros(65536, dtype=np.int64)
    # The same digest whatever the integer type, which is recorded apart.
    labels = np.asarray(image.dataobj).astype("<u2")
    for piece in labels:
        digest.update(piece.tobytes())
        voxels += np.bincount(piece.ravel(), minlength=65536)
    found = {
        "sha256": digest.hexdigest(),
        "affine_sha256": hashlib.sha256(image.affine.astype("<f8").tobytes()).hexdigest(),
        "voxels": {str(label): int(voxels[label]) for label in np.flatnonzero(voxels)},
        "dtype": str(image.get_data_dtype()),
        "shape": [int(n) for n in image.shape],
    }
    print(json.dumps(found))


def predict(code: Code, job: Job, scan: Path, folder: Path) -> dict[str, float]:
    """One process: its wall clock, processor time and peak memory (MB, 10^6 bytes)."""
    arguments = ["predict", str(code.models / f"{job.model}.leanseg"), str(scan)]
    arguments += ["--output", str(folder), "--overwrite", "--threads", THREADS]
    arguments += ["--engine", "openvino", "--precision", job.precision]
    environment = {**os.environ, "PYTHONPATH": str(code.source)}
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as told:
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, *arguments], env=environment, stdout=told, stderr=told
        )
        peak, status, usage = _watched(process.pid)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        told.seek(0)
        if process.returncode:
            raise SystemExit(f"{code.name}, {job.name} failed:\n{told.read()}")
    peak = max(peak, usage.ru_maxrss * 1024)
    return {"wall_s": wall, "cpu_s": usage.ru_utime + usage.ru_stime, "peak_mb": peak / 1e6}


def _watched(pid: int) -> tuple[int, int, Any]:
    """The largest peak that the system shows of a process until it ends: a process may reset it."""
    peak = 0
    while True:
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            return peak, status, usage
        peak = max(peak, _high_water_bytes(pid))
        time.sleep(LOOK_EVERY_S)


def _high_water_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def run_all(codes: list[Code], output: Path, rounds: int, only: list[str]) -> None:
    """Run the jobs, code by code in turn, and record them after each."""
    wanted = [job for job in jobs() if not only or any(each in job.name for each in only)]
    for job in wanted:
        scan = scan_path(job.scan, output / "scans")
        runs: dict[str, list[dict[str, float]]] = {code.name: [] for code in codes}
        folders = {code.name: output / "maps" / code.name / job.name for code in codes}
        for _ in range(rounds):
            for code in codes:
                runs[code.name].append(predict(code, job, scan, folders[code.name]))
        for code in codes:
            (label_map,) = folders[code.name].glob("*.nii.gz")
            record = _described(label_map)
            for key in ("wall_s", "cpu_s", "peak_mb"):
                record[key] = [round(run[key], 3) for run in runs[code.name]]
            _keep(output / f"{code.name}.json", job.name, record)
            walls, peaks = record["wall_s"], record["peak_mb"]
            took = f"{statistics.median(walls):8.2f} s {max(peaks):7.0f} MB"
            told = f"{code.name:6} {job.name:40} {took} {record['sha256'][:12]}"
            print(told, record["voxels"], flush=True)


def _described(path: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "describe", str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _keep(path: Path, name: str, record: dict[str, Any]) -> None:
    known = json.loads(path.read_text()) if path.is_file() else {}
    known[name] = record
    path.write_text(json.dumps(known, indent=1) + "\n")


def compare(old: Path, new: Path) -> int:
    """Print a Markdown table; 1 if any label map differs, else 0."""
    before, after = (json.loads(path.read_text()) for path in (old, new))
    print("| model, scan, precision | same bits | time | processor time | peak memory | MB |")
    print("|---|---|---|---|---|---|")
    different = 0
    for name in [each for each in before if each in after]:
        first, second = before[name], after[name]
        keys = ("sha256", "affine_sha256", "shape", "dtype")
        unlike = [key for key in keys if first[key] != second[key]]
        different += bool(unlike)
        ratios = [_ratio(first, second, key) for key in ("wall_s", "cpu_s", "peak_mb")]
        cells = [name, f"**no**: {', '.join(unlike)}" if unlike else "yes", *ratios]
        print(f"| {' | '.join(cells)} | {max(second['peak_mb']):.0f} |")
    print(f"\n{different} label maps differ.")
    if alone := before.keys() ^ after.keys():
        print(f"{len(alone)} predictions are in one of the two files alone.")
    return int(different > 0)


def _ratio(first: dict[str, Any], second: dict[str, Any], key: str) -> str:
    return f"{statistics.median(second[key]) / statistics.median(first[key]):.3f}"


def _codes(values: list[str]) -> Iterator[Code]:
    for value in values:
        name, source, models = value.split(":")
        yield Code(name, Path(source).resolve(), Path(models).resolve())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("package")
    packing.add_argument("weights", type=Path)
    packing.add_argument("models", type=Path)
    running = commands.add_parser("run")
    running.add_argument("--code", action="append", required=True, metavar="NAME:SRC:MODELS")
    running.add_argument("--output", type=Path, required=True)
    running.add_argument("--rounds", type=int, default=1)
    running.add_argument("--only", nargs="+", default=[], help="parts of MODEL/SCAN/PRECISION")
    comparing = commands.add_parser("compare")
    comparing.add_argument("old", type=Path)
    comparing.add_argument("new", type=Path)
    describing = commands.add_parser("describe")
    describing.add_argument("path", type=Path)
    drawing = commands.add_parser("draw")
    drawing.add_argument("path", type=Path)
    drawing.add_argument("shape", type=int, nargs=3)
    options = parser.parse_args()
    if options.command == "compare":
        return compare(options.old, options.new)
    if options.command == "package":
        package(options.weights, options.models)
    elif options.command == "run":
        run_all(list(_codes(options.code)), options.output, options.rounds, options.only)
    elif options.command == "describe":
        describe_map(options.path)
    else:
        draw(options.path, tuple(options.shape))
    return 0


if __name__ == "__main__":
    sys.exit(main())
