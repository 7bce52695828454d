"""Training from Python: one call, or a run that is gone on with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from leanseg.datasets import Dataset, open_dataset
from leanseg.training.recipe import Recipe, load_recipe
from leanseg.training.run import Run, open_run, start_run, train_run


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
        recipe: A recipe, its file, or the name of a built-in one; None takes `monet-ct` for a
            single channel that is called CT, else `monet-mr`.
        minutes: Wall-clock limit of each fold; None leaves it to the recipe.
        output: The run's folder, new or empty; None makes one in `runs/`.
        overrides: "key.path=value", as `leanseg train --set` takes them.
        check: Look at every scan and label map first, and refuse data that are wrong.

    Returns:
        The run; `run.model` is ready to predict.

    Raises:
        LeansegError: If recipe, data or folder cannot be used.

    Example:
        >>> run = leanseg.train(data, minutes=30)  # doctest: +SKIP
        >>> mask = run.model.predict(data[0].image)  # doctest: +SKIP
    """
    dataset = data if isinstance(data, Dataset) else open_dataset(Path(data))
    if recipe is None:
        recipe = "monet-ct" if dataset.channels == ("CT",) else "monet-mr"
    settings = list(overrides)
    if minutes is not None:
        settings.append(f"training.time_budget_s={60 * minutes}")
    if isinstance(recipe, Recipe):
        chosen = recipe.with_overrides(settings)
    else:
        chosen = load_recipe(recipe, settings)
    folder = Path("runs") / f"{dataset.name}-{chosen.name}" if output is None else Path(output)
    run = start_run(chosen, dataset, folder, check=check)
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
        >>> run = leanseg.resume("runs/Task07_Pancreas-monet-ct")  # doctest: +SKIP
    """
    run = open_run(Path(folder))
    train_run(run)
    return run
