"""Model folders of nnU-Net v2 as model files: its labels, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

import leanseg
from leanseg.cli.main import run
from leanseg.errors import RecipeError
from leanseg.training import nnunet
from nnunet_folder import predict, write_folder

ANISOTROPIC, ISOTROPIC = (1.0, 1.1, 3.7), (1.5, 1.4, 2.0)
REGIONS = {"background": 0, "all": [1, 2, 3], "core": [2, 3], "hot": 3}


@pytest.fixture
def unexported(monkeypatch) -> None:
    """Exporting takes a second and a test of its own."""
    monkeypatch.setattr(nnunet, "export_model", lambda model: model)


def scan_of(rng: np.random.Generator, shape: tuple[int, ...], rim: int) -> np.ndarray:
    """Blobs, with nothing around them and a hole in one."""
    noise = ndimage.gaussian_filter(rng.normal(size=shape), (2, 2, 1, *(0,) * (len(shape) - 3)))
    scan = np.round(noise / noise.std() * 120 + 40).astype(np.float32)
    scan[scan == 0] = 1
    scan[10:12, 8:11, 3:5] = 0
    scan[:rim] = scan[:, -rim:] = 0
    return scan


@pytest.mark.parametrize(
    ("options", "spacing_mm", "channels"),
    [
        # Slices far apart, two folds.
        ({"folds": ("0", "3")}, ANISOTROPIC, 1),
        # Splines along every axis, a residual encoder, a mask, regions, two channels.
        (
            {
                "residual": True,
                "spacing": (2.2, 1.8, 1.9),
                "scheme": "ZScoreNormalization",
                "masked": True,
                "channels": ("T1", "T2"),
                "labels": REGIONS,
                "order": (1, 2, 3),
            },
            ISOTROPIC,
            2,
        ),
        # Slices one by one, one label, axes in another order.
        (
            {
                "axes": 2,
                "labels": {"background": 0, "liver": 1},
                "scheme": "ZScoreNormalization",
                "transpose": (1, 0, 2),
            },
            ISOTROPIC,
            1,
        ),
    ],
)
def test_labels_are_nnunets(tmp_path, rng, unexported, options, spacing_mm, channels):
    model = write_folder(tmp_path / "folder", **options)
    shape = (26, 22, 11) if channels == 1 else (26, 22, 11, channels)
    scan = scan_of(rng, shape, rim=3)
    expected = predict(model, scan, spacing_mm)
    nnunet.import_nnunet(tmp_path / "folder", tmp_path / "model.leanseg")
    affine = np.diag([-spacing_mm[0], *spacing_mm[1:], 1.0])
    found = leanseg.load_model(tmp_path / "model.leanseg", engine="torch").predict(
        leanseg.Volume(scan, affine)
    )
    assert len(np.unique(expected)) == (2 if options.get("axes") == 2 else len(model["labels"]))
    assert np.count_nonzero(found.array != expected) <= 1
    np.testing.assert_array_equal(found.affine, affine)


def test_mirroring_is_an_option(tmp_path, rng, unexported):
    """Flips average logits along the axes that nnU-Net allows, in its order."""
    write_folder(tmp_path / "folder", trainer="nnUNetTrainer_onlyMirror01")
    path = tmp_path / "folder" / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    torch.save({**content, "inference_allowed_mirroring_axes": (0, 1)}, path)
    model = nnunet.import_nnunet(tmp_path / "folder", tmp_path / "some.leanseg")
    assert model.plan.final.flips == (1, 2)
    assert leanseg.load_model(tmp_path / "some.leanseg", tta="flips").engine.passes == 4
    torch.save({**content, "inference_allowed_mirroring_axes": None}, path)
    nnunet.import_nnunet(tmp_path / "folder", tmp_path / "none.leanseg")
    with pytest.raises(RecipeError, match="trained without mirroring"):
        leanseg.load_model(tmp_path / "none.leanseg", tta="flips").engine  # noqa: B018


def test_the_command_makes_a_file_that_runs_without_pytorch(tmp_path, rng, capsys):
    write_folder(tmp_path / "folder", axes=2)
    output = tmp_path / "model.leanseg"
    with pytest.raises(SystemExit) as status:
        run(["import-weights", "nnunet", str(tmp_path / "folder"), "-o", str(output)])
    assert status.value.code == 0
    said = capsys.readouterr().out
    assert "plain-conv-unet, liver, lesion" in said
    assert "pass --orientation" in said
    scan = leanseg.Volume(scan_of(rng, (26, 22, 5), rim=3), np.diag([1.5, 1.4, 2, 1]))
    engines = ("openvino", "onnxruntime", "torch")
    found = [leanseg.load_model(output, engine=name).predict(scan).array for name in engines]
    assert found[0].any()
    for other in found[1:]:
        assert np.count_nonzero(found[0] != other) <= 1


def test_a_known_orientation_turns_scans(tmp_path, rng, unexported):
    write_folder(tmp_path / "folder")
    scan = leanseg.Volume(scan_of(rng, (26, 22, 11), rim=3), np.diag([1.0, 1.1, 3.7, 1.0]))
    turned = leanseg.reorient(scan, "PIL")
    for orientation, alike in ((None, False), ("RAS", True)):
        output = tmp_path / f"{orientation}.leanseg"
        nnunet.import_nnunet(tmp_path / "folder", output, orientation=orientation)
        model = leanseg.load_model(output, engine="torch")
        back = leanseg.reorient(model.predict(turned), "RAS")
        assert np.array_equal(back.array, model.predict(scan).array) is alike


class Harmful:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.mark,)


def in_json(name: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return changed


def in_config(**values: Any) -> Callable[[Path], None]:
    return in_json("plans.json", lambda plans: plans["configurations"]["3d_fullres"].update(values))


def in_network(**values: Any) -> Callable[[Path], None]:
    def change(plans: dict[str, Any]) -> None:
        network = plans["configurations"]["3d_fullres"]["architecture"]
        (network if "network_class_name" in values else network["arch_kwargs"]).update(values)

    return in_json("plans.json", change)


def in_checkpoint(change: Callable[[dict[str, Any], Path], Any]) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        path = folder / "fold_0" / "checkpoint_final.pth"
        content = torch.load(path, weights_only=False)
        change(content, folder)
        torch.save(content, path)

    return changed


def cut(folder: Path) -> None:
    path = folder / "fold_0" / "checkpoint_final.pth"
    path.write_bytes(path.read_bytes()[:-3000])


LABELS = {"background": 0, "a": [1, 2], "b": [2, 3], "c": 3}


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        (
            in_checkpoint(lambda each, _: each.update(trainer_name="MyTrainer")),
            [],
            "trained by 'MyTrainer'.*pass --trainer MyTrainer",
        ),
        (
            in_checkpoint(lambda each, _: each.update(trainer_name="nnUNetTrainerBN")),
            [],
            "trained by 'nnUNetTrainerBN'",
        ),
        (None, ["--fold", "4"], r"has no fold_4/checkpoint_final\.pth \(only of 0\)"),
        (None, ["--checkpoint", "best"], r"has no fold_X/checkpoint_best\.pth \(none\)"),
        (
            in_json("plans.json", lambda plans: plans.update(plans_per_stage={})),
            [],
            "plans of nnU-Net version 1",
        ),
        (in_config(previous_stage="3d_lowres"), [], "is a cascade.*what '3d_lowres' found"),
        (
            in_checkpoint(lambda each, folder: each.update(more=Harmful(folder / "harm"))),
            [],
            "is refused: it is damaged or holds more than tensors",
        ),
        (cut, [], "damaged or something else"),
        (in_network(network_class_name="a.b.Primus"), [], "'a.b.Primus' is not known"),
        (in_network(nonlin="torch.nn.ReLU"), [], "nonlin"),
        (in_network(features_per_stage=[4, 6, 10]), [], "not those of the plain-conv-unet"),
        (in_config(preprocessor_name="Mine"), [], "prepared by Mine"),
        (in_config(normalization_schemes=["Mine"]), [], "normalised by Mine"),
        (in_json("dataset.json", lambda each: each.update(labels=LABELS)), [], "inside one an"),
        (in_json("dataset.json", lambda each: each.pop("labels")), [], "as nnU-Net v2 does"),
        (lambda folder: (folder / "plans.json").unlink(), [], "plans.json"),
        (
            in_checkpoint(lambda each, _: each.pop("network_weights")),
            [],
            "is no checkpoint of nnU-Net v2",
        ),
    ],
)
def test_other_folders_are_refused(tmp_path, capsys, unexported, change, options, said):
    folder, output = tmp_path / "folder", tmp_path / "new" / "model.leanseg"
    write_folder(folder)
    if change is not None:
        change(folder)
    command = ["import-weights", "nnunet", str(folder), "-o", str(output), *options]
    with pytest.raises(SystemExit) as status:
        run(command)
    assert status.value.code == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert re.search(said, error), error
    assert not output.exists()
    assert not (folder / "harm").exists()


def test_a_trainer_that_is_named_is_trusted(tmp_path, unexported):
    write_folder(tmp_path / "folder", trainer="MyTrainer")
    output = tmp_path / "model.leanseg"
    nnunet.import_nnunet(tmp_path / "folder", output, trainer="MyTrainer")
    assert leanseg.load_model(output).plan.labels == ("liver", "lesion")


@pytest.mark.slow
@pytest.mark.parametrize("task", ["Task04_Hippocampus/imagesTr/hippocampus_350.nii.gz",
                                  "Task101_SarcomaCT/imagesTr/sts_019.nii.gz"])  # fmt: skip
@pytest.mark.parametrize("residual", [False, True])
def test_nnunets_own_predictor_agrees(
    tmp_path, monkeypatch, unexported, shared_data, task, residual
):
    """On real scans, with random weights, whose labels are less decided than those of trained."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path))
    module = pytest.importorskip(
        "nnunetv2.inference.predict_from_raw_data",
        reason="nnU-Net is not installed (pip install nnunetv2)",
    )
    is_ct = "CT" in task
    write_folder(
        tmp_path / "folder",
        residual=residual,
        scheme="CTNormalization" if is_ct else "ZScoreNormalization",
        spacing=(3.0, 1.4, 1.4) if is_ct else (1.2, 0.9, 1.1),
        patch=(16, 64, 80) if is_ct else (32, 40, 24),
    )
    nnunet.import_nnunet(tmp_path / "folder", tmp_path / "model.leanseg")
    predictor = module.nnUNetPredictor(
        use_mirroring=True,
        device=torch.device("cpu"),
        perform_everything_on_device=False,
        allow_tqdm=False,
    )
    predictor.initialize_from_trained_model_folder(str(tmp_path / "folder"), (0,))
    # It adds up logits in 16 bits, which changes some labels.
    monkeypatch.setattr(torch, "half", torch.float32)
    reader = predictor.plans_manager.image_reader_writer_class()
    expected = predictor.predict_single_npy_array(*reader.read_images([str(shared_data / task)])).T
    model = leanseg.load_model(tmp_path / "model.leanseg", engine="torch", tta="flips")
    found = model.predict(shared_data / task).array
    assert len(np.unique(expected)) == 3
    assert np.mean(found == expected) >= 0.9999
