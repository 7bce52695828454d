"""The PyTorch engine against the plain network."""

from __future__ import annotations

import copy
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from leanseg.errors import GeometryError, ModelFileError, RecipeError
from leanseg.inference import load_model, make_engine
from leanseg.inference.engines.torch_engine import TorchEngine
from leanseg.modelfile import ModelFile, NetworkSpec, read_model, write_model
from leanseg.networks import build

SMALL = {
    "monet": {"base_filters": 4},
    "unet": {"base_filters": 4},
    "attention-unet": {"base_filters": 4},
}


def lively(name: str, in_channels: int = 1, out_channels: int = 1) -> torch.nn.Module:
    """A network whose normalisation is far from the identity."""
    generator = torch.Generator().manual_seed(3)
    network = build(
        name,
        in_channels=in_channels,
        out_channels=out_channels,
        generator=generator,
        **SMALL[name],
    )
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.3, 2, generator=generator)
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.3, generator=generator)
    return network


def plain(network: torch.nn.Module, batch: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        logits = copy.deepcopy(network).eval()(torch.from_numpy(batch))
    return (logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)).numpy()


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(("in_channels", "out_channels"), [(1, 1), (3, 4)])
def test_f32_equals_the_plain_network(rng, name: str, in_channels, out_channels) -> None:
    network = lively(name, in_channels, out_channels)
    batch = rng.random((3, in_channels, 32, 48), dtype=np.float32)
    found = TorchEngine(network, batch.shape).run(batch)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    expected = plain(network, batch)
    assert np.ptp(expected) > 0.05
    np.testing.assert_allclose(found, expected, atol=1e-4)
    if out_channels > 1:
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_bf16_gives_nearly_the_same_labels(rng, name: str) -> None:
    network = lively(name)
    coarse = rng.random((4, 1, 8, 8), dtype=np.float32)
    batch = coarse.repeat(8, axis=2).repeat(8, axis=3)
    exact = plain(network, batch)
    found = TorchEngine(network, batch.shape, precision="bf16").run(batch)
    assert found.dtype == np.float32
    # Eight bits of mantissa: not the same numbers, or bf16 was not used at all.
    assert 0 < np.abs(found - exact).max() < 0.3
    middle = np.median(exact)
    assert ((found > middle) == (exact > middle)).mean() > 0.97


def test_the_network_in_training_is_left_alone(rng) -> None:
    network = lively("monet").train()
    before = copy.deepcopy(network.state_dict())
    engine = TorchEngine(network, (1, 1, 16, 16), precision="bf16")
    engine.run(rng.random((1, 1, 16, 16), dtype=np.float32))
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert list(network.state_dict()) == list(before)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name
        assert tensor.dtype == before[name].dtype


