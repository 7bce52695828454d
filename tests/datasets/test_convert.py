"""Datasets carried from layout to layout: the same voxels, affines and names, or a refusal."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

import layout_samples as samples
from dicom_writer import write_series
from leanseg.datasets import Dataset, convert, load_case, open_dataset
from leanseg.datasets.conversion import safe_names
from leanseg.errors import DatasetError, LeansegError

FIRST, SECOND = samples.CASES
IMAGE, LABEL = samples.CASES[FIRST]


def sample(layout: str, folder: Path) -> Dataset:
    samples.WRITERS[layout](folder)
    return open_dataset(folder)


def nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    image = nib.load(path)
    return np.asarray(image.dataobj), image.affine


@pytest.mark.parametrize(
    ("first", "second"), list(itertools.product(("decathlon", "nnunet", "plain"), repeat=2))
)
def test_round_trips_change_nothing(tmp_path: Path, first: str, second: str) -> None:
    start = sample(first, tmp_path / "start")
    # A scan without labels, of a patient whose name is no plain text.
    extra = replace(start[0], name="extra", label_parts=(), metadata={"patient": "Ä 7"})
    start = replace(start, cases=(*start.cases, extra))
    there = convert(start, second, tmp_path / "there")
    middle = open_dataset(tmp_path / "there")
    assert middle.layout == second
    assert there.n_cases == 3
    back = convert(middle, first, tmp_path / "back")
    assert back.losses == there.losses == ()
    end = open_dataset(tmp_path / "back")
    assert end.layout == first
    assert dict(end.labels) == dict(middle.labels) == dict(start.labels)
    assert end.channels == middle.channels == start.channels
    for dataset in (middle, end):
        assert [case.name for case in dataset.cases] == [FIRST, SECOND, "extra"]
        assert dataset.case("extra").label_parts == ()
        assert dataset.case("extra").metadata["patient"] == "Ä 7"
        for name, (image, label) in samples.CASES.items():
            case = dataset.case(name)
            scan, found = (nifti(s.path) for s in case.sources)
            np.testing.assert_array_equal(scan[0], image)
            np.testing.assert_array_equal(found[0], label)
            assert scan[0].dtype == np.int16
            np.testing.assert_array_equal(scan[1], samples.AFFINE)
            np.testing.assert_array_equal(found[1], samples.AFFINE)
            assert case.annotated is None


@pytest.mark.parametrize("source", sorted(samples.WRITERS))
@pytest.mark.parametrize("target", ["decathlon", "nnunet", "plain"])
def test_every_layout_into_every_writable_one(tmp_path: Path, source: str, target: str) -> None:
    start = sample(source, tmp_path / "start")
    convert(start, target, tmp_path / "end")
    end = open_dataset(tmp_path / "end")
    assert end.layout == target
    assert list(end.labels) == list(start.labels)
    for before, after in zip(start.cases, end.cases, strict=True):
        (scan, label), (new_scan, new_label) = load_case(before, start), load_case(after, end)
        np.testing.assert_array_equal(new_scan.array, scan.array)
        np.testing.assert_array_equal(new_scan.affine, scan.affine)
        np.testing.assert_array_equal(new_label.affine, new_scan.affine)
        for name, value in end.labels.items():
            same = (new_label.array == value) == (label.array == start.labels[name])
            assert same.all()
        assert after.metadata.get("patient") == before.metadata.get("patient")


def test_fitting_files_are_copied_byte_for_byte(tmp_path: Path) -> None:
    start = sample("casefolders", tmp_path / "start")
    done = convert(start, "nnunet", tmp_path / "end")
    assert (done.n_copied, done.n_written) == (4, 0)
    for case in start.cases:
        new = tmp_path / f"end/imagesTr/{case.name}_0000.nii.gz"
        assert new.read_bytes() == case.images[0].path.read_bytes()
        new = tmp_path / f"end/labelsTr/{case.name}.nii.gz"
        assert new.read_bytes() == case.label_path.read_bytes()


def test_what_does_not_fit_is_written_anew(tmp_path: Path) -> None:
    """A label map in another orientation, one of floats, a file that is not packed."""
    flipped = (
        LABEL[::-1],
        samples.AFFINE @ np.array([[-1, 0, 0, 6], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
    )
    for name in ("a", "b", "c"):
        samples.save(tmp_path / f"d/images/{name}.nii.gz", IMAGE)
    samples.save(tmp_path / "d/labels/a.nii.gz", *flipped)
    samples.save(tmp_path / "d/labels/b.nii.gz", LABEL.astype(np.float32))
    samples.save(tmp_path / "d/labels/c.nii", LABEL)
    (tmp_path / "d/labels/c.nii").rename(tmp_path / "d/labels/c.nii.gz")
    start = open_dataset(tmp_path / "d")
    done = convert(start, "decathlon", tmp_path / "end")
    assert (done.n_copied, done.n_written) == (3, 3)
    for name in ("a", "b", "c"):
        array, affine = nifti(tmp_path / f"end/labelsTr/{name}.nii.gz")
        assert array.dtype == np.uint8
        np.testing.assert_array_equal(array, LABEL)
        np.testing.assert_array_equal(affine, samples.AFFINE)
    assert (tmp_path / "end/labelsTr/c.nii.gz").read_bytes()[:2] == b"\x1f\x8b"


def test_channels_are_split_and_put_together(tmp_path: Path) -> None:
    four = np.stack([IMAGE, IMAGE + 1, IMAGE + 2], axis=-1)
    samples.save(tmp_path / "d/imagesTr/a.nii.gz", four)
    samples.save(tmp_path / "d/labelsTr/a.nii.gz", LABEL)
    listing = {
        "modality": {"0": "T1", "1": "T2", "2": "FLAIR"},
        "labels": {"1": "liver", "2": "spleen"},
        "training": [{"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"}],
    }
    samples.write_json(tmp_path / "d/dataset.json", listing)
    convert(open_dataset(tmp_path / "d"), "nnunet", tmp_path / "nn")
    for n in range(3):
        array, affine = nifti(tmp_path / f"nn/imagesTr/a_000{n}.nii.gz")
        np.testing.assert_array_equal(array, IMAGE + n)
        np.testing.assert_array_equal(affine, samples.AFFINE)
    convert(open_dataset(tmp_path / "nn"), "plain", tmp_path / "plain")
    plain = open_dataset(tmp_path / "plain")
    assert plain.channels == ("T1", "T2", "FLAIR")
    convert(plain, "decathlon", tmp_path / "back")
    np.testing.assert_array_equal(nifti(tmp_path / "back/imagesTr/a.nii.gz")[0], four)
    assert open_dataset(tmp_path / "back").channels == plain.channels


def test_labels_without_a_gap_for_nnunet(tmp_path: Path) -> None:
    start = sample("plain", tmp_path / "start")
    for name, (_, label) in samples.CASES.items():
        samples.save(tmp_path / f"start/labels/{name}.nii.gz", np.array([0, 4, 9], "u1")[label])
    samples.write_json(tmp_path / "start/labels.json", {"labels": {"4": "liver", "9": "spleen"}})
    start = open_dataset(tmp_path / "start")
    done = convert(start, "nnunet", tmp_path / "end")
    assert done.renumbered == {"liver": 1, "spleen": 2}
    described = json.loads((tmp_path / "end/dataset.json").read_text())
    assert described["labels"] == {"background": 0, "liver": 1, "spleen": 2}
    assert described["numTraining"] == 2
    assert described["file_ending"] == ".nii.gz"
    np.testing.assert_array_equal(nifti(tmp_path / f"end/labelsTr/{FIRST}.nii.gz")[0], LABEL)
    samples.write_json(tmp_path / "start/labels.json", {"labels": {"4": "liver"}})
    with pytest.raises(DatasetError, match=r"has the value 9, which is none of .* \(4 liver\)"):
        convert(open_dataset(tmp_path / "start"), "nnunet", tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("target", ["decathlon", "nnunet"])
def test_partial_annotation_is_not_lost_silently(tmp_path: Path, target: str) -> None:
    start = sample("visceral", tmp_path / "start")
    (tmp_path / f"start/Segmentations/{SECOND}_86_5.nii.gz").unlink()
    start = open_dataset(tmp_path / "start")
    sentence = rf"1 case\(s\) do not annotate every label \({SECOND} has no spleen\), and {target}"
    with pytest.raises(DatasetError, match=sentence):
        convert(start, target, tmp_path / "end")
    assert not (tmp_path / "end").exists()
    assert len(convert(start, target, tmp_path / "end", allow_loss=True).losses) == 1
    convert(start, "plain", tmp_path / "plain")
    kept = open_dataset(tmp_path / "plain")
    assert kept.case(SECOND).annotated == {"liver"}
    assert kept.case(FIRST).annotates("spleen")


def test_names_for_files() -> None:
    given = ["Müller, Eva", "a/b", "a b", "a_b", "A_B", "..", "日本", "ok-1.2", "x" * 300]
    names = safe_names(given)
    assert list(names) == given
    assert names["ok-1.2"] == "ok-1.2"
    assert names["a_b"] == "a_b"
    assert names["Müller, Eva"] == "Muller_Eva"
    lowered = [name.lower() for name in names.values()]
    assert len(set(lowered)) == len(given)
    assert all(name and name.isascii() and "/" not in name for name in lowered)
    assert max(map(len, lowered)) <= 130


def test_dicom_metaimage_and_wide_integers(tmp_path: Path) -> None:
    """Scans that are no NIfTI become int16, or float32 where that is too small."""
    write_series(tmp_path / "d/images/a", IMAGE, samples.AFFINE)
    samples.save(tmp_path / "d/images/b.mha", IMAGE.astype(np.int32))
    samples.save(tmp_path / "d/images/c.mha", IMAGE.astype(np.int32) * 100)
    convert(open_dataset(tmp_path / "d"), "plain", tmp_path / "end")
    expected = {"a": (IMAGE, np.int16), "b": (IMAGE, np.int16)}
    expected["c"] = (IMAGE.astype(np.int32) * 100, np.float32)
    for name, (array, dtype) in expected.items():
        image = sitk.ReadImage(str(tmp_path / f"end/images/{name}.nii.gz"))
        found = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, array)
        affine = nib.load(tmp_path / f"end/images/{name}.nii.gz").affine
        np.testing.assert_allclose(affine, samples.AFFINE, atol=1e-5)


def test_nothing_is_left_of_a_conversion_that_fails(tmp_path: Path) -> None:
    start = sample("plain", tmp_path / "start")
    path = tmp_path / f"start/images/{SECOND}.nii.gz"
    path.write_bytes(path.read_bytes()[:100])
    before = sorted(tmp_path.iterdir())
    with pytest.raises(LeansegError, match=SECOND):
        convert(start, "nnunet", tmp_path / "end")
    assert sorted(tmp_path.iterdir()) == before

    def stop(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(start, "nnunet", tmp_path / "end", on_case=stop)
    assert sorted(tmp_path.iterdir()) == before


def test_folders_and_layouts_that_cannot_be_written(tmp_path: Path) -> None:
    start = sample("plain", tmp_path / "start")
    with pytest.raises(LeansegError, match="start: already holds something"):
        convert(start, "nnunet", tmp_path / "start")
    (tmp_path / "file").touch()
    with pytest.raises(LeansegError, match="file: already holds something"):
        convert(start, "nnunet", tmp_path / "file")
    with pytest.raises(LeansegError, match="cannot be written"):
        convert(start, "nnunet", tmp_path / "file/below")
    with pytest.raises(DatasetError, match="'kits19' cannot be written; choose one of nnunet"):
        convert(start, "kits19", tmp_path / "end")
    (tmp_path / "empty").mkdir()
    convert(start, "nnunet", tmp_path / "empty")
    assert open_dataset(tmp_path / "empty").layout == "nnunet"
    for labels, sentence in (
        ({"background": 1, "spleen": 2}, "takes the label 'background' for something else"),
        ({"ignore": 1, "Ignore": 2}, "one label to ignore, not 'ignore', 'Ignore'"),
    ):
        with pytest.raises(DatasetError, match=sentence):
            convert(replace(start, labels=labels), "nnunet", tmp_path / "end")


@pytest.mark.parametrize("layout", ["decathlon", "nnunet", "plain"])
@pytest.mark.parametrize("name", ["ignore", "Ignore"])
def test_ignored_voxels_stay_ignored(tmp_path: Path, layout: str, name: str) -> None:
    """Value 1 of the start is ignored; no case has to say that it annotates that."""
    start = sample("plain", tmp_path / "start")
    cases = tuple(replace(case, annotated=frozenset({"spleen"})) for case in start)
    start = replace(start, labels={name: 1, "spleen": 2}, cases=cases)
    done = convert(start, layout, tmp_path / "end")
    assert done.losses == ()
    end = open_dataset(tmp_path / "end")
    written = json.loads(
        (tmp_path / "end" / ("labels.json" if layout == "plain" else "dataset.json")).read_text()
    )
    if layout == "nnunet":
        # nnU-Net wants this very name and the highest number, and no gap.
        assert written["labels"] == {"background": 0, "spleen": 1, "ignore": 2}
        assert done.renumbered == {"spleen": 1, name: 2}
    else:
        assert dict(end.labels) == {name: 1, "spleen": 2}
    (value,) = (value for label, value in end.labels.items() if label.lower() == "ignore")
    for key, (_, label) in samples.CASES.items():
        _, found = load_case(end.case(key), end)
        np.testing.assert_array_equal(found.array == value, label == 1)
        np.testing.assert_array_equal(found.array == end.labels["spleen"], label == 2)
