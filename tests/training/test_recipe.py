"""Recipes: defaults, overrides, and one clear sentence for every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from leanseg.errors import LeansegError, RecipeError
from leanseg.training import open_run, start_run
from leanseg.training.recipe import Recipe, builtin_recipes, load_recipe, validate_recipe
from leanseg.training.yaml_text import read_yaml


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
    (phase,) = recipe.phases
    assert phase.sampler.name == "slices"
    assert phase.sampler.options == {"margin": 16, "count": 48}
    assert phase.optimiser.options["lr"] == 5e-4
    # Paper 001: the rate falls after two epochs without a better loss.
    assert phase.schedule.name == "plateau"
    assert phase.schedule.options == {"patience": 1, "factor": 0.1}
    assert (phase.batch_size, phase.epochs, phase.clip_norm) == (16, 100, None)
    assert (recipe.split.train_fraction, recipe.split.monitor_fraction) == (0.7, 0.1)


def test_overrides(tmp_path: Path) -> None:
    path = write(tmp_path, "name: a\ntraining:\nplan: {intensity: {window: {kind: hu}}}")
    recipe = load_recipe(
        path,
        [
            "phases.0.epochs=7",
            "network.name=unet-16",
            "data.labels.organ=3",
            "plan.intensity.window.low=-5",
        ],
    )
    assert recipe.phases[0].epochs == 7
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
            "name: a\nphases: [{epohcs: 1}]",
            r"key 'phases\.0\.epohcs' is not known \(did you mean 'epochs'",
        ),
        ("name: a\ntraining: {zzz: 1}", r"'training\.zzz' is not known; allowed here: .*precision"),
        ("training: {}", r"mine\.yaml: key 'name' is missing; add it"),
        ("name: a\nphases: [{epochs: -3}]", r"'phases\.0\.epochs' has value -3, but: .*greater"),
        ("name: a\nphases: [{epochs: many}]", r"'phases\.0\.epochs' has value 'many'"),
        ("name: a\nphases: []", r"'phases' has value \[\], but: .*at least 1 item"),
        ("name: a\nphases: [{name: b}, {name: b}]", r"'phases' has .*, but: one is given twice"),
        (
            "name: a\nphases: [{epochs: null}]",
            r"'phases\.0' has value .*, but: it never ends: give it epochs, steps, minutes or",
        ),
        (
            "name: a\nphases: [{schedule: {name: cosin}}]",
            r"'phases\.0\.schedule\.name' has value 'cosin', but: .*'cosine'",
        ),
        ("name: a\nphases: [{loss: []}]", r"'phases\.0\.loss' has value \[\], but: "),
        (
            "name: a\nphases: [{loss: [{name: dice, outputs: []}]}]",
            r"'phases\.0\.loss\.0\.outputs' has value \[\], but: ",
        ),
        (
            "name: a\nphases: [{selection: first}]",
            r"'phases\.0\.selection' has value 'first', but: .*'best' or 'last'",
        ),
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
        (
            "name: a\nphases: [{augmentation: [{nam: affine}]}]",
            r"key 'phases\.0\.augmentation\.0\.name' is missing",
        ),
        ("name: a\ndata: {labels: {x: [0]}}", r"'data\.labels\.x\.0' has value 0"),
        ("name: [unclosed", r"mine\.yaml: is not valid YAML at line 1"),
        ("- a\n- b", r"mine\.yaml: a recipe is a mapping"),
        ("name: a\nextends: monet-ctt", r"monet-ctt: is neither .* \(did you mean 'monet-ct'"),
        (
            "extends: monet-ct\nphases: []",
            r"mine\.yaml: key 'phases' is not allowed beside 'extends'; change it under 'set'",
        ),
        ("extends: monet-ct\nset: [a]", r"mine\.yaml: 'extends' is the name of a recipe and 'set'"),
        ("extends: [monet-ct]", r"mine\.yaml: 'extends' is the name of a recipe"),
        (
            "extends: monet-ct\nset: {phases.main.epohcs: 1}",
            r"key 'phases\.0\.epohcs' is not known \(did you mean 'epochs'",
        ),
        (
            "extends: monet-ct\nset: {phases.second.epochs: 1}",
            r"mine\.yaml: set 'phases\.second\.epochs': there is no entry 'second'",
        ),
        ("extends: monet-ct\nset: {3: 1}", r"key '3' is not known"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(RecipeError, match=expected):
        load_recipe(write(tmp_path, text))


def test_a_recipe_extends_another_as_overrides_would(tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("extends: monet-mr\nset: {phases.main.epochs: 7}")
    path = write(
        tmp_path, "name: a\nextends: other.yaml\nset: {network: {name: unet-16}, split.seed: 1}"
    )
    overrides = ["name=a", "phases.0.epochs=7", "network={name: unet-16}", "split.seed=1"]
    assert load_recipe(path, ["split.n_folds=3"]) == load_recipe(
        "monet-mr", [*overrides, "split.n_folds=3"]
    )
    assert load_recipe(other).name == "monet-mr"


def test_a_phase_extends_an_earlier_one(tmp_path: Path) -> None:
    phases = [
        {"name": "a", "batch_size": 3, "epochs": 5, "sampler": {"name": "slices"}},
        {"name": "b", "extends": "a", "epochs": 10},
        {"name": "c", "extends": "b", "batch_size": 7},
    ]
    made = validate_recipe({"name": "r", "phases": phases}, "r")
    found = [(phase.name, phase.batch_size, phase.epochs) for phase in made.phases]
    assert found == [("a", 3, 5), ("b", 3, 10), ("c", 7, 10)]
    assert validate_recipe(yaml.safe_load(made.to_yaml()), "again") == made
    # A budget is divided as the epochs are, unless phases have budgets of their own.
    budgets = [phase.cpu_minutes for phase in made.within(cpu_minutes=5).phases]
    assert budgets == [1.0, 2.0, 2.0]
    for wrong in ("b", "z", 3):
        content = {"name": "r", "phases": [{"name": "a"}, {"name": "b", "extends": wrong}]}
        with pytest.raises(RecipeError, match="not the name of an earlier phase"):
            validate_recipe(content, "r")


def test_a_recipe_that_extends_itself(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("extends: mine.yaml")
    with pytest.raises(RecipeError, match=r"mine\.yaml: extends itself \(.*other\.yaml -> "):
        load_recipe(write(tmp_path, "extends: other.yaml"))


def test_unknown_names_and_overrides(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"did you mean 'monet-pancreas'"):
        load_recipe("monet-pancrea")
    path = write(tmp_path, "name: a")
    with pytest.raises(RecipeError, match="write it as key=value"):
        load_recipe(path, ["phases.0.epochs"])
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


def keys_of(node: dict[str, object], prefix: str = "") -> list[str]:
    found = []
    for name, value in node.items():
        found.append(prefix + name)
        if isinstance(value, dict):
            found += keys_of(value, f"{prefix}{name}.")
    return found


KEYS = [
    *keys_of(Recipe(name="any").model_dump(mode="json")),
    *("data.labels.x", "plan.frame.region.stage", "plan.intensity.scaling.divide_by"),
    *("network.options.dropout", "phases.0.loss.0.options.smooth", "phases.main.optimiser.name"),
    *("phases.0.optimiser.options.lr", "phases.0.schedule.options.patience", "phases.1.epochs"),
    *("phases.main", "zzz", "..", "a..b", "", "name.x"),
]
ODD = [
    *("null", "true", "-1", "0", "1", "1e10", "100000000", "9" * 18, "9" * 30, "9" * 5000),
    *("1e999", ".nan", "-.inf", "1.5", "1e-300", "'32'", "abc", "''", "2001-99-99", "!!bool abc"),
    *("[]", "{}", "[1]", "[true]", "[[1]]", "{a: 1}", "{'': 1}", "[a, a]", "{a: [1], b: [1]}"),
    *("x" * 3000, r'"\ud800"', r'"a\nb"', "../x", "[" * 3000, "[-1, 1e300, null]"),
]


def assert_sentence(error: LeansegError) -> None:
    assert "\n" not in str(error)
    assert len(str(error)) < 1000


@pytest.mark.parametrize(("number", "key"), enumerate(KEYS))
def test_odd_values_are_read_or_refused_in_a_sentence(number: int, key: str) -> None:
    """A third of the values for each key; the next test, which takes long, has them all."""
    for value in ODD[number % 3 :: 3]:
        try:
            recipe = load_recipe("monet-ct", [f"{key}={value}"])
        except RecipeError as error:
            assert_sentence(error)
        else:
            again = validate_recipe(read_yaml(recipe.to_yaml(), "it"), "it")
            assert again == recipe


@pytest.mark.slow
@pytest.mark.parametrize("key", KEYS)
def test_odd_values_start_a_run_or_leave_no_folder(key, tiny_dataset, tmp_path) -> None:
    base = ["plan.frame.axes=[24, 24, null]"]
    for number, value in enumerate(ODD):
        folder = tmp_path / str(number)
        try:
            start_run(
                load_recipe("monet-ct", [*base, f"{key}={value}"]),
                tiny_dataset,
                folder,
                check=False,
            )
        except LeansegError as error:
            assert_sentence(error)
            assert not folder.exists()
        else:
            assert open_run(folder).folder == folder


@pytest.mark.parametrize(
    "setting",
    [
        "split.seed=-1",
        "data.labels={}",
        "data.labels={ball: [1, 2], core: [2, 3]}",
        "data.channels=[]",
        "training.device=x",
        "training.device=mps",
        "training.threads=1000000000",
        "training.workers=1000000",
        "phases.0.batch_size=1000000000",
        "phases.0.batch_size=65536",
        "phases.0.steps_per_epoch=1000000000",
        "phases.0.epochs=true",
        "phases.0.epochs='20'",
        "phases.0.epochs=2.0",
        "training.folds=[]",
        "training.folds=[0, 0]",
        "training.folds=[true]",
        "phases.0.optimiser.options.lr=.nan",
        "plan.frame.axes=[100000, 100000, null]",
        "plan.frame.axes=[60000, 60000, null]",
        "plan.frame.axes=[true, 24, null]",
        "plan.frame.region.stage=scout",
        "plan.patch.neighbours=1001",
        "plan.intensity.window.high=1e300",
        "network.options.base_filters=1000000000",
        "network.options.base_filters=65536",
        "network.options.base_filters=-1",
        "network.options.base_filters='16'",
        "network.options.dropout=.nan",
        "network={name: msd-2d, options: {depth: 65536}}",
        "network={name: dense-unet, options: {layers_per_block: [65536, 65536]}}",
        "phases.0.loss.0.options.smooth=[1]",
        "phases.0.augmentation=[{name: affine, options: {zoom: -1}}]",
    ],
)
def test_what_cannot_be_trained_is_refused_at_once(setting, tiny_dataset, tmp_path) -> None:
    with pytest.raises(LeansegError) as caught:
        recipe = load_recipe("monet-ct", ["plan.frame.axes=[32, 32, null]", setting])
        start_run(recipe, tiny_dataset, tmp_path / "run", check=False)
    assert_sentence(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_precision_may_be_written_as_a_number() -> None:
    assert load_recipe("monet-ct", ["training.precision=32"]).training.precision == "32"
    with pytest.raises(RecipeError, match=r"training\.precision"):
        load_recipe("monet-ct", ["training.precision=16"])
    assert Recipe(name="a", training={"precision": 32}).training.precision == "32"


def test_keys_of_things_that_the_default_recipe_does_not_have(tmp_path: Path) -> None:
    for text, key in (
        ("plan: {frame: {region: {stage: a, stge: b}}}", "plan.frame.region"),
        (
            "phases: [{augmentation: [{name: affine}, {name: affine, zoom: 1}]}]",
            "phases.0.augmentation.1.zoom",
        ),
        ("data: {labels: {x: {}}}", "data.labels.x"),
        ("1: 2", "1"),
    ):
        with pytest.raises(RecipeError, match=f"key '{key}'"):
            load_recipe(write(tmp_path, f"name: a\n{text}"))


def test_a_layout_that_there_is_not() -> None:
    with pytest.raises(RecipeError, match=r"data\.layout.*did you mean 'decathlon'"):
        load_recipe("monet-ct", ["data.layout=decathlom"])


@pytest.mark.parametrize(
    "change", ["split={kind: k-fold, n_folds: 8}", "plan.frame.axes=[2, 24, null]"]
)
def test_what_is_wrong_with_a_value_names_the_recipe(tiny_dataset, tiny_recipe, tmp_path, change):
    network = ["network.name=monet", "network.options={}"]
    recipe = load_recipe(tiny_recipe, [*network, change])
    with pytest.raises(LeansegError, match=r"^recipe 'tiny': "):
        start_run(recipe, tiny_dataset, tmp_path / "run")
    assert not (tmp_path / "run").exists()
