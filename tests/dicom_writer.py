"""DICOM files for the tests, written from a volume with pydicom and nothing of leanseg's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
STORAGE = {"CT": CTImageStorage, "MR": MRImageStorage}


def slice_dataset(
    pixels: np.ndarray,
    position_mm,
    row_mm,
    column_mm,
    *,
    number: int,
    series_uid: str,
    study_uid: str,
    frame_uid: str,
    modality: str = "CT",
    slope: float = 1.0,
    intercept: float = -1024.0,
    patient: str = "Doe^Jane",
    description: str = "axial",
    series_number: int = 2,
    thickness_mm: float = 5.0,
) -> Dataset:
    """One slice. `pixels` (rows, columns) in world units; row_mm and column_mm are the steps
    in LPS mm when the column index and when the row index grows by one."""
    row_mm, column_mm = np.asarray(row_mm, float), np.asarray(column_mm, float)
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = STORAGE[modality]
    ds.SOPInstanceUID = generate_uid()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.Modality = modality
    ds.PatientName, ds.PatientID = patient, f"ID-{patient}"
    ds.PatientBirthDate, ds.PatientSex = "19700101", "F"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study_uid, series_uid
    ds.FrameOfReferenceUID = frame_uid
    ds.StudyID, ds.AccessionNumber, ds.ReferringPhysicianName = "1", "A1", ""
    ds.StudyDate, ds.StudyTime = "20240229", "120000"
    ds.SeriesNumber, ds.InstanceNumber = series_number, number
    ds.SeriesDescription = description
    ds.Manufacturer, ds.PositionReferenceIndicator = "", ""
    ds.ImageOrientationPatient = [
        f"{value:.12g}"[:16]
        for value in (*row_mm / np.linalg.norm(row_mm), *column_mm / np.linalg.norm(column_mm))
    ]
    ds.ImagePositionPatient = [f"{value:.10g}"[:16] for value in position_mm]
    # Row spacing first: the distance between rows.
    ds.PixelSpacing = [
        f"{np.linalg.norm(column_mm):.10g}"[:16],
        f"{np.linalg.norm(row_mm):.10g}"[:16],
    ]
    ds.SliceThickness = str(thickness_mm)
    ds.Rows, ds.Columns = pixels.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleSlope, ds.RescaleIntercept = str(slope), str(intercept)
    stored = np.round((pixels.astype(np.float64) - intercept) / slope).astype("<i2")
    ds.PixelData = stored.tobytes()
    return ds


def volume_datasets(array: np.ndarray, affine: np.ndarray, **options) -> list[Dataset]:
    """The slices of a volume (i, j, k) with an affine to RAS+ mm, in order of k.

    i becomes the column index, j the row index and k the slice, so that reading gives the same
    array and affine back where the third axis points along row x column.
    """
    to_lps = RAS_TO_LPS @ affine
    uids = {key: generate_uid() for key in ("series_uid", "study_uid", "frame_uid")}
    return [
        slice_dataset(
            array[:, :, k].T,
            to_lps[:3, 3] + k * to_lps[:3, 2],
            to_lps[:3, 0],
            to_lps[:3, 1],
            number=k + 1,
            **{**uids, **options},
        )
        for k in range(array.shape[2])
    ]


def write_slices(folder: Path, datasets: list[Dataset], rng=None, pattern="IM{:04d}") -> list[Path]:
    """Write datasets into a folder, in random order of file names if `rng` is given."""
    folder.mkdir(parents=True, exist_ok=True)
    order = range(len(datasets)) if rng is None else rng.permutation(len(datasets))
    files = [folder / pattern.format(number) for number in order]
    for dataset, file in zip(datasets, files, strict=True):
        dataset.save_as(file, enforce_file_format=True)
    return files


def write_series(folder: Path, array: np.ndarray, affine: np.ndarray, **options) -> list[Path]:
    """Write a volume as a DICOM series, one slice a file."""
    rng = options.pop("rng", None)
    return write_slices(folder, volume_datasets(array, affine, **options), rng)
