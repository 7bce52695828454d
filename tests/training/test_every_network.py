"""Every registered network trains by a recipe, resumes bit for bit, and runs without PyTorch."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from leanseg.datasets import Case, Dataset
from leanseg.frames import CasePreparer
from leanseg.inference import load_model
from leanseg.networks import build
from leanseg.networks.registry import NETWORKS
from leanseg.training import Recipe, Run, load_recipe, open_run, start_run, train_run
from leanseg.training.checkpoint import TrainingState, load_state
from leanseg.training.seeds import Role, derive_seed
from leanseg.training.trainer import Trainer

ADAM = {"name": "Adam", "options": {"lr": 2e-3}}
# Four times the memory of the weights is written at each step.
SGD = {"name": "SGD", "options": {"lr": 1e-2, "momentum": 0.9}}
OHEM = [{"name": "hard-cross-entropy"}]


@dataclass(frozen=True)
class Tiny:
    """How a network is trained here.

    Attributes:
        shape: Of what it sees.
        options: Of the network.
        phase: Other than the defaults below.
        slow: Too large for every run of the tests, or a part of another one of these.
        labels: Other than the dataset's.
    """

    shape: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)
    phase: dict[str, Any] = field(default_factory=dict)
    slow: bool = False
    labels: dict[str, list[int]] | None = None


def supervised(name: str, outputs: list[float]) -> dict[str, Any]:
    return {"loss": [{"name": name, "outputs": outputs}]}


def stages(outputs: list[float]) -> dict[str, Any]:
    """A cascade's phase, with what the maps of its second network count."""
    return {
        "task": {"name": "cascade"},
        "loss": [
            {"name": "dice", "part": "first"},
            {"name": "boundary-bce-iou", "part": "second", "outputs": outputs},
            {"name": "shared-boundary", "part": "both"},
        ],
    }


SLICE, VOLUME = (32, 32), (16, 16, 16)
HYBRID = {"loss": OHEM, "optimiser": ADAM, "augmentation": [{"name": "affine-noise"}]}
POINTS = {
    "task": {"name": "points", "options": {"points": 24, "turn_sd": 0.2}},
    "sampler": {"name": "volumes", "options": {"repeats": 2}},
    "loss": [{"name": "hard-cross-entropy", "options": {"class_weights": "equal"}}],
    "optimiser": ADAM,
}
LARGE = {"optimiser": SGD}
STAGES = stages([1, 1, 1, 2, 4])
TWO = supervised("boundary-bce-iou", [0.5, 1.0])
FIVE = supervised("boundary-bce-iou", [0.2, 0.4, 0.6, 0.8, 1.0])
NNUNET = {"deep_supervision": True, "spacing_mm": [1, 1], "base_filters": 4, "max_pools": 2}
OFFSETS = {"n_offsets": 32}

