"""CHAOS written with pydicom and Pillow, CT and MR; and the real CT set 3 from its zip."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dicom_writer import volume_datasets, write_slices
from leanseg.datasets import LAYOUTS, load_case, open_dataset
from leanseg.datasets.layouts import chaos
from leanseg.datasets.readers import read_source
from leanseg.datasets.sources import VolumeSource
from leanseg.errors import DatasetError
from leanseg.evaluation import EvaluationSettings, evaluate_masks
from leanseg.volumes import corners_apart_mm, on_grid_of, read_volume

AFFINE = np.array([[-0.7, 0, 0, 185], [0, -0.7, 0, 98], [0, 0, 2.0, 1536.5], [0, 0, 0, 1.0]])
SHAPE = (9, 8, 5)


def pngs(folder: Path, label: np.ndarray, names: list[str]) -> None:
    folder.mkdir(parents=True)
    for k, name in enumerate(names):
        Image.fromarray(label[:, :, k].T.astype(np.uint8)).save(folder / name)


def write_ct(patient: Path, image, label=None) -> None:
    """Files run from head to feet, as in CHAOS; pictures are named in another way."""
    datasets = volume_datasets(image, AFFINE, intercept=-1000, thickness_mm=3.2)
    write_slices(patient / "DICOM_anon", datasets[::-1], pattern="i{:04d},0000b.dcm")
    if label is not None:
        names = [f"liver_GT_{k:03d}.png" for k in range(label.shape[2])]
        pngs(patient / "Ground", label[:, :, ::-1] * 255, names)


def write_mr(patient: Path, t2, inphase, outphase, label) -> None:
    """Names agree between files and pictures; in T1-DUAL odd ones are out of phase."""
    options = {"modality": "MR", "intercept": 0}
    slices = volume_datasets(t2, AFFINE, **options)[::-1]
    write_slices(patient / "T2SPIR/DICOM_anon", slices, pattern="IMG-0002-{:05d}.dcm")
    names = [f"IMG-0002-{k:05d}.png" for k in range(t2.shape[2])]
    pngs(patient / "T2SPIR/Ground", label[:, :, ::-1] * 63, names)
    dual = patient / "T1DUAL/DICOM_anon"
    for array, folder, first in ((inphase, "InPhase", 2), (outphase, "OutPhase", 1)):
        written = write_slices(dual / folder, volume_datasets(array, AFFINE, **options))
        for k, file in enumerate(written):
            file.rename(file.with_name(f"IMG-0004-{2 * k + first:05d}.dcm"))
    names = [f"IMG-0004-{2 * k + 2:05d}.png" for k in range(t2.shape[2])]
    pngs(patient / "T1DUAL/Ground", label * 63, names)


@pytest.fixture
def scan(rng):
    def make() -> np.ndarray:
        return rng.integers(0, 900, SHAPE).astype(np.int16)

    return make


@pytest.fixture
def liver(rng) -> np.ndarray:
    return rng.integers(0, 2, SHAPE).astype(np.uint8)


@pytest.fixture
def organs(rng) -> np.ndarray:
    return rng.integers(0, 5, SHAPE).astype(np.uint8)


@pytest.mark.parametrize("given", ["CT", "Train_Sets", "."])
def test_ct_comes_back(tmp_path, scan, liver, given):
    image = scan()
    write_ct(tmp_path / "Train_Sets/CT/2", image, liver)
    write_ct(tmp_path / "Train_Sets/CT/10", scan(), liver)
    (tmp_path / "Train_Sets/CT/.DS_Store").write_bytes(b"")
    (tmp_path / "Train_Sets/CT/2/Ground/._liver_GT_000.png").write_bytes(b"")
    dataset = open_dataset(tmp_path / ("Train_Sets/CT" if given == "CT" else given))
    assert dataset.layout == "chaos"
    assert dataset.labels == {"liver": 1}
    assert dataset.channels == ("CT",)
    assert [case.name for case in dataset.cases] == ["ct_02", "ct_10"]
    assert dataset.cases[0].metadata == {"patient": "CT 2"}
    assert dataset.cases[0].annotated is None
    volume, label = load_case(dataset.cases[0], dataset)
    np.testing.assert_array_equal(volume.array, image)
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-9)
    np.testing.assert_array_equal(label.array, liver)


def test_t2_comes_back(tmp_path, scan, organs):
    t2 = scan()
    write_mr(tmp_path / "MR/1", t2, scan(), scan(), organs)
    dataset = open_dataset(tmp_path / "MR")
    assert (dataset.layout, dataset.channels) == ("chaos", ("T2-SPIR",))
    assert dataset.labels == {"liver": 1, "right kidney": 2, "left kidney": 3, "spleen": 4}
    assert [case.name for case in dataset.cases] == ["mr_t2_01"]
    volume, label = load_case(dataset.cases[0], dataset)
    np.testing.assert_array_equal(volume.array, t2)
    np.testing.assert_array_equal(label.array, organs)


def test_t1_comes_back_with_two_channels(tmp_path, scan, liver, organs):
    inphase, outphase = scan(), scan()
    write_mr(tmp_path / "MR/1", scan(), inphase, outphase, organs)
    write_ct(tmp_path / "CT/1", scan(), liver)
    dataset = open_dataset(tmp_path, "chaos-t1")
    assert dataset.channels == ("T1 in-phase", "T1 out-of-phase")
    volume, label = load_case(dataset.cases[0], dataset)
    np.testing.assert_array_equal(volume.array, np.stack([inphase, outphase], axis=-1))
    np.testing.assert_array_equal(label.array, organs)


def test_both_modalities_need_a_choice(tmp_path, scan, liver, organs):
    write_mr(tmp_path / "Train_Sets/MR/1", scan(), scan(), scan(), organs)
    write_ct(tmp_path / "Train_Sets/CT/1", scan(), liver)
    with pytest.raises(DatasetError, match=r"holds CT and MR .* give the folder CT or the folder"):
        open_dataset(tmp_path)
    assert open_dataset(tmp_path / "Train_Sets/MR").channels == ("T2-SPIR",)


def test_test_sets_have_no_labels(tmp_path, scan, liver):
    write_ct(tmp_path / "Train_Sets/CT/1", scan(), liver)
    write_ct(tmp_path / "Test_Sets/CT/3", scan())
    dataset = open_dataset(tmp_path)
    assert [(case.name, not case.label_parts) for case in dataset.cases] == [
        ("ct_01", False),
        ("ct_03", True),
    ]


def test_one_patient(tmp_path, scan, liver, organs):
    write_ct(tmp_path / "CT/7", scan(), liver)
    assert [case.name for case in open_dataset(tmp_path / "CT/7").cases] == ["ct_07"]
    archive = shutil.make_archive(str(tmp_path / "zipped"), "zip", tmp_path / "CT/7")
    dataset = open_dataset(archive)
    assert (dataset.name, dataset.layout) == ("zipped", "chaos")
    assert [case.name for case in dataset.cases] == ["zipped"]
    np.testing.assert_array_equal(load_case(dataset.cases[0])[1].array, liver)
    write_mr(tmp_path / "MR/4", scan(), scan(), scan(), organs)
    assert open_dataset(tmp_path / "MR/4").channels == ("T2-SPIR",)
    assert not chaos.ct_or_t2.recognises(tmp_path / "MR/4/T2SPIR")


def test_nobody_else_claims_it(tmp_path, scan, liver, organs):
    write_ct(tmp_path / "CT/7", scan(), liver)
    write_mr(tmp_path / "MR/4", scan(), scan(), scan(), organs)
    for folder in (tmp_path / "CT", tmp_path / "CT/7", tmp_path / "MR"):
        claimed = next(name for name, layout in LAYOUTS.items() if layout.recognises(folder))
        assert claimed == "chaos"


def test_not_chaos(tmp_path):
    (tmp_path / "CT/1/Ground").mkdir(parents=True)
    assert not chaos.ct_or_t2.recognises(tmp_path)
    with pytest.raises(DatasetError, match="no CHAOS patients"):
        open_dataset(tmp_path, "chaos")


@pytest.mark.shared_data
def test_set_3_from_its_zip(shared_data):
    """The grid is the NIfTI twin's, the label its ground truth, the figures the challenge's own."""
    folder = shared_data / "abdomen_chaos03"
    archive = folder / "chaos_ct_set3_dicom_png.zip"
    dataset = open_dataset(archive)
    assert dataset.layout == "chaos"
    image, label = load_case(dataset.cases[0], dataset)
    truth = read_volume(folder / "liver_gt.nii.gz")
    assert image.shape == truth.shape == (512, 512, 78)
    assert corners_apart_mm(image, on_grid_of(image, truth)) < 1e-3
    np.testing.assert_array_equal(label.array, on_grid_of(image, truth).array)
    submitted = read_source(VolumeSource(archive / "Segmentation", "slices"), image)
    twin = on_grid_of(image, read_volume(folder / "liver_sample_seg.nii.gz"))
    np.testing.assert_array_equal(submitted.array > 0, twin.array > 0)
    scores = evaluate_masks(
        (submitted.array > 0).astype(np.uint8),
        label.array,
        image.spacing_mm,
        {"liver": 1},
        settings=EvaluationSettings(scan_border="open"),
    )
    metrics = scores[0].metrics
    assert metrics["dice"] == pytest.approx(0.978, abs=0.0005)
    assert abs(metrics["relative_volume_difference_percent"]) == pytest.approx(0.66, abs=0.005)
    assert metrics["assd_mm"] == pytest.approx(0.734, abs=0.0005)
    assert metrics["hausdorff_mm"] == pytest.approx(14, abs=1e-6)
