"""The papers' tables as studies: each fits, and measures what it says."""

import csv

import numpy as np
import pytest
from scipy.stats import ttest_ind

from leanseg.datasets import open_dataset
from leanseg.datasets.phantom import phantom
from leanseg.studies import TimesStudy, builtin_studies, load_study
from leanseg.studies.cells import settle
from leanseg.studies.times import Times, run_times

TRAINED = [name for name, text in builtin_studies().items() if "\nrecipes:" in text]


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms") / "scans"
    phantom(folder, n_cases=10, size=64, slices=20, tumour_mm=30, seed=0)
    return folder


# Two have the recipes of another, or take long to measure.
SLOW = {
    "000-independent",
    "001-table-2",
    "002-table-1",
    "002-table-2",
    "003-figure-10",
    "003-table-3",
    "004-table-4",
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in TRAINED]
)
def test_every_recipe_of_a_quick_study_could_start(name, phantoms):
    asked = load_study(name, quick=True)
    study = load_study(name, data=dict.fromkeys(asked.datasets, phantoms), quick=True)
    datasets = {each: open_dataset(study.datasets[each].path) for each in study.datasets}
    cells, notes = settle(study, datasets)
    assert {cell.recipe for cell in cells} == {*study.recipes}
    # All rows test the same cases.
    assert not notes


@pytest.mark.parametrize("name", TRAINED)
def test_published_figures_have_a_row_or_a_reason(name):
    study = load_study(name, quick=True)
    text = builtin_studies()[name]
    for each in study.published:
        assert each.metric in study.metrics
        assert f"\n  {each.row}:" in text or each.reason


def test_times_are_of_every_row_and_tested_as_in_paper_001(tmp_path):
    networks = {"small": "unet-16", "MoNet": "monet"}
    study = TimesStudy(name="t", networks=networks, image=[32, 32], images=1, repetitions=3)
    found = run_times(study, tmp_path / "times")
    assert found.parameters == {"small": 1_946_705, "MoNet": 403_556}
    # 118.46 MB of float32 in paper 000's units are U-Net-64's; MoNet's are its state's.
    assert found.megabytes["MoNet"] == pytest.approx(403_556 * 4 / 2**20, abs=0.01)
    rows = list(csv.DictReader((tmp_path / "times" / "times.csv").open()))
    assert len(rows) == 6
    assert "| MoNet | 403,556 |" in (tmp_path / "times" / "table.md").read_text()


def test_the_test_of_times_is_students(rng):
    seconds = {"a": list(rng.normal(1, 0.1, 5)), "b": list(rng.normal(2, 0.1, 5))}
    study = TimesStudy(name="t", networks={"a": "monet", "b": "monet"}, image=[32, 32])
    found = Times(study, {"CPU": seconds, "GPU": {}}, {}, {})
    (told,) = found.tests()
    ratio = np.mean(seconds["b"]) / np.mean(seconds["a"])
    assert ttest_ind(seconds["a"], seconds["b"]).pvalue < 1e-4
    assert told == f"CPU: b takes {ratio:.2f} times the time of a (p < 0.0001)"
