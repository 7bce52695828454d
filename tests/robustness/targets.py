"""Every reader of what a user can give: sound input, damage, and who else reads it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robustness import oracles, sound
from robustness.harness import Target, UncheckedError, WrongError
from robustness.mutators import (
    BYTES,
    DICOM,
    ITK,
    JSON,
    MODEL,
    NIFTI,
    ODD_YAML,
    TABLE,
    YAML,
    ZIP,
    Mutator,
    any_bytes,
    characters,
    pick,
)

BY_SUFFIX: dict[str, tuple[Mutator, ...]] = {
    ".json": JSON, ".jsonl": JSON, ".yaml": YAML, ".csv": TABLE, ".tsv": TABLE, ".png": BYTES,
    ".txt": (characters, any_bytes), ".leanseg": BYTES, ".zip": ZIP, ".dcm": DICOM, ".nii": NIFTI,
}  # fmt: skip


def damage(
    pattern: str, mutators: Sequence[Mutator] | None = None
) -> Callable[[Path, np.random.Generator], None]:
    """Damages one of the files that match, by its suffix where no mutators are given."""

    def change(folder: Path, rng: np.random.Generator) -> None:
        files = [path for path in sorted(folder.glob(pattern)) if path.is_file()]
        path = pick(files, rng)
        others = [other.read_bytes() for other in files[:8] if other != path]
        content = path.read_bytes()
        ways = mutators or BY_SUFFIX.get(path.suffix, BYTES)
        changed = pick(ways, rng)(content, rng, others)
        # A hard link to the sound file: it is replaced, not written to.
        path.unlink()
        path.write_bytes(changed)
        (folder / ".changed").write_text(str(path.relative_to(folder)))

    return change


def changed(folder: Path) -> Path:
    """The file that was damaged."""
    return folder / (folder / ".changed").read_text()


def unchecked(folder: Path, answer: Any) -> None:
    """For answers that nobody else gives."""
    raise UncheckedError


# --- Volumes -------------------------------------------------------------------------------------


def read_scan(folder: Path) -> Any:
    """The damaged scan; what a volume promises is asked of it, a mask on its grid, too."""
    from leanseg.datasets.load import as_label_map
    from leanseg.errors import LeansegError
    from leanseg.volumes import read_volume, write_mask

    volume = read_volume(changed(folder))
    assert len(volume.orientation) == 3
    assert np.isfinite(volume.spacing_mm).all()
    assert volume.array.ndim in (3, 4)
    with contextlib.suppress(LeansegError):
        as_label_map(volume)
    if volume.header is not None:  # NIfTI: to the bit
        mask = folder / "mask.nii"
        write_mask(mask, np.ones(volume.shape, np.uint8), like=volume)
        np.testing.assert_array_equal(read_volume(mask).affine, volume.affine)
    return volume


def read_mhd(folder: Path) -> Any:
    """The .mhd of a damaged .mhd or .raw."""
    path = changed(folder)
    if path.suffix not in (".mhd", ".nhdr"):
        stem = path.name.partition(".")[0]
        path = next(p for p in (folder / f"{stem}.mhd", folder / f"{stem}.nhdr") if p.exists())
        (folder / ".changed").write_text(path.name)
    return read_scan(folder)


def read_series(folder: Path) -> Any:
    """The series; descriptions and refusals never name the patient."""
    from leanseg.errors import LeansegError
    from leanseg.volumes import read_volume
    from leanseg.volumes.dicom import find_series, is_dicom

    (folder / ".changed").unlink()
    try:
        assert is_dicom(folder) in (True, False)
        assert sound.PATIENT not in repr(find_series(folder))
        volume = read_volume(folder, fill_missing=True)
    except LeansegError as error:
        assert not any(word in str(error) for word in (sound.PATIENT, "Weiss", "ID-", "19700101"))
        raise
    assert volume.array.dtype in (np.int16, np.float32)
    return volume


def scan_of_labels() -> Any:
    from leanseg.volumes import Volume

    return Volume(np.zeros((14, 12, 5), np.int16), sound.AFFINE)


def read_seg(folder: Path) -> Any:
    from leanseg.volumes.dicom.seg_reader import read_dicom_seg

    return read_dicom_seg(folder / "seg.dcm", scan_of_labels())


def read_structures(folder: Path) -> Any:
    from leanseg.volumes.dicom.rtstruct_reader import read_rtstruct

    return read_rtstruct(folder / "rt.dcm", scan_of_labels())


def read_archive(folder: Path) -> Any:
    from leanseg.datasets import load_case, open_dataset
    from leanseg.volumes import read_volume

    path = changed(folder)
    if path.stem == "scan":
        return read_volume(path / "a.nii.gz")
    if path.stem == "series":
        return read_volume(path)
    dataset = open_dataset(path)
    return load_case(dataset.cases[0])


def check_archive(folder: Path, answer: Any) -> None:
    """What Python's zipfile unpacks, read by the others."""
    import zipfile

    path = changed(folder)
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder / "out")
    if path.stem == "scan":
        oracles.nifti(folder / "out" / "a.nii.gz", answer)
    elif path.stem == "series":
        oracles.series(folder / "out", answer)
    else:
        raise UncheckedError


