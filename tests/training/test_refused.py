"""What a recipe asks and the data or the network do not have: one sentence, nothing left behind."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from rich.console import Console

import plans
from leanseg.errors import DatasetError, LeansegError
from leanseg.losses import build_loss
from leanseg.modelfile import Member, ModelFile, NetworkSpec, read_model, write_model
from leanseg.networks import build
from leanseg.training import load_recipe, open_run, start_run, train_run
from leanseg.training.tasks.base import Batch, Term
from leanseg.training.tasks.segmentation import Segmentation
from leanseg.training.trainer import Trainer
from tiny_training import trainer


def refused(data: Path, recipe: Path, folder: Path, *settings: str) -> str:
    """The sentence with which a run is refused before there is a folder."""
    with pytest.raises(LeansegError) as caught:
        start_run(load_recipe(recipe, settings), data, folder, check=False)
    assert not folder.exists()
    sentence = str(caught.value)
    assert "\n" not in sentence and len(sentence) < 1000
    return sentence


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["phases.0.trains=[]"], "key 'phases.0.trains' has value []"),
        (["phases.0.trains=[tail]"], "phase 'main': 'trains' names 'tail', but the network has no"),
        (["phases.0.trains=[head, head.9]"], "names 'head.9'"),
        (
            ["phases.0.trains=[encoder]", "network.name=monet", "network.options={}"],
            "its parts are encoder1, ",
        ),
        (["phases.0.loss.0.outputs=[1, 1]"], "weights for 2 outputs, but the network has 1"),
        (["phases.0.optimiser.options.rate=1"], "optimiser 'NAdam' has no option 'rate'"),
        (["phases.0.optimiser.name=Adm"], "optimiser 'Adm' is not one of torch's (did you mean"),
        (["phases.0.optimiser={name: Muon}"], "optimiser 'Muon' moves matrices"),
        (["phases.0.schedule.options={step: 1}"], "schedule 'plateau' has no option 'step'"),
        (["phases.0.epochs=null"], "it never ends: give it epochs, steps, minutes or cpu_minutes"),
        (["phases.0.sampler.name=volums"], "sampler 'volums' is not known (did you mean 'volumes'"),
        (["phases.0.sampler.options.margin=-1"], "sampler 'slices': option 'margin' is -1 but"),
        (["phases.0.task.name=points"], "task 'points' asks the network about scattered points"),
        (
            ["phases.0.task.name=nowhere:Task"],
            "task 'nowhere:Task': module 'nowhere' cannot be imported",
        ),
        (
            ["phases.0.loss.0.name=own_parts:Nothing"],
            "loss 'own_parts:Nothing': module 'own_parts' has no class 'Nothing'",
        ),
        (["phases.1.epochs=1"], "there is no entry '1'; there are 1: main"),
        (["split={kind: k-fold, n_folds: 7}"], "7"),
        (["split.monitor_fraction=0"], "phase 'main' needs monitor cases ('selection' is best)"),
        (["init=nowhere.leanseg"], "nowhere.leanseg"),
    ],
)
def test_before_there_is_a_folder(tiny_dataset, tiny_recipe, tmp_path, settings, said) -> None:
    assert said in refused(tiny_dataset, tiny_recipe, tmp_path / "run", *settings)


def model_file(path: Path, name: str, **options) -> dict[str, torch.Tensor]:
    network = build(name, generator=torch.Generator().manual_seed(3), **options)
    spec = NetworkSpec(name=name, in_channels=1, out_channels=1, options=options)
    weights = {key: value.numpy() for key, value in network.state_dict().items()}
    write_model(path, ModelFile.of(plans.slices((24, 24)), Member(spec, weights, path=path)))
    return network.state_dict()


def test_a_start_from_a_network_that_does_not_fit(tiny_dataset, tiny_recipe, tmp_path) -> None:
    model_file(tmp_path / "other.leanseg", "unet", base_filters=4)
    said = refused(
        tiny_dataset, tiny_recipe, tmp_path / "run", f"init={tmp_path / 'other.leanseg'}"
    )
    assert "other.leanseg: its network 'unet' has no weights that fit the network to train" in said


def test_a_start_from_a_model_is_said_taken_and_not_needed_again(
    tiny_dataset, tiny_recipe, tmp_path
) -> None:
    path = tmp_path / "start.leanseg"
    # Normalised: the statistics of a batch are no weights.
    weights = model_file(path, "monet", base_filters=4)
    still = "phases.0.optimiser={name: SGD, options: {lr: 0.0}}"
    network = "network={name: monet, options: {base_filters: 4}}"
    settings = [f"init={path}", network, still, "phases.0.epochs=1", "phases.0.steps_per_epoch=1"]
    run = start_run(load_recipe(tiny_recipe, settings), tiny_dataset, tmp_path / "run", check=False)

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "_step", stopped)
        train_run(run, Console(quiet=True))
    path.unlink()
    (model,) = train_run(open_run(run.folder), Console(quiet=True))
    file = read_model(model)
    told = f"starts from {path}: {len(weights)} of {len(weights)} tensors"
    assert file.provenance.training["started_from"] == told
    for name, tensor in weights.items():
        if "running" not in name and "num_batches" not in name:
            np.testing.assert_array_equal(file.members[0].weights[name], tensor.numpy())


def one_slice(data: Path, name: str) -> None:
    for kind in ("imagesTr", "labelsTr"):
        path = data / kind / f"{name}.nii.gz"
        image = nib.load(path)
        part = np.asarray(image.dataobj)[:, :, 4:5]
        nib.save(nib.Nifti1Image(part, image.affine), path)


def test_a_one_slice_volume_into_a_3d_network(make_tiny_dataset, tiny_recipe, tmp_path) -> None:
    data = make_tiny_dataset(tmp_path / "data", n_cases=4)
    one_slice(data, "ball_02")
    settings = (
        "network={name: nnunet-3d, options: {base_filters: 4, shape: [16, 16, 8], "
        "spacing_mm: [1, 1, 1], max_pools: 1}}",
        "plan.frame.axes=[null, null, null]",
        "plan.patch.shape=[16, 16, 8]",
        "phases.0.sampler={name: patches}",
        "phases.0.epochs=1",
        "phases.0.steps_per_epoch=1",
        "split={kind: k-fold, n_folds: 2}",
        "training.folds=all",
    )
    run = start_run(load_recipe(tiny_recipe, settings), data, tmp_path / "run", check=False)
    with pytest.raises(DatasetError, match=r"ball_02: .*24 x 24 x 1 .*3-D"):
        train_run(run, Console(quiet=True))
    assert not list(run.folder.rglob("model.leanseg"))


# --- Deep supervision ----------------------------------------------------------------------------


class Maps(torch.nn.Module):
    """Answers with three maps that were given."""

    n_maps = 3

    def __init__(self, *maps: torch.Tensor) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.maps[-1]

    def all_maps(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.maps


def test_each_output_is_weighed() -> None:
    generator = torch.Generator().manual_seed(2)
    maps = torch.randn(3, 2, 3, 8, 8, generator=generator, requires_grad=True)
    target = torch.randint(0, 3, (2, 8, 8), generator=generator)
    dice, entropy = build_loss("dice"), build_loss("cross-entropy")
    terms = [Term(dice, 2.0, (0.25, 0.0, 1.0)), Term(entropy, 0.5)]
    task = Segmentation(plans.slices((8, 8), 2).final, terms)
    loss = task.loss(Maps(*maps), Batch(torch.zeros(2, 1, 8, 8), target, (1, 2)))
    expected = 2 * (0.25 * dice(maps[0], target) + dice(maps[2], target))
    expected = expected + 0.5 * torch.nn.functional.cross_entropy(maps[2], target)
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, maps)
    assert [bool(each.any()) for each in gradient] == [True, False, True]


@pytest.mark.parametrize("outputs", ["[1, 1, 1]", "[1]"])
def test_as_many_weights_as_outputs(tiny_dataset, tiny_recipe, tmp_path, outputs) -> None:
    settings = (
        "network={name: unetpp, options: {base_filters: 4}}",
        "plan.frame.axes=[32, 32, null]",
        f"phases.0.loss.0.outputs={outputs}",
    )
    said = refused(tiny_dataset, tiny_recipe, tmp_path / "run", *settings)
    n = outputs.count("1")
    assert f"a loss has weights for {n} outputs, but the network has 4" in said


def test_coarse_heads_learn_by_deep_supervision_alone() -> None:
    network = {"base_filters": 4, "shape": [16, 16], "spacing_mm": [1, 1], "max_pools": 2}
    moved = {}
    for outputs in (None, [0.5, 1.0]):
        loss = [{"name": "cross-entropy", "outputs": outputs}]
        made = trainer(
            {"loss": loss}, network="nnunet-2d", options={**network, "deep_supervision": True}
        )
        begun = made.begin()
        after = made.steps(begun, 1).network
        coarse = "lower_heads.0.weight"
        moved[outputs is None] = not torch.equal(after[coarse], begun.network[coarse])
    assert moved == {True: False, False: True}
