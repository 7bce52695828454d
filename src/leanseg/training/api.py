"""Training and packaging from Python, one call each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from leanseg.datasets import Dataset, open_dataset
from leanseg.files import require_outputs
from leanseg.modelfile import read_model, write_model
from leanseg.training.folder import Run
from leanseg.training.planning import Planned, budget_of, plan_training
from leanseg.training.recipe import Recipe, load_recipe
from leanseg.training.run import open_run, start_run, train_run, usual_folder


def train(
    data: Dataset | Path | str,
    recipe: Recipe | Path | str | None = None,
    *,
    minutes: float | None = None,
    output: Path | str | None = None,
    overrides: Sequence[str] = (),
    check: bool = True,
) -> Run:
    """Train networks on a dataset, and package each as a model file.

    Args:
        data: A dataset, or the folder of one in any registered layout.
        recipe: A recipe, its file, or the name of a built-in one; None plans one for the data.
        minutes: By the clock, of each fold; None leaves it to the recipe, or plans for half an
            hour.
        output: The run's folder, new or empty; None makes one in `runs/`.
        overrides: "key.path=value", as `leanseg train --set` takes them.
        check: Look at every scan and label map first, and refuse data that are wrong.

    Returns:
        The run; `run.model` is ready to predict.

    Raises:
        LeansegError: If recipe, data or folder cannot be used.

    Example:
        >>> data = leanseg.open_dataset("phantoms")
        >>> run = leanseg.train(data, "tiny.yaml", minutes=30, output="runs/first")
        checked: ...
        >>> run.model.predict(data[0].image).shape
        (64, 64, 20)
    """
    from leanseg.training import ranks

    dataset = data if isinstance(data, Dataset) else open_dataset(Path(data))
    planned: Planned | None = None
    if recipe is None:
        planned = plan_training(dataset, budget_of(minutes), overrides=overrides)
        chosen = planned.recipe
    elif isinstance(recipe, Recipe):
        chosen = recipe.with_overrides(overrides).within(minutes)
    else:
        chosen = load_recipe(recipe, overrides).within(minutes)
    folder = Path(output) if output is not None else usual_folder(dataset, chosen)
    with ranks.together(folder):
        run = start_run(chosen, dataset, folder, check=check)
        if planned is not None:
            planned.write(run.folder)
        train_run(run)
    return run


def resume(folder: Path | str) -> Run:
    """Go on with a run that was interrupted, to the very same weights.

    Args:
        folder: The run's folder.

    Returns:
        The run, trained to its end.

    Raises:
        LeansegError: If the folder is not a run, or its data changed.

    Example:
        >>> run = leanseg.resume("runs/tiny")
        fold 0: already done
    """
    from leanseg.training import ranks

    with ranks.together(Path(folder)):
        run = open_run(Path(folder))
        train_run(run)
    return run


def package(
    model: Path | str, output: Path | str | None = None, *, allow_imports: bool = False
) -> Path:
    """Export the network of a model file into it, so that it runs without PyTorch.

    Args:
        model: The model file.
        output: Where the exported one is written; None writes the file itself anew.
        allow_imports: Whether the file may name a network by an import path, which runs that code.

    Returns:
        The exported model file.

    Raises:
        ExportError: If the network cannot be exported, or fewer than 99.99 % of the labels are
            PyTorch's; nothing is written then.
        MissingDependencyError: If the exporter's packages are not installed.

    Example:
        >>> leanseg.package("model.leanseg", "hospital.leanseg").name
        'hospital.leanseg'
        >>> leanseg.load_model("hospital.leanseg", engine="openvino").labels
        {'liver': 1}
    """
    from leanseg.training.export import export_model

    target = Path(model if output is None else output)
    require_outputs([target], new_folders=True)
    exported = export_model(read_model(Path(model)), allow_imports=allow_imports)
    write_model(target, exported)
    return target


def import_weights(checkpoints: Path | str | Sequence[Path | str], output: Path | str) -> Path:
    """Turn weights that the authors of OBELISK-Net published into a model file.

    Several checkpoints of one network become an ensemble. Nothing but tensors is unpickled.

    Args:
        checkpoints: `.pth` files of the public code.
        output: The model file to write.

    Returns:
        The model file.

    Raises:
        FileFormatError: If a file is not such a checkpoint, or they are of different networks.
        ExportError: If the exported network gives other labels than PyTorch.

    Example:
        >>> path = leanseg.import_weights("obeliskhybrid_tcia_fold1.pth", "obelisk.leanseg")
        >>> list(leanseg.load_model(path).labels)[:3]
        ['spleen', 'pancreas', 'left kidney']
    """
    from leanseg.training.obelisk import import_obelisk

    given = [checkpoints] if isinstance(checkpoints, str | Path) else checkpoints
    import_obelisk([Path(each) for each in given], Path(output))
    return Path(output)
