"""What other libraries read where leanseg answers; each raises `WrongError` or `UncheckedError`.

Deliberate differences, which are no errors:

- ISA-L checks the CRC of gzip data where nibabel does not, and damaged data are refused.
- A NIfTI header may place the voxels twice, by sform and qform; either is taken where they differ
  (which one is documented), nibabel takes the sform. Units of metres and micrometres become mm.
- Voxels that a NIfTI header would have begin within it begin after it; nibabel obeys the header.
- Of a CT scan's voxels, padding (declared, or below -1500 HU) becomes -1024.
- Slices that are missing are interpolated where that was asked for: only those that a file claims
  to hold are compared.
- Of structures that overlap, and of contours stored twice, a refusal is as right as an answer.
"""

from __future__ import annotations

import json
import re
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from robustness.harness import UncheckedError, WrongError
from robustness.sound import TO_LPS

_NEAR_MM = 0.02


def same(found: np.ndarray, expected: np.ndarray, what: str) -> None:
    """Both hold the same, to the precision of float32; NaN equals NaN."""
    if found.shape != expected.shape:
        raise WrongError(f"{what}: shape {found.shape}, expected {expected.shape}")
    with np.errstate(all="ignore"):
        wanted = expected.astype(np.float32).astype(np.float64)
        close = np.isclose(found.astype(np.float64), wanted, rtol=1e-4, atol=1e-6, equal_nan=True)
    if not close.all():
        n, at = int((~close).sum()), tuple(np.argwhere(~close)[0])
        raise WrongError(
            f"{what}: {n} of {close.size} differ, at {at} {found[at]} not {expected[at]}"
        )


def nifti(path: Path, volume: Any) -> None:
    """nibabel's voxels and affine."""
    import nibabel as nib

    try:
        image: Any = nib.load(path)
        with np.errstate(all="ignore"):
            array = np.asanyarray(image.dataobj)
        header = image.header
        affines = [image.affine]
        if header["sform_code"] and header["qform_code"]:
            affines.append(header.get_qform())
        per_mm = {1: 1000.0, 3: 0.001}.get(int(header["xyzt_units"]) & 7, 1.0)
    except Exception as error:  # an independent reader that refuses says nothing
        raise UncheckedError(f"nibabel: {type(error).__name__}") from error
    if image.dataobj.offset < int(header["sizeof_hdr"]) + 4:
        raise UncheckedError("voxels would begin within the header")
    expected = array.reshape(volume.array.shape) if array.size == volume.array.size else array
    same(volume.array, expected, "voxels")
    for affine in affines:
        scaled = np.diag([per_mm, per_mm, per_mm, 1.0]) @ affine
        if np.allclose(volume.affine, scaled, rtol=1e-5, atol=1e-6, equal_nan=True):
            return
    raise WrongError(f"affine {volume.affine.tolist()}, nibabel {affines[0].tolist()} x {per_mm}")


def itk(path: Path, volume: Any) -> None:
    """SimpleITK's voxels and affine; and the file's own bytes, which ITK takes when damaged."""
    import SimpleITK as sitk  # noqa: N813

    raw = _stored(path)
    if raw is not None and raw.size == volume.array.size:
        same(volume.array, raw.reshape(volume.array.shape, order="F"), "voxels as stored")
    try:
        image = sitk.ReadImage(str(path))
        array = sitk.GetArrayFromImage(image)
    except Exception as error:
        raise UncheckedError(f"SimpleITK: {type(error).__name__}") from error
    n_axes = image.GetDimension()
    turned = array.transpose((*reversed(range(n_axes)), *range(n_axes, array.ndim)))
    if turned.size != volume.array.size:
        raise WrongError(f"shape {volume.array.shape}, SimpleITK {turned.shape}")
    # ITK takes packed bytes for voxels where CompressedDataSize is missing or wrong.
    head = path.read_bytes()[:2000]
    is_packed = b"CompressedData = True" in head
    if not is_packed or (raw is None and b"CompressedDataSize = " in head):
        same(volume.array, turned.reshape(volume.array.shape, order="F"), "voxels")
    affine, n = np.eye(4), min(n_axes, 3)
    direction = np.array(image.GetDirection()).reshape(n_axes, n_axes)[:n, :n]
    affine[:n, :n] = direction * np.array(image.GetSpacing())[:n]
    affine[:n, 3] = image.GetOrigin()[:n]
    if not np.allclose(volume.affine, TO_LPS @ affine, rtol=1e-5, atol=1e-6):
        raise WrongError(f"affine {volume.affine.tolist()}, SimpleITK {(TO_LPS @ affine).tolist()}")


