"""Recipes: defaults, overrides, and one clear sentence for every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from leanseg.errors import RecipeError
from leanseg.training.recipe import builtin_recipes, load_recipe


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", sorted(builtin_recipes()))
def test_builtin_recipes_are_valid_and_survive_a_round_trip(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert load_recipe(write(tmp_path, recipe.to_yaml())) == recipe


def test_the_pancreas_recipe_is_the_papers() -> None:
    recipe = load_recipe("monet-pancreas")
    assert recipe.plan.intensity.window.model_dump() == {"kind": "hu", "low": -150, "high": 200}
    assert recipe.plan.network_shape == (256, 256)
    assert recipe.training.slices.count == 48
    assert recipe.training.slices.margin == 16
    assert recipe.training.learning_rate == 5e-4
    assert (recipe.training.plateau_factor, recipe.training.plateau_patience) == (0.1, 2)
    assert recipe.split.train_fraction == 0.7


def test_overrides(tmp_path: Path) -> None:
    path = write(tmp_path, "name: a\ntraining:\nplan: {intensity: {window: {kind: hu}}}")
    recipe = load_recipe(
        path,
        [
            "training.epochs=7",
            "network.name=unet-16",
            "data.labels.organ=3",
            "plan.intensity.window.low=-5",
        ],
    )
    assert recipe.training.epochs == 7
    assert recipe.network.name == "unet-16"
    assert recipe.data.labels == {"organ": [3]}
    assert recipe.plan.intensity.window.low == -5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "name: a\ntrainig: {}",
            r"mine\.yaml: key 'trainig' is not known \(did you mean 'training'",
        ),
        (
            "name: a\ntraining: {lerning_rate: 1}",
            r"key 'training\.lerning_rate' is not known \(did you mean 'learning_rate'",
        ),
        ("name: a\ntraining: {zzz: 1}", r"'training\.zzz' is not known; allowed here: .*epochs"),
        ("training: {}", r"mine\.yaml: key 'name' is missing; add it"),
        ("name: a\ntraining: {epochs: -3}", r"'training\.epochs' has value -3, but: .*greater"),
        ("name: a\ntraining: {epochs: many}", r"'training\.epochs' has value 'many'"),
        (
            "name: a\nplan: {intensity: {window: {kind: hu, low: 5, high: 1}}}",
            r"key 'plan\.intensity\.window' has value \{.*\}, but: window low 5\.0 must be",
        ),
        (
            "name: a\nplan: {intensity: {window: {kind: hu, lo: 5}}}",
            r"key 'plan\.intensity\.window\.lo' is not known \(did you mean 'low'",
        ),
        (
            "name: a\nplan: {intensity: {window: {low: 5}}}",
            r"key 'plan\.intensity\.window' has value \{'low': 5\}, but: .*'kind'",
        ),
        ("name: a\naugmentation: [{nam: affine}]", r"key 'augmentation\.0\.name' is missing"),
        ("name: a\ndata: {labels: {x: [0]}}", r"'data\.labels\.x\.0' has value 0"),
        ("name: [unclosed", r"mine\.yaml: is not valid YAML at line 1"),
        ("- a\n- b", r"mine\.yaml: a recipe is a mapping"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(RecipeError, match=expected):
        load_recipe(write(tmp_path, text))


def test_unknown_names_and_overrides(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"did you mean 'monet-pancreas'"):
        load_recipe("monet-pancrea")
    path = write(tmp_path, "name: a")
    with pytest.raises(RecipeError, match="write it as key=value"):
        load_recipe(path, ["training.epochs"])
    with pytest.raises(RecipeError, match="'name' is not a section"):
        load_recipe(path, ["name.x=1"])
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(RecipeError, match="not text in UTF-8"):
        load_recipe(binary)


def test_yaml_cannot_run_anything(tmp_path: Path) -> None:
    path = write(tmp_path, "name: !!python/object/apply:os.getcwd []")
    with pytest.raises(RecipeError, match="not valid YAML"):
        load_recipe(path)
    assert yaml.safe_load("1") == 1
