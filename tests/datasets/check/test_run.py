"""The check as a whole: workers, memory, JSON, the sentence for `train`."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from leanseg.datasets import Case, Dataset, LabelPart, VolumeSource, open_dataset
from leanseg.datasets.check import check
from leanseg.errors import RecipeError


def test_workers_change_nothing(toy):
    toy["c"].label_affine[0, 3] += 4
    dataset = toy.write()
    done: list[str] = []
    here, there = check(dataset), check(dataset, workers=2, on_case=done.append)
    assert here.content() == there.content()
    assert not here.may_train
    assert sorted(done) == list("abcdef")


def test_negative_workers_are_refused(toy):
    with pytest.raises(RecipeError, match="workers is -1"):
        check(toy.write(), workers=-1)


def test_a_reader_that_fails_unexpectedly_keeps_its_text_to_itself(toy, monkeypatch):
    from leanseg.datasets.readers import READERS

    dataset, read = toy.write(), READERS["volume"]

    def failing(source, scan):
        if source.path == toy.image("c"):
            raise KeyError("Mustermann^Erika")
        return read(source, scan)

    monkeypatch.setitem(READERS, "volume", failing)
    (finding,) = check(dataset).findings
    assert finding.case == "c"
    assert "KeyError" in finding.message
    assert "Mustermann" not in str(finding)


def test_labels_are_named_by_value_where_nobody_names_them(toy, saved):
    """And the label maps are not read twice, nor does a broken one hide the others."""
    for name, patient in toy.patients.items():
        saved(toy.folder / f"images/{name}.nii.gz", patient.image, patient.image_affine)
        saved(toy.folder / f"labels/{name}.nii.gz", patient.label, patient.label_affine)
    (toy.folder / "labels/c.nii.gz").write_bytes(b"broken")
    result = check(open_dataset(toy.folder))
    assert [use.name for use in result.label_uses()] == [f"label_{n}" for n in range(1, 6)]
    assert [(f.case, f.kind) for f in result.findings] == [("c", "file-unreadable")]


def test_memory_stays_below_two_scans(tmp_path, saved, rng):
    """A label of many parts is merged, not collected; only slices are ever copied."""
    shape = (128, 128, 96)
    scan = saved(tmp_path / "ct.nii", rng.integers(-1000, 1000, shape).astype(np.int16), np.eye(4))
    parts = []
    for n in range(4):
        mask = np.zeros(shape, np.int16)
        mask[n * 10 : n * 10 + 8] = 1
        path = saved(tmp_path / f"mask{n}.nii", mask, np.eye(4))
        parts.append(LabelPart(VolumeSource(path), value=n + 1))
    labels = {f"organ {n}": n for n in range(1, 5)}
    cases = tuple(Case(scan, parts, name) for name in "ab")
    dataset = Dataset(cases, labels, ("MR",), root=tmp_path)
    check(dataset, thumbnails=True)
    scan_bytes = 2 * np.prod(shape)
    tracemalloc.start()
    check(dataset, thumbnails=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * scan_bytes + 4e6


def test_json_holds_everything_but_names_no_patient(toy, tmp_path):
    toy["c"].label = toy["c"].label[:, :, :-1]  # infinitely far from its scan's grid
    toy["d"].image = np.full(toy["d"].image.shape, np.nan, np.float32)
    dataset = toy.write()
    cases = tuple(
        replace(c, metadata={"patient": "Mustermann"}) if c.name in "ab" else c
        for c in dataset.cases
    )
    result = check(replace(dataset, cases=cases), thumbnails=True)
    result.to_json(tmp_path / "check.json")
    text = (tmp_path / "check.json").read_text()
    assert "Mustermann" not in text

    def refuse(constant):
        pytest.fail(f"{constant} is not JSON")

    content = json.loads(text, parse_constant=refuse)
    assert content["may_train"] is False
    assert content["counts"]["error"] == 2
    assert content["labels"][0] == {
        "name": "liver", "value": 1, "annotated": 6, "held": 6,
        "median_ml": pytest.approx((toy["a"].label == 1).sum() * 0.288),
    }  # fmt: skip
    case = content["cases"][0]
    (image,) = case["images"]
    assert image["shape"] == [42, 36, 14]
    assert image["spacing_mm"] == [6, 6, 8]
    assert image["orientation"] == "LPS"
    bladder = case["labels"][4]
    assert bladder["value"] == 5
    assert bladder["volume_ml"] == pytest.approx((toy["a"].label == 5).sum() * 0.288)
    assert {f["kind"] for f in content["findings"]} >= {"grid-differs", "voxels-not-finite"}
    assert all(f["advice"] and f["message"] for f in content["findings"])
    result.to_json(tmp_path / "named.json", show_identifiers=True)
    assert "Mustermann" in (tmp_path / "named.json").read_text()


def test_the_summary_is_a_sentence(toy):
    toy["c"].label = None
    toy["d"].image = (toy["d"].image - 1024).astype(np.int16)
    result = check(toy.write())
    assert result.summary() == "Toy: 6 cases, 1 warning and 1 note; training may start."
    toy["e"].label[0, 0, 0] = 77
    result = check(toy.write())
    assert result.summary() == (
        "Toy: 6 cases, 1 error, 1 warning and 1 note; training may not start before the errors "
        "are corrected (labels outside the declared set)."
    )
    assert [finding.severity for finding in result.findings] == ["error", "warning", "note"]


def test_findings_of_a_case_include_its_copies(toy):
    toy["e"].image = toy["b"].image.copy()
    result = check(toy.write())
    assert result.of_case("e") == result.of_case("b") == result.findings
    assert result.of_case("a") == ()


def test_mutated_files_never_stop_the_check(toy, rng):
    """Bytes of header and voxels changed, files cut short: findings, never an exception."""
    for name in list(toy.patients)[1:]:
        del toy.patients[name]
    toy.write()
    parts = {}
    for part, path in (("image", toy.image("a")), ("label", toy.label("a"))):
        parts[toy.folder / f"{part}.nii"] = gzip.decompress(path.read_bytes())
    image, label = (VolumeSource(path) for path in parts)
    case = Case(image, [LabelPart(label)], "a")
    dataset = Dataset([case], toy.labels, ("CT",), root=toy.folder)
    verdicts = set()
    for _ in range(150):
        for path, content in parts.items():
            mutated = bytearray(content)
            for place in rng.integers(0, 352, rng.integers(0, 4)):
                mutated[place] = rng.integers(0, 256)
            keep = rng.integers(0, len(mutated)) if rng.random() < 0.1 else len(mutated)
            path.write_bytes(mutated[:keep])
        result = check(dataset, thumbnails=True)
        json.dumps(result.content(), allow_nan=False)
        verdicts.add(result.may_train)
    assert verdicts == {True, False}
