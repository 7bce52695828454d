"""A run: a folder with one experiment, started, interrupted and resumed."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from leanseg.datasets import Dataset, Split, convert, merge_datasets, open_dataset, write_splits
from leanseg.datasets.check import CheckResult, check
from leanseg.errors import DatasetError, LeansegError, RecipeError
from leanseg.files import require_outputs, write_json, write_text, written_whole
from leanseg.frames import ArrayCache, CasePreparer, PreparedCase, cases_sha256
from leanseg.frames.cases import Prepare
from leanseg.frames.classes import where_any
from leanseg.plan import LinearScaling, Plan, Stage, TrainingScaling
from leanseg.progress import Display, quiet_console
from leanseg.runtime import return_freed_memory
from leanseg.scratch import held
from leanseg.training.data import TrainingData, select_data
from leanseg.training.environment import describe_environment
from leanseg.training.folder import (
    ARRAYS_FOLDER,
    CHECK_FILE,
    DATA_FILE,
    ENVIRONMENT_FILE,
    MODEL_FILE,
    PLAN_FILE,
    RECIPE_FILE,
    SPLITS_FILE,
    STACK_FILE,
    START_FILES,
    SUMS_FILE,
    Run,
    is_done,
    read_run,
    require_folds,
    write_sums,
)
from leanseg.training.recipe import Recipe
from leanseg.training.splitting import make_splits
from leanseg.volumes import is_volume_path, open_volume

if TYPE_CHECKING:
    from rich.console import Console

    from leanseg.networks.base import SegmentationNetwork

_CHECK_WORKERS = 2
_LOCK_FILE = ".run.lock"
_OF_A_START = {PLAN_FILE, SPLITS_FILE, DATA_FILE, CHECK_FILE, ENVIRONMENT_FILE, SUMS_FILE}


def start_run(
    recipe: Recipe,
    data: Dataset | Path | Sequence[Path],
    output: Path,
    cache: Path | None = None,
    *,
    check: bool = True,
    console: Console | None = None,
) -> Run:
    """Create a run's folder; nothing is trained yet.

    Args:
        recipe: What to do.
        data: A dataset, its folder in any registered layout, or folders of several that train
            together, their labels matched by name.
        output: The run's folder; has to be new or empty.
        cache: Folder for prepared arrays, to share between runs; None keeps them in the run.
        check: Look at every scan and label map first, and refuse data that are wrong.
        console: Where the check is told; None is standard output.

    Returns:
        The run. Of processes that train together the first one makes it, the others open it.

    Raises:
        LeansegError: If the data, the split or the folder cannot be used.
    """
    from leanseg.training import ranks

    ranks.join()
    with ranks.first_alone():
        if not ranks.rank():
            return _start_run(recipe, data, output, cache, check=check, console=console)
        if not (output / RECIPE_FILE).exists():
            raise LeansegError(
                f"{output}: the first process made the run, but process {ranks.rank() + 1} does "
                "not see it; put it where all machines find it under the same path"
            )
        return open_run(output, cache)


def _start_run(
    recipe: Recipe,
    data: Dataset | Path | Sequence[Path],
    output: Path,
    cache: Path | None,
    *,
    check: bool,
    console: Console | None,
) -> Run:
    require_free(output)
    arrays = ArrayCache(cache or output / "cache")
    require_outputs([output / RECIPE_FILE, arrays.root / "entry"], new_folders=True)
    dataset = data if isinstance(data, Dataset) else open_datasets(data, recipe.data.layout)
    dataset = dataset.read_as(recipe.data.geometry)
    with Display(console) as display:
        selected, plan, splits = plan_start(recipe, dataset, display.say)
    dataset = replace(dataset, cases=selected.cases)
    checked = _check_data(dataset, splits, console) if check else None
    if not check:
        _say_notes(dataset, console)
    output.mkdir(parents=True, exist_ok=True)
    with _locked(output):
        require_free(output)
        if any(source.volume is not None for case in selected.cases for source in case.sources):
            selected = _stored(dataset, recipe, output / ARRAYS_FOLDER)
            splits = make_splits(recipe, selected)
        run = Run(output, recipe, plan, selected, tuple(splits), arrays)
        write_start(run, checked)
    return run


def plan_start(
    recipe: Recipe, dataset: Dataset, tell: Callable[[str], None] = lambda text: None
) -> tuple[TrainingData, Plan, list[Split]]:
    """What a run would be started with; all is refused that cannot work, and nothing written.

    Args:
        recipe: What to do.
        dataset: Read with the recipe's geometry.
        tell: Called with what is to be said of folds that go by size.

    Raises:
        LeansegError: If the data, the split or the network cannot be used.
    """
    selected = select_data(dataset, recipe)
    with _in_recipe(recipe):
        splits = make_splits(recipe, selected, tell)
        plan = selected.plan(recipe)
        _check_network(recipe, plan)
    require_folds(recipe, splits)
    _require_monitor(recipe, splits)
    return selected, plan, splits


def write_start(run: Run, checked: CheckResult | None = None) -> None:
    """Write what a run is started with into its folder, whole or not at all."""
    # The recipe moves last: a folder that has it can be resumed.
    with written_whole(run.folder / RECIPE_FILE) as written:
        write_json(written.with_name(PLAN_FILE), run.plan.model_dump(mode="json"))
        write_splits(written.with_name(SPLITS_FILE), run.splits)
        write_json(written.with_name(DATA_FILE), run.data.to_json())
        if checked is not None:
            checked.to_json(written.with_name(CHECK_FILE))
        write_json(written.with_name(ENVIRONMENT_FILE), describe_environment())
        write_text(written, run.recipe.to_yaml())
        write_sums(written.parent, (*START_FILES, ENVIRONMENT_FILE, RECIPE_FILE))


@contextmanager
def _in_recipe(recipe: Recipe) -> Iterator[None]:
    """Name the recipe in what is wrong with its values."""
    try:
        yield
    except LeansegError as error:
        if repr(recipe.name) in str(error):
            raise
        raise type(error)(f"recipe {recipe.name!r}: {error}") from error


def require_free(folder: Path) -> None:
    """Refuse a folder that holds something, unless it is a start that was killed.

    Raises:
        RecipeError: If it does, or is a file.
    """
    if not folder.exists():
        return
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else {""}
    if _LOCK_FILE in there and RECIPE_FILE not in there:
        there = {name for name in there - _OF_A_START if not name.startswith(".writing-")}
    if there - {_LOCK_FILE}:
        hint = "resume it with --resume" if RECIPE_FILE in there else "give a new one"
        raise RecipeError(f"{folder}: is not an empty folder; {hint}")


def _locked(folder: Path) -> AbstractContextManager[None]:
    """Keep other processes away from a run.

    Raises:
        LeansegError: If one is at work on it.
    """
    busy = f"{folder}: another process trains this run; wait until it ends, or stop it"
    return held(folder / _LOCK_FILE, busy)


def _stored(dataset: Dataset, recipe: Recipe, folder: Path) -> TrainingData:
    """The data with its arrays written as files, so that the run can be resumed."""
    files = open_dataset(convert(dataset, "plain", folder).folder)
    return select_data(replace(files, name=dataset.name), recipe)


def usual_folder(dataset: Dataset, recipe: Recipe) -> Path:
    """Where a run lies when its user does not say."""
    return Path("runs") / re.sub(r"[/\\]", "-", f"{dataset.name}-{recipe.name}")


def open_datasets(folders: Path | Sequence[Path], layout: str | None = None) -> Dataset:
    """One dataset of one folder or several, their labels matched by name.

    Args:
        folders: Of datasets.
        layout: Of all of them; None recognises each.

    Raises:
        DatasetError: If one cannot be read, or their channels differ.
    """
    listed = [folders] if isinstance(folders, Path) else folders
    return merge_datasets([open_dataset(folder, layout) for folder in listed])


def _check_data(dataset: Dataset, splits: Sequence[Split], console: Console | None) -> CheckResult:
    """What `leanseg check` finds in the cases of a run.

    Raises:
        DatasetError: If it finds an error.
    """
    with Display(console) as display:
        on_case = display.count("checking the data", len(dataset))
        workers = _CHECK_WORKERS if len(dataset.cases) > 2 * _CHECK_WORKERS else 0
        found = check(dataset, workers=workers, on_case=on_case, splits=splits)
        if not found.may_train:
            first = next(finding for finding in found.findings if finding.severity == "error")
            raise DatasetError(
                f"{found.summary()} First of all: {first.message}; see everything with `leanseg "
                "check`, or train anyway with --no-check"
            )
        if found.findings:
            display.say(f"checked: {found.summary()}")
        _say(display, [f.message for f in found.findings if f.kind == "header-note"])
    return found


def _say_notes(dataset: Dataset, console: Console | None) -> None:
    """Say what is to be said of headers, where nothing else is looked at."""
    sources = (source for case in dataset.cases for source in case.sources)
    files = [s for s in sources if s.reader == "volume" and is_volume_path(s.path)]
    with Display(console) as display:
        opened = ((s.path, open_volume(s.path, **s.options)) for s in files if s.volume is None)
        _say(display, [f"{path}: {note}" for path, volume in opened for note in volume.notes])


def _say(display: Display, notes: Sequence[str]) -> None:
    if notes:
        others = f" (and {len(notes) - 1} more of the kind)" if notes[1:] else ""
        display.say(f"note: {notes[0]}{others}")


def open_run(folder: Path, cache: Path | None = None) -> Run:
    """Open a run to resume it or to look at it.

    Args:
        folder: A folder that `start_run` made.
        cache: As in `start_run`.

    Raises:
        RecipeError: If the folder is not a run, or that of a stack.
        DatasetError: If the data changed since the run started.
    """
    run = read_run(folder, cache)
    if (folder / STACK_FILE).exists():
        msg = f"{folder}: is a stack, which cannot be resumed; make a new one with leanseg stack"
        raise RecipeError(msg)
    data = run.data
    sources = [source for case in data.cases for source in case.sources]
    missing = [source.path for source in sources if not source.exists()]
    if missing:
        msg = f"{folder}: its file {missing[0]} is not there any more; put the data back"
        raise DatasetError(msg)
    if cases_sha256(data.cases) != data.fingerprint:
        msg = (
            f"{folder}: the scans or labels in {data.root} changed since it started; start "
            "a new run"
        )
        raise DatasetError(msg)
    return run


def train_run(
    run: Run,
    console: Console | None = None,
    *,
    finish: bool = False,
    prepare: Prepare | None = None,
) -> list[Path]:
    """Train every fold of a run that is not done, and finish each with a model file.

    Args:
        run: New, or opened to be resumed.
        console: Where progress is told; None is standard output.
        finish: Train no further: make the model of what is trained by now.
        prepare: What makes network input of a case, where that is not its scan; test cases are
            then predicted from that, too.

    Returns:
        The model files, one a fold; with `finish`, of the folds of which something is trained.

    Raises:
        DatasetError: If no training case of a fold has any label.
        RecipeError: If training diverged.
        LeansegError: If another process trains it, a file of its folder is damaged, or it cannot be
            written to.
    """
    from leanseg.training import ranks
    from leanseg.training.launch import train_in_processes

    states = [run.fold_folder(number) / "state.pt" for number in run.folds]
    options = run.recipe.training
    if options.devices > 1 and not ranks.started_by_launcher():
        train_in_processes(
            run.folder, options.devices, options.threads, run.cache.root, finish=finish
        )
        return run.model_files
    with ranks.together(run.folder):
        require_outputs([*states, run.cache.root / "entry"], new_folders=True)
        with nullcontext() if ranks.rank() else _locked(run.folder):
            return _train_folds(run, console, prepare, finish=finish)


def _train_folds(
    run: Run, console: Console | None, prepare: Prepare | None, *, finish: bool
) -> list[Path]:
    from leanseg.training import ranks
    from leanseg.training.finish import finish_fold
    from leanseg.training.loop import FoldTrainer

    if ranks.rank():
        # The first process talks.
        console = quiet_console()
    models: list[Path] = []
    for number in run.folds:
        folder = run.fold_folder(number)
        folder.mkdir(exist_ok=True)
        with Display(console) as display:
            if ranks.agreed(not ranks.rank() and is_done(folder)):
                display.say(f"fold {number}: already done")
                models.append(folder / MODEL_FILE)
                continue
            split = run.splits[number]
            display.say(
                f"fold {number}: {len(split.train)} training, {len(split.monitor)} monitor and "
                f"{len(split.test)} test cases of {run.data.name}; "
                f"network {run.recipe.network.name}"
            )
            # What the first process prepares the others find in the cache.
            with ranks.first_alone():
                settled = _settled(run, split, display)
                cases = _prepared(settled, split, display, prepare)
            warnings = ranks.agreed([] if ranks.rank() else _absent_labels(run, number, *cases))
            for sentence in (*run.warnings, *warnings):
                display.say(sentence)
            fold_id = run.fold_id(number)
            trainer = FoldTrainer(folder, run.recipe, settled.plan, *cases, display, fold_id)
            if finish and models and not trainer.state.step:
                display.say(f"fold {number}: no step of it is trained; it is left out")
                continue
            state = trainer.fit(finish=finish)
            network, monitored = trainer.network, cases[1]
            # What only training needs would take memory beside the export.
            del trainer, cases
            network.zero_grad(set_to_none=True)
            gc.collect()
            return_freed_memory()
            with ranks.first_alone():
                if not ranks.rank():
                    finish_fold(
                        settled, number, network, state, display, warnings, monitored, prepare
                    )
            models.append(folder / MODEL_FILE)
    return models


def _absent_labels(
    run: Run, number: int, training: Sequence[PreparedCase], monitor: Sequence[PreparedCase]
) -> list[str]:
    """What to say of classes that have no voxel in a part of a fold.

    Raises:
        DatasetError: If there is nothing to learn.
    """
    unlearnt = _without_voxels(run, training)
    if len(unlearnt) == len(run.plan.labels):
        raise DatasetError(
            f"{run.data.root}: no training case of fold {number} has a voxel of "
            f"{', '.join(unlearnt)}; correct the label maps, or 'data.labels'"
        )
    unmonitored = _without_voxels(run, monitor) if monitor else []
    test = run.splits[number].test
    unscored = _without_voxels_in_files(run, test) if test else []
    return [
        f"fold {number}: class {name!r} is in no {part} case, so {effect}; see 'split'"
        for part, absent, effect in (
            ("training", unlearnt, "the network cannot learn it"),
            ("monitor", unmonitored, "it does not count when the epoch is chosen"),
            ("test", unscored, "it cannot be scored"),
        )
        for name in absent
    ]


def _without_voxels(run: Run, cases: Sequence[PreparedCase]) -> list[str]:
    absent = run.plan.final.label_values
    for case in cases:
        classes = case.classes
        absent = {name: own for name, own in absent.items() if not where_any(classes, own).any()}
    return list(absent)


def _without_voxels_in_files(run: Run, cases: Sequence[str]) -> list[str]:
    """The same of cases that are not prepared; mostly the first one's label map is enough."""
    data, absent = run.data, set(run.plan.labels)
    for name in cases:
        label = data.case(name).label if absent else None
        if label is not None:
            sought = absent & set(data.annotated[name])
            absent -= {c for c in sought if np.isin(label.array, data.label_values[c]).any()}
    return [name for name in run.plan.labels if name in absent]


