"""Both stages of a cascade in training, and the two stages of its model file (paper 003)."""

from __future__ import annotations

import io
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

import plans
import tiny_training
from leanseg.datasets import Case, Dataset
from leanseg.errors import RecipeError
from leanseg.inference import load_model
from leanseg.inference.engines.torch_engine import TorchEngine
from leanseg.inference.pipeline import Pipeline
from leanseg.losses import build_loss
from leanseg.modelfile import read_model
from leanseg.networks import build
from leanseg.training import open_run, start_run, train_run
from leanseg.training.recipe import Recipe, validate_recipe
from leanseg.training.tasks.base import Batch
from leanseg.training.tasks.cascade import CascadeTask
from leanseg.training.trainer import PhaseParts, Trainer
from leanseg.volumes import Volume

SIDE = 48
STAGE = {"name": "multiscale-unet", "options": {"base_filters": 4}}
OPTIONS = {"first": STAGE, "second": STAGE, "margin": 3, "multiple": 32}
# What runs have as a stage: one that halves its maps, and one that is exported in a moment.
UNET = {"name": "unet", "options": {"base_filters": 4}}
SMALL = {"name": "combiner", "options": {"base_filters": 8, "instance_norm": True}}
TUMOUR = {"name": "tumour-network", "options": {"base_filters": 8}}
PLAN = plans.slices((SIDE, SIDE), ("organ", "lesion"), inside={"lesion": "organ"})
LOSS = [
    {"name": "dice", "part": "first"},
    {"name": "boundary-bce-iou", "part": "second", "weight": 0.9},
    {"name": "shared-boundary", "part": "both", "weight": 0.4},
]


def phase(name: str, crop: str = "found", **more) -> dict:
    options = {"crop": crop, "saliency": name != "S"}
    return {"name": name, "task": {"name": "cascade", "options": options}, "loss": LOSS} | more


def batch(n: int = 2, **options) -> Batch:
    """Slices with an organ each, and a lesion in it."""
    generator = torch.Generator().manual_seed(3)
    classes = torch.zeros((n, SIDE, SIDE), dtype=torch.int32)
    for number in range(n):
        i = 4 + 10 * number
        classes[number, i : i + 12, 10:30] = 1
        classes[number, i + 3 : i + 6, 14:20] = 2
    image = classes[:, None] / 2 + 0.2 * torch.rand((n, 1, SIDE, SIDE), generator=generator)
    return Batch(image, classes, tuple(range(n)), **options)


def task_of(content: dict, n_labels: int = 2) -> CascadeTask:
    recipe = validate_recipe({"name": "t", "phases": [content]}, "t")
    plan = PLAN if n_labels == 2 else plans.slices((SIDE, SIDE), ("organ",))
    found = PhaseParts(recipe.phases[0], recipe, plan, []).task
    assert isinstance(found, CascadeTask)
    return found


def network(outputs: int = 2, seed: int = 0, **options):
    generator = torch.Generator().manual_seed(seed)
    return build("cascade", out_channels=outputs, generator=generator, **(OPTIONS | options))


@pytest.mark.parametrize("name", ["S", "I"])
def test_equation_17_by_hand(name):
    """One slice, cropped around its label: 1, 0.9 and 0.4 times three losses."""
    found, seen = network().eval(), batch(1)
    torch.nn.init.normal_(found.second.change.second.weight)
    task = task_of(
        phase(
            name,
            "truth",
            task={
                "name": "cascade",
                "options": {"crop": "truth", "saliency": name != "S", "random_margin": 0},
            },
        )
    )
    value = task.loss(found, seen)
    image, classes = seen.image, seen.classes
    organ = found.first(image)
    # 12 x 20 pixels from (4, 10), 3 on either side: 18 x 26, widened to 32.
    window = (..., slice(0, 32), slice(4, 36))
    crop = (
        image[window]
        if name == "S"
        else found.second.change(image[window], organ.sigmoid()[window])
    )
    lesion = found.second.network(crop)
    canvas = torch.full_like(organ, -1e7)
    canvas[window] = lesion
    p1, p2 = organ.sigmoid(), canvas.sigmoid()
    classes_of = torch.cat(((1 - p1) * (1 - p2), p1 * (1 - p2), p2), dim=1)
    truth = torch.nn.functional.one_hot(classes.long(), 3).movedim(3, 1).float()
    shared = build_loss("shared-boundary").per_sample(classes_of, truth)
    expected = (
        build_loss("dice")(organ, (classes > 0).int())
        + 0.9 * build_loss("boundary-bce-iou")(lesion, (classes[window] == 2).int())
        + 0.4 * shared.mean()
    )
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)