TINY: dict[str, Tiny] = {
    "monet": Tiny(SLICE, {"base_filters": 4}),
    "unet": Tiny(SLICE, {"base_filters": 4}),
    "unet-64": Tiny(SLICE, phase=LARGE, slow=True),
    "unet-16": Tiny(SLICE, phase=LARGE, slow=True),
    "attention-unet": Tiny(SLICE, {"base_filters": 4}),
    "attention-unet-64": Tiny(SLICE, phase=LARGE, slow=True),
    "attention-unet-16": Tiny(SLICE, phase=LARGE, slow=True),
    "nnunet-2d": Tiny(SLICE, {"shape": SLICE, **NNUNET}, supervised("dice", [0.5, 1.0])),
    "nnunet-3d": Tiny(
        VOLUME,
        {"shape": VOLUME, **NNUNET, "spacing_mm": [1, 1, 1]},
        {"sampler": {"name": "patches"}, **supervised("dice", [0.5, 1.0])},
    ),
    "plain-conv-unet": Tiny(VOLUME, {"features": [4, 8]}, {"sampler": {"name": "patches"}}),
    "residual-encoder-unet": Tiny(VOLUME, {"features": [4, 8]}, {"sampler": {"name": "patches"}}),
    "msd-2d": Tiny(SLICE, {"depth": 8}),
    "msd-3d": Tiny(VOLUME, {"depth": 6, "width": 2}, {"sampler": {"name": "patches"}}),
    "combiner": Tiny(SLICE),
    "multiscale-unet": Tiny(SLICE, {"base_filters": 8}, slow=True),
    "multiscale-unet-half": Tiny(SLICE, phase=LARGE, slow=True),
    "multiscale-unet-quarter": Tiny(SLICE, phase=LARGE, slow=True),
    "localised-unet": Tiny(SLICE, {"base_filters": 8}, TWO, slow=True),
    "localised-unet-half": Tiny(SLICE, phase=LARGE | TWO, slow=True),
    "localised-unet-quarter": Tiny(SLICE, phase=LARGE | TWO, slow=True),
    "tumour-network": Tiny(SLICE, {"base_filters": 8}, FIVE),
    "tumour-network-half": Tiny(SLICE, phase=LARGE | FIVE, slow=True),
    "tumour-network-quarter": Tiny(SLICE, phase=LARGE | FIVE, slow=True),
    "cascade": Tiny(
        SLICE,
        {
            "first": {"name": "unet", "options": {"base_filters": 4}},
            "second": {"name": "unetpp", "options": {"base_filters": 4}},
        },
        stages([1, 1, 2, 4]),
        labels={"whole": [1, 2], "core": [2]},
    ),
    "cascade-half": Tiny(
        SLICE, phase=LARGE | STAGES, slow=True, labels={"ball": [1, 2], "core": [2]}
    ),
    "cascade-quarter": Tiny(
        SLICE, phase=LARGE | STAGES, slow=True, labels={"ball": [1, 2], "core": [2]}
    ),
    "unetpp": Tiny(SLICE, {"base_filters": 4}, supervised("dice", [0.25] * 4)),
    "residual-unet": Tiny(SLICE, {"base_filters": 4}),
    "dense-unet": Tiny(SLICE, {"growth_rate": 4, "base_filters": 8}),
    "dense-unet-56": Tiny(SLICE, {"base_filters": 8}, LARGE, slow=True),
    "dense-unet-67": Tiny(SLICE, {"base_filters": 8}, LARGE, slow=True),
    "dense-unet-103": Tiny(SLICE, {"base_filters": 8}, LARGE, slow=True),
    "dints": Tiny(VOLUME, {"base_filters": 2, "blocks": 2}),
    "dense-vnet": Tiny(VOLUME),
    "obelisk": Tiny(VOLUME, OFFSETS, HYBRID),
    "obelisk-unary": Tiny(VOLUME, OFFSETS, HYBRID),
    "obelisk-random": Tiny(VOLUME, OFFSETS, HYBRID),
    "obelisk-hybrid-tcia": Tiny(VOLUME, phase=HYBRID),
    "obelisk-hybrid-visceral": Tiny(VOLUME, phase=HYBRID),
    "allconv-unet": Tiny(VOLUME),
    "allconv-unet-tcia": Tiny(VOLUME, slow=True),
    "lean-unet": Tiny(VOLUME),
    "lean-unet-220k": Tiny(VOLUME, slow=True),
    "global-fc-unet": Tiny(VOLUME, {"size": VOLUME}),
}
# The original OBELISK as its authors train it.
BY_POINTS = {
    f"{name} by points": Tiny(VOLUME, OFFSETS, POINTS)
    for name in ("obelisk", "obelisk-unary", "obelisk-random")
}
ALL = TINY | BY_POINTS


def parameters(names: list[str], fast: set[str] | None = None) -> list[Any]:
    """Names, those marked that take long."""
    slow = {name for name in names if ALL[name].slow or (fast is not None and name not in fast)}
    marks = {name: [pytest.mark.slow] if name in slow else [] for name in names}
    return [pytest.param(name, marks=marks[name]) for name in names]