_TYPES = {"MET_SHORT": "i2", "MET_FLOAT": "f4", "MET_UCHAR": "u1",
          "short": "i2", "float": "f4", "unsigned char": "u1", "uchar": "u1"}  # fmt: skip


def _stored(path: Path) -> np.ndarray | None:
    """The voxels of an ordinary header by numpy, zlib and gzip alone; None for any other header.

    Raises:
        WrongError: If the file does not hold so many, or its packed data are damaged.
    """
    content = path.read_bytes()
    head, _, data = content.partition(b"\n\n" if content[:4] == b"NRRD" else b"= LOCAL\n")
    lines = [line for line in head.decode("latin1").splitlines() if not line.startswith("#")]
    fields = dict(
        re.split(r" ?[=:] ", line, maxsplit=1) for line in lines if re.search("[=:] ", line)
    )
    usual = {"byte skip", "line skip", "HeaderSize", "ElementNumberOfChannels", "data file"}
    kind = _TYPES.get(fields.get("ElementType") or fields.get("type", ""))
    order = fields.get("BinaryDataByteOrderMSB", "False") == "False"
    order = order and fields.get("ElementByteOrderMSB", "False") == "False"
    order = order and fields.get("endian", "little") == "little"
    size = (fields.get("DimSize") or fields.get("sizes", "")).split()
    encoding = fields.get("encoding", "raw")
    odd = usual & set(fields) or fields.get("NDims", fields.get("dimension")) != "3"
    if odd or kind is None or not order or len(size) != 3 or encoding not in ("raw", "gzip"):
        return None
    if len({line.split()[0] for line in lines[1:] if line}) < len(
        [line for line in lines[1:] if line]
    ):
        return None  # a key that stands there twice
    name = fields.get("ElementDataFile", "")
    if name and not data:
        if not (path.parent / name).is_file() or "%" in name:
            return None
        data = (path.parent / name).read_bytes()
    try:
        if fields.get("CompressedData", "F")[:1] in "Tt1" or encoding == "gzip":
            data = zlib.decompressobj(47).decompress(data)
    except zlib.error as error:
        raise WrongError(f"packed data are damaged ({error}), and were read") from error
    n = int(np.prod([int(axis) for axis in size]))
    if len(data) < n * np.dtype(kind).itemsize:
        raise WrongError(f"{len(data)} bytes are there for {n} voxels, and were read")
    return np.frombuffer(data, kind, n)


class _Frame:
    """A frame as pydicom reads it: where it lies (LPS mm), its steps, its rescaled values."""

    def __init__(self, dataset: Any, index: int, pixels: np.ndarray) -> None:
        shared = dataset.get("SharedFunctionalGroupsSequence")
        per_frame = dataset.get("PerFrameFunctionalGroupsSequence")
        groups = [*([per_frame[index]] if per_frame else []), *(shared or []), dataset]

        def of(sequence: str, keyword: str) -> Any:
            for group in groups:
                inner = group.get(sequence)
                found = (inner[0] if inner else group).get(keyword)
                if found is not None:
                    return found
            return None

        if dataset.HighBit != dataset.BitsStored - 1:
            raise UncheckedError("pydicom takes no notice of HighBit")
        self.origin = np.array(of("PlanePositionSequence", "ImagePositionPatient"), float)
        axes = np.array(of("PlaneOrientationSequence", "ImageOrientationPatient"), float)
        spacing = np.array(of("PixelMeasuresSequence", "PixelSpacing"), float)
        # Column index along the row direction, by the spacing of columns, which comes second.
        self.steps = axes.reshape(2, 3) * spacing[::-1, None]
        slope = of("PixelValueTransformationSequence", "RescaleSlope")
        intercept = of("PixelValueTransformationSequence", "RescaleIntercept")
        self.is_rescaled = slope is not None and intercept is not None
        self.values = pixels.astype(float) * float(slope if slope is not None else 1)
        self.values += float(intercept or 0)
        padding = dataset.get("PixelPaddingValue")
        limit = dataset.get("PixelPaddingRangeLimit", padding)
        is_padding = np.zeros(pixels.shape, bool)
        if padding is not None:
            low, high = sorted((int(padding), int(limit)))
            is_padding = (pixels >= low) & (pixels <= high)
        self.is_padding = is_padding | (self.values < -1500)
        self.photometric = str(dataset.get("PhotometricInterpretation"))
        self.group = (str(dataset.get("SeriesInstanceUID")), str(dataset.get("Modality")))


