"""Every kind of finding: a dataset that has it in one case, and that it is found there alone."""

from __future__ import annotations

import gzip
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from leanseg.datasets import LabelPart, Split, open_dataset
from leanseg.datasets.check import KINDS, SEVERITIES, check
from leanseg.datasets.check.check_anatomy import side_of
from leanseg.datasets.check.findings import CHECKS
from leanseg.datasets.phantom import phantom


def kinds_of(result) -> dict[str | None, set[str]]:
    """Case to the kinds found in it."""
    found: dict[str | None, set[str]] = {}
    for finding in result.findings:
        found.setdefault(finding.case, set()).add(finding.kind)
    return found


def shifted(p):
    p.label_affine[0, 3] += 4


def other_shape(p):
    p.label = p.label[:, :, :-1]


def fraction(p):
    p.label = p.label.astype(np.float32)
    p.label[10, 10, 3] = 1.5


def nearly(p):
    p.label = p.label.astype(np.float32)
    p.label[0, 0, 0] = 0.99999994


def negative(p):
    p.label = p.label.astype(np.int16)
    p.label[0, 0, 0] = -1


def nan_label(p):
    p.label = p.label.astype(np.float32)
    p.label[0, 0, 0] = np.nan


def undeclared(p):
    p.label[0, 0, :3] = 9


def nan(p):
    p.image = p.image.astype(np.float32)
    p.image[3, 3, 3] = np.nan


def infinite(p):
    p.image = p.image.astype(np.float32)
    p.image[3, 3, 3] = -np.inf


def constant(p):
    p.image[:] = 7


def empty(p):
    p.label[:] = 0


def no_label(p):
    p.label = None


def unsigned(p):
    p.image = np.clip(p.image + 1024, 0, None).astype(np.int16)
    p.image[:2] = 1000  # a table
    p.image[20:22, 18] = 2300  # bone