def recipe_of(name: str, *, export: bool = False) -> Recipe:
    """Two steps of two samples."""
    tiny = ALL[name]
    three = len(tiny.shape) == 3
    phase = {
        "sampler": {"name": "volumes" if three else "slices"},
        "augmentation": [],
        "loss": [{"name": "dice"}],
        "optimiser": ADAM,
        "schedule": {"name": "cosine"},
        "batch_size": 2,
        "epochs": 1,
        "steps_per_epoch": 2,
        "selection": "last",
        **tiny.phase,
    }
    axes = [*tiny.shape] if three else [*tiny.shape, None]
    return Recipe.model_validate(
        {
            "name": "tiny",
            "data": {"labels": tiny.labels},
            "network": {"name": name.removesuffix(" by points"), "options": tiny.options},
            "plan": {
                "frame": {"axes": axes},
                "patch": {"shape": ["whole"] * 3 if three else ["whole", "whole", 1]},
            },
            "split": {"monitor_fraction": 0.0},
            "phases": [phase],
            "training": {"threads": 1, "precision": "32", "checkpoint_interval_s": 0.0},
            "packaging": {"export": export},
        }
    )


@pytest.fixture(scope="module")
def three_cases(tmp_path_factory: pytest.TempPathFactory, make_tiny_dataset: Callable) -> Path:
    """Two train, one tests."""
    return make_tiny_dataset(tmp_path_factory.mktemp("three") / "data", n_cases=3, side=20)


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared cases, which are the same for many networks."""
    return tmp_path_factory.mktemp("arrays")


class KilledError(Exception):
    """Stands for a signal."""


def same(one: Any, other: Any) -> bool:
    """Whether two states hold the very same numbers."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.mark.parametrize("name", parameters(list(ALL)))
def test_two_steps_and_the_same_bits_after_an_interruption(
    name: str, three_cases: Path, arrays: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, silent = recipe_of(name), Console(file=io.StringIO())
    run = start_run(recipe, three_cases, tmp_path / "run", arrays, check=False)
    whole = without_a_folder(run)
    step = Trainer._step

    def dying(self: Trainer, state: TrainingState, batches: Any) -> float:
        if state.step == 1:
            raise KilledError
        return step(self, state, batches)

    with monkeypatch.context() as patched, pytest.raises(KilledError):
        patched.setattr(Trainer, "_step", dying)
        train_run(run, silent)
    states = run.fold_folder(0) / "state.pt"
    assert load_state(states, run.fold_id(0)).step == 1
    again = open_run(run.folder, arrays)
    train_run(again, silent)
    resumed = load_state(states, again.fold_id(0))
    assert whole.step == resumed.step == 2
    assert same(whole.network, resumed.network)
    assert same(whole.optimisers, resumed.optimisers)
    assert same(resumed.best_network, resumed.network)
    assert_it_learned(recipe, whole.network)


def without_a_folder(run: Run) -> TrainingState:
    """The same two steps in one go, nothing written."""
    preparer = CasePreparer(run.plan, run.data.label_values, None, run.cache)
    cases = [preparer.prepare(run.data.case(case)) for case in run.splits[0].train]
    trainer = Trainer(run.recipe, run.plan, cases)
    return trainer.steps(trainer.begin(), 2)


def assert_it_learned(recipe: Recipe, weights: dict[str, torch.Tensor]) -> None:
    """All kernels that are trained have moved, and what is frozen has not."""
    generator = torch.Generator().manual_seed(derive_seed(42, Role.INITIALISATION))
    n_outputs = 3 if recipe.data.labels is None else len(recipe.data.labels)
    network = build(
        recipe.network.name, out_channels=n_outputs, generator=generator, **recipe.network.options
    )
    # A bias in front of a normalisation has no effect and learns nothing.
    kernels = {name: each for name, each in network.named_parameters() if each.ndim > 1}
    still = [name for name, each in kernels.items() if torch.equal(each, weights[name])]
    assert still == [name for name, each in kernels.items() if not each.requires_grad]


def test_no_network_is_forgotten() -> None:
    assert sorted(TINY) == sorted(NETWORKS)


# One of each family runs through the pipeline; the others when there is time.
EXPORTED = [
    "monet",
    "unet",
    "attention-unet",
    "nnunet-2d",
    "nnunet-3d",
    "msd-2d",
    "msd-3d",
    "tumour-network",
    "unetpp",
    "residual-unet",
    "dense-unet",
    "dense-vnet",
    "obelisk by points",
    "obelisk-hybrid-tcia",
    "obelisk-hybrid-visceral",
    "allconv-unet",
    "global-fc-unet",
]

_WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
import numpy as np
from leanseg.datasets import Case, Dataset
from leanseg.frames import CasePreparer
from leanseg.inference import load_model
model, image, output = sys.argv[1:]
np.save(output, load_model(model, engine="openvino", threads=1).predict(image).array)
assert sys.modules["torch"] is None
"""


@pytest.mark.parametrize("name", parameters(EXPORTED, {"obelisk-hybrid-tcia"}))
def test_the_model_file_predicts_without_pytorch(
    name: str, three_cases: Path, arrays: Path, tmp_path: Path
) -> None:
    run = start_run(
        recipe_of(name, export=True), three_cases, tmp_path / "run", arrays, check=False
    )
    output = io.StringIO()
    (path,) = train_run(run, Console(file=output))
    summary = json.loads((path.parent / "summary.json").read_text())
    assert summary["exported"], output.getvalue()
    image = three_cases / "imagesTr" / "ball_00.nii.gz"
    labels = tmp_path / "labels.npy"
    subprocess.run(
        [sys.executable, "-c", _WITHOUT_TORCH, path, image, labels], check=True, timeout=120
    )
    expected = load_model(path, engine="torch", threads=1).predict(image).array
    # A network after two steps is unsure nearly everywhere: a tie may fall either way.
    assert np.mean(np.load(labels) == expected) > 0.999
    assert len(np.unique(expected)) > 1


_KILLING = """
import os, signal, sys
from pathlib import Path
from leanseg.training import open_run, train_run
from leanseg.training.trainer import Trainer
folder, kill_at = Path(sys.argv[1]), int(sys.argv[2])
step = Trainer._step
def dying(self, state, batches):
    if state.step == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, state, batches)
