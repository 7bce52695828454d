"""CSV and TSV files that list where scans and labels lie."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import layout_samples as samples
from dicom_writer import write_series
from leanseg.datasets import load_case, open_dataset
from leanseg.errors import DatasetError
from leanseg.volumes import Volume
from leanseg.volumes.dicom import choose_series, find_series
from leanseg.volumes.dicom.seg import write_dicom_seg

FIRST, SECOND = samples.CASES
IMAGE, LABEL = samples.CASES[FIRST]
# In the liver.
TUMOUR = (LABEL == 1) & (np.arange(LABEL.shape[2]) == 1)
NAMES = {"labels": {"1": "liver", "2": "spleen"}}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    samples.save(tmp_path / "scan.nii.gz", IMAGE)
    samples.save(tmp_path / "label.nii.gz", LABEL)
    for organ, value in (("liver", 1), ("spleen", 2)):
        samples.save(tmp_path / f"{organ}.nii.gz", (value == LABEL).astype(np.uint8))
    samples.save(tmp_path / "tumour.nii.gz", TUMOUR.astype(np.uint8))
    return tmp_path


def write(folder: Path, text: str, name: str = "list.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_the_file_itself_or_its_folder(files: Path) -> None:
    samples.write_json(files / "labels.json", NAMES)
    table = write(files, "image;label\n", "old.txt")
    table = write(files, "case,image,label,patient,site\na,scan.nii.gz,label.nii.gz,p,Ulm\n")
    write(files, "case,dice\na,0.5\n", "results.csv")
    for path in (table, files):
        dataset = open_dataset(path)
        assert dataset.layout == "table"
        assert dataset.labels == {"liver": 1, "spleen": 2}
        assert dataset.channels == ("image",)
        assert dataset.case("a").metadata == {"patient": "p", "site": "Ulm"}
        assert dataset.case("a").annotated is None
        np.testing.assert_array_equal(load_case(dataset.case("a"), dataset)[1].array, LABEL)
    assert open_dataset(table).name == "list"


def test_two_tables_are_told_apart_by_their_usual_name(files: Path) -> None:
    write(files, "image\nscan.nii.gz\n", "one.csv")
    write(files, "image\nscan.nii.gz\n", "two.csv")
    assert open_dataset(files).layout == "casefolders"
    write(files, "case,image\nmine,scan.nii.gz\n", "dataset.csv")
    assert [case.name for case in open_dataset(files).cases] == ["mine"]


def test_tsv_channels_blank_lines_and_absolute_paths(files: Path) -> None:
    text = f"image_T1\timage_T2\n\nscan.nii.gz\t{files / 'scan.nii.gz'}\n\t\n"
    dataset = open_dataset(write(files, text, "list.tsv"))
    assert dataset.channels == ("T1", "T2")
    assert [case.name for case in dataset.cases] == ["scan"]
    scan, label = load_case(dataset.cases[0], dataset)
    np.testing.assert_array_equal(scan.array, np.stack([IMAGE, IMAGE], axis=-1))
    assert label is None


def test_masks_lie_over_each_other_in_column_order(files: Path) -> None:
    text = (
        "case,image,label:liver,label:spleen,label:tumour\n"
        "a,scan.nii.gz,liver.nii.gz,spleen.nii.gz,tumour.nii.gz\n"
        "b,scan.nii.gz,liver.nii.gz,,\n"
        "c,scan.nii.gz,,,\n"
    )
    dataset = open_dataset(write(files, text))
    assert dataset.labels == {"liver": 1, "spleen": 2, "tumour": 3}
    assert [case.annotated for case in dataset.cases][:2] == [None, {"liver"}]
    assert dataset.case("c").label_parts == ()
    _, label = load_case(dataset.case("a"), dataset)
    np.testing.assert_array_equal(label.array, np.where(TUMOUR, 3, LABEL))
    _, label = load_case(dataset.case("b"), dataset)
    np.testing.assert_array_equal(label.array, np.where(LABEL == 1, 1, 0))


def test_masks_on_top_of_a_label_map(files: Path) -> None:
    samples.write_json(files / "labels.json", NAMES)
    text = (
        "case,image,label,label:tumour,annotated\n"
        "a,scan.nii.gz,label.nii.gz,tumour.nii.gz,\n"
        "b,scan.nii.gz,label.nii.gz,,\n"
        "c,scan.nii.gz,label.nii.gz,,liver; tumour\n"
        "d,scan.nii.gz,,tumour.nii.gz,\n"
    )
    dataset = open_dataset(write(files, text))
    assert dataset.labels == {"liver": 1, "spleen": 2, "tumour": 3}
    assert {case.name: case.annotated for case in dataset.cases} == {
        "a": None,
        "b": {"liver", "spleen"},
        "c": {"liver", "tumour"},
        "d": {"tumour"},
    }
    np.testing.assert_array_equal(
        load_case(dataset.case("a"), dataset)[1].array, np.where(TUMOUR, 3, LABEL)
    )


def test_label_maps_without_names(files: Path) -> None:
    dataset = open_dataset(write(files, "image,label\nscan.nii.gz,label.nii.gz\n"))
    assert dataset.labels == {"label_1": 1, "label_2": 2}


def test_whatever_leanseg_reads_may_be_listed(files: Path) -> None:
    write_series(files / "series", IMAGE, samples.AFFINE)
    shutil.make_archive(str(files / "packed"), "zip", files, "label.nii.gz")
    samples.write_json(files / "labels.json", NAMES)
    text = 'image,label\n"series","packed.zip/label.nii.gz"\n'
    dataset = open_dataset(write(files, text))
    assert [case.name for case in dataset.cases] == ["series"]
    scan, label = load_case(dataset.cases[0], dataset)
    np.testing.assert_array_equal(scan.array, IMAGE)
    np.testing.assert_array_equal(label.array, LABEL)


def test_dicom_labels_are_read_by_the_names_of_their_segments(files: Path) -> None:
    """Segments that the dataset does not name are left out, whatever their numbers are."""
    write_series(files / "series", IMAGE, samples.AFFINE)
    slices = choose_series(find_series(files / "series")).stack()
    values = {"spleen": 1, "cyst": 3, "liver": 2}
    drawn = np.array([0, 2, 1], np.uint8)[LABEL]
    drawn[0, 0, 0] = 3
    scan = Volume(drawn, samples.AFFINE)
    write_dicom_seg(files / "drawn.dcm", scan, values, slices, algorithm=("test", "1"))
    samples.write_json(files / "labels.json", NAMES)
    dataset = open_dataset(write(files, "case,image,label\na,series,drawn.dcm\n"))
    np.testing.assert_array_equal(load_case(dataset[0], dataset)[1].array, LABEL)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("case,picture\na,b\n", r"list\.csv: line 1 has no column image"),
        ("image,image_T1\na,b\n", "line 1 has both the columns image and image_T1"),
        ("image,image\na,b\n", "line 1 has the column 'image' twice"),
        ("image\n\n", "lists no case"),
        ("", "no column image|lists no case"),
        ("case,image\na,scan.nii.gz\nb,nothing.nii.gz\n", "line 3 names .*nothing.nii.gz, which"),
        ("case,image\na,\n", "line 2 has nothing under image"),
        ("case,image\na\n", "line 2 has not the 2 cells of the header"),
        ("case,image\na,scan.nii.gz,x\n", "line 2 has not the 2 cells"),
        ('case,image\na,"scan\n', "cannot be read as a table"),
        (
            "image,annotated\nscan.nii.gz,lung\n",
            "case 'scan' annotates 'lung', which is no label",
        ),
        ("image,label:\nscan.nii.gz,a\n", "'label:' without a name"),
        (
            "image,label,label:liver\nscan.nii.gz,label.nii.gz,liver.nii.gz\n",
            "label.nii.gz: other labels have names",
        ),
        ("case,image\na,scan.nii.gz\na,scan.nii.gz\n", "2 cases are called 'a'"),
    ],
)
def test_file_and_line_are_named(files: Path, text: str, sentence: str) -> None:
    with pytest.raises(DatasetError, match=sentence):
        open_dataset(write(files, text))


def test_not_text_and_not_listed(files: Path) -> None:
    (files / "list.csv").write_bytes(b"image\n\xff\xfe\n")
    with pytest.raises(DatasetError, match="cannot be read as a table"):
        open_dataset(files / "list.csv")
    (files / "list.csv").write_bytes(b"\xff\xfe\n")
    with pytest.raises(DatasetError, match="no table here with a column image"):
        open_dataset(files, layout="table")


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_tables_of_every_spreadsheet(files: Path, suffix, separator, mark, quote) -> None:
    """Excel separates by semicolons wherever numbers have a decimal comma."""
    rows = [
        ["case", "image", "label", "annotated", "age, years" if quote else "age"],
        ["a", "scan.nii.gz", "label.nii.gz", '"liver;spleen"', "6,5" if quote else "6"],
    ]
    samples.write_json(files / "labels.json", NAMES)
    lines = [separator.join(f"{quote}{cell.strip(quote)}{quote}" if quote else cell for cell in row)
             for row in rows]  # fmt: skip
    write(files, mark + "\r\n".join(lines) + "\r\n", f"dataset{suffix}")
    for path in (files, files / f"dataset{suffix}"):
        (case,) = open_dataset(path).cases
        assert (case.name, case.annotated) == ("a", {"liver", "spleen"})
        assert list(case.metadata.values()) == ["6,5" if quote else "6"]


def test_a_table_in_another_encoding_says_so(files: Path) -> None:
    """Which is what Excel's "CSV" is in Europe; the folder is a dataset all the same."""
    (files / "list.csv").write_bytes("case;image\r\nMüller;scan.nii.gz\r\n".encode("cp1252"))
    for path in (files, files / "list.csv"):
        with pytest.raises(DatasetError, match=r"list\.csv: cannot be read as a table .* in UTF-8"):
            open_dataset(path)
