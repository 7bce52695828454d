"""DICOM series among the cases: what their reader remarks, who is the same patient, no names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("pydicom", reason="needs leanseg[dicom]")

from dicom_writer import volume_datasets, write_series, write_slices
from leanseg.datasets import Case, Dataset, VolumeSource, open_dataset
from leanseg.datasets.check import check
from leanseg.datasets.check.fix import write_fixed_copy
from leanseg.errors import MissingDependencyError
from leanseg.reports.check_page import check_page


@pytest.fixture
def series(toy):
    """The healthy patients with DICOM scans, one patient each, and NIfTI labels."""
    dataset = toy.write()
    cases = []
    for number, case in enumerate(dataset.cases):
        patient = toy[case.name]
        folder = toy.folder / f"scans/{case.name}"
        write_series(folder, patient.image, patient.image_affine, patient=f"Doe^Jane{number}")
        cases.append(replace(case, images=folder, metadata={}))
    return replace(dataset, cases=tuple(cases))


def rewrite(toy, name, change=None, **options):
    folder = toy.folder / f"scans/{name}"
    for file in folder.iterdir():
        file.unlink()
    slices = volume_datasets(toy[name].image, toy[name].image_affine, **options)
    write_slices(folder, change(slices) if change else slices)


def digests(result):
    return [[channel.digest for channel in case.channels] for case in result.cases]


def test_healthy_series_are_left_alone_and_equal_their_nifti_twins(toy, series):
    result = check(series)
    assert result.findings == ()
    assert digests(result) == digests(check(toy.write()))


def test_copies_of_slices_are_told(toy, series):
    def with_a_copy(slices):
        again = volume_datasets(toy["c"].image, toy["c"].image_affine)[3]
        for keyword in ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"):
            setattr(again, keyword, getattr(slices[0], keyword))
        return [*slices, again]

    rewrite(toy, "c", with_a_copy)
    (finding,) = check(series).findings
    assert (finding.case, finding.kind, finding.severity) == ("c", "dicom-note", "note")
    assert "identical" in finding.message


def test_missing_slices_are_errors_unless_they_are_filled(toy, series):
    rewrite(toy, "c", lambda slices: slices[:5] + slices[6:])
    (finding,) = check(series).findings
    assert (finding.case, finding.severity) == ("c", "error")
    assert "missing" in finding.message
    filled = VolumeSource(toy.folder / "scans/c", options={"fill_missing": True})
    cases = tuple(replace(c, images=(filled,)) if c.name == "c" else c for c in series.cases)
    (finding,) = check(replace(series, cases=cases)).findings
    assert (finding.case, finding.kind) == ("c", "dicom-note")
    assert "1 slices are missing and were interpolated (slice 6" in finding.message


def test_a_truncated_slice_is_found(toy, series):
    file = sorted((toy.folder / "scans/c").iterdir())[4]
    file.write_bytes(file.read_bytes()[:-500])
    (finding,) = check(series).findings
    assert (finding.case, finding.kind) == ("c", "file-unreadable")
    assert file.name in finding.message


def test_one_patient_in_two_series_is_found_without_naming_her(toy, series):
    rewrite(toy, "b", patient="Doe^Jane4")
    result = check(series, thumbnails=True)
    (finding,) = result.findings
    assert finding.kind == "same-patient"
    assert finding.details["groups"] == [["b", "e"]]
    told = [str(result.content()), check_page(result), result.summary(), str(result.cases)]
    assert not any("Doe^Jane" in text for text in told)


def test_a_name_that_an_anonymiser_wrote_everywhere_is_no_patient(toy, series):
    for name in "abcd":
        rewrite(toy, name, patient="ANONYMOUS")
    assert check(series).findings == ()


def test_the_fixed_copy_of_a_series_is_nifti(toy, series, tmp_path):
    toy["d"].label = toy["d"].label[:, :, :-1]
    toy.write()
    result = check(series)
    assert {finding.kind for finding in result.findings} == {"grid-differs"}
    report = write_fixed_copy(series, result, tmp_path / "copy")
    assert report.may_train
    copy = check(open_dataset(tmp_path / "copy"))
    assert copy.findings == ()
    assert digests(copy) == digests(result)


def test_a_missing_package_is_not_the_data_s_fault(series, monkeypatch):
    def read(source, scan):
        msg = 'reading DICOM needs pydicom; run pip install "leanseg[dicom]"'
        raise MissingDependencyError(msg)

    from leanseg.datasets.readers import READERS

    monkeypatch.setitem(READERS, "volume", read)
    with pytest.raises(MissingDependencyError, match="pip install"):
        check(series)


@pytest.mark.shared_data
def test_chaos_from_its_zip(shared_data):
    dataset = open_dataset(shared_data / "abdomen_chaos03/chaos_ct_set3_dicom_png.zip")
    result = check(dataset, thumbnails=True)
    assert result.findings == ()
    # The volume of the NIfTI twin, counted by numpy.
    assert result.label_uses()[0].median_ml == pytest.approx(1417.5, abs=0.1)


@pytest.mark.shared_data
def test_a_reference_stored_in_another_orientation(shared_data):
    """TotalSegmentator's label is stored LAS, the slices it belongs to are LPS."""
    folder = shared_data / "totalsegmentator_peer"
    case = Case(folder / "example_ct_dicom.zip", folder / "example_seg_dicom.nii.gz", "peer")
    values = {f"organ {n}": n for n in range(1, 118)}
    result = check(Dataset([case], values, ("CT",), name="peer", root=folder))
    assert {f.kind for f in result.findings if f.case == "peer"} <= {"label-turned", "dicom-note"}
    assert not [f for f in result.findings if f.severity == "error"]
    assert np.isfinite(result.cases[0].labels[0].centre_mm).all()