def _frames(folder: Path) -> list[_Frame]:
    from pydicom import dcmread

    frames = []
    for path in sorted(folder.rglob("*")) if folder.is_dir() else [folder]:
        try:
            dataset = dcmread(path)
            if not str(dataset.PhotometricInterpretation).startswith("MONOCHROME"):
                continue  # no slice of a scan; and GDCM may end the process over it
            pixels = dataset.pixel_array
            stack = pixels if pixels.ndim == 3 else pixels[None]
            frames += [_Frame(dataset, index, one) for index, one in enumerate(stack)]
        except Exception:  # what pydicom does not read is not compared
            continue
    return frames


def series(folder: Path, volume: Any) -> None:
    """Each slice that a file claims to hold has that file's rescaled values."""
    every = _frames(folder)
    # A slice that lost its series is no slice of it.
    largest = Counter(frame.group for frame in every).most_common(1)
    frames = [frame for frame in every if frame.group == largest[0][0]]
    to_lps = TO_LPS @ volume.affine
    compared = 0
    rescaled = set()
    for k in range(volume.shape[2]):
        origin = to_lps[:3, 3] + k * to_lps[:3, 2]
        here = [
            frame
            for frame in frames
            if np.abs(frame.origin - origin).max() < _NEAR_MM
            and np.abs(frame.steps - to_lps[:3, :2].T).max() < 1e-3
            and frame.values.shape == volume.shape[1::-1]
            and not (frame.photometric == "MONOCHROME1" and frame.group[1] != "CT")
        ]
        if here:
            compared += 1
            rescaled |= {frame.is_rescaled for frame in here if frame.group[1] == "CT"}
            if not any(_agrees(frame, volume.array[:, :, k].T) for frame in here):
                found, expected = volume.array[:, :, k].T, here[0].values
                at = tuple(np.argwhere(np.abs(found - expected) > 0.01)[0])
                raise WrongError(f"slice {k} at {at}: {found[at]}, pydicom {expected[at]}")
    if len(rescaled) > 1:
        raise WrongError("some slices have no rescale, and others have")
    if compared < min(2, volume.shape[2]):
        raise UncheckedError(f"{compared} of {volume.shape[2]} slices are where pydicom has one")


def _agrees(frame: _Frame, found: np.ndarray) -> bool:
    is_air = (found == -1024) & frame.is_padding & (frame.group[1] == "CT")
    with np.errstate(all="ignore"):
        return bool(np.all(is_air | np.isclose(found, frame.values, rtol=1e-4, atol=1e-3)))


def segmentation(path: Path, labels: Any, names: dict[str, int]) -> None:
    """Every frame's pixels, placed by pydicom's reading of its position."""
    from pydicom import dcmread

    try:
        dataset = dcmread(path)
        pixels = dataset.pixel_array
        frames = pixels if pixels.ndim == 3 else pixels[None]
        kind = dataset.SegmentationType
        placed = [_Frame(dataset, index, one) for index, one in enumerate(frames)]
        numbers = [_segment_of(dataset, index) for index in range(len(frames))]
        threshold = int(dataset.get("MaximumFractionalValue", 2)) / 2
    except Exception as error:
        raise UncheckedError(f"pydicom: {type(error).__name__}") from error
    expected = np.zeros(labels.shape, int)
    inverse = np.linalg.inv(TO_LPS @ labels.affine)
    order = np.argsort(numbers, kind="stable") if kind != "LABELMAP" else range(len(frames))
    for index in order:
        frame = placed[int(index)]
        rows, columns = np.nonzero(frames[index] >= (threshold if kind == "FRACTIONAL" else 1))
        points = frame.origin + columns[:, None] * frame.steps[0] + rows[:, None] * frame.steps[1]
        places = np.rint(points @ inverse[:3, :3].T + inverse[:3, 3]).astype(int)
        if ((places < 0) | (places >= labels.shape)).any():
            raise WrongError("a voxel outside of the scan is passed over")
        is_map = kind == "LABELMAP"
        expected[tuple(places.T)] = frames[index][rows, columns] if is_map else numbers[int(index)]
    values = set(names.values())
    expected[~np.isin(expected, list(values))] = 0
    same(labels.array, expected, "labels")


