"""Sound input for every reader, written with nibabel, SimpleITK, pydicom, highdicom and Pillow."""

from __future__ import annotations

import copy
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

import layout_samples
from dicom_writer import compress, enhanced_dataset, volume_datasets, write_slices

SHAPE = (6, 5, 4)
PATIENT = "Weiss^Aenne"
AFFINE = np.array([[-0.8, 0, 0, 50], [0, -0.7, 0, 60.5], [0, 0, 2.5, -300], [0, 0, 0, 1]])
OBLIQUE = np.array([[-0.7, 0.1, 0, 90], [0.1, 0.8, 0, -80], [0, 0, 2.5, 30], [0, 0, 0, 1.0]])
TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def voxels(shape: tuple[int, ...] = SHAPE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 1500, shape).astype(np.int16)


# --- Volumes -------------------------------------------------------------------------------------


def nifti(folder: Path) -> None:
    """One file of each kind, gzipped and plain."""
    values = voxels((*SHAPE, 2))
    images = {
        f"{name}{number}": kind(array, OBLIQUE)
        for number, kind in ((1, nib.Nifti1Image), (2, nib.Nifti2Image))
        for name, array in (
            ("short", values[..., 0].astype("<i2")),
            ("float", values[..., 0].astype("<f4")),
            ("channels", values.astype("<i2")),
            ("byte", (values[..., 0] % 200).astype("u1")),
        )
    }
    swapped = nib.Nifti1Image(values[..., 1].astype(">i2"), OBLIQUE, None)
    header = swapped.header.as_byteswapped(">")
    images["swapped"] = nib.Nifti1Image(swapped.dataobj, OBLIQUE, header)
    images["quaternion"] = nib.Nifti1Image(values[..., 0].astype("<u2"), None)
    images["quaternion"].set_qform(OBLIQUE, 1, strip_shears=True)
    images["scaled"] = nib.Nifti1Image(values[..., 0].astype("<i2"), AFFINE)
    images["both"] = nib.Nifti1Image(values[..., 0].astype("<f8"), AFFINE)
    images["both"].set_qform(AFFINE, 1)
    for name, image in images.items():
        content = bytearray(image.to_bytes())
        if name == "scaled":
            content[112:120] = np.array([0.5, -3], "<f4").tobytes()
        for suffix in (".nii", ".nii.gz"):
            import gzip

            packed = gzip.compress(content, 1, mtime=0) if suffix == ".nii.gz" else content
            (folder / f"{name}{suffix}").write_bytes(packed)


def itk(folder: Path, suffixes: tuple[str, ...]) -> None:
    """MetaImage and NRRD of several types, in one file and in two, packed and not."""
    import SimpleITK as sitk  # noqa: N813

    for number, dtype in enumerate(("i2", "f4", "u1")):
        image = sitk.GetImageFromArray(voxels().astype(dtype).transpose(2, 1, 0))
        image.SetSpacing((0.8, 0.7, 2.5))
        image.SetOrigin((-10.5, 20, 300))
        if number == 1:
            image.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, 1))
        for suffix in suffixes:
            for packed in (False, True):
                path = folder / f"{dtype}{'z' * packed}{suffix}"
                sitk.WriteImage(image, str(path), useCompression=packed)


# --- DICOM ---------------------------------------------------------------------------------------


def series_datasets(kind: str) -> list:
    """A small series of a kind of DICOM file."""
    from pydicom.uid import (
        ImplicitVRLittleEndian,
        JPEG2000Lossless,
        JPEGLSLossless,
        RLELossless,
    )

    syntaxes = {"j2k": JPEG2000Lossless, "rle": RLELossless, "jls": JPEGLSLossless}
    shape = (33, 32, 3) if kind in syntaxes else SHAPE
    options: dict = {"padded": {"slope": 0.5}, "mr": {"modality": "MR"}}.get(kind, {})
    datasets = volume_datasets(voxels(shape), AFFINE, patient=PATIENT, **options)
    if kind == "enhanced":
        return [enhanced_dataset(datasets)]
    for dataset in datasets:
        if kind == "implicit":
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        elif kind == "padded":
            dataset.PixelPaddingValue, dataset.PixelPaddingRangeLimit = -2000, -1900
    if kind in syntaxes:
        return [compress(dataset, syntaxes[kind]) for dataset in datasets]
    return datasets


def series(kind: str) -> Callable[[Path], None]:
    return lambda folder: write_slices(folder, series_datasets(kind)) and None


def labels() -> np.ndarray:
    """Two structures, (i, j, k), the second with a hole."""
    found = np.zeros((14, 12, 5), np.uint8)
    found[2:9, 2:9, 1:4] = 1
    found[10:13, 1:10, 2:5] = 2
    return found