def _settled(run: Run, split: Split, display: Display) -> Run:
    """The run with a fold's plan: what it leaves to training volumes has become numbers."""
    asked = run.plan.final.intensity.scaling
    if not isinstance(asked, TrainingScaling):
        return run
    n = min(asked.training_volumes, len(split.train))
    on_case = display.count("measuring grey values", n)
    seed = run.recipe.training.seed
    plan = run.data.settled(run.plan, split.train, seed, run.cache, on_case)
    scaling = plan.final.intensity.scaling
    each = scaling if isinstance(scaling, tuple) else (scaling,)
    told = ", ".join(
        f"{name} mean {-linear.add * linear.divide_by:.5g}, SD {linear.divide_by:.5g}"
        for name, linear in zip(plan.channels, each, strict=True)
        if isinstance(linear, LinearScaling)
    )
    display.say(f"grey values by {n} windowed training volume(s): {told}")
    return replace(run, plan=plan)


def _prepared(
    run: Run, split: Split, display: Display, prepare: Prepare | None = None
) -> tuple[list[PreparedCase], list[PreparedCase]]:
    """The training and the monitor cases of a fold; those that test are predicted from files."""
    data = run.data
    prepare = (
        prepare
        or CasePreparer(
            run.plan,
            data.label_values,
            data.channel_indices,
            run.cache,
            data.annotated,
            data.ignored_values,
        ).prepare
    )
    on_case = display.count("preparing cases", len(split.train) + len(split.monitor))

    def prepared(name: str) -> PreparedCase:
        case = prepare(data.case(name))
        _require_depth(run.plan.final, case)
        on_case(name)
        return case

    return [prepared(name) for name in split.train], [prepared(name) for name in split.monitor]


