"""The PyTorch engine: the one part of the prediction path that needs torch."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leanseg.errors import MissingDependencyError, ModelFileError, RecipeError
from leanseg.modelfile import ModelFile
from leanseg.runtime import keep_large_blocks

if TYPE_CHECKING:
    from torch import nn

# Rows of the strips on which "auto" compares precisions: enough to tell, and quick even where
# bf16 is emulated.
_TRIAL_ROWS = 64
# More shares than a batch has slices would idle.
_MOST_SHARES = 4


class TorchEngine:
    """Runs a model file's network with PyTorch.

    The network is made ready once: normalisation folded into the convolutions before it, weights
    in channels-last order and, for bf16, in that type.

    Args:
        model: The model file in memory.
        precision: "f32", "bf16" (autocast), or "auto", which measures both and keeps bf16 only
            where it is clearly faster.
        threads: Number of PyTorch's threads in this process; None leaves its own choice.
        allow_imports: Whether the model file may name a network by an import path, which runs
            that code.

    Raises:
        MissingDependencyError: If PyTorch is not installed.
        ModelFileError: If the network is not known, or the weights do not fit it.
    """

    name = "torch"

    def __init__(
        self,
        model: ModelFile,
        precision: str = "auto",
        threads: int | None = None,
        *,
        allow_imports: bool = False,
    ) -> None:
        _require_torch()
        import torch

        keep_large_blocks()
        if threads is not None:
            torch.set_num_threads(threads)
        plan = model.manifest.plan
        if plan.volume_shape is not None and precision == "auto":
            # A trial run of a whole volume costs as much as the prediction.
            precision = "f32"
        self._setup(_built(model, allow_imports), precision, plan.slice_shape)

    @classmethod
    def from_module(
        cls, network: nn.Module, precision: str, slice_shape: tuple[int, int] = (256, 256)
    ) -> TorchEngine:
        """An engine around a network as it is now, as training's validation needs.

        The network itself is left alone; later changes to it do not reach the engine.
        """
        engine = cls.__new__(cls)
        engine._setup(copy.deepcopy(network), precision, slice_shape)
        return engine

    def _setup(self, network: nn.Module, precision: str, slice_shape: tuple[int, int]) -> None:
        from leanseg.inference.engines.folding import fold_normalisation

        self._device = next(network.parameters()).device
        self._workers: _Workers | None = None
        fold_normalisation(network.eval().requires_grad_(False))
        ready = {
            wanted: _in_precision(network, wanted)
            for wanted in (("f32", "bf16") if precision == "auto" else (precision,))
        }
        self.precision = precision
        if precision == "auto":
            self.precision = self._faster(ready, slice_shape)
        self._network = ready[self.precision]

    def _faster(self, ready: dict[str, nn.Module], slice_shape: tuple[int, int]) -> str:
        divisor = getattr(ready["f32"], "size_divisor", 1)
        of_rows = divisor if isinstance(divisor, int) else divisor[0]
        fits = _TRIAL_ROWS % of_rows == 0 and getattr(ready["f32"], "exact_size", None) is None
        rows = min(_TRIAL_ROWS, slice_shape[0]) if fits else slice_shape[0]
        shape = (2, _input_channels(ready["f32"]), rows, slice_shape[1])
        example = np.zeros(shape, dtype=np.float32)
        seconds = dict.fromkeys(ready, float("inf"))
        for repeat in range(3):
            for self.precision, self._network in ready.items():
                started = time.perf_counter()
                self.run(example)
                # The first round warms up and is not counted.
                if repeat:
                    elapsed = time.perf_counter() - started
                    seconds[self.precision] = min(seconds[self.precision], elapsed)
        # Reduced precision has to earn its place.
        return "bf16" if seconds["bf16"] < 0.8 * seconds["f32"] else "f32"

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities (batch, output, *spatial) of a batch (batch, channel, *spatial)."""
        import torch

        threads = torch.get_num_threads()
        if threads == 1 or len(batch) == 1 or self._device.type != "cpu":
            return self._run(batch)
        if self._workers is None:
            self._workers = _Workers(threads)
        return self._workers.run(self._run, batch)

    def _run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        import torch

        with (
            torch.inference_mode(),
            torch.autocast(
                self._device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"
            ),
        ):
            tensor = torch.from_numpy(batch).to(self._device)
            if tensor.ndim == 4:
                tensor = tensor.contiguous(memory_format=torch.channels_last)
            logits = self._network(tensor).float()
            probabilities = logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)
        result: NDArray[np.float32] = probabilities.contiguous().cpu().numpy()
        return result


