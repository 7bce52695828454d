"""Study files, and what is said of those that cannot be used, before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from leanseg.cli.main import run
from leanseg.errors import LeansegError
from leanseg.studies import TimesStudy, builtin_studies, load_study
from leanseg.studies.cells import matrix
from leanseg.studies.definition import parse_study


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as caught:
        run(["study", *map(str, arguments)])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("leanseg: ")
    assert error.count("\n") == 1
    return error


def test_cells_are_the_product_of_all_axes(write_study) -> None:
    study = load_study(write_study(folds=[0, 2], seeds=[1, 2], overrides={"a": {}, "b": {}}))
    cells = matrix(study)
    assert len(cells) == 2 * 2 * 2 * 2 == len({cell.name for cell in cells})
    assert cells[0].name == "small-a-balls-fold0-seed1"
    assert {cell.method for cell in cells} == {"small, a", "small, b", "large, a", "large, b"}


def test_what_is_special_wins(write_study) -> None:
    """Study, recipe, dataset, override: each may change what those before it say."""
    from leanseg.studies.cells import settle
    from leanseg.studies.work import open_study_dataset

    phase = "phases.main"
    path = write_study(
        set={f"{phase}.batch_size": 3, f"{phase}.clip_norm": 1.0, "training.precision": "auto"},
        recipes={
            "small": {
                "recipe": "own.yaml",
                "set": {f"{phase}.batch_size": 4, f"{phase}.clip_norm": 2.0},
            }
        },
        overrides={"a": {f"{phase}.clip_norm": 3.0}},
        seeds=[7],
        folds=[1],
    )
    study = load_study(path)
    data = open_study_dataset(study, "balls", path.parent)
    [cell], notes = settle(study, {"balls": data})
    recipe = cell.training
    phase = recipe.phases[0]
    assert (phase.batch_size, phase.clip_norm, phase.steps) == (4, 3.0, 4)
    assert (recipe.training.precision, recipe.training.threads) == ("auto", 1)
    assert (recipe.training.folds, recipe.training.seed) == ([1], 7)
    assert recipe.split.kind == "k-fold"
    assert notes == []
    assert cell.memory_bytes > 450e6


def test_mistakes_are_said_before_the_first_cell(capsys, write_study, tmp_path: Path) -> None:
    output = ("--output", tmp_path / "out")
    message = refused(capsys, write_study(metrics=["dise"]), *output)
    assert "study.yaml: 'metrics.0'" in message
    assert "did you mean 'dice'?" in message
    message = refused(
        capsys, write_study(recipes=dict.fromkeys(("U-Net 16", "U-Net-16"), "own.yaml"))
    )
    assert "two cells are called U-Net-16-balls-fold0-seed42" in message
    assert "U-Net 16 on balls, fold 0, seed 42; U-Net-16 on balls" in message
    assert "two cells" in refused(capsys, write_study(seeds=[1, 1]), *output)
    assert "has 3 fold(s)" in refused(capsys, write_study(folds=[3]), *output)
    bad = {"recipe": "own.yaml", "set": {"network.options.filters": 3}}
    path = write_study(recipes={"small": "own.yaml", "bad": bad})
    assert "cell bad-balls-fold0-seed42: recipe 'bad'" in refused(capsys, path, *output)
    path = write_study()
    assert "has no dataset 'ball' (did you mean" in refused(capsys, path, "--data", "ball=x")
    assert "NAME=FOLDER" in refused(capsys, path, "--data", "balls")
    assert "no key 'quick'" in refused(capsys, path, "--quick")
    assert "absent is not there); say" in refused(capsys, path, "--data", "balls=absent")
    assert "is neither a study file" in refused(capsys, tmp_path / "no.yaml")
    assert "give a study file" in refused(capsys)
    assert "choose here or ray" in refused(capsys, path, "--on", "moon")
    assert "give --on ray as well" in refused(capsys, path, "--address", "localhost:1")
    message = refused(capsys, path, *output, "--memory", "100MB")
    assert "small-balls-fold0-seed42: needs about 0." in message
    assert "--memory allows 0.10 GB" in message
    # Synthetic scans may have been made; no cell has.
    assert not (tmp_path / "out" / "cells").exists()
    assert not (tmp_path / "out" / "study.json").exists()


def test_quick_replaces_keys(write_study) -> None:
    path = write_study(quick={"folds": [1], "budget": {"steps": 1}})
    assert load_study(path).folds == [0]
    quick = load_study(path, quick=True)
    assert (quick.folds, quick.budget.steps, quick.is_quick) == ([1], 1, True)
    assert [*quick.recipes] == ["small", "large"]


def test_data_of_other_places(write_study, tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    path = write_study(datasets={"balls": "scans", "more": "absent"})
    study = load_study(path, data={"more": tmp_path})
    assert study.datasets["balls"].path == str(tmp_path / "scans")
    assert study.datasets["more"].path == str(tmp_path)
    with pytest.raises(LeansegError, match="--data more=FOLDER"):
        load_study(path)


@pytest.mark.parametrize("name", builtin_studies())
def test_builtin_studies_are_valid_in_both_sizes(name: str) -> None:
    text = builtin_studies()[name]
    for quick in (False, True):
        study = parse_study(text, name, quick=quick)
        assert study.name == name
        assert isinstance(study, TimesStudy) or matrix(study)


def test_list(capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        run(["study", "--list"])
    assert not ended.value.code
    assert "example" in capsys.readouterr().out