def test_the_five_maps_have_their_weights():
    found, seen = network(second=TUMOUR), batch(1)
    losses = [
        {"name": "boundary-bce-iou", "options": {"boundary_weight": 0.0}, "part": "second",
         "outputs": [1, 0, 0, 0, 0]},
        {"name": "boundary-bce-iou", "part": "second", "outputs": [0, 1, 1, 2, 4]},
    ]  # fmt: skip
    task = task_of({"task": {"name": "cascade", "options": {"crop": "truth", "random_margin": 0}},
                    "loss": losses})  # fmt: skip
    found.eval()
    value = task.loss(found, seen)
    window = (slice(0, 32), slice(4, 36))
    maps = found.stage_maps(seen.image, lambda organ: [window]).maps
    target = (seen.classes[:, window[0], window[1]] == 2).int()
    plain, weighted = (
        build_loss("boundary-bce-iou", boundary_weight=0.0),
        build_loss("boundary-bce-iou"),
    )
    expected = plain(maps[0], target) + sum(
        weight * weighted(each, target) for weight, each in zip((1, 1, 2, 4), maps[1:], strict=True)
    )
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("crop", ["truth", "found"])
def test_where_nothing_is_found_the_truth_is_cropped_and_counted(crop):
    found, seen = network(), batch(2)
    torch.nn.init.constant_(found.first.head.bias, -50)
    task = task_of(phase("J", crop))
    assert torch.isfinite(task.loss(found, seen))
    told = task.told()
    assert told == ("" if crop == "truth" else
                    "the first stage found nothing in 2 of 2 labelled slices, which were cropped "
                    "around their labels")  # fmt: skip
    assert task.told() == ""


def test_a_slice_with_nothing_to_look_at_teaches_the_first_stage_alone():
    found, seen = network(), batch(1)
    seen.classes.zero_()
    loss = [{"name": "dice", "part": "second"}, {"name": "boundary-bce-iou", "part": "second"}]
    value = task_of(phase("S", "truth", loss=loss)).loss(found, seen)
    value.backward()
    assert all(p.grad is None or not p.grad.any() for p in found.second.parameters())
    assert torch.isfinite(task_of(phase("S", "truth")).loss(found, seen))


def test_labels_that_a_case_does_not_annotate_teach_nothing():
    found, seen = network(), batch(2)
    annotated = torch.tensor([[True, False], [True, False]])
    loss = [LOSS[1], LOSS[2]]
    value = task_of(phase("S", "truth", loss=loss)).loss(
        found, Batch(seen.image, seen.classes, seen.seeds, annotated)
    )
    value.backward()
    assert all(p.grad is None or not p.grad.any() for p in found.parameters())


def test_margins_are_drawn_by_the_samples_seed():
    task = task_of(phase("S", "truth"))
    drawn = [task._margins(seed, 7) for seed in range(400)]
    assert drawn == [task._margins(seed, 7) for seed in range(400)]
    usual = [each == [(7, 7), (7, 7)] for each in drawn]
    assert 0.4 < np.mean(usual) < 0.6
    sides = [
        n for each, plain in zip(drawn, usual, strict=True) if not plain for m in each for n in m
    ]
    assert min(sides) == 0 and max(sides) == 14 and 6 < np.mean(sides) < 8


@pytest.mark.parametrize("border", [(0, 0), (SIDE - 3, SIDE - 2)])
def test_organs_at_the_border_and_in_two_pieces(border):
    found, seen = network(), batch(1)
    seen.classes[0, border[0] : border[0] + 3, border[1] : border[1] + 2] = 1
    assert torch.isfinite(task_of(phase("S", "truth")).loss(found, seen))
    exact = {"name": "cascade", "options": {"crop": "truth", "random_margin": 0}}
    task = task_of(phase("S", task=exact))
    ((window, _),) = task._windows(found, found.first(seen.image), seen)
    mask = seen.classes[0].numpy() > 0
    assert mask[window].sum() == mask.sum()


@pytest.mark.parametrize(
    ("content", "n_labels", "said"),
    [
        ({"loss": [{"name": "dice"}]}, 2, "give every loss its 'part'"),
        ({"loss": LOSS}, 1, "leave out the losses of 'both' stages"),
        ({"loss": LOSS, "task": {"name": "segmentation"}}, 2, "leave 'part' out"),
        ({"loss": LOSS, "task": {"name": "cascade", "options": {"crop": "none"}}}, 2, "crop"),
    ],
)
def test_phases_that_make_no_sense(content, n_labels, said):
    with pytest.raises(RecipeError, match=said):
        task_of({"task": {"name": "cascade"}} | content, n_labels)


