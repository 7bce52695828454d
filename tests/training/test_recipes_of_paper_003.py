"""The comparators of paper 003's tables train, on small cases in memory; its ablation fits."""

from __future__ import annotations

import io
from argparse import Namespace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from leanseg.datasets import Case, Dataset
from leanseg.datasets.splits import split_cases
from leanseg.frames import containment
from leanseg.plan import Plan, Stage
from leanseg.training import builtin_recipes, load_recipe, start_run, train_run
from leanseg.training.checkpoint import load_state
from leanseg.training.runtime import build_network
from leanseg.training.trainer import PhaseParts, trained_parameters

# The smallest that SwinUNETR takes, whose depth is fixed, is 64.
SIDE, WIDE = 32, 64
# What makes the network small, by recipe.
NARROW: dict[str, str] = {
    "tumour-unet": "{name: unet, options: {base_filters: 4}}",
    "tumour-attention-unet": "{name: attention-unet, options: {base_filters: 4}}",
    "tumour-unetpp": "{name: unetpp, options: {base_filters: 4}}",
    "tumour-res-unet": "{name: residual-unet, options: {base_filters: 4}}",
    "tumour-dense-unet": "{name: dense-unet, options: {growth_rate: 4, base_filters: 8}}",
    "tumour-resnet50-unet": '{name: "monai:FlexibleUNet", options: {backbone: resnet10, '
    "decoder_channels: [16, 16, 8, 8, 8]}}",
    "tumour-nnunet": "{name: nnunet-2d, options: {base_filters: 4, shape: [32, 32]}}",
    "tumour-swin-unetr": '{name: "monai:SwinUNETR", options: {feature_size: 12}}',
    "tumour-unetr": '{name: "monai:UNETR", options: {img_size: [32, 32], hidden_size: 48, '
    "mlp_dim: 96}}",
    "tumour-dints": "{name: dints, options: {base_filters: 4, blocks: 2}}",
    "organ-unet": "{name: unet, options: {base_filters: 4}}",
    "organ-attention-unet": "{name: attention-unet, options: {base_filters: 4}}",
}


@pytest.fixture(scope="module")
def cases() -> Dataset:
    """Pancreas and, in the middle slices, a tumour."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(4):
        label = np.zeros((SIDE, SIDE, 8), np.uint8)
        label[8:24, 8:24, 1:7] = 1
        label[12:20, 12:20, 3:5] = 2
        image = (rng.normal(0, 20, label.shape) + 50 * label).astype(np.int16)
        affine = np.diag([1.0, 1.0, 1.0, 1.0])
        made.append(Case((image, affine), (label, affine), f"case_{number}"))
    return Dataset(made, {"pancreas": 1, "cancer": 2})


@pytest.mark.parametrize("name", NARROW)
def test_two_steps(name: str, cases: Dataset, tmp_path: Path) -> None:
    overrides = [
        "phases.0.steps_per_epoch=2",
        "phases.0.epochs=1",
        "phases.0.batch_size=2",
        "training.threads=1",
        "training.precision='32'",
        "packaging.export=false",
    ]
    side = WIDE if "swin" in name else SIDE
    sizes = f"plan.frame.axes=[{side}, {side}, null]"
    overrides.append("plan.patch.shape=[16, 16, 8]" if "dints" in name else sizes)
    overrides.append(f"network={NARROW[name]}")
    run = start_run(load_recipe(name, overrides), cases, tmp_path / "run", check=False)
    train_run(run, Console(file=io.StringIO()))
    state = load_state(run.fold_folder(0) / "state.pt", run.fold_id(0))
    assert state.step == 2
    assert np.isfinite(state.rows[0]["train_loss"])


@pytest.mark.parametrize("name", NARROW)
def test_cases_as_in_the_paper(name: str) -> None:
    recipe: Any = load_recipe(name)
    organ = name.startswith("organ")
    assert recipe.data.labels == ({"pancreas": [1]} if organ else {"tumour": [2]})
    n_cases, train, test = (82, 62, 20) if organ else (281, 216, 65)
    section = recipe.split
    (fold,) = split_cases(
        [f"case_{number}" for number in range(n_cases)],
        section.kind,
        train_fraction=section.train_fraction,
        monitor_fraction=section.monitor_fraction,
        seed=section.seed,
    )
    assert (len(fold.train), len(fold.monitor), len(fold.test)) == (train, 0, test)
    (phase,) = recipe.phases
    assert phase.selection == "last"
    assert not phase.needs_monitor


def test_no_recipe_is_forgotten() -> None:
    found = {name for name in builtin_recipes() if name.startswith(("tumour-", "organ-"))}
    assert found == set(NARROW)


def study() -> ModuleType:
    """benchmarks/study_cascade.py, which is no package."""
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "study_cascade.py"
    spec = spec_from_file_location("study_cascade", path)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_row_of_the_ablation_fits_its_network() -> None:
    module = study()
    labels = '{"organ": [1, 2], "lesion": [2]}'
    given = Namespace(
        labels=labels, side=64, window="hu", leave_one_out=False, precision="32", seed=1,
        channels=None, cpu_minutes=3.0,
    )  # fmt: skip
    sets = module.rows("quarter", 8)
    table_3 = list(sets["table-3"])
    assert [name.partition(" ")[0] for name in table_3] == [
        "U", "M", "M-P", "M-P-T", "M-P-T", "M-P-T-L", "M-P-T-L-F",
    ]  # fmt: skip
    for row in (row for rows in sets.values() for row in rows.values()):
        recipe = module.recipe_of(row, given)
        # Phases of 30, 20 and 50 epochs.
        minutes = {"S": 0.9, "I": 1.5}.get(row.get("until", ""), 3.0)
        assert sum(phase.cpu_minutes or 0 for phase in recipe.phases) == pytest.approx(minutes)
        stage = Stage(
            labels=tuple(recipe.data.labels or ()),
            inside=containment(recipe.data.labels or {}),
            frame=recipe.plan.frame,
            patch=recipe.plan.patch,
        )
        plan = Plan(stages=(stage,))
        with torch.device("meta"):
            network = build_network(recipe, plan)
        for phase in recipe.phases:
            PhaseParts(phase, recipe, plan, ()).task.require(network)
            trained_parameters(network, phase)