def test_loading_draws_nothing_from_the_global_generator(model_file: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    make_engine(read_model(model_file), precision="f32")
    assert torch.equal(torch.get_rng_state(), before)


def test_the_model_files_weights_are_used(rng, model_file: Path) -> None:
    file = read_model(model_file)
    network = build("monet", base_filters=4)
    network.load_state_dict(
        {k: torch.from_numpy(v.copy()) for k, v in file.members[0].weights.items()}
    )
    batch = rng.random((2, 1, 32, 32), dtype=np.float32)
    found = make_engine(file, name="torch", precision="f32").run(batch)
    np.testing.assert_allclose(found, plain(network, batch), atol=2e-5)


def test_f16_is_for_gpus(model_file: Path) -> None:
    with pytest.raises(RecipeError, match="f16 on the processor; choose f32 or bf16"):
        make_engine(read_model(model_file), name="torch", precision="f16")


@pytest.mark.parametrize("device", ["cuda", "cuda:99", "mps"])
def test_a_device_that_is_not_there(model_file: Path, device: str) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(RecipeError, match=f"device '{device}' is not available to PyTorch.*: cpu"):
        load_model(model_file, device=device)


def test_a_device_takes_the_torch_engine_alone(model_file: Path) -> None:
    with pytest.raises(RecipeError, match="the openvino engine runs only on the processor"):
        load_model(model_file, engine="openvino", device="cuda")
    with pytest.raises(RecipeError, match="device 'gpu' is not known; choose cpu, cuda"):
        load_model(model_file, device="gpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["f32", "bf16", "f16"])
def test_a_gpu_gives_the_probabilities_of_the_processor(rng, model_file, precision: str) -> None:
    file = read_model(model_file)
    engine = make_engine(file, precision=precision, device="cuda")
    assert (engine.name, engine.lanes, engine.batch_size) == ("torch", 1, 16)
    batch = rng.random((5, 1, 32, 32), dtype=np.float32)
    expected = make_engine(file, name="torch").run(batch)
    atol = 1e-4 if precision == "f32" else 0.1
    np.testing.assert_allclose(engine.run(batch), expected, atol=atol)


@pytest.mark.parametrize(
    ("name", "options"), [("msd-2d", {"depth": 10}), ("obelisk-hybrid-visceral", {})]
)
def test_layers_with_code_of_their_own_tell_their_memory(name: str, options: dict) -> None:
    network = build(name, **options)
    shape = (1, 1, 64, 64, 64)[: 4 if name.endswith("2d") else 5]
    none = TorchEngine(network, (0, *shape[1:])).memory_bytes()
    need = TorchEngine(network, shape).memory_bytes() - none
    assert need > 4 * np.prod(shape)


def test_memory_is_told_from_shapes_alone(model_file: Path) -> None:
    """With the batch and with the area of the input it grows in proportion."""
    file = read_model(model_file)
    needs = [
        make_engine(file, name="torch", input_shape=shape).memory_bytes()
        for shape in ((1, 1, 128, 128), (2, 1, 128, 128), (1, 1, 256, 128), (0, 1, 128, 128))
    ]
    one, two, wide, four = needs
    assert four - two == pytest.approx(2 * (two - one), abs=4)
    assert wide - one == pytest.approx(two - one, rel=0.01)
    # Its input, output and at least one layer of base_filters channels.
    assert two - one > 4 * 128 * 128 * 6


def test_threads(two_threads: None, model_file: Path) -> None:
    make_engine(read_model(model_file), precision="f32", threads=2)
    assert torch.get_num_threads() == 2
    make_engine(read_model(model_file), precision="f32", threads=1)
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("threads", [2, 3, 9])
def test_a_shared_batch_comes_back_whole_and_in_order(rng, two_threads: None, threads: int) -> None:
    network = lively("monet")
    for n_slices in (1, 2, 4, 7):
        batch = rng.random((n_slices, 1, 16, 20), dtype=np.float32)
        torch.set_num_threads(1)
        alone = TorchEngine(network, batch.shape).run(batch)
        torch.set_num_threads(threads)
        engine = TorchEngine(network, batch.shape)
        for _ in range(2):
            np.testing.assert_allclose(engine.run(batch), alone, atol=1e-5)
        # Nobody else's threads were changed, those of later comers included.
        assert torch.get_num_threads() == threads
        later: list[int] = []
        thread = threading.Thread(target=lambda seen=later: seen.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert later == [threads]


def test_an_error_in_a_share_is_raised(rng, two_threads: None) -> None:
    torch.set_num_threads(2)
    engine = TorchEngine(lively("monet"), (4, 1, 17, 16))
    with pytest.raises(GeometryError, match="multiples of 4"):
        engine.run(rng.random((4, 1, 17, 16), dtype=np.float32))


def test_weights_that_do_not_fit(tmp_path: Path, model_file: Path) -> None:
    file = read_model(model_file)
    spec = NetworkSpec(name="monet", in_channels=1, out_channels=1, options={"base_filters": 8})
    wider = tmp_path / "wider.leanseg"
    (member,) = file.members
    write_model(wider, ModelFile.of(file.plan, replace(member, network=spec)))
    with pytest.raises(ModelFileError, match=r"wider\.leanseg: its weights do not fit.*'monet'"):
        load_model(wider)
    fewer = tmp_path / "fewer.leanseg"
    weights = dict(list(member.weights.items())[3:])
    write_model(fewer, ModelFile.of(file.plan, replace(member, weights=weights)))
    with pytest.raises(ModelFileError, match=r"fewer\.leanseg: its weights do not fit"):
        load_model(fewer)


@pytest.mark.parametrize(
    ("name", "options"), [("monet-9", {}), ("monet", {"depth": 5}), ("monet", {"dropout": 2})]
)
def test_a_network_of_another_version(model_file: Path, name: str, options: dict) -> None:
    file = read_model(model_file)
    spec = NetworkSpec(name=name, in_channels=1, out_channels=1, options=options)
    changed = replace(file.members[0], network=spec)
    with pytest.raises(ModelFileError, match=r"tiny\.leanseg: its network cannot be built"):
        make_engine(ModelFile.of(file.plan, changed))


def test_unknown_engine_and_precision(model_file: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"engine 'tpu' is not known; choose one of: auto, openvino"
    ):
        load_model(model_file, engine="tpu")
    with pytest.raises(RecipeError, match=r"precision 'f99' is not known; choose one of: f32"):
        load_model(model_file, precision="f99")


def test_a_plan_with_sizes_that_the_network_does_not_take(model_file: Path) -> None:
    (member,) = read_model(model_file).members
    with pytest.raises(ModelFileError, match=r"sizes of \(32, 33\), which are no multiples of 4"):
        TorchEngine.of_member(member, (1, member.network.in_channels, 32, 33))
