"""Many scans: kept results, bad scans among good ones, records, and what a failure leaves."""

from __future__ import annotations

import errno
import json
import threading
import time
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from leanseg.errors import GeometryError, LeansegError, ModelFileError, RecipeError
from leanseg.evaluation.matching import labels_of
from leanseg.inference import Model, formats, jobs
from leanseg.inference.inputs import collect_tasks
from leanseg.inference.jobs import predict_all
from leanseg.inference.memory import Way
from leanseg.inference.records import RECORDS_FILE
from leanseg.modelfile import Member, ModelFile, NetworkSpec
from leanseg.plan import HounsfieldWindow, Plan
from leanseg.volumes import read_volume
from leanseg.volumes.volume import StoredVolume
from plans import patches, slices

AFFINE = np.diag([-0.5, -0.8, 2.0, 1.0])


@pytest.fixture
def model(known_engine) -> Model:
    plan = slices((8, 8), ("low", "high"))

    def function(values: np.ndarray) -> np.ndarray:
        classes = np.digitize(values[:, 0], [0.25, 0.75])
        return np.moveaxis(np.eye(3)[classes], 3, 1)

    spec = NetworkSpec(name="known", in_channels=1, out_channels=3)
    file = ModelFile.of(plan, Member(spec, {}), weights_sha256="abc")
    engine = known_engine(function)
    return Model(file, lambda lanes: {"main": engine})


@pytest.fixture
def scans(tmp_path: Path) -> list[Path]:
    """Two scans of 8 x 8 x 6: a quarter, a half and a quarter of the voxels in the classes."""
    paths = []
    for name in ("one", "two"):
        array = np.repeat(np.array([0, 50, 50, 100], dtype=np.int16), 96).reshape(8, 8, 6)
        paths.append(tmp_path / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(array, AFFINE), paths[-1])
    return paths


def run(model: Model, paths: list[Path], output: Path, **options):
    return predict_all(model, collect_tasks(paths, model.plan), output, **options)


def statuses(results) -> list[str]:
    return [result.status for result in results]


def test_results_and_their_numbers(model: Model, scans, tmp_path: Path) -> None:
    results = run(model, scans, tmp_path / "deep" / "out")
    assert statuses(results) == ["done", "done"]
    for scan, result in zip(scans, results, strict=True):
        assert result.output == tmp_path / "deep" / "out" / scan.name
        mask = read_volume(result.output)
        expected = np.digitize(read_volume(scan).array, [25, 75])
        np.testing.assert_array_equal(mask.array, expected)
        # 384 voxels of 0.8 mm3.
        assert result.volumes_ml == pytest.approx({"low": 192 * 0.0008, "high": 96 * 0.0008})
        assert list(result.stages) == [
            "read", "preprocess", "network", "restore", "postprocess", "write"
        ]  # fmt: skip
        assert 0 < sum(result.stages.values()) <= result.seconds * 1.001
        assert 20 < result.peak_memory_mb < 20_000


def test_volumes_in_a_sheared_grid(model: Model, tmp_path: Path) -> None:
    affine = AFFINE.copy()
    affine[0, 2] = 1.5  # a tilted gantry: voxels are parallelepipeds of the same volume
    array = np.repeat(np.array([0, 50, 50, 100], dtype=np.int16), 96).reshape(8, 8, 6)
    nib.save(nib.Nifti1Image(array, affine), tmp_path / "tilted.nii.gz")
    (result,) = run(model, [tmp_path / "tilted.nii.gz"], tmp_path / "out")
    assert result.volumes_ml["low"] == pytest.approx(192 * 0.0008)


def test_what_is_there_is_kept(model: Model, scans, tmp_path: Path) -> None:
    first = run(model, scans[:1], tmp_path / "out")
    before = (tmp_path / "out" / "one.nii.gz").stat().st_mtime_ns
    model.engine.batches.clear()
    results = run(model, scans, tmp_path / "out")
    assert statuses(results) == ["skipped", "done"]
    assert results[0].volumes_ml == first[0].volumes_ml
    assert sum(model.engine.batches) == 6
    assert (tmp_path / "out" / "one.nii.gz").stat().st_mtime_ns == before
    assert statuses(run(model, scans, tmp_path / "out", overwrite=True)) == ["done", "done"]


def other_model(model: Model, **changes) -> Model:
    return Model(replace(model.file, **changes), lambda lanes: {"main": model.engine})