def bytes_(p):
    p.image = np.clip((p.image + 1000) // 6, 0, 255).astype(np.uint8)


def unit(p):
    p.image = np.clip((p.image + 1000) / 2000, 0, 1).astype(np.float32)


def clipped(p):
    p.image = np.clip(p.image, 0, 400).astype(np.int16)
    p.image[20:22, 18] = 400


def twice_offset(p):
    p.image = (p.image - 1024).astype(np.int16)


def padded(p):
    p.image[0] = -3024


def scaled_grid(p, factor):
    for affine in (p.image_affine, p.label_affine):
        affine[:3] *= factor


def coarse(p):
    # Half of the slices, twice as far apart: the spacing differs, the field of view does not.
    p.image, p.label = p.image[:, :, ::2], p.label[:, :, ::2]
    for affine in (p.image_affine, p.label_affine):
        affine[:3, 2] *= 2.1


def metres(p):
    scaled_grid(p, 0.001)


def long(p):
    p.image, p.label = np.tile(p.image, 3), np.pad(p.label, ((0, 0), (0, 0), (0, 28)))


def flat(p):
    p.image, p.label = p.image[:, :, 6:7], p.label[:, :, 6:7]


def thick(p):
    p.image, p.label = p.image[:, :, :2], p.label[:, :, :2]
    p.image_affine[2, 2] = p.label_affine[2, 2] = 64


def mirrored_header(p):
    for affine in (p.image_affine, p.label_affine):
        affine[0] *= -1


def swapped_kidneys(p):
    left, right = p.label == 3, p.label == 4
    p.label[left], p.label[right] = 4, 3


def liver_alone_on_the_left(p):
    p.label[p.label != 1] = 0
    mirrored_header(p)


def upside_down(p):
    for affine in (p.image_affine, p.label_affine):
        affine[2] *= -1


def turned(p):
    p.label = p.label[::-1, :, :]
    p.label_affine[:3, 3] += p.label_affine[:3, 0] * (p.label.shape[0] - 1)
    p.label_affine[:3, 0] *= -1


def stored_otherwise(p):
    for part in ("image", "label"):
        affine = getattr(p, f"{part}_affine")
        setattr(p, part, getattr(p, part)[:, ::-1, :])
        affine[:3, 3] += affine[:3, 1] * 35
        affine[:3, 1] *= -1


@pytest.mark.parametrize(
    ("damage", "severity", "kind", "text"),
    [
        (shifted, "error", "grid-differs", "up to 4 mm from the scan's"),
        (other_shape, "error", "grid-differs", "shape 42 x 36 x 13, but its scan 42 x 36 x 14"),
        (fraction, "error", "label-not-whole", "1 voxels hold no label, such as 1.5"),
        (nearly, "error", "label-not-whole", "such as 0.99999994"),
        (negative, "error", "label-not-whole", "such as -1"),
        (nan_label, "error", "label-not-whole", "such as nan"),
        (undeclared, "error", "label-undeclared", "holds 9 (3 voxels); declared are 1 liver"),
        (nan, "error", "voxels-not-finite", "1 NaN voxels"),
        (infinite, "error", "voxels-not-finite", "1 infinite voxels"),
        (constant, "error", "voxels-constant", "CT of c is 7 everywhere"),
        (empty, "warning", "label-empty", "nothing but background"),
        (no_label, "note", "label-none", "c has no label map"),
        (unsigned, "warning", "intensity-not-hu", "offset by 1024"),
        (bytes_, "warning", "intensity-not-hu", "scaled to 0..255"),
        (unit, "warning", "intensity-not-hu", "narrow range"),
        (clipped, "warning", "intensity-not-hu", "without a negative value"),
        (twice_offset, "warning", "intensity-not-hu", "below 0"),
        (padded, "note", "intensity-padding", "goes down to -3024"),
        (coarse, "warning", "spacing-outlier", "feet-head is 16.8 mm, 2.1 times the median"),
        (metres, "warning", "spacing-implausible", "0.006 x 0.006 x 0.008 mm"),
        (long, "warning", "size-outlier", "feet-head over 336 mm, 3.0 times the median of 112"),
        (flat, "warning", "one-slice", "shape 42 x 36 x 1"),
        (thick, "warning", "anisotropy", "6 x 6 x 64 mm are 11 times as long as wide"),
        (swapped_kidneys, "warning", "flip-left-right", "left_kidney lies 9"),
        (mirrored_header, "warning", "flip-left-right", "spleen lies 130 mm to the right of liver"),
        (liver_alone_on_the_left, "warning", "flip-left-right", "liver lies 6"),
        (upside_down, "warning", "flip-up-down", "bladder lies "),
        (turned, "note", "label-turned", "is stored as RPS, its scan as LPS"),
        (stored_otherwise, "note", "orientation-mixed", "5 LPS, 1 LAS"),
    ],
)  # fmt: skip
def test_damage_is_found_where_it_is(toy, damage, severity, kind, text):
    damage(toy["c"])
    result = check(toy.write())
    found = [finding for finding in result.findings if finding.kind == kind]
    assert [(f.severity, f.case) for f in found] == [
        (severity, None if kind == "orientation-mixed" else "c")
    ]
    assert text in found[0].message
    assert result.may_train == (severity != "error")
    # Nothing is said of the others.
    assert set(kinds_of(result)) <= {"c", None}


def test_healthy_patients_are_left_alone(toy):
    result = check(toy.write())
    assert result.findings == ()
    assert result.may_train
    assert result.summary() == "Toy: 6 cases, nothing wrong."


def test_every_kind_has_a_check_and_advice():
    assert set(CHECKS) == set(KINDS)
    assert all(kind.severity in SEVERITIES for kind in KINDS.values())
    assert all(kind.title and kind.advice.endswith(".") for kind in KINDS.values())


def test_the_phantom_is_healthy(tmp_path):
    phantom(tmp_path / "p", 5, seed=3, size=64, slices=20, tumour_mm=20.0)
    # It is stored in several orientations on purpose.
    kinds = {finding.kind for finding in check(open_dataset(tmp_path / "p")).findings}
    assert kinds <= {"orientation-mixed"}


@pytest.mark.parametrize("task", ["Task101_SarcomaCT", "Task102_BrainTumour"])
@pytest.mark.shared_data
def test_real_datasets_raise_no_false_alarm(shared_data, task):
    result = check(open_dataset(shared_data / task))
    assert result.findings == ()
    assert all(label.held == len(result.cases) for label in result.label_uses())


@pytest.mark.parametrize("folder", ["abdomen_ircad01", "abdomen_ircad17_half"])
@pytest.mark.shared_data
def test_real_abdomens_raise_no_false_alarm(shared_data, folder):
    assert check(open_dataset(shared_data / folder)).findings == ()


@pytest.mark.parametrize("damaged", ["image", "label"])
@pytest.mark.parametrize("content", [b"", b"no volume", None])
def test_unreadable_files_do_not_stop_the_check(toy, damaged, content):
    dataset = toy.write()
    path = getattr(toy, damaged)("c")
    path.write_bytes(path.read_bytes()[:-200] if content is None else content)
    result = check(dataset)
    (finding,) = result.findings
    assert (finding.case, finding.kind, finding.severity) == ("c", "file-unreadable", "error")
    assert str(path) in finding.message
    assert not result.may_train
    facts = result.cases[2]
    # What could be read is known all the same.
    assert (facts.image is None) == (damaged == "image")
    assert len(facts.labels) == (5 if damaged == "image" else 0)


def test_files_that_vanish_are_found(toy):
    dataset = toy.write()
    toy.image("a").unlink()
    (finding,) = check(dataset).findings
    assert "there is no such file" in finding.message


def test_a_grid_without_extent_is_found(toy):
    dataset = toy.write()
    image = nib.load(toy.image("c"))
    header, flat = image.header.copy(), image.affine.copy()
    flat[:3, 2] = 0
    header["sform_code"], header["qform_code"] = 2, 0
    header["srow_x"], header["srow_y"], header["srow_z"] = flat[:3]
    _save_raw(header, np.asarray(image.dataobj), toy.image("c"))
    (finding,) = check(dataset).findings
    assert (finding.case, finding.kind, finding.severity) == ("c", "geometry-invalid", "error")


def test_a_spacing_of_zero_is_found(toy):
    dataset = toy.write()
    for path in (toy.image("c"), toy.label("c")):
        image = nib.load(path)
        array, header = np.asarray(image.dataobj), image.header.copy()
        header["sform_code"], header["qform_code"] = 0, 0
        header["pixdim"][1:4] = 6, 6, 0
        _save_raw(header, array, path)
    found = kinds_of(check(dataset))
    assert "spacing-zero" in found["c"]
    assert set(found) <= {"c", None}


def _save_raw(header, array, path):
    """Write header and voxels as they are, without nibabel's corrections."""
    header["vox_offset"], header["magic"] = 352, b"n+1"
    data = array.astype(header.get_data_dtype()).tobytes(order="F")
    path.write_bytes(gzip.compress(header.binaryblock + bytes(4) + data, 1))


def test_missing_channels_are_found(toy):
    toy.listing["modality"] = {"0": "FLAIR", "1": "T1w"}
    for name in "abdef":
        toy[name].image = np.stack([toy[name].image] * 2, axis=-1)
    (finding,) = check(toy.write()).findings
    assert (finding.case, finding.kind, finding.severity) == ("c", "channels-missing", "error")
    assert "has 1 channel(s), but the dataset names 2 (FLAIR, T1w)" in finding.message


def test_channels_on_different_grids_are_found(toy, saved):
    dataset = toy.write()
    moved = toy["c"].image_affine.copy()
    moved[2, 3] += 2
    cases = []
    for case in dataset.cases:
        patient = toy[case.name]
        affine = moved if case.name == "c" else patient.image_affine
        second = saved(toy.folder / f"second/{case.name}.nii.gz", patient.image, affine)
        cases.append(replace(case, images=[*case.images, second]))
    (finding,) = check(replace(dataset, cases=tuple(cases), channels=("CT", "CT late"))).findings
    assert (finding.case, finding.kind) == ("c", "channel-grid-differs")
    assert "up to 2 mm" in finding.message


def test_a_dataset_without_any_label_cannot_train(toy):
    for patient in toy.patients.values():
        patient.label = None
    result = check(toy.write())
    assert [(f.kind, f.severity) for f in result.findings] == [("labels-missing", "error")]


def test_a_declared_label_that_no_case_holds_is_found(toy):
    toy.labels["gallbladder"] = 6
    (finding,) = check(toy.write()).findings
    assert (finding.kind, finding.severity, finding.case) == ("label-absent", "warning", None)
    assert "6 gallbladder" in finding.message
    assert "6 case(s) annotate it" in finding.message


def test_partial_annotation_is_told_and_counted(toy):
    toy["c"].label[toy["c"].label > 2] = 0
    dataset = toy.write()
    annotated = {"b": None, "c": frozenset({"liver", "spleen"}), "d": frozenset({"liver"})}
    cases = tuple(replace(c, annotated=annotated.get(c.name)) for c in dataset.cases)
    result = check(replace(dataset, cases=cases))
    assert kinds_of(result) == {
        "c": {"label-unannotated"},
        "d": {"label-unannotated", "label-contradicts"},
    }
    assert result.findings[-1].severity == "note"
    uses = {use.name: (use.annotated, use.held) for use in result.label_uses()}
    assert uses["liver"] == (6, 6)
    assert uses["spleen"] == (5, 5)
    assert uses["bladder"] == (4, 4)
    volume = np.median([(toy[n].label == 5).sum() * 6 * 6 * 8 / 1000 for n in "abef"])
    assert result.label_uses()[-1].median_ml == pytest.approx(volume)


def test_the_label_ignore_is_no_organ(toy):
    """It may be absent, said to be unannotated, and there all the same; alone it is no label."""
    toy.labels["Ignore"] = 6
    toy["b"].label[0, 0, 0] = 6
    toy["d"].label[:] = 0
    toy["d"].label[5:8] = 6
    dataset = toy.write()
    organs = frozenset(dataset.labels) - {"Ignore"}
    cases = tuple(replace(c, annotated=None if c.name == "c" else organs) for c in dataset.cases)
    assert kinds_of(check(replace(dataset, cases=cases))) == {"d": {"label-empty"}}
    toy["b"].label[0, 0, 0] = 0
    toy["d"].label[:] = toy["b"].label
    found = kinds_of(check(toy.write()))
    assert "label-absent" not in found.get(None, set())


def test_values_that_become_background_are_told(toy):
    dataset = toy.write()
    case = dataset.case("c")
    part = LabelPart(case.label_parts[0].source, {1: 1, 2: 2, 3: 3, 4: 4})
    cases = tuple(replace(c, label_parts=(part,)) if c.name == "c" else c for c in dataset.cases)
    (finding,) = check(replace(dataset, cases=cases)).findings
    assert (finding.case, finding.kind, finding.severity) == ("c", "label-ignored", "warning")
    assert "holds 5" in finding.message


def rotated(p):
    """The same scan, stored along other axes with the header that says so."""
    for part in ("image", "label"):
        array, affine = getattr(p, part), getattr(p, f"{part}_affine")
        new = affine[:, [2, 0, 1, 3]].copy()
        new[:3, 3] += affine[:3, 2] * (array.shape[2] - 1)
        new[:3, 0] *= -1
        setattr(p, part, array.transpose(2, 0, 1)[::-1])
        setattr(p, f"{part}_affine", new)


def as_floats(p):
    p.image = p.image.astype(np.float32)


def mirrored_voxels(p):
    p.image, p.label = p.image[::-1], p.label[::-1]


@pytest.mark.parametrize(
    ("change", "how"),
    [
        (lambda p: None, "are the same scan"),
        (rotated, "are the same scan"),
        (as_floats, "are the same scan"),
        (mirrored_voxels, "mirrored or turned"),
    ],
)
def test_copies_of_a_scan_are_found(toy, change, how):
    for part in ("image", "label"):
        setattr(toy["e"], part, getattr(toy["b"], part).copy())
    change(toy["e"])
    result = check(toy.write())
    (finding,) = [f for f in result.findings if f.kind == "duplicate-scan"]
    assert finding.severity == "warning"
    assert finding.details["cases"] == ["b", "e"]
    assert finding.message.startswith("b and e are the same scan")
    assert how in finding.message


def with_patients(dataset, **patients):
    """Some cases with a patient each."""
    cases = tuple(
        replace(c, metadata={"patient": patients[c.name]}) if c.name in patients else c
        for c in dataset.cases
    )
    return replace(dataset, cases=cases)


def test_several_cases_of_one_patient_ask_for_a_split_by_patient(toy):
    dataset = with_patients(toy.write(), a="Mustermann", d="Mustermann", b="Other")
    (finding,) = check(dataset).findings
    assert (finding.case, finding.kind, finding.severity) == (None, "same-patient", "warning")
    assert "1 patient has 2 cases (a and d)" in finding.message
    assert "Mustermann" not in str(finding)


def test_patients_and_copies_in_two_parts_of_a_split_are_errors(toy):
    toy["f"].image = toy["c"].image.copy()
    dataset = with_patients(toy.write(), a="Mustermann", d="Mustermann")
    good = Split(("a", "d"), ("b",), ("c", "e", "f"))
    leaks = Split(("a", "b", "c"), (), ("d", "e", "f"))
    kinds = [f.kind for f in check(dataset, splits=[good]).findings]
    assert kinds == ["duplicate-scan"]
    result = check(dataset, splits=[good, leaks])
    found = [f for f in result.findings if f.kind == "split-leak"]
    assert {f.case for f in found} == {"d", "f"}
    assert "split 1 trains on a and tests on d, which are of one patient" in found[0].message
    assert "which are the same scan" in found[1].message
    assert not result.may_train


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (("ab", "c", "def"), "trains on a, monitors c and tests on e, which are of one patient"),
        (("ac", "e", "bdf"), "trains on a and c and monitors e, which are of one patient"),
        (("bd", "ac", "ef"), "monitors a and c and tests on e, which are of one patient"),
    ],
)
def test_a_leak_between_any_two_parts_of_a_split_is_an_error(toy, parts, said):
    dataset = with_patients(toy.write(), a="Mustermann", c="Mustermann", e="Mustermann")
    result = check(dataset, splits=[Split(*map(tuple, parts))])
    (found,) = [f for f in result.findings if f.kind == "split-leak"]
    assert found.message == f"split 0 {said}"
    assert found.case == "e"
    assert not result.may_train