def _segment_of(dataset: Any, index: int) -> int:
    for group in (
        dataset.PerFrameFunctionalGroupsSequence[index],
        *(dataset.get("SharedFunctionalGroupsSequence") or []),
    ):
        found = group.get("SegmentIdentificationSequence")
        if found:
            return int(found[0].ReferencedSegmentNumber)
    return 0


def structures(path: Path, labels: Any, names: dict[str, int]) -> None:
    """Contours filled by matplotlib; voxels within 1 % of a step of a line are not compared."""
    from matplotlib.path import Path as Outline
    from pydicom import dcmread

    try:
        dataset = dcmread(path)
        drawn = [
            (int(roi.ReferencedROINumber), str(contour.ContourGeometricType),
             np.array(contour.ContourData, float).reshape(-1, 3))
            for roi in dataset.ROIContourSequence
            for contour in roi.get("ContourSequence") or []
        ]  # fmt: skip
        order = sorted({int(roi.ROINumber) for roi in dataset.StructureSetROISequence})
    except Exception as error:
        raise UncheckedError(f"pydicom: {type(error).__name__}") from error
    inverse = np.linalg.inv(TO_LPS @ labels.affine)
    grid = np.stack(np.meshgrid(*map(np.arange, labels.shape[:2]), indexing="ij"), -1)
    flat, inside = grid.reshape(-1, 2), {}
    unsure = np.zeros(labels.shape, bool)
    for number, kind, points in drawn:
        if kind not in ("CLOSED_PLANAR", "INTERPOLATED_PLANAR", "CLOSEDPLANAR_XOR"):
            continue
        index = points @ inverse[:3, :3].T + inverse[:3, 3]
        k = round(float(index[:, 2].mean()))
        if np.ptp(index[:, 2]) > 0.5:
            raise UncheckedError("a contour that is not in one slice")
        if len(index) < 3 or not 0 <= k < labels.shape[2] or number not in order:
            continue
        outline = Outline(np.r_[index[:, :2], index[:1, :2]])
        wide, narrow = (outline.contains_points(flat, radius=r) for r in (0.01, -0.01))
        shape = labels.shape[:2]
        unsure[:, :, k] |= (wide ^ narrow).reshape(shape)
        # Those of one kind may be holes in each other; those of different kinds are not.
        mask = inside.setdefault((number, kind), np.zeros(labels.shape, bool))
        mask[:, :, k] ^= outline.contains_points(flat).reshape(shape)
    expected = np.zeros(labels.shape, int)
    for value, number in enumerate(order, start=1):
        for mask in (mask for (of, _), mask in inside.items() if of == number):
            expected[mask] = value
    same(np.where(unsure, 0, labels.array), np.where(unsure, 0, expected), "labels")


def pictures(folder: Path, labels: Any) -> None:
    """OpenCV's pixels of every picture."""
    import cv2

    files = sorted(folder.glob("*.png"), key=lambda path: path.name)
    for k, path in enumerate(files):
        pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if pixels is None or pixels.ndim != 2:
            continue
        same(labels.array[:, :, k], pixels.T.astype(int), path.name)


def listing(folder: Path, dataset: Any) -> None:
    """Label names and values as Python's own JSON reader gives them."""
    path = next(
        (folder / n for n in ("dataset.json", "labels.json") if (folder / n).exists()), None
    )
    if path is None:
        raise UncheckedError("no JSON listing")
    try:
        labels = json.loads(path.read_text("utf-8-sig"))["labels"]
        pairs = [
            (name, value)
            if isinstance(value, int) and not isinstance(value, bool)
            else (value, name)
            for name, value in labels.items()
            if not isinstance(value, list)
        ]
        expected = {str(name): int(value) for name, value in pairs if int(value) != 0}
    except Exception as error:
        raise UncheckedError(f"json: {type(error).__name__}") from error
    found = dict(dataset.labels)
    if {k.strip(): v for k, v in expected.items()} != {k: found.get(k) for k in map(str, expected)}:
        raise WrongError(f"labels {found}, the file says {expected}"[:300])