def read_pictures(folder: Path) -> Any:
    from leanseg.datasets.readers import read_source
    from leanseg.datasets.sources import VolumeSource
    from leanseg.volumes import read_volume

    scan = read_volume(folder / "scan.nii")
    return read_source(VolumeSource(folder / "masks", "slices"), scan)


# --- Datasets ------------------------------------------------------------------------------------


def read_dataset(folder: Path) -> Any:
    """A dataset with its labels and its first case."""
    from leanseg.datasets import load_case, open_dataset

    dataset = open_dataset(folder)
    assert all(isinstance(name, str) for name in dataset.labels)
    assert all(0 < value < 65536 for value in dataset.labels.values())
    assert len({case.name for case in dataset.cases}) == len(dataset.cases) > 0
    json.dumps([case.to_json() for case in dataset.cases])
    load_case(dataset.cases[0])
    return dataset


# --- Runs ----------------------------------------------------------------------------------------

_RUN_FILES = "**/*.[jy][sa]*[nlo]*"


def open_both(folder: Path) -> Any:
    """A run opened to resume it, and to report it."""
    from leanseg.reports.run_folder import read_run_folder
    from leanseg.training.run import open_run

    return open_run(folder), read_run_folder(folder)


def write_report(folder: Path) -> Any:
    from leanseg.reports.run_report import report

    return report(folder)


def resume(folder: Path) -> Any:
    from leanseg.training.run import open_run, train_run

    train_run(open_run(folder))
    return folder / "fold_0" / "model.leanseg"


def check_resumed(folder: Path, path: Path) -> None:
    """The weights of a run that nothing happened to, where only the data could be others."""
    from safetensors.numpy import load_file

    name = changed(folder).name
    if name.endswith((".json", ".yaml", ".jsonl")):
        raise UncheckedError
    found = load_file(folder / "fold_0" / "checkpoint.safetensors")
    undamaged = folder.parent / "undamaged"
    if not undamaged.exists():
        import shutil

        shutil.copytree(folder.parent / "sound", undamaged)
        resume(undamaged)
    expected = load_file(undamaged / "fold_0" / "checkpoint.safetensors")
    if any(not np.array_equal(found[key], expected[key]) for key in expected):
        raise WrongError(f"other weights after damage to {name}")


def read_state(folder: Path) -> Any:
    from leanseg.training.checkpoint import load_state

    return load_state(folder / "fold_0" / "state.pt")


def check_state(folder: Path, state: Any) -> None:
    """The state as it was, to the bit."""
    import torch

    def flat(value: Any, name: str = "") -> dict[str, Any]:
        if isinstance(value, dict):
            return {
                k: v for key, one in value.items() for k, v in flat(one, f"{name}.{key}").items()
            }
        return {name: value}

    kept = torch.load(folder.parent / "sound" / "fold_0" / "state.pt", weights_only=True)
    found, expected = flat(vars(state)), flat(kept)
    for key, value in expected.items():
        equal = (
            torch.equal(found[key], value) if torch.is_tensor(value) else found.get(key) == value
        )
        if not equal:
            raise WrongError(f"{key} is another")


# --- Recipes -------------------------------------------------------------------------------------


def start(folder: Path) -> Any:
    """A run started by a recipe, on a tiny dataset, not trained."""
    from leanseg.training import load_recipe, start_run

    recipe = load_recipe(folder / "recipe.yaml")
    return start_run(recipe, folder.parent / "data", folder / "run", check=False)


