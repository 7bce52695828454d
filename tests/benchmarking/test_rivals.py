"""Ratios to other tools, and what is asked of them."""

from __future__ import annotations

import json

import pytest

from leanseg.benchmarking import rivals as module
from leanseg.benchmarking.rivals import Choice, read_plans
from leanseg.errors import MissingDependencyError, RecipeError


def test_ratios_by_hand(record):
    nnunet, monai, failed = record["against"]
    # leanseg's medians: 3 s and 300 MB, 1.5 s and 200 MB; nnU-Net's 600 s and 3000 MB.
    assert [(each["engine"], each["precision"]) for each in nnunet["ratios"]] == [
        ("openvino", "f32"),
        ("openvino", "bf16"),
    ]
    assert [each["time"] for each in nnunet["ratios"]] == [200.0, 400.0]
    assert [each["memory"] for each in nnunet["ratios"]] == [10.0, 15.0]
    assert [each["time"] for each in monai["ratios"]] == [10.0, 20.0]
    assert nnunet["extrapolated"] and nnunet["timed_tiles"] == 3 and nnunet["tiles"] == 112
    assert not monai["extrapolated"] and monai["equal_voxels"] == 0.99995
    assert failed["status"] == "failed" and "ratios" not in failed


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"tools": ("totalsegmentator",)}, "'totalsegmentator'.*nnunet"),
        ({"configurations": ("4d",)}, "'4d'.*3d_fullres"),
        ({"mirroring": "sometimes"}, "'sometimes'.*off"),
        ({"tiles": 0}, "tiles is 0"),
        ({"repeats": 0}, "against-repeats is 0"),
    ],
)
def test_what_is_not_offered(options, named, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: name)
    with pytest.raises(RecipeError, match=named):
        Choice(**{"tools": ("nnunet",), **options})


@pytest.mark.parametrize(("tool", "package"), [("nnunet", "nnunetv2"), ("monai", "monai")])
def test_a_missing_package_names_the_extra(tool, package, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=rf"{package}.*leanseg\[{tool}\]"):
        Choice((tool,))


def test_own_plans_may_have_other_configurations(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: name)
    assert Choice(("nnunet",), ("3d_lowres",), plans={"configurations": {}}).configurations


def test_reading_plans(tmp_path):
    path = tmp_path / "nnUNetPlans.json"
    path.write_text(json.dumps({"configurations": {"2d": {}}}))
    assert read_plans(path) == {"configurations": {"2d": {}}}


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"configurations": 3}', "\x00"])
def test_what_holds_no_plans(tmp_path, text):
    path = tmp_path / "plans.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(RecipeError, match=r"plans\.json.*nnUNetPlans"):
        read_plans(path)
