"""Every file of a run's folder, damaged: the right result, or one sentence that names the file."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from safetensors.numpy import load_file

from leanseg.errors import LeansegError
from leanseg.reports.run_folder import read_run_folder
from leanseg.reports.run_report import report
from leanseg.training import load_recipe, open_run, start_run, train_run
from leanseg.training.trainer import Trainer

SETTINGS = (
    "training.folds=all",
    "split={kind: k-fold, n_folds: 2}",
    "phases.0.epochs=2",
    "phases.0.steps_per_epoch=2",
)
ABSENT = object()
DEEP = "[" * 100_000
JSON_VALUES = (None, [], {}, "x", -1, True, 10**400, [[[]]])


def train(data: Path, recipe: Path, folder: Path, *settings: str) -> None:
    run = start_run(load_recipe(recipe, [*SETTINGS, *settings]), data, folder, check=False)
    train_run(run, Console(quiet=True))


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_dataset) -> Path:
    """A run that is done, one that stopped in its second fold's second epoch, and another's."""
    root = tmp_path_factory.mktemp("damage")
    recipe = root / "tiny.yaml"
    recipe.write_text(
        "{name: tiny, data: {labels: {ball: [1, 2]}}, plan: {frame: {axes: [24, 24, null]}},"
        " network: {name: combiner}, packaging: {export: false},"
        " phases: [{sampler: {name: slices, options: {margin: 2}}, batch_size: 4}],"
        " training: {threads: 1, precision: 32, checkpoint_interval_s: 0}}"
    )
    train(tiny_dataset, recipe, root / "done")
    train(tiny_dataset, recipe, root / "other", "training.seed=7")
    step, taken = Trainer._step, []

    def stop(self, state, found):
        taken.append(1)
        if len(taken) == 8:
            raise KeyboardInterrupt
        return step(self, state, found)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "_step", stop)
        train(tiny_dataset, recipe, root / "stopped")
    return root


def files_of(run: Path) -> list[str]:
    kept = ("*.yaml", "*.json", "*.jsonl", "*.txt", "*.pt", "*.leanseg", "*.npy", "*.safetensors")
    found = sorted(str(path.relative_to(run)) for kind in kept for path in run.rglob(kind))
    # One entry of the cache stands for all.
    entry = next(Path(name).parent for name in found if name.startswith("cache"))
    return [name for name in found if not name.startswith("cache") or Path(name).parent == entry]


def removed(path: Path, rng: random.Random) -> None:
    path.unlink()


def emptied(path: Path, rng: random.Random) -> None:
    path.write_bytes(b"")


def cut(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))])


def flipped(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def encoded(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes().decode("latin-1").encode("utf-16"))


def garbled(path: Path, rng: random.Random) -> None:
    path.write_bytes(rng.randbytes(500))


def nested(path: Path, rng: random.Random) -> None:
    path.write_text(DEEP)


def a_folder(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


def of_another(path: Path, rng: random.Random) -> None:
    run = next(each for each in path.parents if each.name.startswith("run"))
    other = run.parent / "other" / path.relative_to(run)
    if other.exists():
        shutil.copy(other, path)


def a_value(path: Path, rng: random.Random) -> None:
    """One value of JSON, at any depth, is of another type."""
    try:
        content = json.loads(path.read_text())
    except ValueError:
        path.write_text("null")
        return
    node = content
    while True:
        places = list(node) if isinstance(node, dict) else list(range(len(node)))
        place = rng.choice(places)
        if not isinstance(node[place], dict | list) or not node[place] or rng.random() < 0.3:
            break
        node = node[place]
    node[place] = rng.choice([value for value in JSON_VALUES if value != node[place]])
    path.write_text(json.dumps(content).replace(str(10**400), rng.choice(["1e999", "9" * 400])))


DAMAGES = (
    removed,
    emptied,
    cut,
    flipped,
    encoded,
    garbled,
    nested,
    a_folder,
    of_another,
    a_value,
)


def weights(run: Path) -> list[dict[str, bytes]]:
    return [
        {name: array.tobytes() for name, array in load_file(path).items()}
        for path in sorted(run.glob("fold_*/checkpoint.safetensors"))
    ]


def said_of(work: Callable[[], object], name: str) -> str:
    """What a command says: nothing, or one sentence with a file."""
    try:
        work()
    except LeansegError as error:
        sentence = str(error)
        assert len(sentence) < 900
        assert "\n" not in sentence
        return sentence
    return ""


def try_damage(
    runs: Path, kind: str, name: str, damage: Callable, seed: int, reports: Callable = report
) -> tuple[str, str]:
    """What resume and report say of a damaged copy of a run; weights are right or refused."""
    run = runs / f"run-{seed}"
    shutil.copytree(runs / kind, run)
    output = io.StringIO()
    try:
        damage(run / name, random.Random(seed))
        reported = said_of(lambda: reports(run), name)
        resumed = said_of(lambda: train_run(open_run(run), Console(file=output, width=1000)), name)
        if not resumed and "recipe.yaml was changed" not in output.getvalue():
            checked = name.endswith(".safetensors")  # which nothing reads
            assert checked or weights(run) == weights(runs / "done"), (name, damage.__name__)
            assert (run / "fold_1" / "model.leanseg").is_file()
    finally:
        shutil.rmtree(run)
    return resumed, reported


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("kind", ["done", "stopped"])
def test_some_damages(runs, kind, damage):
    names = files_of(runs / kind)
    name = random.Random(damage.__name__ + kind).choice(names)
    try_damage(runs, kind, name, damage, 0, read_run_folder)


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("kind", ["done", "stopped"])
def test_every_damage(runs, kind, damage):
    times = 10 if damage in (cut, flipped, a_value) else 1
    for seed, name in enumerate(files_of(runs / kind) * times):
        try_damage(runs, kind, name, damage, seed)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("done", "plan.json"),
        ("done", "data.json"),
        ("done", "splits.json"),
        ("done", "fold_0/summary.json"),
        ("done", "fold_0/metrics.jsonl"),
        ("done", "fold_0/test/scores.json"),
        ("done", "fold_0/model.leanseg"),
        ("stopped", "fold_1/state.pt"),
    ],
)
def test_one_bit_is_refused_with_the_file(runs, kind, name):
    for seed in range(3):
        resumed, reported = try_damage(runs, kind, name, flipped, seed, read_run_folder)
        assert name in resumed
        assert name in reported or name.endswith((".leanseg", ".pt"))


def test_a_state_of_another_run_is_refused(runs):
    state = "fold_1/state.pt"
    resumed, _ = try_damage(runs, "stopped", state, of_another, 0, read_run_folder)
    assert "state.pt: is of another run or fold" in resumed


def test_a_damaged_cache_is_made_anew(runs):
    entry = next((runs / "stopped" / "cache").rglob("image.npy")).relative_to(runs / "stopped")
    assert try_damage(runs, "stopped", str(entry), flipped, 1, read_run_folder) == ("", "")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["recipe.yaml", "plan.json", "fold_1/state.pt"])
def test_files_that_cannot_be_read(runs, name):
    damage = lambda path, _: path.chmod(0)  # noqa: E731
    resumed, _ = try_damage(runs, "stopped", name, damage, 0, read_run_folder)
    assert f"{name}: " in resumed


@pytest.mark.parametrize("name", ["fold_1", "fold_1/tensorboard", "cache", "fold_0/test"])
def test_files_in_the_place_of_folders(runs, name):
    def a_file(path: Path, _: random.Random) -> None:
        shutil.rmtree(path)
        path.write_text("")

    try_damage(runs, "stopped", name, a_file, 0, read_run_folder)


def test_folders_with_the_names_of_other_folds(runs):
    def more(path: Path, _: random.Random) -> None:
        for number in ("7", "00", "x", "-1", "1" * 100, "²"):
            path.with_name(f"fold_{number}").mkdir()

    assert try_damage(runs, "done", "fold_0", more, 0, read_run_folder) == ("", "")