def test_outliers_need_company(toy):
    del toy.patients["e"], toy.patients["f"]
    coarse(toy["c"])
    assert check(toy.write()).findings == ()


def test_a_spread_of_spacings_makes_no_outliers(toy):
    """Robust: where cases differ widely anyhow, a factor of two is nothing special."""
    for n, patient in enumerate(toy.patients.values()):
        for affine in (patient.image_affine, patient.label_affine):
            affine[2, 2] = (2, 4, 8, 12, 18, 24)[n]
    kinds = {f.kind for f in check(toy.write()).findings}
    assert "spacing-outlier" not in kinds


@pytest.mark.parametrize(
    ("label", "organ", "side"),
    [
        ("left kidney", "kidney", "left"),
        ("kidney_right", "kidney", "right"),
        ("KidneyLeft", "kidney", "left"),
        ("R. Kidney", "kidney", "right"),
        ("lung_upper_lobe_left", "lung upper lobe", "left"),
        ("liver", "liver", None),
        ("bright spot", "bright spot", None),
        ("left to right shunt", "to shunt", None),
    ],
)
def test_sides_in_names(label, organ, side):
    assert side_of(label) == (organ, side)


def test_a_scan_cut_to_one_half_says_nothing_about_sides(toy):
    """The middle of a crop around the liver is not the body's middle."""
    liver_alone_on_the_left(toy["c"])
    toy["c"].image, toy["c"].label = toy["c"].image[:24], toy["c"].label[:24]
    assert "flip-left-right" not in kinds_of(check(toy.write())).get("c", set())
