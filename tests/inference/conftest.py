"""What the inference tests share: engines whose answer is known, volumes stored every way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from leanseg.modelfile import Member, ModelFile, NetworkSpec, write_model
from leanseg.plan import HounsfieldWindow
from leanseg.volumes import Volume
from plans import slices

AXES = (("L", "R"), ("P", "A"), ("I", "S"))
ALL_48 = tuple("".join(codes) for axes in permutations(AXES) for codes in product(*axes))


@dataclass
class KnownEngine:
    """An engine that computes probabilities from its input by a plain function."""

    function: Callable[[np.ndarray], np.ndarray] = lambda batch: batch[:, :1]
    name: str = "known"
    precision: str = "f32"
    lanes: int = 1
    device: str = "cpu"
    batch_size: int = 4
    passes: int = 1
    shape: tuple[int, ...] = (4, 1, 8, 8)
    batches: list[int] = field(default_factory=list)

    def memory_bytes(self) -> int:
        return 0

    def release(self) -> None: ...

    def scout(self) -> KnownEngine:
        return self

    def run(self, batch: np.ndarray) -> np.ndarray:
        assert batch.dtype == np.float32
        self.batches.append(len(batch))
        return np.ascontiguousarray(self.function(batch), dtype=np.float32)


@pytest.fixture
def known_engine() -> type[KnownEngine]:
    return KnownEngine


@pytest.fixture(scope="session")
def all_48() -> tuple[str, ...]:
    return ALL_48


def _reoriented(image: nib.Nifti1Image, codes: str) -> nib.Nifti1Image:
    change = ornt_transform(io_orientation(image.affine), axcodes2ornt(codes))
    return image.as_reoriented(change)


@pytest.fixture(scope="session")
def stored_as() -> Callable[[Volume, str], Volume]:
    """The same volume with its axes stored in another orientation, by nibabel."""

    def moved(volume: Volume, codes: str) -> Volume:
        image = _reoriented(nib.Nifti1Image(volume.array, volume.affine), codes)
        return Volume(np.asfortranarray(np.asanyarray(image.dataobj)), image.affine)

    return moved


@pytest.fixture(scope="session")
def image_as() -> Callable[[nib.Nifti1Image, str], nib.Nifti1Image]:
    """An image with its axes in another orientation, by nibabel."""
    return _reoriented


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow MoNet with random weights and statistics, for slices of 32 x 32."""
    return write_random_model(tmp_path_factory.mktemp("model") / "tiny.leanseg")


def write_random_model(path: Path, labels: tuple[str, ...] = ("organ",), **options) -> Path:
    import torch

    from leanseg.networks import build

    plan = slices((32, 32), labels, **{"window": HounsfieldWindow(), **options})
    spec = NetworkSpec(
        name="monet",
        in_channels=len(plan.channels),
        out_channels=plan.final.n_outputs,
        options={"base_filters": 4},
    )
    generator = torch.Generator().manual_seed(0)
    network = build(
        spec.name,
        in_channels=spec.in_channels,
        out_channels=spec.out_channels,
        generator=generator,
        **spec.options,
    )
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.3, generator=generator)
    weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    write_model(path, ModelFile.of(plan, Member(spec, weights)))
    return path


@pytest.fixture(scope="session")
def random_model() -> Callable[..., Path]:
    return write_random_model


@pytest.fixture
def two_threads() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