def test_another_models_result_is_not_taken_for_ours(model: Model, scans, tmp_path: Path) -> None:
    run(model, scans, tmp_path / "out")
    plan = slices((8, 8), ("low", "high"), scaling="zscore")
    for other in (other_model(model, weights_sha256="def"), other_model(model, plan=plan)):
        results = run(other, scans, tmp_path / "out")
        assert statuses(results) == ["failed", "failed"]
        assert "not from this model and scan; give --overwrite" in results[0].message
    assert statuses(run(model, scans, tmp_path / "out")) == ["skipped", "skipped"]
    replaced = run(
        other_model(model, weights_sha256="def"), scans, tmp_path / "out", overwrite=True
    )
    assert statuses(replaced) == ["done", "done"]


def test_a_changed_scan_or_a_strangers_mask_is_not_kept(model, scans, tmp_path: Path) -> None:
    run(model, scans, tmp_path / "out")
    nib.save(nib.Nifti1Image(np.zeros((8, 8, 6), dtype=np.int16), AFFINE), scans[0])
    (tmp_path / "out" / "three.nii.gz").write_bytes(b"somebody's")
    nib.save(
        nib.Nifti1Image(np.zeros((8, 8, 6), dtype=np.int16), AFFINE), tmp_path / "three.nii.gz"
    )
    results = run(model, [*scans, tmp_path / "three.nii.gz"], tmp_path / "out")
    assert statuses(results) == ["failed", "skipped", "failed"]
    assert (tmp_path / "out" / "three.nii.gz").read_bytes() == b"somebody's"


def test_a_deleted_mask_is_made_again(model: Model, scans, tmp_path: Path) -> None:
    run(model, scans, tmp_path / "out")
    (tmp_path / "out" / "one.nii.gz").unlink()
    assert statuses(run(model, scans, tmp_path / "out")) == ["done", "skipped"]


def test_a_bad_scan_does_not_stop_the_others(model: Model, scans, tmp_path: Path) -> None:
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(scans[0].read_bytes()[:60])
    seen: list[str] = []
    ended: list[str] = []
    results = run(
        model,
        [scans[0], bad, tmp_path / "gone.nii.gz", scans[1]],
        tmp_path / "out",
        on_case=seen.append,
        on_result=lambda result: ended.append(result.name),
    )
    assert statuses(results) == ["done", "failed", "failed", "done"]
    assert str(bad) in results[1].message
    assert "no such file" in results[2].message
    assert seen == ended == ["one", "bad", "gone", "two"]
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["one.nii.gz", RECORDS_FILE, "two.nii.gz"]


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.EIO, "Input/output error")])
def test_neither_does_one_too_large_or_on_a_bad_disk(
    model: Model, scans, tmp_path: Path, monkeypatch, error: Exception
) -> None:
    open_scan = jobs.open_scan

    def failing(case):
        if case.name == "one":
            raise error
        return open_scan(case)

    monkeypatch.setattr(jobs, "open_scan", failing)
    results = run(model, scans, tmp_path / "out")
    assert statuses(results) == ["failed", "done"]
    assert ("memory" if isinstance(error, MemoryError) else "Input/output") in results[0].message


def test_records_name_the_model_and_what_ran_it(model: Model, scans, tmp_path: Path) -> None:
    run(model, scans, tmp_path / "out")
    content = json.loads((tmp_path / "out" / RECORDS_FILE).read_text())
    assert content["format"] == "leanseg-predictions"
    entry = content["cases"]["one"]
    assert entry["model_weights_sha256"] == "abc"
    assert (entry["engine"], entry["precision"]) == ("known", "f32")
    assert Plan.model_validate(entry["plan"]) == model.plan
    assert entry["files"][0][0] == str(scans[0].resolve())


def test_two_processes_in_one_folder_keep_both_records(model, scans, tmp_path: Path) -> None:
    """The second writes its record while the first is at work."""
    output = tmp_path / "out"

    def meanwhile(name: str) -> None:
        if name == "one" and not (output / "two.nii.gz").exists():
            run(model, scans[1:], output)

    run(model, scans[:1], output, on_case=meanwhile)
    assert statuses(run(model, scans, output)) == ["skipped", "skipped"]


def test_damaged_records_are_not_thrown_away(model: Model, scans, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / RECORDS_FILE).write_text("[1, 2")
    with pytest.raises(
        LeansegError,
        match=r"predictions\.json: is damaged or not what it should be .* move it away",
    ):
        run(model, scans, output)
    assert (output / RECORDS_FILE).read_text() == "[1, 2"


def test_a_full_disk_leaves_no_half_result(model: Model, scans, tmp_path, monkeypatch) -> None:
    def full(path, array, like) -> None:
        raise LeansegError(f"{path}: the disk is full")

    monkeypatch.setattr(formats, "write_mask", full)
    results = run(model, scans, tmp_path / "out")
    assert statuses(results) == ["failed", "failed"]
    # The folder is gone too: it was made for results that never came.
    assert not (tmp_path / "out").exists()