Trainer._step = dying
train_run(open_run(folder))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["unet", "nnunet-3d", "tumour-network", "dense-vnet", "obelisk by points", "global-fc-unet"],
)
def test_the_same_file_after_sigkill(name: str, three_cases: Path, tmp_path: Path) -> None:
    weights = []
    for folder, deaths in ((tmp_path / "whole", ()), (tmp_path / "killed", (0, 1))):
        start_run(recipe_of(name), three_cases, folder, check=False)
        for kill_at in (*deaths, -1):
            command = [sys.executable, "-c", _KILLING, folder, str(kill_at)]
            done = subprocess.run(command, capture_output=True, timeout=240, check=False)
            assert done.returncode == (0 if kill_at < 0 else -signal.SIGKILL), done.stderr
        weights.append((folder / "fold_0" / "model.leanseg").read_bytes())
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("obelisk-plus-tcia", "plan.frame.axes=[16, 16, 16]"),
        ("obelisk-visceral", "plan.patch.shape=[16, 12, 16]"),
    ],
)
def test_recipes_of_paper_004_on_data_like_theirs(
    name: str, size: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    """Names of labels, folds that are stated, scans larger than the crop."""
    shorter = ["phases.0.steps_per_epoch=2", "phases.0.epochs=1", "training.threads=1"]
    small = ["network.options={n_offsets: 32}", "packaging.export=false"]
    recipe = load_recipe(name, [size, *shorter, *small, "training.precision='32'"])
    names = [label for (label,) in (recipe.data.labels or {}).values()]
    cases = []
    for number in range(6):
        label = rng.integers(0, len(names) + 1, (20, 16, 18)).astype(np.uint8)
        image = (rng.normal(0, 20, label.shape) + 50 * label).astype(np.int16)
        affine = np.diag([3.0, 3.0, 3.0, 1.0])
        fold = {"fold": str(number // 2 + 1)}
        cases.append(Case((image, affine), (label, affine), f"case_{number}", metadata=fold))
    data = Dataset(cases, {label: value for value, label in enumerate(names, start=1)})
    run = start_run(recipe, data, tmp_path / "run", check=False)
    tested = [split.test for split in run.splits]
    if "tcia" in name:
        assert tested == [("case_0", "case_1"), ("case_2", "case_3"), ("case_4", "case_5")]
    else:
        assert tested == [(case.name,) for case in cases]
    train_run(run, Console(file=io.StringIO()))
    state = load_state(run.fold_folder(0) / "state.pt", run.fold_id(0))
    assert state.step == 2
    assert np.isfinite(state.rows[0]["train_loss"])
