"""Every registered loss trains an epoch by its name in a recipe, with the cases it can take."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from leanseg.errors import RecipeError
from leanseg.losses import LOSSES
from leanseg.training import load_recipe, start_run, train_run


def trained(folder: Path, dataset: Path, loss: str, labels: str) -> list[dict[str, float]]:
    path = folder / "recipe.yaml"
    path.write_text(
        f"""
name: losses
data:
  labels: {labels}
network: {{name: combiner, options: {{base_filters: 4}}}}
plan: {{frame: {{axes: [24, 24, null]}}}}
packaging: {{export: false}}
phases:
  - sampler: {{name: slices, options: {{margin: 2}}}}
    loss: [{{name: {loss}}}]
    epochs: 1
    steps_per_epoch: 2
    batch_size: 2
training: {{threads: 1, precision: "32"}}
"""
    )
    train_run(start_run(load_recipe(path), dataset, folder / "run"), Console(quiet=True))
    lines = (folder / "run" / "fold_0" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_trains_by_its_name(tmp_path, tiny_dataset, loss):
    (row,) = trained(tmp_path, tiny_dataset, loss, "{ball: [ball], core: [core]}")
    assert math.isfinite(row["train_loss"]) and row["train_loss"] > 0


def test_a_sigmoid_loss_trains(tmp_path, tiny_dataset):
    (row,) = trained(tmp_path, tiny_dataset, "boundary-bce-iou", "{ball: [1, 2]}")
    assert math.isfinite(row["train_loss"]) and row["train_loss"] > 0


def test_one_label_has_no_shared_boundary(tmp_path, tiny_dataset):
    with pytest.raises(RecipeError, match="at least 3 classes"):
        trained(tmp_path, tiny_dataset, "shared-boundary", "{ball: [1, 2]}")