def test_a_mask_without_its_record_does_not_stay(model, scans, tmp_path, monkeypatch) -> None:
    def full(self, *args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    results = run(model, scans[:1], tmp_path / "out")
    assert statuses(results) == ["failed"]
    assert "the disk is full" in results[0].message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("moment", ["case", "progress"])
def test_an_interrupt_leaves_what_is_complete(model, scans, tmp_path: Path, moment: str) -> None:
    def stop(*_: object) -> None:
        if sum(model.engine.batches) > (6 if moment == "progress" else 5):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(model, scans, tmp_path / "out", **{f"on_{moment}": stop})
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["one.nii.gz", RECORDS_FILE]
    assert statuses(run(model, scans, tmp_path / "out")) == ["skipped", "done"]


def test_an_interrupt_before_the_first_result_leaves_nothing(model, scans, tmp_path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(model, scans, tmp_path / "out", on_progress=stop)
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file(model: Model, scans, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("precious")
    with pytest.raises(LeansegError, match=r"out: is a file, but results need a folder"):
        run(model, scans, tmp_path / "out")
    with pytest.raises(LeansegError, match=r"out: is a file, .* cannot be written"):
        run(model, scans, tmp_path / "out" / "below")
    assert (tmp_path / "out").read_text() == "precious"
    assert model.engine.batches == []


def test_an_output_that_cannot_be_written_is_found_first(model, scans, monkeypatch, tmp_path):
    def refused(*args: object, **options: object) -> None:
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refused)
    with pytest.raises(LeansegError, match=r"cannot be written \(Permission denied"):
        run(model, scans, tmp_path / "out")
    assert model.engine.batches == []


def many(tmp_path: Path, n: int) -> list[Path]:
    paths = []
    for index in range(n):
        array = np.repeat(np.array([0, 50, 50, 100], dtype=np.int16), 96).reshape(8, 8, 6)
        paths.append(tmp_path / f"scan{index}.nii.gz")
        nib.save(nib.Nifti1Image(array, AFFINE), paths[-1])
    return paths


@pytest.mark.parametrize("prefetch", [True, False])
def test_the_next_scan_is_read_meanwhile_but_no_more(model, tmp_path, monkeypatch, prefetch):
    """While a scan is in the network, with prefetching; else one thing after another."""
    events: list[str] = []
    read, write_mask = StoredVolume.read, formats.write_mask
    next_is_read = threading.Semaphore(0)

    def reading(stored):
        events.append(f"read {stored.path.name.removesuffix('.nii.gz')}")
        volume = read(stored)
        next_is_read.release()
        return volume

    def writing(path, array, like):
        write_mask(path, array, like)
        events.append(f"wrote {path.name.removesuffix('.nii.gz')}")

    monkeypatch.setattr(StoredVolume, "read", reading)
    monkeypatch.setattr(formats, "write_mask", writing)
    monkeypatch.setattr(model, "prepare", lambda *_, **__: Way(None, False, prefetch))
    paths = many(tmp_path, 4)
    run_network = model.engine.run
    begun: list[int] = []

    def run_one(values):
        if values.shape[0] == 4:  # the first batch of a scan of 6
            begun.append(1)
            events.append(f"network scan{len(begun) - 1}")
            if prefetch and len(begun) < 4:
                # Its own reading, and then the next one's, which must come without our help.
                for _ in range(2 if len(begun) == 1 else 1):
                    assert next_is_read.acquire(timeout=10)
            time.sleep(0.05)
        return run_network(values)

    model.engine.run = run_one
    results = run(model, paths, tmp_path / "out")
    assert statuses(results) == ["done"] * 4
    assert [result.name for result in results] == [f"scan{n}" for n in range(4)]
    where = events.index
    for n in range(3):
        assert (where(f"read scan{n + 1}") > where(f"network scan{n}")) or prefetch
        if not prefetch and n < 2:
            assert where(f"read scan{n + 2}") > where(f"wrote scan{n}")
    for n in range(2):
        # Never two ahead.
        assert where(f"read scan{n + 2}") > where(f"network scan{n}")
        assert n == 0 or where(f"read scan{n + 2}") > where(f"wrote scan{n - 1}")


def test_probabilities_beside_the_label_maps(model, scans, tmp_path: Path) -> None:
    results = run(model, scans, tmp_path / "out", save_probabilities=True)
    assert statuses(results) == ["done", "done"]
    path = tmp_path / "out" / "one.probabilities.nii.gz"
    found = read_volume(path)
    mask = read_volume(results[0].output)
    np.testing.assert_array_equal(found.affine, mask.affine)
    np.testing.assert_array_equal(found.array.argmax(axis=3), mask.array)
    np.testing.assert_allclose(found.array.sum(axis=3), 1, atol=1e-3)


def test_notes_and_skipped_slices_are_recorded(known_engine, tmp_path: Path) -> None:
    plan = slices((8, 8), window=HounsfieldWindow())
    spec = NetworkSpec(name="known", in_channels=1, out_channels=1)
    file = ModelFile.of(plan, Member(spec, {}), weights_sha256="abc")
    air = np.full((8, 8, 6), -1000, dtype=np.int16)
    nib.save(nib.Nifti1Image(air, AFFINE), tmp_path / "air.nii.gz")
    model = Model(file, lambda lanes: {"main": known_engine()})
    (result,) = run(model, [tmp_path / "air.nii.gz"], tmp_path / "out")
    assert result.slices_skipped == 5
    assert "no body" in result.notes[0]
    entry = json.loads((tmp_path / "out" / RECORDS_FILE).read_text())["cases"]["air"]
    assert entry["notes"] == list(result.notes)


def test_an_engine_that_never_gets_ready_is_no_failure_of_a_case(model, scans, tmp_path) -> None:
    def fail(lanes):
        raise ModelFileError("m.leanseg: its exported network cannot be used")

    broken = Model(model.file, fail, in_background=True)
    with pytest.raises(ModelFileError, match="cannot be used"):
        run(broken, scans, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_spacing_that_would_make_a_huge_volume_is_refused_unread(known_engine, scans, tmp_path):
    """The header says 15 mm a voxel: nothing is read of it."""
    plan = patches((8, 8, 8), spacing_mm=(0.002, 0.002, 0.002))
    spec = NetworkSpec(name="known", in_channels=1, out_channels=1)
    file = ModelFile.of(plan, Member(spec, {}))
    engine = known_engine()
    noise = np.random.default_rng(0).integers(-999, 999, (64, 64, 60)).astype(np.int16)
    nib.save(nib.Nifti1Image(noise, AFFINE), scans[0])
    content = scans[0].read_bytes()
    scans[0].write_bytes(content[: len(content) // 2])
    (result,) = run(Model(file, lambda lanes: {"main": engine}), scans[:1], tmp_path / "out")
    assert result.status == "failed"
    assert "GB; correct the header, or give the model's frame a larger spacing_mm" in result.message
    assert engine.batches == []


def test_what_is_wrong_between_scan_and_model_names_the_scan(model, scans, tmp_path, monkeypatch):
    def unfit(case):
        raise GeometryError("the network needs other sizes; resample it")

    monkeypatch.setattr(jobs, "open_scan", unfit)
    results = run(model, scans, tmp_path / "out")
    assert [r.message for r in results] == [
        f"{scan}: the network needs other sizes; resample it" for scan in scans
    ]


def test_chosen_labels_alone_are_written_and_remembered(model, scans, tmp_path: Path) -> None:
    (result,) = run(model, scans[:1], tmp_path / "out", labels=["High"])
    expected = np.digitize(read_volume(scans[0]).array, [25, 75])
    np.testing.assert_array_equal(read_volume(result.output).array, np.where(expected == 2, 2, 0))
    assert result.volumes_ml == pytest.approx({"high": 96 * 0.0008})
    assert labels_of(result.output) == {"high": 2}
    # A result with other labels is another result.
    assert statuses(run(model, scans[:1], tmp_path / "out", labels=["high"])) == ["skipped"]
    assert statuses(run(model, scans[:1], tmp_path / "out")) == ["failed"]
    with pytest.raises(RecipeError, match="choose among low, high"):
        run(model, scans[:1], tmp_path / "other", labels=["heigh"])
    assert not (tmp_path / "other").exists()


def test_previews_see_the_models_channel_and_the_labels(model, scans, tmp_path: Path) -> None:
    array = read_volume(scans[0]).array
    both = np.stack([np.full_like(array, 9), array], axis=-1)
    nib.save(nib.Nifti1Image(both, AFFINE), tmp_path / "both.nii.gz")
    seen = []

    def preview(scan, labels, names) -> bytes:
        seen.append((scan.array, labels.array, names))
        return b"drawn"

    tasks = collect_tasks([tmp_path / "both.nii.gz"], model.plan, [1])
    (result,) = predict_all(model, tasks, tmp_path / "out", preview=preview, labels=["low"])
    assert result.status == "done", result.message
    assert (tmp_path / "out" / "both.preview.png").read_bytes() == b"drawn"
    ((scan, labels, names),) = seen
    np.testing.assert_array_equal(scan, array)
    np.testing.assert_array_equal(labels, read_volume(result.output).array)
    assert names == {"low": (1,)}
