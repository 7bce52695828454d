"""An ensemble that others published, on a CT of the abdomen: DICOM in, DICOM SEG out, no PyTorch.

    python examples/obelisk_dicom.py import WEIGHTS obelisk.leanseg    # once, with PyTorch
    python examples/obelisk_dicom.py predict obelisk.leanseg STUDY.zip masks    # without

WEIGHTS is a folder with obeliskhybrid_tcia_fold1.pth to fold4.pth of the authors of OBELISK-Net.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def import_ensemble(weights: Path, output: Path, folds: int = 4) -> Path:
    """The authors' checkpoints as one model file, which holds the exported networks."""
    import leanseg

    paths = [weights / f"obeliskhybrid_tcia_fold{fold + 1}.pth" for fold in range(folds)]
    return leanseg.import_weights(paths, output)


def predict(model: Path, study: Path, output: Path) -> Path:
    """A DICOM SEG of eight organs, which refers to the study's own images."""
    from leanseg.cli.main import run

    try:
        run(["predict", str(model), str(study), "--output", str(output), "--format", "dicom-seg"])
    except SystemExit as ended:
        if ended.code:
            raise
    if "torch" in sys.modules:
        raise SystemExit("PyTorch was imported")
    (written,) = output.glob("*.dcm")
    return written


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser("import")
    first.add_argument("weights", type=Path)
    first.add_argument("output", type=Path)
    first.add_argument("--folds", type=int, default=4)
    second = commands.add_parser("predict")
    second.add_argument("model", type=Path)
    second.add_argument("study", type=Path)
    second.add_argument("output", type=Path)
    given = parser.parse_args()
    if given.command == "import":
        print(import_ensemble(given.weights, given.output, given.folds))
    else:
        print(predict(given.model, given.study, given.output))