def train(folder: Path) -> Any:
    """As `start`, and trained where that takes no more than some steps."""
    from leanseg.training import train_run

    run = start(folder)
    for phase in run.recipe.phases:
        n_steps = (phase.epochs or 9999) * (phase.steps_per_epoch or 9999)
        n_batches = min(n_steps, phase.steps or n_steps) * phase.accumulate
        if n_batches > 20 or phase.batch_size > 16 or run.recipe.training.devices > 1:
            raise UncheckedError
    return train_run(run)


def keys_of(content: Any, prefix: str = "") -> list[str]:
    if isinstance(content, list) and content and isinstance(content[0], dict):
        content = dict(enumerate(content))
    if not isinstance(content, dict):
        return [prefix]
    inner = [key for name, value in content.items() for key in keys_of(value, f"{prefix}.{name}")]
    return [*inner, *([prefix] if prefix else [])]


def set_value(folder: Path, rng: np.random.Generator) -> None:
    """A `--set`: any key of a recipe, or none, and any of YAML's surprises."""
    from leanseg.training import load_recipe

    content = load_recipe(folder / "recipe.yaml").model_dump(mode="json")
    keys = [key.removeprefix(".") for key in keys_of(content)]
    keys += ["", "x", "training", "training.", ".", "training..seed", "a.b.c", "network.options.x"]
    keys += [f"{key}.x" for key in ("name", "training.seed", "phases.0.augmentation.0")]
    keys += ["phases.main.epochs", "phases.0.optimiser.options.lr", "phases.1", "phases.-1.steps"]
    key, value = pick(keys, rng), pick(ODD_YAML, rng)
    (folder / "override").write_text(f"{key}={value}", "utf-8", "surrogatepass", newline="")


def start_with_override(folder: Path) -> Any:
    from leanseg.training import load_recipe, start_run

    override = (folder / "override").read_bytes().decode("utf-8", "surrogatepass")
    recipe = load_recipe(folder / "recipe.yaml", [override])
    return start_run(recipe, folder.parent / "data", folder / "run", check=False)


# --- Models, scores ------------------------------------------------------------------------------


def read_model_file(folder: Path) -> Any:
    from leanseg.modelfile import read_model

    return read_model(folder / "tiny.leanseg")


def check_raw_model(folder: Path, model: Any) -> None:
    sound_bytes = (folder.parent / "sound" / "tiny.leanseg").read_bytes()
    if (folder / "tiny.leanseg").read_bytes() != sound_bytes:
        raise WrongError("a model file that was altered is read")


def check_sealed_model(folder: Path, model: Any) -> None:
    """The weights are those whose hash the manifest has."""
    import zipfile
    from hashlib import sha256

    digest = sha256()
    with zipfile.ZipFile(folder / "tiny.leanseg") as archive:
        for stage, members in model.stages.items():
            for number in range(len(members)):
                digest.update(archive.read(f"{stage}/{number}/weights.safetensors"))
    if digest.hexdigest() != model.weights_sha256:
        raise WrongError("the weights are not those whose hash the manifest has")


def predict(folder: Path) -> Any:
    """A mask by a model file, in one of the engines."""
    from leanseg.inference import load_model
    from leanseg.volumes import read_volume

    content = (folder / "tiny.leanseg").read_bytes()
    engine = ("onnxruntime", "openvino", "torch")[content[-1] % 3]
    model = load_model(folder / "tiny.leanseg", engine=engine, threads=1)
    return model.predict(read_volume(folder / "scan.nii"))


def read_results(folder: Path) -> Any:
    """Scores, splits, or the record of predictions, whichever was damaged."""
    from leanseg.datasets import read_splits
    from leanseg.evaluation import evaluate
    from leanseg.evaluation.scores import read_scores
    from leanseg.inference.records import Records

    name = changed(folder).name
    if name == "scores.json":
        found = read_scores(folder / name)
        return found.summary, found.to_csv(folder / "scores.csv")
    if name == "splits.json":
        return read_splits(folder / name, ["a", "b"])
    Records.of(folder)
    (folder / "predictions.json").rename(folder / "predictions" / "predictions.json")
    return evaluate(folder / "predictions", folder / "references", {"liver": 1})