def segmentation(kind: str) -> Callable[[Path], None]:
    """A SEG file of `labels`."""

    def build(folder: Path) -> None:
        import highdicom as hd
        from pydicom.sr.codedict import codes
        from pydicom.uid import generate_uid

        array = labels()
        source = volume_datasets(np.zeros(array.shape, np.int16), AFFINE, patient=PATIENT)
        described = [
            hd.seg.SegmentDescription(
                segment_number=number,
                segment_label=name,
                segmented_property_category=codes.SCT.Organ,
                segmented_property_type=codes.SCT.Liver,
                algorithm_type="MANUAL",
            )
            for number, name in enumerate(("liver", "spleen"), start=1)
        ]
        pixels = array.transpose(2, 1, 0)
        if kind == "FRACTIONAL":
            pixels = np.stack([pixels == n for n in (1, 2)], axis=-1).astype(np.float32) * 0.9
        written = hd.seg.Segmentation(
            source_images=source,
            pixel_array=pixels,
            segmentation_type=kind,
            segment_descriptions=described,
            series_instance_uid=generate_uid(),
            series_number=5,
            sop_instance_uid=generate_uid(),
            instance_number=1,
            manufacturer="x",
            manufacturer_model_name="y",
            software_versions="1",
            device_serial_number="1",
        )
        written.save_as(folder / "seg.dcm")

    return build


def structures(folder: Path) -> None:
    """An RTSTRUCT file of boxes, one with a hole, between voxel centres."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    def item(**elements: object) -> Dataset:
        made = Dataset()
        for keyword, value in elements.items():
            setattr(made, keyword, value)
        return made

    def contour(box: tuple[float, float, float, float], k: int) -> Dataset:
        i0, j0, i1, j1 = box
        corners = np.array([[i0, j0, k, 1], [i1, j0, k, 1], [i1, j1, k, 1], [i0, j1, k, 1]])
        points = (corners @ (TO_LPS @ AFFINE).T)[:, :3].ravel()
        return item(
            ContourGeometricType="CLOSED_PLANAR",
            NumberOfContourPoints=4,
            ContourData=[f"{value:.4f}" for value in points],
        )

    first = [contour((1.5, 1.5, 8.5, 8.5), k) for k in (1, 2, 3)]
    first.append(contour((3.5, 3.5, 6.5, 6.5), 2))
    second = [contour((9.5, 0.5, 12.5, 9.5), k) for k in (2, 3, 4)]
    source = volume_datasets(np.zeros((14, 12, 5), np.int16), AFFINE, patient=PATIENT)[0]
    ds = copy.deepcopy(source)
    for keyword in ("PixelData", "Rows", "Columns", "ImagePositionPatient", "PixelSpacing"):
        del ds[keyword]
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.Modality = "1.2.840.10008.5.1.4.1.1.481.3", "RTSTRUCT"
    ds.SOPInstanceUID = generate_uid()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.StructureSetLabel = "x"
    ds.StructureSetROISequence = [
        item(ROINumber=number, ROIName=name, ReferencedFrameOfReferenceUID=ds.FrameOfReferenceUID,
             ROIGenerationAlgorithm="")
        for number, name in ((1, "liver"), (2, "spleen"))
    ]  # fmt: skip
    ds.ROIContourSequence = [
        item(ReferencedROINumber=1, ContourSequence=first),
        item(ReferencedROINumber=2, ContourSequence=second),
    ]
    ds.save_as(folder / "rt.dcm", enforce_file_format=True)


def archives(folder: Path) -> None:
    """Zip files: a scan, a series, a dataset."""
    inside = folder / "inside"
    layout_samples.save(inside / "scan" / "a.nii.gz", voxels())
    write_slices(inside / "series", series_datasets("explicit"))
    layout_samples.decathlon(inside / "dataset")
    for part in ("scan", "series", "dataset"):
        with zipfile.ZipFile(folder / f"{part}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted((inside / part).rglob("*")):
                archive.write(path, path.relative_to(inside / part))
    shutil.rmtree(inside)


def pictures(folder: Path) -> None:
    """A scan, and its label map as one picture a slice, of several modes."""
    from PIL import Image

    layout_samples.save(folder / "scan.nii", voxels((14, 12, 5)))
    (folder / "masks").mkdir()
    for k, mode in enumerate(("L", "L", "P", "1", "I;16")):
        pixels = labels()[:, :, k].T
        if mode == "1":
            picture = Image.fromarray((pixels > 0).astype(np.uint8) * 255).convert("1")
        elif mode == "P":
            picture = Image.fromarray(pixels).convert("P")
        else:
            picture = Image.fromarray(pixels.astype(np.uint16) if mode == "I;16" else pixels)
        picture.save(folder / "masks" / f"slice_{k}.png")


# --- Datasets, runs, models ----------------------------------------------------------------------


def layout(name: str) -> Callable[[Path], None]:
    """A dataset whose listing has every key that its layout knows."""

    def build(folder: Path) -> None:
        layout_samples.WRITERS[name](folder)
        first, second = layout_samples.CASES
        if name == "table":
            (folder / "labels.json").unlink()
            for path in folder.glob("drawn/*"):
                path.rename(folder / path.name)
            text = "case,image,label:liver,label:spleen,patient,annotated,site\n" + "".join(
                f"c{n},scans of {n}/a.nii.gz,{n}.nii.gz,,p{n},liver;spleen,Ulm\n" for n in (0, 1)
            )
            (folder / "listing.csv").write_text(text)
        if name not in ("plain", "decathlon", "nnunet"):
            return
        path = folder / ("labels.json" if name == "plain" else "dataset.json")
        listing = json.loads(path.read_text())
        listing["metadata"] = {first: {"patient": "1"}}
        if name == "plain":
            listing["annotated"] = {second: ["liver"]}
        elif name == "nnunet":
            listing["labels"]["both"] = [1, 2]
        else:
            listing["test"] = [{"image": f"./imagesTr/{first}.nii.gz"}]
            listing["training"] = listing["training"][1:]
        path.write_text(json.dumps(listing))

    return build


RECIPE = """
name: tiny
data:
  labels: {ball: [1, 2]}
