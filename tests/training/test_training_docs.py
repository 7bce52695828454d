"""docs/training.md: its recipe is one, its parts of one's own train, its tables are complete."""

from __future__ import annotations

import re
import shlex
import sys
from itertools import product
from pathlib import Path

import pytest
import yaml

from leanseg.augmentation.registry import AUGMENTATIONS
from leanseg.frames import CasePreparer, containment
from leanseg.plan import Plan, Stage, StageSettings
from leanseg.training import Recipe, load_recipe, start_run
from leanseg.training.recipe import builtin_recipes
from leanseg.training.runtime import trial_run
from leanseg.training.samplers.registry import SAMPLERS
from leanseg.training.schedule import SCHEDULES
from leanseg.training.tasks.registry import TASKS
from leanseg.training.trainer import PhaseParts, Trainer

DOCS = (Path(__file__).resolve().parents[2] / "docs" / "training.md").read_text(encoding="utf-8")


ORGANS = ("kidney", "kidney-binary", "liver")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCS, re.DOTALL)


def plan_of(recipe: Recipe) -> Plan:
    settings = {name: getattr(recipe.plan, name) for name in StageSettings.model_fields}
    labels = recipe.data.labels or {"organ": [1], "lesion": [2]}
    stage = Stage(labels=tuple(labels), inside=containment(labels), **settings)
    return Plan(channels=("CT",), stages=(stage,))


def require_fitting(recipe: Recipe) -> None:
    """What a run checks before it makes a folder."""
    plan = plan_of(recipe)
    trial = trial_run(recipe, plan)
    assert trial.shape == (1, plan.final.n_outputs, *plan.final.network_shape)
    for phase in recipe.phases:
        PhaseParts(phase, recipe, plan, ()).task.require(trial.network)


def test_its_recipe() -> None:
    require_fitting(Recipe.model_validate(yaml.safe_load(blocks("yaml")[0])))


def by_network() -> list[str]:
    """Of recipes that let the same network see the same, one."""
    recipes = {name: load_recipe(name) for name in builtin_recipes()}
    found = {(repr(r.network), repr(r.plan), repr(r.phases[0].task)): n for n, r in recipes.items()}
    return sorted(found.values())


@pytest.mark.parametrize("name", by_network())
def test_every_recipe_fits_its_network(name: str) -> None:
    require_fitting(load_recipe(name))


@pytest.mark.parametrize("name", builtin_recipes())
def test_every_recipe_names_what_there_is(name: str) -> None:
    recipe = load_recipe(name)
    for phase in recipe.phases:
        PhaseParts(phase, recipe, plan_of(recipe), ())


def test_its_overrides() -> None:
    commands = [line for line in blocks("console")[-1].splitlines() if " --set " in line]
    assert len(commands) == 6
    for line in commands:
        words = shlex.split(line, comments=True)
        require_fitting(load_recipe(words[words.index("train") + 1], [words[-1]]))


def test_its_parts_of_ones_own(tiny_dataset: Path, tmp_path: Path, monkeypatch) -> None:
    module = next(block for block in blocks("python") if "class Focal" in block)
    (tmp_path / "mine.py").write_text(module)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    own = next(block for block in blocks("yaml") if "mine:Shift" in block)
    settings = {
        "batch_size": 2,
        "epochs": 1,
        "optimiser": {"name": "Adam", "options": {"lr": 1e-2}},
    }
    recipe = Recipe.model_validate(
        {
            "name": "own",
            "network": {"name": "unet", "options": {"base_filters": 4, "dropout": 0.0}},
            "plan": {
                "frame": {"axes": [None, None, None]},
                "patch": {"shape": [16, 16, 1]},
            },
            "phases": [settings | yaml.safe_load(own)],
            "training": {"threads": 1, "precision": "32"},
        }
    )
    run = start_run(recipe, tiny_dataset, tmp_path / "run", check=False)
    preparer = CasePreparer(run.plan, run.data.label_values, None, run.cache)
    cases = [preparer.prepare(run.data.case(name)) for name in run.splits[0].train]
    trainer = Trainer(run.recipe, run.plan, cases)
    samples = trainer.parts.sampler.epoch(0, 8, 2)
    assert {sample.case for batch in samples for sample in batch} == {0}
    early = trainer.steps(trainer.begin(), 8)
    late = trainer.steps(early, 24)
    assert (early.step, late.step) == (8, 32)
    assert late.loss_sum / late.step_in_epoch < early.loss_sum / early.step_in_epoch


@pytest.mark.parametrize("table", [AUGMENTATIONS, SAMPLERS, SCHEDULES, TASKS])
def test_its_tables(table) -> None:
    rows = "\n".join(line.split("|")[1] for line in DOCS.splitlines() if line.startswith("| `"))
    assert {f"`{name}`" for name in table} <= set(re.findall(r"`[^`]+`", rows))


def test_its_table_of_recipes() -> None:
    listed = DOCS.partition("## The built-in recipes")[2]
    names = set(re.findall(r"`([a-zA-Z0-9-]+)`", listed))
    kinds = ("monet", "unet-64", "unet-16", "attention-unet")
    names |= {f"{kind}-{organ}" for kind in kinds for organ in ("pancreas", "brain")}
    of_002 = product(("ctia", "mia"), ("nnunet", "msd"), ("2d", "3d"), ORGANS)
    names |= {"-".join(parts) for parts in of_002}
    assert set(builtin_recipes()) <= names
