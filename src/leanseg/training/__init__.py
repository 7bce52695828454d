"""Training: recipes, runs, and a loop that a kill cannot change the result of."""

from leanseg.training.api import import_weights, package, resume, train
from leanseg.training.folder import Run
from leanseg.training.planning import Planned
from leanseg.training.recipe import Recipe, builtin_recipes, load_recipe
from leanseg.training.run import open_run, start_run, train_run

__all__ = [
    "Planned",
    "Recipe",
    "Run",
    "builtin_recipes",
    "import_weights",
    "load_recipe",
    "open_run",
    "package",
    "resume",
    "start_run",
    "train",
    "train_run",
]
