"""The PyTorch engine: the one part of the prediction path that needs torch."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import MissingDependencyError, ModelFileError
from leanseg.modelfile import ModelFile

if TYPE_CHECKING:
    import torch
    from torch import nn


class TorchEngine:
    """Runs a model file's network with PyTorch.

    Args:
        model: The model file in memory.
        precision: "f32", "bf16" (autocast), or "auto", which measures both on one batch and
            keeps bf16 only where it is clearly faster.
        threads: Number of intra-operation threads; None leaves PyTorch's choice.

    Raises:
        MissingDependencyError: If PyTorch is not installed.
        ModelFileError: If the weights do not fit the network that the manifest names.
    """

    name = "torch"

    def __init__(self, model: ModelFile, precision: str = "auto", threads: int | None = None):
        torch = _import_torch()
        from leanseg.networks import build

        if threads is not None:
            torch.set_num_threads(threads)
        spec = model.manifest.network
        network = build(
            spec.name,
            in_channels=spec.in_channels,
            out_channels=spec.out_channels,
            **spec.options,
        )
        # A copy: the arrays of a model file are read-only views of its bytes.
        state = {name: torch.from_numpy(np.array(array)) for name, array in model.weights.items()}
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            first = str(error).splitlines()[-1].strip()
            msg = f"{model.path}: its weights do not fit network {spec.name!r} ({first})"
            raise ModelFileError(msg) from error
        self._setup(network, precision, model.manifest.plan.slice_shape)

    @classmethod
    def from_module(
        cls, network: nn.Module, precision: str, slice_shape: tuple[int, int] = (256, 256)
    ) -> TorchEngine:
        """An engine around a network that lives elsewhere, as training's validation needs."""
        engine = cls.__new__(cls)
        engine._setup(network, precision, slice_shape)
        return engine

    def _setup(self, network: nn.Module, precision: str, slice_shape: tuple[int, int]) -> None:
        torch = _import_torch()
        self._network = network
        self._device = next(network.parameters()).device
        network.eval()
        if precision == "auto":
            channels = _input_channels(network)
            example = np.zeros((2, channels, *slice_shape), dtype=np.float32)
            precision = self._fastest(example)
        self.precision = precision
        # Channels-last suits the CPU's and the tensor cores' convolutions alike.
        self._format = torch.channels_last

    def _fastest(self, example: NDArray[np.float32]) -> str:
        seconds: dict[str, float] = {}
        self._format = _import_torch().channels_last
        for precision in ("f32", "bf16"):
            self.precision = precision
            self.run(example)
            started = time.perf_counter()
            self.run(example)
            seconds[precision] = time.perf_counter() - started
        # Reduced precision has to earn its place.
        return "bf16" if seconds["bf16"] < 0.8 * seconds["f32"] else "f32"

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities (batch, output, *spatial) of a batch (batch, channel, *spatial)."""
        torch = _import_torch()
        with (
            torch.inference_mode(),
            torch.autocast(
                self._device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"
            ),
        ):
            tensor = torch.from_numpy(batch).to(self._device)
            if tensor.ndim == 4:
                tensor = tensor.contiguous(memory_format=self._format)
            logits = self._network(tensor).float()
            probabilities: torch.Tensor = (
                logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)
            )
        return probabilities.contiguous().cpu().numpy()


def _input_channels(network: nn.Module) -> int:
    first = next(parameter for parameter in network.parameters() if parameter.ndim >= 4)
    return int(first.shape[1])


def _import_torch() -> Any:
    try:
        import torch
    except ImportError as error:
        msg = "the torch engine needs PyTorch; install it with: pip install 'leanseg[train]'"
        raise MissingDependencyError(msg) from error
    return torch
