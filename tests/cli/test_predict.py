"""`leanseg predict` as a user meets it."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import plans
from leanseg.volumes import read_volume

NAMES = ["predictions.json"]
# A mask of the small scans is about 500 bytes; their records take more than this.
FEW_BYTES = 300


def predict(model: Path, *inputs: object, output: Path, options: tuple[object, ...] = ()) -> list:
    return ["predict", model, *inputs, "--output", output, "--precision", "f32", *options]


def assert_mask_of(path: Path, scan: Path) -> None:
    mask, image = nib.load(path), nib.load(scan)
    assert mask.shape == image.shape[:3]
    assert mask.affine.tobytes() == image.affine.tobytes()
    assert mask.get_data_dtype() == np.uint8
    assert set(np.unique(mask.dataobj)) == {0, 1}


def test_files(leanseg, model: Path, make_scan, tmp_path: Path, listing) -> None:
    scans = [make_scan(tmp_path / name) for name in ("one.nii.gz", "two.nii")]
    outcome = leanseg(*predict(model, *scans, output=tmp_path / "out"))
    assert outcome.status == 0
    assert listing(tmp_path / "out") == ["one.nii.gz", "predictions.json", "two.nii.gz"]
    for scan in scans:
        assert_mask_of(tmp_path / "out" / f"{scan.name.split('.')[0]}.nii.gz", scan)
    head, first, second, *notes, last = outcome.out.splitlines()
    assert head.split() == ["case", "status", "seconds", "peak", "MB", "found,", "in", "ml"]
    voxels = int(read_volume(tmp_path / "out" / "one.nii.gz").array.sum())
    voxel_ml = abs(np.linalg.det(nib.load(scans[0]).affine[:3, :3])) / 1000
    assert first.split()[0:2] == ["one", "done"]
    assert float(first.split()[-1]) == pytest.approx(voxels * voxel_ml, abs=0.05)
    assert second.split()[0:2] == ["two", "done"]
    # The axes of these scans are not at right angles.
    assert ["its axes meet at 85.8 degrees" in note for note in notes] == [True, True]
    assert last == f"2 of 2 label maps are in {tmp_path / 'out'} (monet by torch in f32 on cpu)"
    assert [line.split(":")[0] for line in outcome.err.splitlines()] == ["1/2 one", "2/2 two"]


def test_python_gives_the_same(leanseg, model: Path, make_scan, tmp_path: Path) -> None:
    import leanseg as package

    scan = make_scan(tmp_path / "scan.nii.gz")
    leanseg(*predict(model, scan, output=tmp_path / "out"))
    found = package.load_model(model, precision="f32").predict(scan)
    np.testing.assert_array_equal(found.array, read_volume(tmp_path / "out" / "scan.nii.gz").array)


def test_a_folder(leanseg, model: Path, make_scan, tmp_path: Path, listing) -> None:
    for name in ("b.nii.gz", "a.nii.gz"):
        make_scan(tmp_path / "scans" / name)
    outcome = leanseg(*predict(model, tmp_path / "scans", output=tmp_path / "out"))
    assert outcome.status == 0
    assert listing(tmp_path / "out") == ["a.nii.gz", "b.nii.gz", "predictions.json"]


def dataset(folder: Path, make_scan, rng, channels: tuple[str, ...]) -> Path:
    shape = (20, 18, 7, len(channels))
    for name in ("p1", "p2"):
        array = rng.normal(50, 200, size=shape).astype(np.int16)
        make_scan(folder / "imagesTr" / f"{name}.nii.gz", array)
    listing = {
        "labels": {"0": "background", "1": "tumour"},
        "modality": {str(n): name for n, name in enumerate(channels)},
        "training": [{"image": f"imagesTr/{n}.nii.gz"} for n in ("p1", "p2")],
    }
    (folder / "dataset.json").write_text(json.dumps(listing))
    return folder


def test_a_dataset_of_several_channels(leanseg, make_model, make_scan, rng, tmp_path) -> None:
    """A channel is found by its name, and is the one that the file alone would give."""
    model = make_model(tmp_path / "m.leanseg", plans.slices(labels=("tumour",), channels=("T1w",)))
    folder = dataset(tmp_path / "data", make_scan, rng, ("FLAIR", "T1w", "T2w"))
    assert leanseg(*predict(model, folder, output=tmp_path / "out")).status == 0
    for name in ("p1", "p2"):
        source = folder / "imagesTr" / f"{name}.nii.gz"
        assert_mask_of(tmp_path / "out" / f"{name}.nii.gz", source)
        alone = np.asanyarray(nib.load(source).dataobj)[..., 1]
        make_scan(tmp_path / "alone" / f"{name}.nii.gz", alone)
    assert leanseg(*predict(model, tmp_path / "alone", output=tmp_path / "out2")).status == 0
    chosen = predict(model, folder, output=tmp_path / "out3", options=("--channel", "1"))
    assert leanseg(*chosen).status == 0
    for name in ("p1.nii.gz", "p2.nii.gz"):
        expected = read_volume(tmp_path / "out2" / name).array
        for found in ("out", "out3"):
            np.testing.assert_array_equal(read_volume(tmp_path / found / name).array, expected)


def test_skip_if_done_and_overwrite(leanseg, model, make_model, make_scan, tmp_path) -> None:
    scan = make_scan(tmp_path / "scan.nii.gz")
    command = predict(model, scan, output=tmp_path / "out")
    leanseg(*command)
    mask = tmp_path / "out" / "scan.nii.gz"
    before = mask.stat().st_mtime_ns
    again = leanseg(*command)
    assert again.status == 0
    assert "skipped" in again.out
    assert mask.stat().st_mtime_ns == before
    other = make_model(tmp_path / "other.leanseg", base_filters=8)
    refused = leanseg(*predict(other, scan, output=tmp_path / "out"))
    refused.assert_refused("already exists, but not from this model", "--overwrite")
    assert mask.stat().st_mtime_ns == before
    assert leanseg(*command, "--overwrite").status == 0
    assert mask.stat().st_mtime_ns > before


def test_one_bad_scan_among_good_ones(leanseg, model, make_scan, tmp_path, listing) -> None:
    make_scan(tmp_path / "scans" / "a.nii.gz")
    bad = make_scan(tmp_path / "scans" / "b.nii.gz")
    bad.write_bytes(bad.read_bytes()[:900])
    make_scan(tmp_path / "scans" / "c.nii.gz")
    outcome = leanseg(*predict(model, tmp_path / "scans", output=tmp_path / "out"))
    assert outcome.status == 1
    assert listing(tmp_path / "out") == ["a.nii.gz", "c.nii.gz", "predictions.json"]
    *_, named, last = outcome.out.splitlines()
    assert named.startswith(f"failed: b: {bad}: ")
    assert last.startswith("2 of 3 label maps are in")
    assert [line.split(":")[0] for line in outcome.err.splitlines()] == ["1/3 a", "2/3 b", "3/3 c"]
    assert "Traceback" not in outcome.err


def truncated(folder: Path, make_scan) -> Path:
    path = make_scan(folder / "scan.nii.gz")
    path.write_bytes(path.read_bytes()[:-400])
    return path


def text(folder: Path, make_scan) -> Path:
    path = folder / "scan.nii"
    path.write_text("This is not a scan.\n" * 40)
    return path


def flat(folder: Path, make_scan) -> Path:
    return make_scan(folder / "scan.nii.gz", np.zeros((8, 8), dtype=np.int16))


def no_determinant(folder: Path, make_scan) -> Path:
    path = make_scan(folder / "scan.nii")
    content = bytearray(path.read_bytes())
    # srow_x, srow_y, srow_z: bytes 280 to 327 of a NIfTI-1 header; qform and sform codes before.
    content[252:254] = (0).to_bytes(2, "little")
    content[254:256] = (1).to_bytes(2, "little")
    content[280:328] = bytes(48)
    path.write_bytes(content)
    return path


def nan_voxels(folder: Path, make_scan) -> Path:
    array = np.ones((8, 8, 4), dtype=np.float32)
    array[2, 2, 2] = np.nan
    return make_scan(folder / "scan.nii.gz", array)


def missing(folder: Path, make_scan) -> Path:
    return folder / "nowhere.nii.gz"


def missing_folder(folder: Path, make_scan) -> Path:
    return folder / "nowhere"


def empty_folder(folder: Path, make_scan) -> Path:
    (folder / "scans").mkdir()
    return folder / "scans"


def incomplete_dataset(folder: Path, make_scan) -> Path:
    make_scan(folder / "data" / "imagesTr" / "p1.nii.gz")
    (folder / "data" / "dataset.json").write_text(
        json.dumps(
            {
                "labels": {"0": "background", "1": "organ"},
                "training": [{"image": f"imagesTr/p{n}.nii.gz"} for n in (1, 2)],
            }
        )
    )
    return folder / "data"


def too_many_channels(folder: Path, make_scan) -> Path:
    return make_scan(folder / "scan.nii.gz", np.zeros((8, 8, 4, 3), dtype=np.int16))


def foreign_file(folder: Path, make_scan) -> Path:
    path = folder / "scan.docx"
    path.write_text("")
    return path


@pytest.mark.parametrize(
    ("bad", "parts"),
    [
        (truncated, ("scan.nii.gz", "damaged or cut short")),
        (text, ("scan.nii", "not a NIfTI file")),
        (flat, ("scan.nii.gz", "3-D")),
        (no_determinant, ("scan.nii", "determinant zero")),
        (nan_voxels, ("scan.nii.gz", "NaN")),
        (missing, ("nowhere.nii.gz", "no such file")),
        (missing_folder, ("nowhere", "no such scan or folder")),
        (empty_folder, ("scans", "empty")),
        (incomplete_dataset, ("dataset.json", "p2.nii.gz", "does not exist")),
        (too_many_channels, ("scan.nii.gz", "3 channel(s)", "needs 1 (CT)")),
        (foreign_file, ("scan.docx", "unknown kind of volume")),
    ],
)
def test_bad_input(leanseg, model, make_scan, tmp_path: Path, bad, parts) -> None:
    source = bad(tmp_path, make_scan)
    outcome = leanseg(*predict(model, source, output=tmp_path / "out"))
    outcome.assert_refused(*parts)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[: len(content) // 2], "cut off"),
        (lambda content: content[:900] + b"\x00" + content[901:], "altered"),
        (lambda content: b"", "not a leanseg model file"),
        (lambda content: b"PK or not PK", "not a leanseg model file"),
    ],
)
def test_a_bad_model(leanseg, model, make_scan, tmp_path: Path, damage, message) -> None:
    bad = tmp_path / "bad.leanseg"
    bad.write_bytes(damage(model.read_bytes()))
    scan = make_scan(tmp_path / "scan.nii.gz")
    outcome = leanseg(*predict(bad, scan, output=tmp_path / "out"))
    outcome.assert_refused("bad.leanseg", message)
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file(leanseg, model: Path, make_scan, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("precious")
    scan = make_scan(tmp_path / "scan.nii.gz")
    outcome = leanseg(*predict(model, scan, output=tmp_path / "out"))
    outcome.assert_refused("out: is a file, but results need a folder")
    assert (tmp_path / "out").read_text() == "precious"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_without_permission(leanseg, model, make_scan, tmp_path: Path) -> None:
    scan = make_scan(tmp_path / "scan.nii.gz")
    (tmp_path / "locked").mkdir(mode=0o500)
    for output in (tmp_path / "locked", tmp_path / "locked" / "out"):
        leanseg(*predict(model, scan, output=output)).assert_refused("Permission denied")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder nobody can write to")
def test_an_output_where_nobody_can_write(leanseg, model, make_scan, tmp_path: Path) -> None:
    scan = make_scan(tmp_path / "scan.nii.gz")
    for output in ("/proc/self/out", "/proc/self"):
        leanseg(*predict(model, scan, output=Path(output))).assert_refused(output)


@pytest.mark.parametrize(
    "options",
    [("--channel", "-1"), ("--threads", "0"), ("--channel", "a"), ("--what",)],
)
def test_options_without_sense(leanseg, model, make_scan, tmp_path: Path, options) -> None:
    scan = make_scan(tmp_path / "scan.nii.gz")
    outcome = leanseg(*predict(model, scan, output=tmp_path / "out", options=options))
    assert outcome.status == 2
    assert options[0] in outcome.err
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a limit on file sizes")
def test_the_system_refuses_to_write_more(
    leanseg_process, model, make_scan, tmp_path: Path, listing
) -> None:
    """A real failure in the middle of a file: the kernel stops it after a few bytes."""
    rng = np.random.default_rng(0)
    scan = make_scan(tmp_path / "scan.nii.gz", rng.normal(50, 200, (64, 64, 9)).astype(np.int16))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (FEW_BYTES, FEW_BYTES))

    command = predict(model, scan, output=tmp_path / "out")
    outcome = leanseg_process(*command, preexec_fn=limit, before="import torch")
    outcome.assert_refused("scan.nii.gz: cannot be written (File too large)")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("--engine", "openvin"), ("'openvin'", "openvino")),
        (("--precision", "f8"), ("'f8'", "bf16")),
        (("--device", "gpu"), ("'gpu'", "cuda")),
        (("--device", "cuda", "--engine", "openvino"), ("openvino", "'cuda'")),
        (("--precision", "f16", "--engine", "torch"), ("f16",)),
        (("--format", "png"), ("'png'", "nifti")),
        (("--max-memory", "lots"), ("'lots'", "1GB")),
        (("--channel", "3"), ("no channel 3",)),
    ],
)
def test_values_that_are_none(leanseg, model, make_scan, tmp_path: Path, options, parts) -> None:
    scan = make_scan(tmp_path / "scan.nii.gz")
    leanseg("predict", model, scan, "-o", tmp_path / "out", *options).assert_refused(*parts)
    assert not (tmp_path / "out").exists()


def test_scans_of_one_name_are_named_after_their_folders(
    leanseg, model: Path, make_scan, tmp_path: Path, listing
) -> None:
    scans = [make_scan(tmp_path / folder / "ct.nii.gz") for folder in "AB"]
    assert leanseg(*predict(model, *scans, output=tmp_path / "out")).status == 0
    assert listing(tmp_path / "out") == ["A_ct.nii.gz", "B_ct.nii.gz", "predictions.json"]


def test_probabilities_are_saved_beside_the_mask(
    leanseg, model: Path, make_scan, tmp_path: Path
) -> None:
    scan = make_scan(tmp_path / "ct.nii.gz")
    options = ("--save-probabilities",)
    assert leanseg(*predict(model, scan, output=tmp_path / "out", options=options)).status == 0
    saved = read_volume(tmp_path / "out" / "ct.probabilities.nii.gz")
    mask = read_volume(tmp_path / "out" / "ct.nii.gz")
    assert ((saved.array > 0.5).reshape(mask.shape) == mask.array.astype(bool)).mean() > 0.999


def start(command: list, model_scans: Path) -> subprocess.Popen[str]:
    code = f"from leanseg.cli.main import run; run({list(map(str, command))!r})"
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    for _ in range(1200):
        if path.exists():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    pytest.fail(f"{path} did not appear")


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
@pytest.mark.parametrize(
    ("number", "status", "says"),
    [
        (signal.SIGINT, 130, "leanseg: interrupted; nothing half-written was left behind\n"),
        pytest.param(
            *(signal.SIGTERM, 143, "leanseg: terminated; nothing half-written was left behind\n"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_stopped_in_mid_prediction(
    make_model, make_scan, tmp_path: Path, listing, number, status, says
) -> None:
    """The first scan is done; the second would take minutes."""
    model = make_model(tmp_path / "m.leanseg", plans.slices((256, 256)), base_filters=16)
    first = make_scan(tmp_path / "first.nii.gz", np.zeros((4, 4, 1), dtype=np.int16))
    noise = np.random.default_rng(0).integers(-100, 150, (4, 4, 2000)).astype(np.int16)
    second = make_scan(tmp_path / "second.nii.gz", noise)
    output = tmp_path / "out"
    process = start(predict(model, first, second, output=output), tmp_path)
    wait_for(output / "predictions.json", process)
    time.sleep(0.3)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == status
    assert err.splitlines(keepends=True)[1:] == [says]
    assert err.startswith("1/2 first: ")
    assert listing(output) == ["first.nii.gz", "predictions.json"]
    assert list(json.loads((output / "predictions.json").read_text())["cases"]) == ["first"]
    assert_shape(output / "first.nii.gz", (4, 4, 1))


def assert_shape(path: Path, shape: tuple[int, ...]) -> None:
    assert read_volume(path).shape == shape


def test_without_torch(leanseg_process, model, make_scan, tmp_path: Path) -> None:
    scan = make_scan(tmp_path / "scan.nii.gz")
    blocked = "import sys; sys.modules['torch'] = None"
    command = predict(model, scan, output=tmp_path / "out")
    outcome = leanseg_process(*command, before=blocked)
    outcome.assert_refused("only PyTorch can run it; install it with: pip install 'leanseg[train]'")
    assert not (tmp_path / "out").exists()


def test_only_labels_that_are_found_are_told(leanseg, make_model, make_scan, tmp_path) -> None:
    labels = tuple(f"organ number {n}" for n in range(1, 9))
    model = make_model(tmp_path / "m.leanseg", plans.slices(labels=labels))
    scan = make_scan(tmp_path / "scan.nii.gz")
    outcome = leanseg(*predict(model, scan, output=tmp_path / "out"))
    assert outcome.status == 0
    mask = read_volume(tmp_path / "out" / "scan.nii.gz").array
    shown = {int(number) for number in re.findall(r"organ number (\d) \d", outcome.out)}
    assert shown == set(np.unique(mask)) - {0}


def test_labels_and_a_picture(leanseg, model: Path, make_scan, tmp_path: Path, listing) -> None:
    scan, output = make_scan(tmp_path / "a.nii.gz"), tmp_path / "out"
    refused = leanseg(*predict(model, scan, output=output, options=("--labels", "liver")))
    refused.assert_refused("no label 'liver'; choose among organ")
    options = ("--preview", "--max-memory", "4GB")
    refused = leanseg(*predict(model, scan, output=output, options=options))
    refused.assert_refused("--max-memory", "give one of the two")
    assert not output.exists()
    options = ("--preview", "--labels", "organ")
    outcome = leanseg(*predict(model, scan, output=output, options=options))
    assert outcome.status == 0, outcome.err
    assert listing(output) == ["a.nii.gz", "a.preview.png", "predictions.json"]
    assert (output / "a.preview.png").read_bytes().startswith(b"\x89PNG")