def _require_depth(stage: Stage, case: PreparedCase) -> None:
    """Refuse a single slice for a network that sees volumes: it would learn from padding.

    Raises:
        DatasetError: Naming the case, with its size.
    """
    k, i, j = case.own_classes.shape
    if stage.is_3d and 1 in (i, j, k):
        raise DatasetError(
            f"case {case.name}: has {i} x {j} x {k} voxels, a single slice, but the network is "
            "3-D; leave the case out, or choose a 2-D network"
        )


def _require_monitor(recipe: Recipe, splits: Sequence[Split]) -> None:
    """Refuse to choose an epoch by cases that there are not.

    Raises:
        RecipeError: Naming the phase.
    """
    for phase in recipe.phases:
        if phase.needs_monitor and not all(split.monitor for split in splits):
            what = (
                "'selection' is best" if phase.selection == "best" else "a plateau waits for them"
            )
            raise RecipeError(
                f"recipe {recipe.name!r}: phase {phase.name!r} needs monitor cases ({what}), but "
                "the split has none; give split.monitor_fraction, or make selection 'last' and "
                "choose another schedule"
            )


def _check_network(recipe: Recipe, plan: Plan) -> None:
    """Refuse what cannot work before a folder is made: names, options, sizes, memory, device.

    Raises:
        RecipeError: If a name or option is not known, the network does not take the patches, or
            the machine has no such device or too little memory.
        GeometryError: If their size does not fit the network.
    """
    from leanseg.training.runtime import fabric, require_devices, require_memory, trial_run
    from leanseg.training.trainer import start_from

    if plan.final.frame.region != "scan":
        msg = f"recipe {recipe.name!r}: 'plan.frame.region' of a network in training is 'scan'"
        raise RecipeError(msg)
    device = fabric(recipe.training.device).device
    require_devices(recipe, device)
    trial = trial_run(recipe, plan)
    expected = (1, plan.final.n_outputs, *plan.final.network_shape)
    if trial.shape != expected:
        raise RecipeError(
            f"recipe {recipe.name!r}: network {recipe.network.name!r} makes {trial.shape} of a "
            f"patch, but {expected} is needed; choose another size or network"
        )
    reduced = recipe.training.precision == "bf16-mixed"
    if reduced and device.type == "cpu" and not trial.right_in_bf16:
        raise RecipeError(
            f"recipe {recipe.name!r}: 'training.precision' is bf16-mixed, and a convolution of "
            f"{recipe.network.name!r} is longer along the first axis than what it sees of patches "
            f"of {' x '.join(map(str, plan.final.network_shape))}, where PyTorch's gradients on "
            "processors are wrong with 16 bits; choose 32 or auto, or longer patches"
        )
    _check_phases(recipe, plan, trial.network)
    start_from(recipe, trial.network)
    require_memory(recipe, trial.needed_bytes, device)


def _check_phases(recipe: Recipe, plan: Plan, network: SegmentationNetwork) -> None:
    """Refuse phases that name what is not there, or that train nothing."""
    from leanseg.training import ranks
    from leanseg.training.optimisers import build_optimisers
    from leanseg.training.trainer import PhaseParts, trained_parameters

    n = ranks.n_ranks() if ranks.n_ranks() > 1 else recipe.training.devices
    for phase in recipe.phases:
        ranks.require_even(phase.batch_size, n)
        PhaseParts(phase, recipe, plan, ()).task.require(network)
        trained = trained_parameters(network, phase)
        build_optimisers(phase.optimiser.name, trained, phase.optimiser.options)
