"""DICOM files for the tests, written from a volume with pydicom and nothing of leanseg's."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    JPEGLossless,
    JPEGLosslessSV1,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    generate_uid,
)
from pydicom.valuerep import format_number_as_ds

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
STORAGE = {"CT": CTImageStorage, "MR": MRImageStorage, "PT": PositronEmissionTomographyImageStorage}
ENHANCED = {"CT": EnhancedCTImageStorage, "MR": EnhancedMRImageStorage}


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
    dtype: str = "<i2",
    bits_stored: int | None = None,
    photometric: str = "MONOCHROME2",
) -> Dataset:
    """One slice. `pixels` (rows, columns) in world units; row_mm and column_mm are the steps
    in LPS mm when the column index and when the row index grows by one. `dtype` is that of the
    stored values, of which `bits_stored` bits are used."""
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
    directions = (*row_mm / np.linalg.norm(row_mm), *column_mm / np.linalg.norm(column_mm))
    ds.ImageOrientationPatient = [format_number_as_ds(float(value)) for value in directions]
    ds.ImagePositionPatient = [format_number_as_ds(float(value)) for value in position_mm]
    # Row spacing first: the distance between rows.
    ds.PixelSpacing = [
        format_number_as_ds(float(np.linalg.norm(step))) for step in (column_mm, row_mm)
    ]
    ds.SliceThickness = str(thickness_mm)
    ds.Rows, ds.Columns = pixels.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, photometric
    ds.RescaleSlope, ds.RescaleIntercept = str(slope), str(intercept)
    stored = np.round((pixels.astype(np.float64) - intercept) / slope)
    set_pixels(ds, stored.astype(dtype), bits_stored)
    return ds


def set_pixels(ds: Dataset, stored: np.ndarray, bits_stored: int | None = None) -> None:
    """Store values (rows, columns) or (frames, rows, columns) as they are."""
    bits = 8 * stored.dtype.itemsize
    ds.Rows, ds.Columns = stored.shape[-2:]
    ds.BitsAllocated, ds.BitsStored = bits, bits_stored or bits
    ds.HighBit, ds.PixelRepresentation = ds.BitsStored - 1, int(stored.dtype.kind == "i")
    content = stored.tobytes()
    ds.PixelData = content + b"\0" * (len(content) % 2)
    ds["PixelData"].VR = "OW" if bits > 8 else "OB"


def compress(ds: Dataset, syntax: str) -> Dataset:
    """A dataset compressed by pydicom's encoders, or by DCMTK where those cannot (JPEG)."""
    if syntax in (JPEGLosslessSV1, JPEGLossless):
        return compress_with_dcmtk(ds, "+e1" if syntax == JPEGLosslessSV1 else "+el")
    ds.compress(syntax, generate_instance_uid=False)
    return ds


def compress_with_dcmtk(ds: Dataset, *options: str) -> Dataset:
    """A dataset compressed by DCMTK's dcmcjpeg."""
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder, "before.dcm"), Path(folder, "after.dcm")
        ds.save_as(before, enforce_file_format=True)
        command = ["dcmcjpeg", "+ua", "+un", *options, str(before), str(after)]
        subprocess.run(command, check=True, capture_output=True)
        return dcmread(after)


def enhanced_dataset(
    slices: list[Dataset], dimensions: tuple[str, ...] = (), values: list[tuple[int, ...]] = ()
) -> Dataset:
    """An enhanced CT or MR of the slices of `volume_datasets`, as frames in the order given.

    Orientation and pixel measures are shared, position and rescale stand per frame.
    `dimensions` are keywords of further dimensions and `values` their index for each frame;
    TemporalPositionIndex is also written into the frame content.
    """
    first = slices[0]
    ds = Dataset()
    ds.update({element.tag: element for element in first if element.tag.group < 0x28})
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "SliceThickness"):
        delattr(ds, keyword)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = ENHANCED[first.Modality]
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, first.PhotometricInterpretation
    ds.NumberOfFrames = len(slices)
    keywords = ("StackID", "InStackPositionNumber", *dimensions)
    ds.DimensionIndexSequence = [_item(DimensionIndexPointer=tag_for_keyword(k)) for k in keywords]
    measures = _item(PixelSpacing=first.PixelSpacing, SliceThickness=first.SliceThickness)
    orientation = _item(ImageOrientationPatient=first.ImageOrientationPatient)
    ds.SharedFunctionalGroupsSequence = [
        _item(PixelMeasuresSequence=[measures], PlaneOrientationSequence=[orientation])
    ]
    groups = []
    for number, one in enumerate(slices):
        further = tuple(values[number]) if values else ()
        content = _item(StackID="1", DimensionIndexValues=[1, number + 1, *further])
        content.InStackPositionNumber = number + 1
        if "TemporalPositionIndex" in dimensions:
            content.TemporalPositionIndex = further[dimensions.index("TemporalPositionIndex")]
        rescale = _item(RescaleSlope=one.RescaleSlope, RescaleIntercept=one.RescaleIntercept)
        rescale.RescaleType = "HU" if first.Modality == "CT" else "US"
        groups.append(
            _item(
                FrameContentSequence=[content],
                PlanePositionSequence=[_item(ImagePositionPatient=one.ImagePositionPatient)],
                PixelValueTransformationSequence=[rescale],
            )
        )
    ds.PerFrameFunctionalGroupsSequence = groups
    set_pixels(ds, np.stack([one.pixel_array for one in slices]), first.BitsStored)
    return ds


def _item(**elements) -> Dataset:
    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return item


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
