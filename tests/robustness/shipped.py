"""The files that pydicom, nibabel and highdicom ship, through `leanseg info` and the readers."""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from leanseg.errors import LeansegError
from robustness import oracles
from robustness.harness import Target, UncheckedError, WrongError


def _files() -> list[Path]:
    """Every data file and every folder of them; what is no scan has to be refused, too."""
    import highdicom
    import nibabel
    import pydicom

    found: set[Path] = set()
    for package in (pydicom, nibabel, highdicom):
        for path in Path(package.__file__).parent.rglob("*"):
            if path.suffix not in (".py", ".pyc", ".pyi", ".so") and path.is_file():
                found.add(path)
                found.add(path.parent)
    return sorted(path for path in found if (path.parent / "test_files") not in found)


FILES = _files()
_WAYS = ("info", "reader", "series")


def choose(folder: Path, rng: np.random.Generator) -> None:
    """Each file in each way: the number of the input says which."""
    number = rng.bit_generator.seed_seq.entropy[-1]  # type: ignore[attr-defined]
    path, how = FILES[number // len(_WAYS) % len(FILES)], _WAYS[number % len(_WAYS)]
    if how == "series":
        path = _series_of(path, folder / "series")
    (folder / ".chosen").write_text(json.dumps([how, str(path)]))


def _series_of(path: Path, folder: Path) -> Path:
    """Three copies of a single slice, 2 mm apart; the path itself where it is none."""
    from pydicom import dcmread
    from pydicom.uid import generate_uid

    try:
        dataset = dcmread(path)
        row, column = np.array(dataset.ImageOrientationPatient, float).reshape(2, 3)
        first = np.array(dataset.ImagePositionPatient, float)
        folder.mkdir()
        for k in range(3):
            place = first + 2.0 * k * np.cross(row, column)
            dataset.ImagePositionPatient = [f"{value:.4f}" for value in place]
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            dataset.InstanceNumber = k + 1
            dataset.save_as(folder / f"{k}.dcm")
    except Exception:  # not DICOM, or no slice
        return path
    return folder


def read(folder: Path) -> Any:
    """What `info` says, or what the reader of its kind makes of it; a refusal has to be true."""
    how, name = json.loads((folder / ".chosen").read_text())
    try:
        return _read(how, name)
    except LeansegError as error:
        untrue = re.search("damaged or cut short|is not DICOM", str(error)) and _is_sound(
            Path(name)
        )
        assert not untrue, f"untrue, pydicom reads it: {error}"
        raise


def _is_sound(path: Path) -> bool:
    """Whether pydicom reads a file without being forced to, with its pixels where it has any."""
    from pydicom import dcmread

    try:
        dataset = dcmread(path)
        return "truncated" not in path.name and ("PixelData" not in dataset or bool(
            dataset.pixel_array.size))  # fmt: skip
    except Exception:
        return False


def _read(how: str, name: str) -> Any:
    if how == "series" and not name.endswith("/series"):
        return name, {}
    if how == "info":
        return name, _info(name)
    path = Path(name)
    if _modality(path) == "SEG":
        from leanseg.volumes.dicom.seg_reader import read_dicom_seg

        return name, read_dicom_seg(path)
    from leanseg.volumes import read_volume

    return name, read_volume(path)


def _info(name: str) -> dict[str, Any]:
    from leanseg.cli.main import run

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run(["info", "--json", name])
        except SystemExit as end:
            if end.code:
                assert end.code == 2, err.getvalue()
                message = err.getvalue().removeprefix("leanseg: ").removesuffix("\n")
                raise LeansegError(message) from end
    facts: dict[str, Any] = json.loads(out.getvalue())
    return facts


def _modality(path: Path) -> str:
    from pydicom import dcmread

    try:
        return str(dcmread(path, stop_before_pixels=True).get("Modality"))
    except Exception:
        return ""


def check(folder: Path, answer: tuple[str, Any]) -> None:
    """nibabel's and pydicom's own reading of the same file."""
    path, found = Path(answer[0]), answer[1]
    if isinstance(found, dict):
        _check_facts(path, found)
    elif isinstance(found, tuple):
        oracles.segmentation(path, *found)
    elif ".nii" in path.name:
        oracles.nifti(path, found)
    else:
        oracles.series(path, found)


def _check_facts(path: Path, facts: dict[str, Any]) -> None:
    if "scan" not in facts:
        raise UncheckedError
    import nibabel as nib

    image: Any = nib.load(path)
    found = np.array(facts["affine_to_ras_mm"]), [*facts["shape"]]
    if not np.allclose(found[0], image.affine) or found[1] != list(image.shape[:3]):
        raise WrongError(f"{found}, nibabel {image.affine} {image.shape}")


TARGET = Target(
    "files that others ship", lambda folder: None, choose, read, check, len(_WAYS) * len(FILES), 0,
    limit_s=60, most_bytes=2 << 30,
)  # fmt: skip
