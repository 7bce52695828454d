"""`leanseg calibrate` and `leanseg review`: what they write, change and refuse."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from hand_made_cascade import cascade_plan, cube, write_cascade
from leanseg.evaluation.calibration import scaled
from leanseg.inference.facts import Look
from leanseg.modelfile import Provenance, read_model, write_model
from leanseg.volumes import open_volume

SHAPE = (24, 24, 6)
AFFINE = np.diag([-1.0, -1.0, 2.5, 1.0])
N_CASES = 7


@pytest.fixture
def model(tmp_path):
    """Organ from 9.5 HU on, lesion from 19.5; two cases trained it."""
    path = write_cascade(tmp_path / "two.leanseg", cascade_plan())
    provenance = Provenance(training_cases=("c0", "c1"))
    write_model(path, replace(read_model(path), provenance=provenance))
    return path


@pytest.fixture
def data(tmp_path, make_scan, rng):
    """Noise makes every result another one."""
    for n in range(N_CASES):
        organ = cube(SHAPE, ((5, 16), (7, 18), (1, 5)))
        lesion = cube(SHAPE, ((9, 14), (10, 16), (2, 4)))
        grey = np.select([lesion, organ], [30, 15], -100) + rng.normal(0, 2 + n, SHAPE)
        label = np.where(lesion, 2, organ * 1).astype(np.uint8)
        grey = grey.astype(np.int16)
        make_scan(tmp_path / "data" / "imagesTr" / f"c{n}_0000.nii.gz", grey, AFFINE)
        make_scan(tmp_path / "data" / "labelsTr" / f"c{n}.nii.gz", label, AFFINE)
    return listed(tmp_path / "data", N_CASES)


def listed(folder, n):
    listing = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "organ": 1, "lesion": 2},
        "numTraining": n,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(listing))
    return folder


def keep(data, *numbers):
    """Only some of the cases."""
    for n in set(range(N_CASES)) - {*numbers}:
        (data / "imagesTr" / f"c{n}_0000.nii.gz").unlink()
        (data / "labelsTr" / f"c{n}.nii.gz").unlink()
    return listed(data, len(numbers))


def voxels(path):
    return np.asarray(nib.load(path).dataobj)


def test_from_calibration_to_reviews(leanseg, model, data, tmp_path):
    new, figure = tmp_path / "new.leanseg", tmp_path / "reliability.svg"
    outcome = leanseg("calibrate", model, data, "-o", new, "--figure", figure)
    assert outcome.status == 0, outcome.err
    assert "note: 2 case(s) trained the model and are used only for what is usual" in outcome.out
    # Of five cases two are for the line; three warrant no more than three in four.
    assert "75 %" in outcome.out
    assert "<svg" in figure.read_text()
    before, after = read_model(model), read_model(new)
    assert after.weights_sha256 == before.weights_sha256
    record = after.provenance.review
    assert record.n_known == N_CASES
    assert {name: gate.n_cases for name, gate in record.labels.items()} == {"organ": 3, "lesion": 3}
    for name, both in record.reliability.items():
        bins = both.before
        error = sum(abs(p - k) for p, k in zip(bins.probability, bins.positive, strict=True))
        line = next(each.split() for each in outcome.out.splitlines() if each.split()[:1] == [name])
        assert float(line[1]) == pytest.approx(error / sum(bins.n), abs=1e-4)
    temperature = after.plan.final.temperature
    assert temperature != 1
    # Labels are the same, to the last voxel; saved probabilities are under the temperature.
    scans = data / "imagesTr"
    for name, path in (("plain", model), ("cooled", new)):
        options = ("--save-probabilities", *(["--review"] if path == new else []))
        outcome = leanseg("predict", path, scans, "-o", tmp_path / name, *options)
        assert outcome.status == 0, outcome.err
    for n in range(N_CASES):
        plain, cooled = (tmp_path / name / f"c{n}_0000.nii.gz" for name in ("plain", "cooled"))
        np.testing.assert_array_equal(voxels(plain), voxels(cooled))
        kept = [
            voxels(path.with_name(f"c{n}_0000.probabilities.nii.gz")) for path in (plain, cooled)
        ]
        # Those that 16 bits did not round to 1 before.
        known = (kept[0] > 0.001) & (kept[0] < 0.999)
        wanted = scaled(kept[0].astype(np.float32)[..., None], temperature, sigmoid=True)[..., 0]
        np.testing.assert_allclose(kept[1][known], wanted[known], atol=0.02)
        assert np.abs(kept[1] - kept[0])[known].max() > 0.02
    reviews = json.loads((tmp_path / "cooled" / "review.json").read_text())
    assert len(reviews["cases"]) == N_CASES
    assert "c3_0000" in outcome.out
    with (tmp_path / "cooled" / "review.csv").open() as file:
        assert len([*csv.DictReader(file)]) == 2 * N_CASES
    # From the files alone the same; of a label map that was changed nothing is known.
    first = voxels(tmp_path / "cooled" / "c0_0000.nii.gz").copy()
    own = nib.load(tmp_path / "cooled" / "c0_0000.nii.gz")
    nib.save(
        nib.Nifti1Image(first * 0, own.affine, own.header), tmp_path / "cooled" / "c0_0000.nii.gz"
    )
    outcome = leanseg("review", new, scans, tmp_path / "cooled")
    assert outcome.status == 0, outcome.err
    again = json.loads((tmp_path / "cooled" / "review.json").read_text())["cases"]
    for name, review in reviews["cases"].items():
        if name != "c0_0000":
            assert again[name]["labels"] == review["labels"]
    assert again["c0_0000"]["verdict"] == "REJECT"
    assert "the label is missing" in again["c0_0000"]["reason"]
    (tmp_path / "cooled" / "c1_0000.nii.gz").unlink()
    outcome = leanseg("review", new, scans, tmp_path / "cooled")
    assert outcome.status == 1
    assert "not reviewed: c1_0000: " in outcome.out


def test_a_poor_model_is_told_of(leanseg, model, data, make_scan, tmp_path):
    """What is usual for it would pass."""
    for file in (data / "labelsTr").iterdir():
        make_scan(file, np.roll(voxels(file), 4, axis=0), AFFINE)
    given = ("calibrate", model, data, "-o", tmp_path / "new.leanseg")
    said = "lesion: the median Dice is below 0.5, and results like it pass"
    assert said in " ".join(leanseg(*given).out.split())
    assert said not in " ".join(leanseg(*given, "--acceptable", 0.7).out.split())


def test_a_scan_of_another_kind_is_rejected(leanseg, model, data, tmp_path, make_scan):
    new = tmp_path / "new.leanseg"
    assert leanseg("calibrate", model, data, "-o", new).status == 0
    grey = np.full((60, 60, 6), 12, dtype=np.int16)
    other = make_scan(tmp_path / "other.nii.gz", grey, np.diag([-4.0, -4.0, 20.0, 1.0]))
    outcome = leanseg("predict", new, other, "-o", tmp_path / "out", "--review")
    assert outcome.status == 0, outcome.err
    assert "REJECT" in outcome.out
    assert "known cases" in outcome.out


def test_one_case_says_so(leanseg, model, data, tmp_path):
    outcome = leanseg("calibrate", model, keep(data, 0, 5), "-o", tmp_path / "new.leanseg")
    assert outcome.status == 0, outcome.err
    assert "note: only one case did not train the model" in outcome.out
    gate = read_model(tmp_path / "new.leanseg").provenance.review.labels["organ"]
    assert (gate.n_cases, gate.coverage, gate.line) == (1, 0.5, (0, 1, 0))
    outcome = leanseg("predict", tmp_path / "new.leanseg", data, "-o", tmp_path / "out", "--review")
    assert "PASS" not in outcome.out
    assert "2 known case(s) are too few to say what is usual" in outcome.out


def test_all_dice_equal(leanseg, model, data, tmp_path, make_scan):
    for n in range(N_CASES):
        label = voxels(data / "labelsTr" / f"c{n}.nii.gz")
        grey = np.choose(label, [-100, 15, 30]).astype(np.int16)
        make_scan(data / "imagesTr" / f"c{n}_0000.nii.gz", grey, AFFINE)
    outcome = leanseg("calibrate", model, data, "-o", tmp_path / "new.leanseg")
    outcome.assert_refused("two.leanseg: every case has the same Dice of organ, 1")
    assert not (tmp_path / "new.leanseg").exists()


def test_what_is_refused(leanseg, model, data, tmp_path):
    leanseg("review", model, data, tmp_path).assert_refused(
        "has no thresholds", "leanseg calibrate"
    )
    outcome = leanseg("predict", model, data, "-o", tmp_path / "out", "--review")
    outcome.assert_refused("has no thresholds", "leanseg calibrate")
    assert not (tmp_path / "out").exists()
    new = tmp_path / "new.leanseg"
    leanseg("calibrate", model, data, "-o", new, "--figure", "a.pdf").assert_refused(".png or .svg")
    nowhere = leanseg("calibrate", model, data, "-o", new, "--labels", "organ=1,lesion=7")
    assert nowhere.status == 2
    assert "data: no case that did not train the model has lesion (value 7)" in nowhere.err
    assert not new.exists()
    leanseg("calibrate", model, keep(data, 0, 1), "-o", new).assert_refused(
        "every labelled case has the name of one that trained the model"
    )
    assert not new.exists()


def test_streamed_scans_have_the_same_facts(tmp_path, make_scan, rng):
    grey = rng.normal(0, 300, (24, 20, 18)).astype(np.int16)
    stored = open_volume(make_scan(tmp_path / "scan.nii.gz", grey, AFFINE))
    looks = [Look(each, cascade_plan(), None, is_ct=True) for each in (stored, stored.read())]
    assert looks[0].scan == looks[1].scan