def test_other_networks_and_outputs_are_refused():
    task = task_of(phase("J"))
    with pytest.raises(RecipeError, match="choose that network"):
        task.require(build("unet", base_filters=2, out_channels=2))
    wrong = [{"name": "dice", "part": "second", "outputs": [1, 2]}]
    with pytest.raises(RecipeError, match="correct 'outputs'"):
        task_of(phase("J", loss=wrong)).require(network())
    stage = plans.slices((SIDE, SIDE), ("organ", "lesion")).final
    with pytest.raises(
        RecipeError,
        match=r"an organ and then one label inside it|an organ, or an organ and one label",
    ):
        CascadeTask(stage, [])


PHASE = {
    "optimiser": {"name": "Adam", "options": {"lr": 0.01}},
    "schedule": {"name": "constant"},
    "augmentation": [],
    "batch_size": 2,
    "epochs": 1,
    "steps_per_epoch": 5,
    "patience": None,
    "selection": "last",
}
SIJ = [
    phase(name, crop, **PHASE) for name, crop in (("S", "truth"), ("I", "truth"), ("J", "found"))
]


def recipe(phases=SIJ, labels=None, options=None, *, export=False, **plan) -> Recipe:
    stages = {"first": UNET, "second": SMALL}
    return validate_recipe(
        {
            "name": "cascade",
            "data": {"labels": labels or {"organ": [1, 2], "lesion": [2]}},
            "network": {"name": "cascade", "options": OPTIONS | stages | (options or {})},
            "plan": {"frame": {"axes": [SIDE, SIDE, None]},
                     "intensity": {"window": {"kind": "none"}}} | plan,
            "phases": phases,
            "split": {"train_fraction": 0.7, "monitor_fraction": 0.3},
            "training": {"threads": 1, "precision": "32"},
            "packaging": {"export": export},
        },
        "cascade",
    )  # fmt: skip


def dataset(n: int = 4) -> Dataset:
    rng = np.random.default_rng(1)
    cases = []
    for _ in range(n):
        label = np.zeros((40, 44, 6), np.uint8)
        i, j = rng.integers(2, 20, 2)
        label[i : i + 14, j : j + 12, 1:5] = 1
        label[i + 3 : i + 7, j + 4 : j + 8, 2:4] = 2
        image = (rng.normal(0, 10, label.shape) + 60 * (label > 0) + 50 * (label == 2)).astype(
            np.int16
        )
        affine = np.diag([-1.0, -1, 3, 1])
        cases.append(Case(Volume(image, affine), Volume(label, affine)))
    return Dataset(cases, labels={"organ": 1, "lesion": 2})


def trained(folder: Path, made: Recipe):
    run = start_run(made, dataset(), folder / "run", check=False)
    said = io.StringIO()
    (path,) = train_run(run, Console(file=said, width=300))
    return open_run(run.folder), path, said.getvalue()


@pytest.fixture(scope="module")
def lesions(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("lesions"), recipe(export=True))


def of_the_module(run, model, scan) -> np.ndarray:
    """What the network of both stages answers, through a plan of one stage."""
    options = run.recipe.network.options
    channels = run.plan.input_shape(run.plan.final)[0]
    outputs = run.plan.final.n_outputs
    whole = build("cascade", in_channels=channels, out_channels=outputs, **options)
    weights = {}
    for prefix, stage in (("first.", "coarse"), ("second.", "fine")):
        for name, values in model.stages[stage][0].weights.items():
            weights[prefix + name] = torch.from_numpy(np.array(values))
    whole.load_state_dict(weights)
    engine = TorchEngine(whole, (2, *run.plan.input_shape(run.plan.final)), activation="sigmoid")
    return Pipeline(run.plan, {run.plan.final.name: engine}).predict(scan).labels.array


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime", "torch"])
def test_two_stages_predict_what_the_network_of_both_does(lesions, engine):
    run, path, _ = lesions
    model, n_lesion = load_model(path, engine=engine, threads=1), 0
    assert [stage.name for stage in model.plan.stages] == ["coarse", "fine"]
    for case in run.data.cases:
        scan = case.image
        expected = of_the_module(run, read_model(path), scan)
        found = model.predict(scan).array
        assert np.mean(found == expected) > 0.9999
        n_lesion += int((expected == 2).sum())
    assert n_lesion