def import_checkpoint(folder: Path) -> Any:
    from leanseg.networks.obelisk_import import read_obelisk_checkpoint

    return read_obelisk_checkpoint(folder / "a.pth")


TARGETS: tuple[Target, ...] = (
    Target("NIfTI", sound.nifti, damage("*.nii*", NIFTI), read_scan,
           lambda folder, volume: oracles.nifti(changed(folder), volume), 4000, 100, quiet=True),
    *(
        Target(f"{name}", lambda folder, s=suffix: sound.itk(folder, (s,)),
               damage("*", ITK), read_mhd if suffix in (".mhd", ".nhdr") else read_scan,
               lambda folder, volume: oracles.itk(changed(folder), volume), share, 30)
        for name, suffix, share in (
            ("MetaImage .mha", ".mha", 1500), ("MetaImage .mhd", ".mhd", 800),
            ("NRRD", ".nrrd", 1200), ("NRRD .nhdr", ".nhdr", 300),
        )
    ),
    *(
        Target(f"DICOM series, {kind}", sound.series(kind), damage("*", DICOM), read_series,
               lambda folder, volume: oracles.series(folder, volume), share, small)
        for kind, share, small in (
            ("explicit", 900, 40), ("implicit", 300, 0), ("padded", 300, 0), ("mr", 300, 0),
            ("enhanced", 600, 40), ("j2k", 300, 20), ("rle", 300, 0), ("jls", 300, 0),
        )
    ),
    *(
        Target(f"DICOM SEG, {kind.lower()}", sound.segmentation(kind), damage("seg.dcm", DICOM),
               read_seg, lambda folder, answer: oracles.segmentation(folder / "seg.dcm", *answer),
               400, 15 if kind == "BINARY" else 0)
        for kind in ("BINARY", "FRACTIONAL", "LABELMAP")
    ),
    Target("RTSTRUCT", sound.structures, damage("rt.dcm", DICOM), read_structures,
           lambda folder, answer: oracles.structures(folder / "rt.dcm", *answer), 800, 40),
    Target("zip", sound.archives, damage("*.zip", ZIP), read_archive, check_archive, 500, 20),
    Target("PNG slices", sound.pictures, damage("masks/*.png", BYTES), read_pictures,
           lambda folder, labels: oracles.pictures(folder / "masks", labels), 500, 20),
    *(
        Target(f"listing, {name}", sound.layout(name), damage("**/*.[jct][ss][ov]*"), read_dataset,
               oracles.listing, 350, 15)
        for name in ("decathlon", "nnunet", "plain", "casefolders", "table", "bids", "kits19")
    ),
    Target("run folder, opened", sound.run_folder(finished=True), damage(_RUN_FILES), open_both,
           unchecked, 1800, 60),
    Target("run folder, reported", sound.run_folder(finished=True), damage(_RUN_FILES),
           write_report, unchecked, 40, 0, limit_s=60, most_bytes=4 << 30, writes=True),
    Target("run folder, resumed", sound.run_folder(finished=False), damage("**/*[!g]"), resume,
           check_resumed, 120, 0, limit_s=60, most_bytes=4 << 30, writes=True),
    Target("training state", sound.run_folder(finished=False), damage("fold_0/state.pt", BYTES),
           read_state, check_state, 300, 0),
    Target("recipe", sound.recipe, damage("recipe.yaml"), start, unchecked, 900, 30),
    Target("recipe, trained", sound.recipe, damage("recipe.yaml"), train, unchecked, 100, 0,
           limit_s=60, most_bytes=4 << 30),
    Target("--set", sound.recipe, set_value, start_with_override, unchecked, 1200, 30),
    Target("model file", sound.model, damage("tiny.leanseg", BYTES), read_model_file,
           check_raw_model, 600, 0),
    Target("model file, resealed", sound.model, damage("tiny.leanseg", MODEL), read_model_file,
           check_sealed_model, 1000, 20),
    Target("model file, run", sound.model, damage("tiny.leanseg", MODEL), predict, unchecked, 200,
           0, limit_s=60, most_bytes=4 << 30),
    Target("scores, splits, records", sound.scores, damage("*.json"), read_results, unchecked, 600,
           30),
    Target("checkpoint to import", sound.checkpoint, damage("a.pth", BYTES), import_checkpoint,
           unchecked, 200, 0),
)  # fmt: skip