network: {name: monet, options: {base_filters: 4}}
plan: {frame: {axes: [24, 24, null]}}
packaging: {export: false}
split: {kind: k-fold, n_folds: 2}
phases:
  - sampler: {name: slices, options: {margin: 2}}
    optimiser: {name: NAdam, options: {lr: 1.0e-4}}
    epochs: 1
    steps_per_epoch: 2
    batch_size: 4
training:
  folds: all
  threads: 1
  precision: "32"
  checkpoint_interval_s: 0
"""


def data(folder: Path) -> Path:
    """A tiny dataset beside the sound input, where no copy of it is made."""
    from training.conftest import write_tiny_dataset

    place = folder.parent / "data"
    return place if place.exists() else write_tiny_dataset(place, n_cases=4)


def run_folder(*, finished: bool) -> Callable[[Path], None]:
    """A run of two folds, trained to its end or with one that was stopped in an epoch."""

    def build(folder: Path) -> None:
        from leanseg.training import load_recipe, start_run, train_run

        (folder / "recipe.yaml").write_text(RECIPE)
        recipe = load_recipe(folder / "recipe.yaml")
        (folder / "recipe.yaml").unlink()
        run = start_run(recipe, data(folder), folder)
        train_run(run)
        if not finished:
            shutil.rmtree(folder / "fold_0")
            shutil.copytree(folder / "fold_1", folder / "fold_0")
            shutil.rmtree(folder / "fold_1")
            for name in ("summary.json", "model.leanseg", "checkpoint.safetensors"):
                (folder / "fold_0" / name).unlink()
        for path in folder.rglob("events.out*"):
            path.unlink()

    return build


def recipe(folder: Path) -> None:
    (folder / "recipe.yaml").write_text(RECIPE)
    data(folder)


def model(folder: Path, *, exported: bool = True) -> None:
    """A tiny model, and a scan for it."""
    from cli.conftest import random_model

    if exported:
        # Exporting one takes longer than all that is done with it.
        shutil.copy(Path(__file__).parents[1] / "modelfile" / "tiny.leanseg", folder)
    else:
        random_model(folder / "tiny.leanseg", base_filters=2)
    layout_samples.save(folder / "scan.nii", voxels((20, 18, 3)))


def checkpoint(folder: Path) -> None:
    """A checkpoint as the authors of OBELISK published it."""
    import torch

    torch.save({"LIN4.bias": torch.zeros(3), "a.weight": torch.ones(2, 2)}, folder / "a.pth")


def scores(folder: Path) -> None:
    """What `evaluate` writes, and splits, and the records of `predict`."""
    from leanseg.evaluation import evaluate

    array = labels()
    for part in ("predictions", "references"):
        for name in ("a", "b"):
            layout_samples.save(folder / part / f"{name}.nii.gz", array)
            array = np.roll(array, 1, 0)
    found = evaluate(folder / "predictions", folder / "references", {"liver": 1, "spleen": 2})
    found.to_json(folder / "scores.json")
    split = [{"train": ["a"], "monitor": [], "test": ["b"]}, {"train": ["b"], "val": ["a"]}]
    (folder / "splits.json").write_text(json.dumps(split))
    entry = {"model_weights_sha256": "x", "volumes_ml": {"liver": 1.5}, "labels": {"liver": 1}}
    record = {"format": "leanseg-predictions", "cases": {"a": entry, "b": entry}}
    (folder / "predictions.json").write_text(json.dumps(record))
