"""`leanseg measure`: names of labels, files, and the DICOM report as others read it."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from dicom_writer import write_series
from leanseg.volumes import Volume

from .conftest import AFFINE


@pytest.fixture
def pair(make_scan, tmp_path) -> tuple[Path, Path]:
    """A label map of two labels, and its scan."""
    scan = make_scan(tmp_path / "ct.nii.gz")
    labels = np.zeros((20, 18, 7), np.uint8)
    labels[2:6, 3:9, 1:4], labels[10:12, 3:5, 5] = 1, 3
    return make_scan(tmp_path / "mask.nii.gz", labels), scan


def test_tables_have_the_measures(leanseg, pair, tmp_path):
    mask, scan = pair
    files = tmp_path / "new" / "m.csv", tmp_path / "m.json"
    outcome = leanseg("measure", mask, scan, "-o", files[0], "-o", files[1])
    assert outcome.status == 0, outcome.err
    assert "grey value" in outcome.out
    rows = list(csv.DictReader(files[0].open(encoding="utf-8")))
    facts = json.loads(files[1].read_text(encoding="utf-8"))
    assert [row["label"] for row in rows] == ["label_1", "label_3"]
    grey, voxel_ml = nib.load(scan).get_fdata(), abs(np.linalg.det(AFFINE[:3, :3])) / 1000
    for row, one, n in zip(rows, facts["labels"], (72, 4), strict=True):
        value = int(one["label"].removeprefix("label_"))
        inside = grey[nib.load(mask).get_fdata() == value]
        assert one["n_voxels"] == n == int(row["n_voxels"])
        assert one["volume_ml"] == pytest.approx(n * voxel_ml)
        assert one["mean"] == pytest.approx(inside.mean()) == float(row["mean"])
        assert one["sd"] == pytest.approx(inside.std(ddof=1))
        assert one["n_components"] == 1
    assert facts["unit"] is None


def test_names_come_from_what_is_known(leanseg, pair):
    mask, scan = pair
    listing = mask.with_name("dataset.json")
    listing.write_text('{"labels": {"background": 0, "liver": 1, "cyst": 2, "tumour": 3}}')
    for options, expected in (
        ([], ["liver", "cyst", "tumour"]),
        (["--labels", "all=1+3"], ["all"]),
    ):
        out = leanseg("measure", mask, scan, *options).out
        table = [line for line in out.splitlines() if not line.startswith("note: ")]
        assert [line.split()[0] for line in table[1:]] == expected


def test_what_makes_no_sense_is_refused(leanseg, pair, make_scan, tmp_path, listing):
    mask, scan = pair
    before = listing(tmp_path)
    leanseg("measure", mask, scan, "-o", "m.xlsx").assert_refused("m.xlsx", ".csv, .json, .dcm")
    refused = leanseg("measure", mask, scan, "-o", tmp_path / "sr.dcm")
    refused.assert_refused("not both DICOM", "--format dicom-seg")
    leanseg("measure", scan, scan).assert_refused("ct.nii.gz")
    leanseg("measure", mask, tmp_path / "no.nii.gz").assert_refused("no such file")
    leanseg("measure", mask, scan, "-o", mask).assert_refused("mask.nii.gz")
    assert listing(tmp_path) == before
    other = make_scan(tmp_path / "other.nii.gz", np.zeros((20, 18, 8), np.int16))
    leanseg("measure", mask, other).assert_refused("different shapes")


@pytest.fixture
def series(tmp_path, rng) -> tuple[Path, Path, np.ndarray]:
    """A SEG, its series, and the label map."""
    pytest.importorskip("highdicom")
    from leanseg.volumes.dicom import choose_series, find_series
    from leanseg.volumes.dicom.seg import write_dicom_seg

    affine = np.array([[-0.8, 0, 0, 50], [0, -0.7, 0, 60.5], [0, 0, 2.5, -300], [0, 0, 0, 1]])
    grey = rng.integers(-500, 500, (24, 20, 8))
    write_series(tmp_path / "ct", grey, affine, patient="Müller^Zoë", rng=rng)
    labels = np.zeros(grey.shape, np.uint8)
    labels[3:9, 4:10, 2:5], labels[12:15, 4:7, 3:6] = 1, 2
    stack = choose_series(find_series(tmp_path / "ct")).stack()
    names, seg = {"liver": 1, "left kidney": 2}, tmp_path / "a.seg.dcm"
    write_dicom_seg(seg, Volume(labels, affine), names, stack, algorithm=("a", "1"))
    return seg, tmp_path / "ct", np.where(labels, grey, 0)


def test_the_report_says_what_was_measured(leanseg, series, tmp_path):
    import highdicom
    import pydicom
    from pydicom.sr.codedict import codes

    seg, scan, grey = series
    path = tmp_path / "sr.dcm"
    outcome = leanseg("measure", seg, scan, "-o", path, "-o", tmp_path / "m.json")
    assert outcome.status == 0, outcome.err
    assert "mean HU" in outcome.out
    assert "Müller" not in outcome.out
    report = highdicom.sr.srread(path)
    source = pydicom.dcmread(seg)
    for keyword in ("PatientName", "PatientID", "StudyInstanceUID"):
        assert report[keyword].value == source[keyword].value
    groups = report.content.get_volumetric_roi_measurement_groups()
    assert [group.tracking_identifier for group in groups] == ["liver", "left kidney"]
    measured = json.loads((tmp_path / "m.json").read_text())["labels"]
    for number, (group, one) in enumerate(zip(groups, measured, strict=True), start=1):
        (item,) = (each for each in group[0].ContentSequence if "ReferencedSOPSequence" in each)
        segment = item.ReferencedSOPSequence[0]
        assert segment.ReferencedSOPInstanceUID == source.SOPInstanceUID
        assert segment.ReferencedSegmentNumber == number
        found = {(item.name.meaning, item.derivation and item.derivation.meaning): item
                 for item in group.get_measurements()}  # fmt: skip
        volume = found["Volume", None]
        assert (volume.value, volume.unit.value) == (pytest.approx(one["volume_ml"]), "ml")
        mean = found["Attenuation Coefficient", "Mean"]
        assert (mean.value, mean.unit) == (pytest.approx(one["mean"]), codes.UCUM.HounsfieldUnit)
        assert found["Long axis", None].value == pytest.approx(one["axial_diameter_mm"])
        assert found["Height", None].value == pytest.approx(7.5)
    assert measured[0]["mean"] == pytest.approx(grey[3:9, 4:10, 2:5].mean())
    site = groups[1].finding_sites[0]
    assert (site.value.meaning, site.laterality.meaning) == ("Kidney", "Left")


def test_dcmqi_reads_the_report(leanseg, series, tmp_path):
    reader = Path(sys.executable).with_name("tid1500reader")
    if not reader.exists():
        pytest.skip("dcmqi is not installed")
    seg, scan, _ = series
    assert leanseg("measure", seg, scan, "-o", tmp_path / "sr.dcm").status == 0
    written = tmp_path / "sr.json"
    options = ["--inputDICOM", tmp_path / "sr.dcm", "--outputMetadata", written]
    subprocess.run([reader, *options], check=True, capture_output=True)
    groups = json.loads(written.read_text())["Measurements"]
    assert [group["TrackingIdentifier"] for group in groups] == ["liver", "left kidney"]
    assert [len(group["measurementItems"]) for group in groups] == [7, 7]


def test_dciodvfy_finds_no_error(leanseg, series, tmp_path):
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed")
    seg, scan, _ = series
    assert leanseg("measure", seg, scan, "-o", tmp_path / "sr.dcm").status == 0
    done = subprocess.run(
        ["dciodvfy", tmp_path / "sr.dcm"], capture_output=True, text=True, check=False
    )
    assert not [line for line in done.stderr.splitlines() if line.startswith("Error")]
