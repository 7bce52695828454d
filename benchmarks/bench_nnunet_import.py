"""An imported nnU-Net model beside nnU-Net's own predictor: processor seconds, memory, labels.

    python -m venv rival && rival/bin/pip install nnunetv2
    leanseg import-weights nnunet MODEL_FOLDER -o model.leanseg
    python benchmarks/bench_nnunet_import.py MODEL_FOLDER model.leanseg SCAN... \
        --nnunet-python rival/bin/python --rounds 3

Every prediction is a process of its own, from file to file and with all its imports; the tools
take turns. nnU-Net runs `predict_from_files_sequential` on the processor, in float32, without
mirroring (`--mirroring` turns it on in both). Prints Markdown: medians of the rounds, and the
share of voxels with the same label.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np

NNUNET = """
import sys, torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
folder, scan, output, mirroring, threads, exact = sys.argv[1:]
if exact == "True":
    # The type of the arrays in which it adds up logits.
    torch.half = torch.float32
torch.set_num_threads(int(threads))
predictor = nnUNetPredictor(
    use_mirroring=mirroring == "True", device=torch.device("cpu"),
    perform_everything_on_device=False, allow_tqdm=False,
)
from pathlib import Path
folds = [each.name[5:] for each in sorted(Path(folder).glob("fold_*"))]
predictor.initialize_from_trained_model_folder(folder, tuple(folds))
predictor.predict_from_files_sequential([[scan]], [output])
"""


def cost(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Processor seconds and peak MB of a process."""
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            said.seek(0)
            sys.exit(said.read()[-2000:])
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("scans", type=Path, nargs="+")
    parser.add_argument("--nnunet-python", default=sys.executable)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--mirroring", action="store_true")
    parser.add_argument("--exact", action="store_true", help="nnU-Net adds up in 32 bits, too")
    given = parser.parse_args()
    threads = str(given.threads)
    with tempfile.TemporaryDirectory() as place:
        own = {**os.environ, "OMP_NUM_THREADS": threads}
        names = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
        theirs = own | dict.fromkeys(names, place) | {"nnUNet_def_n_proc": threads}
        print("| scan | nnU-Net: CPU s, MB | leanseg: CPU s, MB | ratios | same labels |")
        print("|---|--:|--:|--:|--:|")
        for scan in given.scans:
            results = [Path(place, "nnunet.nii.gz"), Path(place, "leanseg", scan.name)]
            stem = str(results[0]).removesuffix(".nii.gz")
            nnunet = [given.nnunet_python, "-c", NNUNET, str(given.folder), str(scan), stem]
            nnunet += [str(given.mirroring), threads, str(given.exact)]
            leanseg = [sys.executable, "-m", "leanseg", "predict", str(given.model), str(scan)]
            leanseg += ["-o", str(results[1].parent), "--threads", threads]
            leanseg += ["--overwrite"] + (["--tta", "flips"] if given.mirroring else [])
            measured: list[list[tuple[float, float]]] = [[], []]
            for _ in range(given.rounds):
                measured[0].append(cost(nnunet, theirs))
                measured[1].append(cost(leanseg, own))
            seconds, memory = (
                [statistics.median(each[n] for each in one) for one in measured] for n in (0, 1)
            )
            maps = [np.asanyarray(nib.load(path).dataobj) for path in results]
            print(
                f"| {scan.name} | {seconds[0]:.1f}, {memory[0]:.0f} | {seconds[1]:.1f}, "
                f"{memory[1]:.0f} | {seconds[0] / seconds[1]:.1f}, {memory[0] / memory[1]:.1f} | "
                f"{100 * np.mean(maps[0] == maps[1]):.3f} % |",
                flush=True,
            )


if __name__ == "__main__":
    main()