class _Workers:
    """Threads that take a share of the batch each.

    PyTorch's own threads divide every layer and wait for one another after each, spinning: where
    other programs want the processor too, the network then takes three times as long. Shares of
    a batch do not wait for one another before its end.

    Args:
        threads: How many threads there are to use; past `_MOST_SHARES` each share gets several.
    """

    def __init__(self, threads: int) -> None:
        import torch

        self._n_shares = min(threads, _MOST_SHARES)
        ready = Barrier(self._n_shares + 1)

        def begin() -> None:
            torch.set_num_threads(threads // self._n_shares)
            ready.wait()

        self._pool = ThreadPoolExecutor(self._n_shares, "leanseg-torch")
        begun = [self._pool.submit(begin) for _ in range(self._n_shares)]
        ready.wait()
        for each in begun:
            each.result()
        # What a thread sets holds for itself and for threads that are yet to come; it was meant
        # for these alone.
        torch.set_num_threads(threads)

    def run(
        self, function: Callable[[NDArray[np.float32]], NDArray[np.float32]], batch: NDArray[Any]
    ) -> NDArray[np.float32]:
        """The function of every share, joined."""
        shares = np.array_split(batch, min(self._n_shares, len(batch)))
        return np.concatenate(list(self._pool.map(function, shares)))


def _built(model: ModelFile, allow_imports: bool) -> nn.Module:
    """The network that the manifest names, with the file's weights."""
    import torch

    from leanseg.networks import build, build_trusted

    spec = model.manifest.network
    try:
        # Without memory or starting weights: these would cost time, and draw from torch's
        # global generator, only to be replaced.
        with torch.device("meta"):
            network = (build_trusted if allow_imports else build)(
                spec.name,
                in_channels=spec.in_channels,
                out_channels=spec.out_channels,
                **spec.options,
            )
    except RecipeError as error:
        msg = f"{model.path}: its network cannot be built by this version of leanseg ({error})"
        raise ModelFileError(msg) from error
    # A copy: the arrays of a model file are read-only views of its bytes.
    state = {name: torch.from_numpy(np.array(array)) for name, array in model.weights.items()}
    try:
        network.load_state_dict(state, assign=True)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        msg = f"{model.path}: its weights do not fit network {spec.name!r} ({first})"
        raise ModelFileError(msg) from error
    return network


def _in_precision(network: nn.Module, precision: str) -> nn.Module:
    """A copy with its convolutions' weights in channels-last order and the wanted type.

    Converting them once saves autocast from doing it for every batch; what autocast keeps in
    float32 stays so.
    """
    import torch
    from torch import nn

    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, nn.modules.conv._ConvNd):
            if precision == "bf16":
                module.to(torch.bfloat16)
            if module.weight.ndim == 4:
                weight = module.weight.contiguous(memory_format=torch.channels_last)
                module.weight = nn.Parameter(weight, requires_grad=False)
    return network


def _input_channels(network: nn.Module) -> int:
    first = next(parameter for parameter in network.parameters() if parameter.ndim >= 4)
    return int(first.shape[1])


def _require_torch() -> None:
    try:
        import torch  # noqa: F401
    except ImportError as error:
        msg = "the torch engine needs PyTorch; install it with: pip install 'leanseg[train]'"
        raise MissingDependencyError(msg) from error
