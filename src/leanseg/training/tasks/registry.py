"""Tasks by name. A new one is one file here and one line in `TASKS`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from leanseg.plan import Stage
from leanseg.registry import make
from leanseg.training.tasks.base import Task, Term

# Name -> "module:factory".
TASKS: Final[dict[str, str]] = {
    "segmentation": "leanseg.training.tasks.segmentation:Segmentation",
    "cascade": "leanseg.training.tasks.cascade:CascadeTask",
    "points": "leanseg.training.tasks.points:Points",
}


def build_task(name: str, stage: Stage, terms: Sequence[Term], **options: Any) -> Task:
    """Build a task.

    Args:
        name: One of `TASKS`, or an import path.
        stage: Whose labels are learned.
        terms: Of the loss.
        **options: The task's own.

    Raises:
        RecipeError: A name, option or value that is not known.
    """
    given = {"stage": stage, "terms": terms}
    task: Task = make("task", TASKS, name, given | options, tuple(given))
    return task