def test_phases_follow_one_another_and_resume_bit_for_bit(lesions, tmp_path):
    _, path, said = lesions
    assert "phase I" in said and "phase J" in said
    first = read_model(path)
    # The first two phases, then what is left.
    again = start_run(recipe(), dataset(), tmp_path / "again", check=False)
    step, count = Trainer._step, []

    class KilledError(Exception):
        pass

    def dying(self, state, found):
        count.append(1)
        if len(count) == 9:
            raise KilledError
        return step(self, state, found)

    with pytest.MonkeyPatch.context() as patched, pytest.raises(KilledError):
        patched.setattr(Trainer, "_step", dying)
        train_run(again, Console(file=io.StringIO()))
    (other,) = train_run(open_run(again.folder), Console(file=io.StringIO()))
    second = read_model(other)
    for stage, name in product(("coarse", "fine"), (0,)):
        own, its = first.stages[stage][name].weights, second.stages[stage][name].weights
        assert all(np.array_equal(own[each], its[each]) for each in own)


def test_a_part_begins_with_anothers_weights(tmp_path):
    first_only = phase("organ", loss=[LOSS[0]], **PHASE)
    copying = phase("J", copies={"second.network": "first"}, **PHASE | {"trains": ["first"]})
    run, path, _ = trained(tmp_path, recipe([first_only, copying], options={"first": SMALL}))
    model = read_model(path)
    first, second = (model.stages[name][0].weights for name in ("coarse", "fine"))
    kernels = [name for name in first if first[name].ndim > 1]
    # The second is frozen since it copied what the first was before phase J.
    start = recipe_start(run)
    moved = [name for name in kernels if not np.array_equal(second[f"network.{name}"], start[name])]
    assert moved
    assert any(not np.array_equal(second[f"network.{name}"], first[name]) for name in kernels)


def recipe_start(run) -> dict[str, np.ndarray]:
    trainer = Trainer(run.recipe, run.plan, tiny_training.cases(0))
    state = trainer.network.state_dict()
    return {
        name.removeprefix("second.network."): values.numpy()
        for name, values in state.items()
        if name.startswith("second.network.")
    }


@pytest.mark.parametrize("copies", [{"second.network": "third"}, {"third": "first"}])
def test_parts_that_are_not_there(tmp_path, copies):
    with pytest.raises(RecipeError, match="'copies' names 'third'"):
        trained(tmp_path, recipe([phase("J", copies=copies, **PHASE)]))


def test_an_organ_alone_in_rounds_with_neighbouring_slices(tmp_path):
    loss = LOSS[:2]
    made = recipe(
        [
            phase("S", "truth", **PHASE | {"loss": loss, "epochs": 3}),
            phase("J", **PHASE | {"loss": loss}),
        ],
        labels={"organ": [1, 2]},
        options={"rounds": 3},
        patch={"shape": ["whole", "whole", 1], "neighbours": 1},
    )
    run, path, _ = trained(tmp_path, made)
    model = load_model(path, engine="torch", threads=1)
    assert model.plan.final.patch.crop.rounds == 3
    assert model.plan.input_shape(model.plan.final)[0] == 4
    for case in run.data.cases:
        expected = of_the_module(run, read_model(path), case.image)
        assert np.mean(model.predict(case.image).array == expected) > 0.9999


def test_a_run_starts_from_a_models_two_stages(lesions, tmp_path):
    _, path, _ = lesions
    made = recipe().model_copy(update={"init": str(path)})
    run = start_run(made, dataset(), tmp_path / "run", check=False)
    trainer = Trainer(run.recipe, run.plan, tiny_training.cases(0))
    state = trainer.begin()
    model = read_model(path)
    for prefix, stage in (("first.", "coarse"), ("second.", "fine")):
        for name, values in model.stages[stage][0].weights.items():
            assert np.array_equal(state.network[prefix + name].numpy().ravel(), values.ravel())
    assert "tensors" in state.started_from


def test_exclusive_labels_are_refused_before_a_folder_is_made(tmp_path):
    made = recipe(labels={"organ": [1], "lesion": [2]})
    with pytest.raises(
        RecipeError,
        match=r"an organ and then one label inside it|an organ, or an organ and one label",
    ):
        start_run(made, dataset(), tmp_path / "run", check=False)
    assert not (tmp_path / "run").exists()
